package state

import (
	"cmp"
	"slices"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

// changeDisks removes and adds disks of a machine. The invariant: a volume is a disk of
// the record as long as a QEMU may have it. So a disk of a machine that is not off goes
// only by the word of its node, which has seen the guest give it back and has let the
// volume go; until then nobody else can have the volume, nor delete it.
func (x *tx) changeDisks(vm *model.VM, c command.VMUpdate) error {
	if vm.Migration != nil {
		return model.Errorf(model.Conflict, "the vm %q is being migrated; its disks stay as they are meanwhile", vm.Name)
	}
	if len(c.RemoveDisks) > 0 && !isOff(*vm) && (c.Released == 0 || c.Released != vm.Node) {
		return model.Errorf(model.Conflict, "the vm %q is not off, and its guest has not given the disk back", vm.Name)
	}
	disks := vm.PlacedDisks()
	for _, id := range c.RemoveDisks {
		i := slices.IndexFunc(disks, func(d model.VMDisk) bool { return d.Volume == id })
		if i < 0 {
			return model.Errorf(model.NotFound, "the volume %s is not a disk of the vm %q", id, vm.Name)
		}
		disks = slices.Delete(disks, i, i+1)
	}
	for _, id := range c.AddDisks {
		if v, there := x.volumes.get(id); there && v.Revert.Due() && vm.Power == model.PowerOn {
			return reverting(v)
		}
		disks = append(disks, model.VMDisk{Volume: id, Slot: model.FreeDiskSlot(disks)})
	}
	slices.SortStableFunc(disks, func(a, b model.VMDisk) int { return cmp.Compare(a.Slot, b.Slot) })
	vm.Disks = disks
	return nil
}
