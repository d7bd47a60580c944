package api

import (
	"cmp"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
)

// cdromsOf resolves what is asked for as CD-ROM drives.
func cdromsOf(view *state.View, in []schema.CDROMSpec) ([]model.CDROM, error) {
	list := make([]model.CDROM, len(in))
	for i, spec := range in {
		list[i].Bus = cmp.Or(spec.Bus, model.BusSATA)
		if spec.Image == "" {
			continue
		}
		v, err := view.FindVolume(spec.Image)
		if err != nil {
			return nil, err
		}
		if v.Kind != model.VolumeImage {
			return nil, model.Errorf(model.Invalid, "the volume %q is not an image", v.Name)
		}
		list[i].Image = v.ID
	}
	return list, nil
}

// seedOf is what cloud-init shall read, or nil if nothing is said of it.
func seedOf(in *schema.CloudInit) (*command.Seed, error) {
	if in == nil {
		return nil, nil //nolint:nilnil // nothing is said of it, which is no mistake
	}
	seed := command.Seed{
		User: command.Keep(model.NewSecret(in.UserData)), Meta: command.Keep(model.NewSecret(in.MetaData)),
	}
	return &seed, seed.Model().Validate()
}

// busOf is a disk's bus in the record.
func busOf(bus schema.DiskBus) model.DriveBus {
	if bus == schema.DiskSATA {
		return model.BusSATA
	}
	return model.BusVirtio
}

// driveChanges puts what is asked for about drives into a change of a machine.
func driveChanges(view *state.View, b schema.VMChange, cmd *command.VMUpdate) (err error) {
	if b.CDROMs != nil {
		drives, err := cdromsOf(view, *b.CDROMs)
		if err != nil {
			return err
		}
		cmd.CDROMs = &drives
	}
	cmd.BootOrder = b.BootOrder
	cmd.Seed, err = seedOf(b.CloudInit)
	return err
}

// drives adds what a machine has beside its disks on virtio.
func (p *picture) drives(vm model.VM, o *schema.VM) {
	o.CDROMs = make([]schema.CDROM, len(vm.CDROMs))
	for i, d := range vm.CDROMs {
		o.CDROMs[i] = schema.CDROM{Image: d.Image, Bus: d.Bus}
		if v, err := p.Volume(d.Image); err == nil {
			o.CDROMs[i].Name, o.CDROMs[i].Size = v.Name, v.Size
		}
	}
	o.BootOrder = append([]string{}, vm.BootOrderOf()...)
	o.CloudInit = vm.Seed != 0
	for i, d := range vm.Disks {
		o.Disks[i].Bus = schema.DiskVirtio
		if d.Bus == model.BusSATA {
			o.Disks[i].Bus = schema.DiskSATA
		}
	}
}
