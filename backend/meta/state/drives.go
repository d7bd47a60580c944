package state

import (
	"slices"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

// driveOf finds a machine that has an image in a CD-ROM drive.
func driveOf(vms *table[model.VMID, model.VM], id model.VolumeID) (model.VM, bool) {
	for _, key := range vms.keys() {
		if vm := vms.rows[key]; vm.HasImage(id) {
			return vm, true
		}
	}
	return model.VM{}, false
}

// unread refuses what would change an image that guests may be reading.
func (x *tx) unread(v model.Volume) error {
	if vm, inserted := driveOf(x.vms, v.ID); inserted {
		return model.Errorf(model.Conflict, "the image %q is in a cd-rom drive of the vm %q", v.Name, vm.Name)
	}
	return nil
}

// validDrives holds that what is in a CD-ROM drive is an image and nobody's disk, and
// that no disk is in anybody's drive.
func (x *tx) validDrives(vm model.VM) error {
	for _, d := range vm.CDROMs {
		if d.Image == 0 {
			continue
		}
		v, err := x.volumes.find(d.Image)
		if err != nil {
			return err
		}
		if v.Kind != model.VolumeImage {
			return model.Errorf(model.Invalid, "the volume %q is not an image", v.Name)
		}
		if v.Revert.Due() {
			return reverting(v)
		}
		if v.Holder != 0 && v.Purpose != model.ForMaintenance {
			return model.Errorf(model.Conflict, "the image %q is in use on %s for %s", v.Name, x.nodeName(v.Holder), purposeWord(v.Purpose))
		}
		other, attached := vmOf(x.vms, v.ID)
		if vm.HasDisk(v.ID) {
			other, attached = vm, true
		}
		if attached {
			return model.Errorf(model.Conflict, "the image %q is a disk of the vm %q", v.Name, other.Name)
		}
	}
	for _, d := range vm.Disks {
		v, err := x.volumes.find(d.Volume)
		if err != nil {
			return err
		}
		if err := x.unread(v); err != nil {
			return err
		}
	}
	return nil
}

// drivesCreate gives a new machine its boot order and what cloud-init reads.
func (x *tx) drivesCreate(vm *model.VM, c command.VMCreate) error {
	if err := vm.ValidateBootOrder(c.BootOrder); err != nil {
		return err
	}
	vm.BootOrder = c.BootOrder
	return x.reseed(vm, c.Seed)
}

func (x *tx) drivesUpdate(vm *model.VM, c command.VMUpdate) error {
	if c.CDROMs != nil {
		if !isOff(*vm) {
			if err := onlyImages(*vm, *c.CDROMs); err != nil {
				return err
			}
		}
		vm.CDROMs = slices.Clone(*c.CDROMs)
	}
	if c.BootOrder != nil {
		if err := vm.ValidateBootOrder(*c.BootOrder); err != nil {
			return err
		}
		vm.BootOrder = *c.BootOrder
	}
	if c.Seed == nil {
		return nil
	}
	if vm.Migration != nil {
		return model.Errorf(model.Conflict, "the vm %q is being migrated; what cloud-init reads stays as it is meanwhile", vm.Name)
	}
	had := vm.Seed != 0
	if err := x.reseed(vm, c.Seed); err != nil {
		return err
	}
	if has := vm.Seed != 0; has != had && !isOff(*vm) {
		return model.Errorf(model.Conflict, "the vm %q is not off: the drive that cloud-init reads cannot come or go", vm.Name)
	}
	return nil
}

// onlyImages refuses another change of the drives of a machine that is on than of what is
// in them.
func onlyImages(vm model.VM, drives []model.CDROM) error {
	if vm.Migration != nil {
		return model.Errorf(model.Conflict, "the vm %q is being migrated; its drives stay as they are meanwhile", vm.Name)
	}
	same := slices.EqualFunc(vm.CDROMs, drives, func(a, b model.CDROM) bool { return a.Bus == b.Bus })
	if !same {
		return model.Errorf(model.Conflict, "the vm %q is not off: a cd-rom drive cannot come or go", vm.Name)
	}
	return nil
}

// reseed keeps what cloud-init is to read, or forgets it.
func (x *tx) reseed(vm *model.VM, c *command.Seed) error {
	if c == nil {
		return nil
	}
	seed := c.Model()
	if err := seed.Validate(); err != nil {
		return err
	}
	if seed.User.Reveal() == "" && seed.Meta.Reveal() == "" {
		vm.Seed = 0
		drop(x, &x.seeds, vm.ID)
		return nil
	}
	vm.Seed = x.index
	return put(x, &x.seeds, seedRow{VM: vm.ID, User: seed.User.Reveal(), Meta: seed.Meta.Reveal()})
}
