package state

import (
	"slices"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

// validKind says what is wrong with the kind of a new volume of a size, or nil.
func validKind(kind model.VolumeKind, size model.Bytes) error {
	switch {
	case kind == model.VolumeNVRAM && size != model.NVRAMSize:
		return model.Errorf(model.Invalid, "a machine's NVRAM has %d bytes, not %d", model.NVRAMSize, size)
	case kind == model.VolumeDisk, kind == model.VolumeImage, kind == model.VolumeNVRAM:
		return nil
	}
	return model.Errorf(model.Invalid, "%q is not a kind of volume", kind)
}

// validNVRAM holds what the NVRAM of a machine must be: a volume of that kind, of no other
// machine, and there exactly if the firmware is UEFI. None of its disks is of that kind.
func (x *tx) validNVRAM(vm model.VM) error {
	for _, d := range vm.Disks {
		if v, _ := x.volumes.get(d.Volume); v.Kind == model.VolumeNVRAM {
			return model.Errorf(model.Invalid, "the volume %q is a machine's NVRAM and cannot be a disk", v.Name)
		}
	}
	switch {
	case vm.Firmware.UEFI() && vm.NVRAM == 0:
		return model.Errorf(model.Invalid, "a vm with the firmware %s needs an NVRAM", vm.Firmware)
	case !vm.Firmware.UEFI() && vm.NVRAM != 0:
		return model.Errorf(model.Invalid, "a vm that starts by BIOS has no NVRAM")
	case vm.NVRAM == 0:
		return nil
	}
	v, err := x.volumes.find(vm.NVRAM)
	if err != nil {
		return err
	}
	if v.Kind != model.VolumeNVRAM {
		return model.Errorf(model.Invalid, "the volume %q is not an NVRAM", v.Name)
	}
	if other, attached := vmOf(x.vms, vm.NVRAM); attached && other.ID != vm.ID {
		return model.Errorf(model.Conflict, "the volume %q belongs to the vm %q", v.Name, other.Name)
	}
	return nil
}

// changeFirmware gives a machine other firmware, with an NVRAM of its own: what one
// firmware remembers is not for another. The NVRAM before is forgotten, but not what
// somebody kept of it.
func (x *tx) changeFirmware(vm *model.VM, c command.VMUpdate) error {
	if c.Firmware == nil {
		return nil
	}
	was, old := *vm, vm.NVRAM
	vm.Firmware, vm.NVRAM = *c.Firmware, c.NVRAM
	if old == 0 {
		return nil
	}
	if was.Firmware == *c.Firmware {
		return model.Errorf(model.Conflict, "the vm %q has the firmware %s already", vm.Name, was.Firmware)
	}
	v, err := x.volumes.find(old)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(x.snapshots.sorted(), func(s model.Snapshot) bool { return s.Volume == old }) {
		return model.Errorf(model.Conflict, "the NVRAM %q has snapshots, which would be lost; delete them first", v.Name)
	}
	return x.forgetVolume(v)
}
