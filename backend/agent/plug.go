package agent

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/proc"
	"drystone.example/drystone/backend/virt"
)

// Disks of running guests come by the record, like network cards. They go the other way
// round: the invariant is that a volume is the machine's by the record as long as QEMU may
// have it. So the guest gives the disk back first, then its front is closed, which lets the
// volume go, and then only the record follows. The machine is claimed meanwhile, and
// whatever fails on the way, the next comparison gives the guest back what the record says.

// A plugged is what was last done about the disks of one QEMU.
type plugged struct {
	of    proc.ID
	disks []virt.Disk // that were asked for
	err   error       // why they are not those
	again time.Time   // it is not tried before
}

// The times of adding and taking a disk.
const (
	plugAgain  = 15 * time.Second
	unplugTime = 55 * time.Second // a request of the API has a minute
)

// callUnplug has the node of a machine take disks from its guest and from the record.
const callUnplug = "guest.unplug"

type unplugCall struct {
	Actor  model.Actor      `json:"actor"`
	Change command.VMUpdate `json:"change"`
}

// disksOf are a machine's disks as they are on this node.
func (g *guests) disksOf(vm model.VM, boot virt.BootOrders) (list []virt.Disk, err error) {
	for _, d := range vm.PlacedDisks() {
		order := boot.Of(model.BootDisk, d.Slot)
		if d.Bus == model.BusVirtio {
			list = append(list, virt.Disk{Socket: g.agent.SocketPath(Vhost, d.Volume), Slot: d.Slot, Queues: frontQueues(vm), Boot: order})
			continue
		}
		rec, err := g.agent.cfg.Meta.Local().Volume(d.Volume)
		if err != nil {
			return nil, err
		}
		list = append(list, virt.Disk{
			Socket: g.diskSocket(d.Volume), Bus: d.Bus, Slot: d.Slot, Size: rec.Size, Serial: rec.ID.String(), Boot: order,
		})
	}
	return list, nil
}

// pluggable are those of a machine's disks that come and go while it runs: on virtio. Such
// a disk is in no boot order; that is read at the start.
func (g *guests) pluggable(vm model.VM) (list []virt.Disk) {
	for _, d := range vm.PlacedDisks() {
		if d.Bus == model.BusVirtio {
			list = append(list, virt.Disk{Socket: g.agent.SocketPath(Vhost, d.Volume), Slot: d.Slot, Queues: frontQueues(vm)})
		}
	}
	return list
}

// matchDisks gives a running guest those disks of its record that it has not, and returns
// what is in the way of that; once all is as it should be it costs nothing.
func (g *guests) matchDisks(ctx context.Context, m *guest, vm model.VM, have virt.Guest) error {
	want, last := g.pluggable(vm), m.disks
	same := last.of == have.Process && slices.Equal(last.disks, want)
	if same && (last.err == nil && m.connected() || time.Now().Before(last.again)) {
		return last.err
	}
	err := g.plugMissing(ctx, vm, have, want)
	m.disks = plugged{of: have.Process, disks: want, err: err, again: time.Now().Add(plugAgain)}
	if err != nil && (!same || last.err == nil || last.err.Error() != err.Error()) {
		g.agent.log.Warn("disks of a guest are not as they should be", "vm", vm.ID, "err", err)
	}
	return err
}

// connected reports whether QEMU is there for every disk on virtio: a guest that was asked
// for one in vain may give it back later, and has it no more.
func (m *guest) connected() bool {
	return !slices.ContainsFunc(m.fronts, func(f *front) bool { return !f.server.Stats().Connected })
}

func (g *guests) plugMissing(ctx context.Context, vm model.VM, have virt.Guest, want []virt.Disk) error {
	has, err := g.hypervisor.Disks(ctx, vm.ID)
	if err != nil {
		return err
	}
	missing := slices.DeleteFunc(slices.Clone(want), func(w virt.Disk) bool {
		return slices.ContainsFunc(has, func(d virt.Disk) bool { return d.Socket == w.Socket })
	})
	if len(missing) == 0 {
		return nil
	}
	if have.Hardware < virt.Placed {
		return model.Errorf(model.Conflict, "it gets them when it is started again, for it runs with older devices")
	}
	// The record as it is now: a volume that it has taken away may be another's.
	view, err := g.agent.cfg.Meta.View(ctx)
	if err != nil {
		return err
	}
	now, err := view.VM(vm.ID)
	if err != nil {
		return err
	}
	if now.Node != g.agent.cfg.Self || !slices.Equal(now.Disks, vm.Disks) {
		return model.Errorf(model.Unavailable, "the record has changed meanwhile")
	}
	for _, w := range missing {
		if err := g.hypervisor.Plug(ctx, vm.ID, w); err != nil {
			return err
		}
	}
	return nil
}

// Unplug makes a change that takes disks from a machine that is not off: its guest is
// asked to give them back, and if it does not, nothing is changed: Conflict.
func (a *Agent) Unplug(ctx context.Context, by model.Actor, vm model.VM, change command.VMUpdate) (model.VM, error) {
	if vm.Node == 0 {
		return model.VM{}, model.Errorf(model.Conflict, "vm %s is about to start", vm.Name)
	}
	ctx, cancel := context.WithTimeout(ctx, unplugTime)
	defer cancel()
	var out model.VM
	err := a.cfg.Wire.Call(ctx, vm.Node, callUnplug, unplugCall{by, change}, &out)
	return out, err
}

func (a *Agent) handleUnplug(ctx context.Context, _ model.NodeID, body json.RawMessage) (any, error) {
	var c unplugCall
	if err := json.Unmarshal(body, &c); err != nil {
		return nil, model.Errorf(model.Invalid, "read request: %w", err)
	}
	if a.guests == nil {
		return nil, model.Errorf(model.Unavailable, "this node runs no guests")
	}
	m, err := a.guests.claim(ctx, c.Change.VM)
	if err != nil {
		return nil, err
	}
	defer a.guests.release(a.ctx, m)
	return a.guests.unplug(ctx, m, c)
}

// unplug takes disks from a claimed machine.
func (g *guests) unplug(ctx context.Context, m *guest, c unplugCall) (any, error) {
	view, err := g.agent.cfg.Meta.View(ctx)
	if err != nil {
		return nil, err
	}
	vm, err := view.VM(m.id)
	if err != nil {
		return nil, err
	}
	if err := g.mayUnplug(ctx, vm, c.Change); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	watch := make(chan struct{})
	go func() { // ends with ctx
		defer close(watch)
		g.untilOff(ctx, vm, cancel)
	}()
	defer func() {
		cancel(nil)
		<-watch
	}()
	m.disks = plugged{} // whatever comes of it, look again
	for _, d := range g.pluggable(vm) {
		i := slices.IndexFunc(c.Change.RemoveDisks, func(id model.VolumeID) bool { return d.Socket == g.agent.SocketPath(Vhost, id) })
		if i < 0 {
			continue
		}
		if err := g.hypervisor.Unplug(ctx, m.id, d); err != nil {
			return nil, err
		}
		g.closeFront(m, c.Change.RemoveDisks[i])
	}
	c.Change.Released = g.agent.cfg.Self
	return g.agent.cfg.Meta.Apply(ctx, c.Actor, c.Change)
}

// untilOff ends a wait for a guest once the record says that it shall not run.
func (g *guests) untilOff(ctx context.Context, vm model.VM, cancel context.CancelCauseFunc) {
	for {
		view := g.agent.cfg.Meta.Local()
		if now, err := view.VM(vm.ID); err != nil || now.Power != model.PowerOn {
			cancel(model.Errorf(model.Conflict, "vm %s was switched off meanwhile", vm.Name))
			return
		}
		select {
		case <-view.Next():
		case <-ctx.Done():
			return
		}
	}
}

// mayUnplug says beforehand why a change would be refused; the guest keeps its disks then.
func (g *guests) mayUnplug(ctx context.Context, vm model.VM, c command.VMUpdate) error {
	have, err := g.hypervisor.Guest(ctx, vm.ID)
	if err != nil {
		return err
	}
	switch {
	case vm.Node != g.agent.cfg.Self || vm.Power != model.PowerOn || have.State != virt.Running:
		return model.Errorf(model.Conflict, "vm %s is not off, and does not run", vm.Name)
	case vm.Migration != nil:
		return model.Errorf(model.Conflict, "vm %s is being migrated; its disks stay as they are meanwhile", vm.Name)
	case have.Hardware < virt.Placed:
		return model.Errorf(model.Conflict, "vm %s runs with older devices, of which none can go; it can when it was started again", vm.Name)
	case len(c.RemoveDisks)+1 > len(vm.Disks)+len(c.AddDisks) && vm.Boot == nil && len(vm.CDROMs) == 0:
		return model.Errorf(model.Invalid, "a vm needs a disk, a cd-rom drive or a kernel to start from")
	case c.NeedsOff() || c.HasNICs() || c.CDROMs != nil || c.Seed != nil:
		return model.Errorf(model.Conflict, "vm %s is on: with a disk taken from it only disks can be changed", vm.Name)
	}
	for _, id := range c.RemoveDisks {
		if !vm.HasDisk(id) {
			return model.Errorf(model.NotFound, "the volume %s is not a disk of the vm %q", id, vm.Name)
		}
		if !slices.ContainsFunc(vm.OnBus(model.BusVirtio), func(d model.VMDisk) bool { return d.Volume == id }) {
			return model.Errorf(model.Conflict, "a disk on SATA stays while the vm %q is on", vm.Name)
		}
	}
	return nil
}

// closeFront ends the serving of one disk of a guest that has given it back.
func (g *guests) closeFront(m *guest, id model.VolumeID) {
	i := slices.IndexFunc(m.fronts, func(f *front) bool { return f.id == id })
	if i < 0 {
		return
	}
	m.fronts[i].close()
	g.setFronts(m, slices.Delete(slices.Clone(m.fronts), i, i+1))
}
