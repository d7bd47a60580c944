package state

import (
	"math"
	"slices"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/must"
)

func (x *tx) volumeClone(c command.VolumeClone) (any, error) {
	if err := model.ValidateName("volume", c.Name); err != nil {
		return nil, err
	}
	v, err := x.volumes.find(c.Volume)
	if err != nil {
		return nil, err
	}
	if err := validKind(c.Use, v.Size); err != nil {
		return nil, err
	}
	if (c.Use == model.VolumeNVRAM) != (v.Kind == model.VolumeNVRAM) {
		return nil, model.Errorf(model.Invalid, "a clone of a volume of the kind %s cannot be of the kind %s", v.Kind, c.Use)
	}
	x.object = "volume " + c.ID.String() + " " + c.Name
	out := model.Cloned{Volume: v}
	if clone, there := x.volumes.get(c.ID); there && clone.Name == c.Name {
		out.Clone = clone
		return out, nil // this very command was applied before
	}
	if err := x.mayClone(c, v); err != nil {
		return out, err
	}
	origin, size := model.Origin{Volume: v.ID, Epoch: v.Epoch}, v.Size
	if c.Snapshot != 0 {
		s, err := x.snapshots.find(c.Snapshot)
		if err != nil {
			return nil, err
		}
		if s.Volume != v.ID {
			return nil, model.Errorf(model.Invalid, "the snapshot %q is not one of the volume %q", s.Name, v.Name)
		}
		origin.Epoch, size = s.Epoch, s.Size
	} else {
		v.Epoch++
		v.Revision++
		if err := put(x, &x.volumes, v); err != nil {
			return nil, err
		}
	}
	must.That(origin.Epoch < v.Epoch, "a clone of %s at epoch %d, which has not ended", v.ID, origin.Epoch)
	out.Volume = v
	// What it begins with lies in an epoch that has ended: whatever is written over is
	// to be freed.
	out.Clone = model.Volume{
		ID: c.ID, Name: c.Name, Kind: c.Use, Size: size, Copies: v.Copies,
		Columns: activeColumns(v.Columns), Revision: 1, Epoch: 1, Created: x.at, Origin: origin,
		Trim: model.Trim{Since: 1, Rests: true}, Family: v.Root(),
	}
	return out, put(x, &x.volumes, out.Clone)
}

// mayClone says why a volume cannot be cloned as asked, or nil.
func (x *tx) mayClone(c command.VolumeClone, v model.Volume) error {
	_, here := x.volumes.get(c.ID)
	_, gone := x.deleted.get(c.ID)
	_, taken := x.volumes.names[lower(c.Name)]
	switch {
	case c.ID == 0 || here || gone:
		return model.Errorf(model.Conflict, "the identifier %s has been a volume before", c.ID)
	case taken:
		return model.Errorf(model.Conflict, "there is already a volume named %q", c.Name)
	case v.Generation != c.Generation:
		return fenced(v, c.Generation)
	case v.Holder == 0:
		return model.Errorf(model.Conflict, "nobody holds the volume %q", v.Name)
	case v.Holder != c.Holder:
		return model.Errorf(model.Conflict, "the volume %q is held by %s", v.Name, x.nodeName(v.Holder))
	case v.Revision != c.Revision:
		return model.Errorf(model.Conflict, "the volume %q has changed meanwhile", v.Name)
	case c.Snapshot == 0 && v.Revert.Due():
		return reverting(v)
	case c.Snapshot == 0 && v.Epoch == math.MaxUint32:
		return model.Errorf(model.Conflict, "the volume %q was cut too often", v.Name)
	}
	return nil
}

// activeColumns are columns with their active members alone: the others have not all
// of the data. The clone's holder makes good what is missing.
func activeColumns(columns []model.Column) []model.Column {
	out := make([]model.Column, len(columns))
	for i, c := range columns {
		for _, m := range c.Members {
			if m.State == model.Active {
				out[i].Members = append(out[i].Members, m)
			}
		}
	}
	return out
}

func (x *tx) volumeDetach(c command.VolumeDetach) (any, error) {
	v, err := x.volumes.find(c.Volume)
	if err != nil {
		return nil, err
	}
	x.object = volumeObject(v)
	switch {
	case v.Generation != c.Generation:
		return nil, fenced(v, c.Generation)
	case v.Holder == 0:
		return nil, model.Errorf(model.Conflict, "nobody holds the volume %q", v.Name)
	case v.Origin == model.Origin{}:
		return v, nil
	}
	if err := x.unpin(v.Origin); err != nil {
		return nil, err
	}
	v.Origin = model.Origin{}
	v.Revision++
	return v, put(x, &x.volumes, v)
}

// unpin notes that an epoch of a volume may be kept no longer: what only that epoch sees
// is freed in time.
func (x *tx) unpin(o model.Origin) error {
	v, there := x.volumes.get(o.Volume)
	if !there || v.Trim.Since != 0 {
		return nil
	}
	v.Revision++
	v.Trim = model.Trim{Since: v.Revision, Rests: true}
	return put(x, &x.volumes, v)
}

// Pinned reports whether what a disk has of a volume, deleted or not, is needed by a
// clone whose disks have perhaps not noted yet that it is theirs: see model.Origin.
func (v *View) Pinned(id model.VolumeID, disk model.DiskID) bool {
	for _, clone := range v.volumes.sorted() {
		if clone.Origin.Volume == id && slices.ContainsFunc(clone.Columns, func(c model.Column) bool {
			_, member := c.Member(disk)
			return member
		}) {
			return true
		}
	}
	return false
}
