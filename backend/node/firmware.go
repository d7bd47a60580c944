package node

import (
	"context"
	"fmt"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

// newNVRAM makes the volume of a machine's NVRAM and writes into it what the firmware
// expects of a new one. Whoever asked for it deletes it if it is not used.
func (s service) newNVRAM(ctx context.Context, by model.Actor, name string, firmware model.Firmware) (model.VolumeID, error) {
	v, err := s.createVolume(ctx, by, name, model.VolumeNVRAM, model.NVRAMSize, 2)
	if err != nil {
		return 0, fmt.Errorf("make NVRAM: %w", err)
	}
	if err := s.n.agent.WriteNVRAM(ctx, v.ID, firmware); err != nil {
		s.undo(ctx, by, command.VolumeDelete{Volume: v.ID})
		return 0, fmt.Errorf("make NVRAM: %w", err)
	}
	return v.ID, nil
}

// nvramName names the n-th NVRAM of a machine after it.
func nvramName(vm model.VM, n int) string {
	if n == 1 {
		return volumeName(vm, "nvram")
	}
	return volumeName(vm, fmt.Sprintf("nvram%d", n))
}

// nvramFor makes an NVRAM for a machine that is to have other firmware, beside the one it
// has. What the record would refuse is refused before.
func (s service) nvramFor(ctx context.Context, by model.Actor, id model.VMID, firmware model.Firmware) (model.VolumeID, error) {
	view, err := s.n.meta.View(ctx)
	if err != nil {
		return 0, err
	}
	vm, err := view.VM(id)
	switch {
	case err != nil:
		return 0, err
	case vm.Firmware == firmware:
		return 0, model.Errorf(model.Conflict, "the vm %q has the firmware %s already", vm.Name, firmware)
	case vm.Power != model.PowerOff:
		return 0, model.Errorf(model.Conflict, "the vm %q is not off", vm.Name)
	}
	for n := 1; ; n++ { // the name of the one it has is free only when that is forgotten
		name := nvramName(vm, n)
		if _, err := view.FindVolume(name); model.CodeOf(err) == model.NotFound {
			return s.newNVRAM(ctx, by, name, firmware)
		}
	}
}
