package meta

import (
	"time"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
)

// admit holds, on the leader, what the record cannot decide because it has no
// clock: that a volume is not taken, and a machine not started elsewhere, while
// the node that had it may still be serving. It also holds that a node speaks
// only for itself. The caller calls done when the command is decided.
func (m *Record) admit(v *state.View, from model.NodeID, e command.Envelope) (done func(), err error) {
	if err := m.speaksForItself(v, from, e); err != nil {
		return nil, err
	}
	if m.cfg.Admit != nil {
		if err := m.cfg.Admit(v, from, e.Command); err != nil {
			return nil, err
		}
	}
	owner, wait := ownerBefore(v, e.Command)
	if owner == 0 || v.Removed(owner) {
		return func() {}, nil
	}
	done, left := m.grants.takeover(owner, wait)
	if left > 0 {
		return nil, model.Errorf(model.Unavailable, "%s may still be serving it for %s",
			nameOf(v, owner), left.Round(100*time.Millisecond))
	}
	return done, nil
}

func nameOf(v *state.View, id model.NodeID) string {
	if n, err := v.Node(id); err == nil {
		return n.Name
	}
	return "node " + id.String()
}

// ownerBefore returns the node whose lease must have run out before a command, and
// how long after the last grant that is so; or zero.
func ownerBefore(v *state.View, cmd command.Command) (owner model.NodeID, wait time.Duration) {
	switch c := cmd.(type) {
	case command.VolumeAcquire:
		if vol, err := v.Volume(c.Volume); err == nil && vol.Holder != c.Node {
			return vol.Holder, leaseWait
		}
	case command.VMPlace:
		if vm, err := v.VM(c.VM); err == nil && c.Node != vm.Node && !stoppedThere(vm) {
			return vm.Node, leaseWait
		}
	case command.NodeRemove:
		if c.Lost {
			return c.Node, leaseWait
		}
	case command.DiskFound:
		if d, err := v.Disk(c.Disk); err == nil && d.Node != c.Node && c.Gone {
			return d.Node, diskWait
		}
	}
	return 0, 0
}

// stoppedThere reports whether the node a machine is placed on says that it does
// not run there.
func stoppedThere(vm model.VM) bool {
	s := vm.Status
	return s.Node == vm.Node && (s.State == model.VMStopped || s.State == model.VMFailed)
}

// speaksForItself refuses a command of the cluster's own loops by which a node
// would speak for another one. The leader may: it runs those loops.
func (m *Record) speaksForItself(v *state.View, from model.NodeID, e command.Envelope) error {
	if c, ok := e.Command.(command.VMUpdate); ok && c.Released != 0 && c.Released != from { // on a user's behalf
		return model.Errorf(model.Denied, "node %s may not speak for node %s", from, c.Released)
	}
	if from == m.cfg.Self || e.Actor.Role != "" {
		return nil
	}
	var of model.NodeID
	switch c := e.Command.(type) {
	case command.VMReport:
		of = c.Node
	case command.VMMigrate:
		of = c.From
	case command.VMMigrateEnd:
		of = c.From
	case command.VolumeAcquire:
		of = c.Node
	case command.VolumeRelease:
		of = c.Node
	case command.VolumeDetach:
		if vol, err := v.Volume(c.Volume); err == nil {
			of = vol.Holder
		}
	case command.VolumeMembers:
		if vol, err := v.Volume(c.Volume); err == nil {
			of = vol.Holder
		}
	case command.DiskUpdate:
		if d, err := v.Disk(c.Disk); err == nil {
			of = d.Node
		}
	case command.DiskAdd:
		of = c.Disk.Node
	case command.DiskFound:
		of = c.Node
	case command.NodeTrust:
		of = c.Node
	case command.NodeUpdate:
		if c.Address == "" && c.API == "" { // who signs certificates notes them
			return nil
		}
		of = c.Node
	case command.KeyRotate, command.CARotate, command.TrustStep: // the leader's alone
	default:
		return nil
	}
	if of != from {
		return model.Errorf(model.Denied, "node %s may not speak for node %s", from, of)
	}
	return nil
}
