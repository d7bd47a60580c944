package state

import (
	"math"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/must"
)

// Deleting snapshots and reverting to them: the record says at once what shall be,
// and until when the volume's holder has work with it.

func (x *tx) snapshotDelete(c command.SnapshotDelete) (any, error) {
	s, err := x.snapshots.find(c.Snapshot)
	if err != nil {
		return nil, err
	}
	v, err := x.volumes.find(s.Volume)
	if err != nil {
		return nil, err
	}
	x.object = "snapshot " + v.Name + "@" + s.Name
	drop(x, &x.snapshots, s.ID)
	v.Revision++
	v.Trim = model.Trim{Since: v.Revision}
	return s, put(x, &x.volumes, v)
}

// reverting is why a volume cannot be used now.
func reverting(v model.Volume) error {
	return model.Errorf(model.Conflict, "the volume %q is being reverted to its snapshot %q", v.Name, v.Revert.Name)
}

func (x *tx) snapshotRevert(c command.SnapshotRevert) (any, error) {
	v, err := x.volumes.find(c.Volume)
	if err != nil {
		return nil, err
	}
	x.object = volumeObject(v)
	if c.Cancel {
		return x.revertCancel(v)
	}
	s, err := x.snapshots.find(c.Snapshot)
	if err != nil {
		return nil, err
	}
	if s.Volume != v.ID {
		return nil, model.Errorf(model.Invalid, "%q is not a snapshot of the volume %q", s.Name, v.Name)
	}
	x.object = "snapshot " + v.Name + "@" + s.Name
	if err := x.mayRevert(c, v); err != nil {
		return nil, err
	}
	v.Revision++
	replaced := v.Revert
	v.Revert = model.Revert{
		Snapshot: s.ID, Name: s.Name, Epoch: s.Epoch, Size: s.Size, Began: v.Revision, Running: replaced.Running,
	}
	if replaced.Due() { // its epoch has nothing in it but what it did
		return v, put(x, &x.volumes, v)
	}
	if c.Keep != 0 {
		kept := model.Snapshot{
			ID: c.Keep, Name: c.KeepName, Volume: v.ID, Epoch: v.Epoch, Size: v.Size, Created: x.at,
		}
		if err := put(x, &x.snapshots, kept); err != nil {
			return nil, err
		}
	}
	v.Epoch++
	must.That(v.Epoch > v.Revert.Epoch, "%s at epoch %d is reverted to %d", v.ID, v.Epoch, v.Revert.Epoch)
	return v, put(x, &x.volumes, v)
}

// mayRevert says why a volume cannot be reverted now, or nil. A holder for
// maintenance writes nothing into the present epoch, so that may end under it.
func (x *tx) mayRevert(c command.SnapshotRevert, v model.Volume) error {
	if vm, attached := vmOf(x.vms, v.ID); attached && !isOff(vm) {
		return model.Errorf(model.Conflict, "the volume %q belongs to the vm %q, which is on", v.Name, vm.Name)
	}
	if err := x.unread(v); err != nil {
		return err
	}
	switch {
	case v.Holder != 0 && v.Purpose != model.ForMaintenance:
		return model.Errorf(model.Conflict, "the volume %q is in use on %s for %s",
			v.Name, x.nodeName(v.Holder), purposeWord(v.Purpose))
	case v.Epoch == math.MaxUint32:
		return model.Errorf(model.Conflict, "the volume %q was cut too often", v.Name)
	case c.Keep == 0 || v.Revert.Due():
		return nil
	}
	if _, taken := x.snapshots.get(c.Keep); taken {
		return model.Errorf(model.Conflict, "the identifier %s is another snapshot's", c.Keep)
	}
	if err := model.ValidateName("snapshot", c.KeepName); err != nil {
		return err
	}
	return x.nameFree(c.KeepName, v)
}

func (x *tx) revertCancel(v model.Volume) (any, error) {
	switch {
	case !v.Revert.Due():
		return nil, model.Errorf(model.Conflict, "the volume %q is not being reverted", v.Name)
	case v.Revert.Running:
		return nil, model.Errorf(model.Conflict,
			"the volume %q is being changed already; revert it to another snapshot instead", v.Name)
	}
	v.Revert = model.Revert{}
	v.Revision++
	return v, put(x, &x.volumes, v)
}

func (x *tx) volumeTended(c command.VolumeTended) (any, error) {
	v, err := x.volumes.find(c.Volume)
	if err != nil {
		return nil, err
	}
	x.object = volumeObject(v)
	if v.Generation != c.Generation {
		return v, fenced(v, c.Generation)
	}
	before := v
	switch other := model.Errorf(model.Conflict, "the volume %q has something else to do by now", v.Name); {
	case c.Trimmed != 0 && v.Trim.Since == c.Trimmed:
		v.Trim = model.Trim{}
	case c.Trimmed != 0 && v.Trim.Since != 0:
		return v, other
	case c.Rests != 0 && v.Trim.Since == c.Rests:
		v.Trim.Rests = true
	case c.Rests != 0:
		return v, other
	case c.Begun != 0 && v.Revert.Began == c.Begun:
		v.Revert.Running = true
	case c.Begun != 0:
		return v, other
	case c.Reverted != 0 && v.Revert.Began == c.Reverted:
		v.Size = v.Revert.Size
		v.Revert = model.Revert{}
		v.Trim = model.Trim{Since: v.Revision + 1}
	case c.Reverted != 0 && v.Revert.Due():
		return v, other
	}
	if v.Trim == before.Trim && v.Revert == before.Revert {
		return v, nil // it was told before
	}
	v.Revision++
	return v, put(x, &x.volumes, v)
}
