package state

import (
	"testing"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

func nvram(id model.VolumeID, name string) command.VolumeCreate {
	c := volume(id, name)
	c.Use, c.Size = model.VolumeNVRAM, model.NVRAMSize
	return c
}

// A machine has an NVRAM exactly if its firmware is UEFI: a volume of that kind and of no
// other machine, which starts, is reverted and goes with it.
func TestFirmware(t *testing.T) {
	r := small(t)
	for id, name := range map[model.VolumeID]string{1: "a", 2: "b"} {
		r.ok(volume(id, name))
	}
	for id, name := range map[model.VolumeID]string{3: "c", 4: "d", 5: "e"} {
		r.ok(nvram(id, name))
	}
	with := func(f model.Firmware, vars model.VolumeID) command.VMCreate {
		c := machine(1, "web", 1)
		c.Firmware, c.NVRAM = f, vars
		return c
	}
	large := nvram(6, "f")
	large.Size *= 2
	grow := command.VolumeResize{Volume: 3, Size: 2 << 20}
	refuse(t, r, []refusal{
		{"an NVRAM of another size", large, model.Invalid},
		{"an NVRAM that grows", grow, model.Invalid},
		{"a disk that is an NVRAM", machine(1, "web", 1, 3), model.Invalid},
		{"no such firmware", with("coreboot", 0), model.Invalid},
		{"UEFI without an NVRAM", with(model.FirmwareUEFI, 0), model.Invalid},
		{"BIOS with an NVRAM", with("", 3), model.Invalid},
		{"UEFI with a disk for an NVRAM", with(model.FirmwareUEFI, 2), model.Invalid},
		{"an NVRAM that is not there", with(model.FirmwareUEFI, 9), model.NotFound},
	})
	r.ok(with(model.FirmwareUEFI, 3))
	second := machine(2, "db", 2)
	second.Firmware, second.NVRAM = model.FirmwareUEFI, 3
	secure, bios, uefi := model.FirmwareSecure, model.FirmwareBIOS, model.FirmwareUEFI
	refuse(t, r, []refusal{
		{"the NVRAM of another", second, model.Conflict},
		{"an NVRAM in use is deleted", command.VolumeDelete{Volume: 3}, model.Conflict},
		{"other firmware without an NVRAM", command.VMUpdate{VM: 1, Firmware: &secure}, model.Invalid},
		{"other firmware with the old NVRAM", command.VMUpdate{VM: 1, Firmware: &secure, NVRAM: 3}, model.NotFound},
		{"the same firmware", command.VMUpdate{VM: 1, Firmware: &uefi, NVRAM: 4}, model.Conflict},
		{"BIOS with an NVRAM", command.VMUpdate{VM: 1, Firmware: &bios, NVRAM: 4}, model.Invalid},
	})
	if vm, ok := r.store.View().VMOf(3); !ok || vm.ID != 1 || vm.NVRAM != 3 {
		t.Errorf("the NVRAM belongs to %+v, %t", vm, ok)
	}
	r.ok(command.VMUpdate{VM: 1, Firmware: &secure, NVRAM: 4})
	if _, err := r.store.View().Volume(3); model.CodeOf(err) != model.NotFound {
		t.Errorf("the NVRAM before is still there: %v", err)
	}
	r.ok(command.VMPower{VM: 1, Power: model.PowerOn})
	refuse(t, r, []refusal{{"a running machine", command.VMUpdate{VM: 1, Firmware: &bios}, model.Conflict}})
	r.ok(command.VMPower{VM: 1, Power: model.PowerOff})
	r.ok(command.VMUpdate{VM: 1, Firmware: &bios})
	r.ok(command.VMUpdate{VM: 1, Firmware: &uefi, NVRAM: 5})
	r.ok(command.VMDelete{VM: 1, Disks: true})
	if left := r.store.View().Volumes(); len(left) != 1 || left[0].ID != 2 {
		t.Errorf("after the machine there is left %+v", left)
	}
}
