package api

import (
	"context"
	"time"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
)

func (s *Server) listVMs(ctx context.Context, _ *none) (*out[schema.List[schema.VM]], error) {
	p, err := s.picture(ctx)
	if err != nil {
		return nil, err
	}
	vms := make([]schema.VM, 0, len(p.VMs()))
	for _, vm := range p.VMs() {
		vms = append(vms, p.vm(vm))
	}
	return answer(schema.ListOf(vms), nil)
}

func (s *Server) getVM(ctx context.Context, in *byRef) (*out[schema.VM], error) {
	p, err := s.picture(ctx)
	if err != nil {
		return nil, err
	}
	vm, err := p.FindVM(in.Ref)
	if err != nil {
		return nil, err
	}
	return answer(p.vm(vm), nil)
}

// vmOf answers with a machine after a change that returned its record.
func (s *Server) vmOf(ctx context.Context, vm model.VM, err error) (*out[schema.VM], error) {
	if err != nil {
		return nil, err
	}
	return answer(s.pictureOf(ctx, s.Record.Local()).vm(vm), nil)
}

type vmInput struct {
	Body schema.VMSpec
}

func (s *Server) createVM(ctx context.Context, in *vmInput) (*out[schema.VM], error) {
	view, err := s.Record.View(ctx)
	if err != nil {
		return nil, err
	}
	spec := VMSpec{
		Name: in.Body.Name, CPUs: in.Body.CPUs, Memory: in.Body.Memory, Boot: in.Body.Boot, Priority: in.Body.Priority,
		Tags: in.Body.Tags, Description: in.Body.Description, Firmware: in.Body.Firmware,
	}
	if spec.NVRAM, err = nvramFrom(view, in.Body); err != nil {
		return nil, err
	}
	for i, d := range in.Body.Disks {
		from, err := diskFrom(view, i, d)
		if err != nil {
			return nil, err
		}
		from.Bus = busOf(d.Bus)
		spec.Disks = append(spec.Disks, from)
	}
	if spec.CDROMs, err = cdromsOf(view, in.Body.CDROMs); err != nil {
		return nil, err
	}
	if spec.Seed, err = seedOf(in.Body.CloudInit); err != nil {
		return nil, err
	}
	spec.BootOrder = in.Body.BootOrder
	if spec.NICs, err = nicsOf(view, in.Body.NICs); err != nil {
		return nil, err
	}
	draft := model.VM{
		Name: spec.Name, CPUs: spec.CPUs, Memory: spec.Memory, Boot: spec.Boot, Priority: spec.Priority, NICs: spec.NICs,
		Tags: spec.Tags, Description: spec.Description, CDROMs: spec.CDROMs, Firmware: spec.Firmware,
	}
	for _, d := range spec.Disks {
		draft.Disks = append(draft.Disks, model.VMDisk{Bus: d.Bus})
	}
	if err := draft.Validate(); err != nil {
		return nil, err
	}
	vm, err := s.Service.CreateVM(ctx, by(ctx), spec)
	return s.vmOf(ctx, vm, err)
}

// diskFrom resolves where a disk comes from; exactly one source is given.
func diskFrom(view *state.View, i int, d schema.DiskFrom) (DiskFrom, error) {
	given := 0
	for _, is := range []bool{d.Size != 0, d.Image != "", d.Volume != ""} {
		if is {
			given++
		}
	}
	if given != 1 {
		return DiskFrom{}, model.Errorf(model.Invalid,
			"disk %d needs exactly one of size_bytes, image and volume", i)
	}
	switch {
	case d.Image != "":
		v, err := view.FindVolume(d.Image)
		if err == nil && v.Kind != model.VolumeImage {
			err = model.Errorf(model.Invalid, "the volume %q is not an image", v.Name)
		}
		return DiskFrom{Image: v.ID}, err
	case d.Volume != "":
		v, err := view.FindVolume(d.Volume)
		return DiskFrom{Volume: v.ID}, err
	}
	return DiskFrom{Size: d.Size}, model.ValidateSize(d.Size)
}

// diskChanges puts what is asked for about disks into a change of a machine, and returns
// where those to add come from.
func diskChanges(view *state.View, b schema.VMChange, c *command.VMUpdate) (add []DiskFrom, err error) {
	for i, d := range b.AddDisks {
		from, err := diskFrom(view, i, d)
		if err != nil {
			return nil, err
		}
		if d.Bus != "" && busOf(d.Bus) != model.BusVirtio {
			return nil, model.Errorf(model.Invalid, "a disk that is added is on virtio; one on SATA is given when the machine is made")
		}
		add = append(add, from)
	}
	for _, ref := range b.RemoveDisks {
		v, err := view.FindVolume(ref)
		if err != nil {
			return nil, err
		}
		c.RemoveDisks = append(c.RemoveDisks, v.ID)
	}
	return add, nil
}

// nvramFrom resolves the NVRAM that a new machine is to have; zero: a new one, or none.
func nvramFrom(view *state.View, spec schema.VMSpec) (model.VolumeID, error) {
	if spec.NVRAM == "" {
		return 0, nil
	}
	v, err := view.FindVolume(spec.NVRAM)
	switch {
	case err != nil:
		return 0, err
	case !spec.Firmware.UEFI():
		return 0, model.Errorf(model.Invalid, "an NVRAM goes with the firmware uefi or uefi-secure")
	case v.Kind != model.VolumeNVRAM:
		return 0, model.Errorf(model.Invalid, "the volume %q is not an NVRAM", v.Name)
	}
	return v.ID, nil
}

type vmChangeInput struct {
	Ref  string `path:"ref" minLength:"1" maxLength:"63"`
	Body schema.VMChange
}

func (s *Server) changeVM(ctx context.Context, in *vmChangeInput) (*out[schema.VM], error) {
	view, err := s.Record.View(ctx)
	if err != nil {
		return nil, err
	}
	was, err := view.FindVM(in.Ref)
	if err != nil {
		return nil, err
	}
	b := in.Body
	if b.Empty() {
		return nil, model.Errorf(model.Invalid, "nothing to change is given")
	}
	c := command.VMUpdate{
		VM: was.ID, Name: b.Name, CPUs: b.CPUs, Memory: b.Memory, Priority: b.Priority, Strict: b.Strict, Apart: b.Apart,
		Tags: b.Tags, Description: b.Description,
		IOPS: b.IOPS, IOBytes: b.IOBytes, IOBurst: b.IOBurst,
		Firmware: b.Firmware,
	}
	if c.Prefer, err = s.wished(ctx, b.Prefer); err != nil {
		return nil, err
	}
	if c.Backup, err = s.wished(ctx, b.Backup); err != nil {
		return nil, err
	}
	if err := nicChanges(view, b, &c); err != nil {
		return nil, err
	}
	if err := driveChanges(view, b, &c); err != nil {
		return nil, err
	}
	add, err := diskChanges(view, b, &c)
	if err != nil {
		return nil, err
	}
	vm, err := s.Service.ChangeVM(ctx, by(ctx), c, add)
	return s.vmOf(ctx, vm, err)
}

type vmDeleteInput struct {
	Ref       string `path:"ref" minLength:"1" maxLength:"63"`
	KeepDisks bool   `query:"keep_disks" doc:"leave its volumes"`
}

func (s *Server) deleteVM(ctx context.Context, in *vmDeleteInput) (*done, error) {
	id, err := s.vmID(ctx, in.Ref)
	if err != nil {
		return nil, err
	}
	return finished(s.Service.DeleteVM(ctx, by(ctx), id, in.KeepDisks))
}

func (s *Server) vmID(ctx context.Context, ref string) (model.VMID, error) {
	view, err := s.Record.View(ctx)
	if err != nil {
		return 0, err
	}
	vm, err := view.FindVM(ref)
	return vm.ID, err
}

type startInput struct {
	Ref  string `path:"ref" minLength:"1" maxLength:"63"`
	Body *schema.StartSpec
}

func (s *Server) startVM(ctx context.Context, in *startInput) (*out[schema.VM], error) {
	node := ""
	if in.Body != nil {
		node = in.Body.Node
	}
	id, err := s.nodeID(ctx, node)
	if err != nil {
		return nil, err
	}
	return s.power(ctx, in.Ref, schema.PowerStart, id)
}

// wished finds a node that is named in a change; an empty name is no node.
func (s *Server) wished(ctx context.Context, ref *string) (*model.NodeID, error) {
	if ref == nil {
		return nil, nil //nolint:nilnil // nothing is changed, which is no mistake
	}
	id, err := s.nodeID(ctx, *ref)
	return &id, err
}

// nodeID finds a node, or none if none is named.
func (s *Server) nodeID(ctx context.Context, ref string) (model.NodeID, error) {
	if ref == "" {
		return 0, nil
	}
	view, err := s.Record.View(ctx)
	if err != nil {
		return 0, err
	}
	n, err := view.FindNode(ref)
	return n.ID, err
}

type migrateInput struct {
	Ref  string `path:"ref" minLength:"1" maxLength:"63"`
	Body *schema.MigrateSpec
}

func (s *Server) migrateVM(ctx context.Context, in *migrateInput) (*out[schema.Task], error) {
	spec := schema.MigrateSpec{}
	if in.Body != nil {
		spec = *in.Body
	}
	id, err := s.vmID(ctx, in.Ref)
	if err != nil {
		return nil, err
	}
	to, err := s.nodeID(ctx, spec.Node)
	if err != nil {
		return nil, err
	}
	return answer(s.Service.MigrateVM(ctx, by(ctx), id, to, time.Duration(spec.Seconds)*time.Second))
}

func (s *Server) stopVM(ctx context.Context, in *byRef) (*out[schema.VM], error) {
	return s.power(ctx, in.Ref, schema.PowerStop, 0)
}

func (s *Server) shutdownVM(ctx context.Context, in *byRef) (*out[schema.VM], error) {
	return s.power(ctx, in.Ref, schema.PowerShutdown, 0)
}

func (s *Server) resetVM(ctx context.Context, in *byRef) (*out[schema.VM], error) {
	return s.power(ctx, in.Ref, schema.PowerReset, 0)
}

func (s *Server) power(ctx context.Context, ref string, do schema.PowerAction, node model.NodeID) (*out[schema.VM], error) {
	id, err := s.vmID(ctx, ref)
	if err != nil {
		return nil, err
	}
	vm, err := s.Service.PowerVM(ctx, by(ctx), id, do, node)
	return s.vmOf(ctx, vm, err)
}
