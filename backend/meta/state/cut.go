package state

import (
	"math"
	"slices"
	"strings"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/must"
)

func (x *tx) snapshotCreate(c command.SnapshotCreate) (any, error) {
	if err := model.ValidateName("snapshot", c.Name); err != nil {
		return nil, err
	}
	if n := len(c.Cuts); n == 0 || n > model.MaxCut {
		return nil, model.Errorf(model.Invalid, "1 to %d volumes are cut together, not %d", model.MaxCut, n)
	}
	out, err := x.toCut(c)
	if err != nil {
		return nil, err
	}
	if done, err := x.alreadyCut(c, &out); done || err != nil {
		return out, err
	}
	for i, cut := range c.Cuts {
		if err := x.mayCut(c.Name, cut, out.Volumes[i]); err != nil {
			return out, err
		}
	}
	for i, cut := range c.Cuts {
		v := out.Volumes[i]
		s := model.Snapshot{
			ID: cut.ID, Name: c.Name, Volume: v.ID, Epoch: v.Epoch, Size: v.Size, Created: x.at,
		}
		if len(c.Cuts) > 1 {
			s.Group = c.Cuts[0].ID
		}
		v.Epoch++
		v.Revision++
		must.That(v.Epoch > s.Epoch, "the epoch of %s went from %d to %d", v.ID, s.Epoch, v.Epoch)
		if err := put(x, &x.volumes, v); err != nil {
			return nil, err
		}
		if err := put(x, &x.snapshots, s); err != nil {
			return nil, err
		}
		out.Volumes[i] = v
		out.Snapshots = append(out.Snapshots, s)
	}
	return out, nil
}

// toCut finds the volumes to cut, each given once.
func (x *tx) toCut(c command.SnapshotCreate) (out model.Cut, err error) {
	var names []string
	for i, cut := range c.Cuts {
		v, err := x.volumes.find(cut.Volume)
		if err != nil {
			return out, err
		}
		if slices.ContainsFunc(c.Cuts[:i], func(o command.SnapshotCut) bool {
			return o.Volume == cut.Volume || o.ID == cut.ID
		}) {
			return out, model.Errorf(model.Invalid, "the volume %q is cut twice", v.Name)
		}
		out.Volumes = append(out.Volumes, v)
		names = append(names, v.Name+"@"+c.Name)
	}
	x.object = "snapshot " + strings.Join(names, " ")
	return out, nil
}

// alreadyCut reports whether this very command was applied before, and adds the
// snapshots it made.
func (x *tx) alreadyCut(c command.SnapshotCreate, out *model.Cut) (bool, error) {
	for _, cut := range c.Cuts {
		if s, there := x.snapshots.get(cut.ID); there {
			if s.Volume != cut.Volume || s.Name != c.Name {
				return false, model.Errorf(model.Conflict, "the identifier %s is another snapshot's", cut.ID)
			}
			out.Snapshots = append(out.Snapshots, s)
		}
	}
	switch len(out.Snapshots) {
	case 0:
		return false, nil
	case len(c.Cuts):
		return true, nil
	}
	return false, model.Errorf(model.Conflict, "some of these snapshots are there already")
}

// mayCut says why one volume cannot be cut as asked, or nil.
func (x *tx) mayCut(name string, cut command.SnapshotCut, v model.Volume) error {
	switch {
	case cut.ID == 0:
		return model.Errorf(model.Invalid, "a snapshot needs an identifier")
	case v.Generation != cut.Generation:
		return fenced(v, cut.Generation)
	case v.Holder != cut.Holder && v.Holder == 0:
		return model.Errorf(model.Conflict, "nobody holds the volume %q", v.Name)
	case v.Holder != cut.Holder:
		return model.Errorf(model.Conflict, "the volume %q is held by %s", v.Name, x.nodeName(v.Holder))
	case v.Revision != cut.Revision:
		return model.Errorf(model.Conflict, "the volume %q has changed meanwhile", v.Name)
	case v.Revert.Due():
		return reverting(v)
	case v.Epoch == math.MaxUint32:
		return model.Errorf(model.Conflict, "the volume %q was cut too often", v.Name)
	}
	return x.nameFree(name, v)
}

// nameFree says that a volume has a snapshot of a name already, or nil.
func (x *tx) nameFree(name string, v model.Volume) error {
	for _, s := range x.snapshots.rows {
		if s.Volume == v.ID && strings.EqualFold(s.Name, name) {
			return model.Errorf(model.Conflict, "there is already a snapshot %q of the volume %q", s.Name, v.Name)
		}
	}
	return nil
}

// dropSnapshots forgets the snapshots of a volume that goes.
func (x *tx) dropSnapshots(id model.VolumeID) {
	for _, key := range x.snapshots.keys() {
		if s, _ := x.snapshots.get(key); s.Volume == id {
			drop(x, &x.snapshots, key)
		}
	}
}

// Snapshots returns the snapshots of all volumes, those of a volume together and
// oldest first.
func (v *View) Snapshots() []model.Snapshot { return slices.Clone(v.snapshots.sorted()) }

// SnapshotsOf returns the snapshots of a volume, oldest first.
func (v *View) SnapshotsOf(id model.VolumeID) (out []model.Snapshot) {
	for _, s := range v.snapshots.sorted() {
		if s.Volume == id {
			out = append(out, s)
		}
	}
	return out
}

// Snapshot returns a snapshot, or model.NotFound.
func (v *View) Snapshot(id model.SnapshotID) (model.Snapshot, error) { return v.snapshots.find(id) }

// FindSnapshot returns the snapshot of an identifier, or of a volume's identifier
// or name and the snapshot's name with an @ between them.
func (v *View) FindSnapshot(ref string) (model.Snapshot, error) {
	if id, err := model.ParseID[model.SnapshotID](ref); err == nil {
		if s, there := v.snapshots.get(id); there {
			return s, nil
		}
	}
	of, name, whole := strings.Cut(ref, "@")
	if !whole {
		return model.Snapshot{}, model.Errorf(model.NotFound,
			"there is no snapshot %q; name it as VOLUME@SNAPSHOT", ref)
	}
	vol, err := resolve(v.volumes, of)
	if err != nil {
		return model.Snapshot{}, err
	}
	for _, s := range v.SnapshotsOf(vol.ID) {
		if strings.EqualFold(s.Name, name) {
			return s, nil
		}
	}
	return model.Snapshot{}, model.Errorf(model.NotFound, "the volume %q has no snapshot %q", vol.Name, name)
}
