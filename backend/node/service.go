package node

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"drystone.example/drystone/backend/agent"
	"drystone.example/drystone/backend/api"
	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/console"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/placement"
)

// service is what the API asks of a node: decisions that placement makes, put
// into the record, and work that the agents do.
type service struct{ n *node }

var _ api.Service = service{}

// CreateVolume deals the columns of a new volume over the pool.
func (s service) CreateVolume(ctx context.Context, by model.Actor, spec schema.VolumeSpec) (model.Volume, error) {
	if !spec.Force {
		if err := s.roomForNew(ctx); err != nil {
			return model.Volume{}, model.Errorf(model.NoSpace, "%w; it can be forced", err)
		}
	}
	return s.createVolume(ctx, by, spec.Name, model.VolumeDisk, spec.Size, spec.Copies)
}

// roomForNew refuses what is new on a pool that is nearly full. What is there already
// goes on, above all what makes room: deleting and reverting, with the snapshot that a
// revert keeps, and whatever the engine itself cuts or fills.
func (s service) roomForNew(ctx context.Context) error {
	return placement.RoomForNew(s.n.agent.PlacementDisks(ctx))
}

func (s service) createVolume(ctx context.Context, by model.Actor, name string, kind model.VolumeKind,
	size model.Bytes, copies int,
) (model.Volume, error) {
	if copies == 0 {
		copies = 2
	}
	if err := model.ValidateVolume(name, size, copies); err != nil {
		return model.Volume{}, err
	}
	id := model.NewID[model.VolumeID]()
	columns, err := placement.Columns(id, copies, s.n.agent.PlacementDisks(ctx))
	if err != nil {
		return model.Volume{}, err
	}
	out, err := s.n.meta.Apply(ctx, by, command.VolumeCreate{
		ID: id, Name: name, Use: kind, Size: size, Copies: copies, Columns: columns,
	})
	if err != nil {
		return model.Volume{}, err
	}
	return out.(model.Volume), nil //nolint:errcheck,forcetypeassert // the command says what it returns
}

// ResizeVolume makes a volume larger; its holder follows the record.
func (s service) ResizeVolume(ctx context.Context, by model.Actor, id model.VolumeID, size model.Bytes) (model.Volume, error) {
	if err := model.ValidateSize(size); err != nil {
		return model.Volume{}, err
	}
	out, err := s.n.meta.Apply(ctx, by, command.VolumeResize{Volume: id, Size: size})
	if err != nil {
		return model.Volume{}, err
	}
	return out.(model.Volume), nil //nolint:errcheck,forcetypeassert // the command says what it returns
}

// DeleteVolume forgets a volume; its space is freed by each node in its own time.
func (s service) DeleteVolume(ctx context.Context, by model.Actor, id model.VolumeID) error {
	_, err := s.n.meta.Apply(ctx, by, command.VolumeDelete{Volume: id})
	return err
}

// CreateSnapshot has the volume's holder cut it.
func (s service) CreateSnapshot(ctx context.Context, by model.Actor, id model.VolumeID, name string) (model.Snapshot, error) {
	if err := s.roomForNew(ctx); err != nil {
		return model.Snapshot{}, err
	}
	return s.n.agent.Snapshot(ctx, by, id, name)
}

// DeleteSnapshot forgets a snapshot; the volume's holder frees its space.
func (s service) DeleteSnapshot(ctx context.Context, by model.Actor, id model.SnapshotID) error {
	_, err := s.n.meta.Apply(ctx, by, command.SnapshotDelete{Snapshot: id})
	return err
}

// RevertSnapshot has the record say what the volume shall be; a holder for
// maintenance makes it so.
func (s service) RevertSnapshot(ctx context.Context, by model.Actor, of model.Snapshot, keep string) (model.Volume, error) {
	c := command.SnapshotRevert{Volume: of.Volume, Snapshot: of.ID}
	if keep != "" {
		c.Keep, c.KeepName = model.NewID[model.SnapshotID](), keep
	}
	out, err := s.n.meta.Apply(ctx, by, c)
	if err != nil {
		return model.Volume{}, err
	}
	return out.(model.Volume), nil //nolint:errcheck,forcetypeassert // the command says what it returns
}

// CancelRevert takes back what the record says.
func (s service) CancelRevert(ctx context.Context, by model.Actor, id model.VolumeID) (model.Volume, error) {
	out, err := s.n.meta.Apply(ctx, by, command.SnapshotRevert{Volume: id, Cancel: true})
	if err != nil {
		return model.Volume{}, err
	}
	return out.(model.Volume), nil //nolint:errcheck,forcetypeassert // the command says what it returns
}

// CloneVolume has the volume's holder clone it.
func (s service) CloneVolume(ctx context.Context, by model.Actor, id model.VolumeID, at model.SnapshotID,
	name string,
) (model.Volume, error) {
	if err := s.roomForNew(ctx); err != nil {
		return model.Volume{}, err
	}
	v, err := s.n.meta.Local().Volume(id)
	if err != nil {
		return model.Volume{}, err
	}
	use := model.VolumeDisk
	if v.Kind == model.VolumeNVRAM {
		use = model.VolumeNVRAM
	}
	return s.n.agent.Clone(ctx, by, id, at, name, use)
}

func (s service) AddDisk(ctx context.Context, by model.Actor, node model.NodeID, spec schema.DiskSpec) (model.Disk, error) {
	return s.n.agent.AddDiskAt(ctx, by, node, agent.NewDisk{
		Path: spec.Path, Size: spec.Size, Sparse: spec.Sparse, Wipe: spec.Wipe,
	})
}

func (s service) ScrubDisk(ctx context.Context, _ model.Actor, d model.Disk) (schema.Task, error) {
	t, err := s.n.agent.ScrubDisk(ctx, d)
	if err != nil {
		return schema.Task{}, err
	}
	return taskOf(t), nil
}

func (s service) ScrubVolume(ctx context.Context, _ model.Actor, v model.Volume) (schema.Task, error) {
	t, err := s.n.agent.ScrubVolume(ctx, v)
	if err != nil {
		return schema.Task{}, err
	}
	return taskOf(t), nil
}

// Export serves a volume from this node until ctx ends.
func (s service) Export(ctx context.Context, _ model.Actor, e api.Export, ready func(uri string) error) error {
	front, scheme := agent.NBD, "nbd+unix:///?socket="
	if e.Kind == schema.ExportVhost {
		front, scheme = agent.Vhost, "vhost-user:"
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	begun := func(path string) {
		if err := ready(scheme + path); err != nil {
			cancel(err)
		}
	}
	if e.Snapshot != 0 {
		return s.n.agent.ExportSnapshot(ctx, e.Snapshot, e.Path, begun)
	}
	return s.n.agent.Export(ctx, front, e.Volume, e.Path, begun)
}

// CreateVMSnapshots has the holder of a machine's volumes cut all of them.
func (s service) CreateVMSnapshots(ctx context.Context, by model.Actor, id model.VMID, name string) ([]model.Snapshot, error) {
	if err := s.roomForNew(ctx); err != nil {
		return nil, err
	}
	return s.n.agent.SnapshotVM(ctx, by, id, name)
}

// DiffSnapshots has the volume's holder list what was changed.
func (s service) DiffSnapshots(ctx context.Context, from, to model.Snapshot, size model.Bytes,
	each func(done model.Bytes, ranges []schema.ByteRange) error,
) error {
	return s.n.agent.Diff(ctx, from, to, size, func(done model.Bytes, found []agent.Range) error {
		ranges := make([]schema.ByteRange, len(found))
		for i, r := range found {
			ranges[i] = schema.ByteRange(r)
		}
		return each(done, ranges)
	})
}

// undo takes back the first half of something whose second half failed, also when
// the reason is that ctx ended.
func (s service) undo(ctx context.Context, by model.Actor, cmd command.Command) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	if _, err := s.n.meta.Apply(ctx, by, cmd); err != nil && model.CodeOf(err) != model.NotFound {
		s.n.log.Warn("what was left of a failed request was not removed", "object", cmd.Object(), "err", err)
	}
}

func (s service) PutFile(ctx context.Context, _ model.Actor, ref model.FileRef, body io.Reader) (model.FileRef, error) {
	size, err := s.n.agent.PutFile(ctx, ref.SHA256, body)
	ref.Size = size
	return ref, err
}

// CreateVM makes the volumes of a machine, clones of images among them, and records the
// machine.
func (s service) CreateVM(ctx context.Context, by model.Actor, spec api.VMSpec) (vm model.VM, err error) {
	vm = model.VM{
		ID: model.NewID[model.VMID](), Name: spec.Name, CPUs: spec.CPUs, Memory: spec.Memory, Boot: spec.Boot,
		Priority: spec.Priority, NICs: spec.NICs, Tags: spec.Tags, Description: spec.Description,
		Firmware: spec.Firmware, NVRAM: spec.NVRAM,
		Disks: make([]model.VMDisk, len(spec.Disks)), CDROMs: spec.CDROMs,
	}
	for i, d := range spec.Disks {
		vm.Disks[i].Bus = d.Bus
	}
	if err := vm.Validate(); err != nil {
		return model.VM{}, err
	}
	if err := placement.Create(vm, s.n.hosts(ctx)); err != nil {
		return model.VM{}, err
	}
	if slices.ContainsFunc(spec.Disks, func(d api.DiskFrom) bool { return d.Volume == 0 }) {
		if err := s.roomForNew(ctx); err != nil {
			return model.VM{}, err
		}
	}
	view, err := s.n.meta.View(ctx)
	if err != nil {
		return model.VM{}, err
	}
	if _, err := view.FindVM(spec.Name); err == nil {
		return model.VM{}, model.Errorf(model.Conflict, "there is a vm named %q already", spec.Name)
	}
	ctx, work := s.n.agent.Tasks.Begin(ctx, "vm.create", spec.Name)
	defer func() { work.End(err) }()
	var made []model.VolumeID
	defer func() {
		for _, id := range made {
			if err != nil {
				s.undo(ctx, by, command.VolumeDelete{Volume: id})
			}
		}
	}()
	for i, d := range spec.Disks {
		name := diskName(vm, i+1)
		id, mine, err := s.diskFor(ctx, by, d, name)
		if mine {
			made = append(made, id)
		}
		if err != nil {
			return model.VM{}, fmt.Errorf("make disk %d: %w", i+1, err)
		}
		vm.Disks[i].Volume = id
	}
	if vm.Firmware.UEFI() && vm.NVRAM == 0 {
		if vm.NVRAM, err = s.newNVRAM(ctx, by, nvramName(vm, 1), vm.Firmware); err != nil {
			return model.VM{}, err
		}
		made = append(made, vm.NVRAM)
	}
	out, err := s.n.meta.Apply(ctx, by, command.VMCreate{
		ID: vm.ID, Name: vm.Name, CPUs: vm.CPUs, Memory: vm.Memory, Disks: vm.Disks, Boot: vm.Boot,
		Priority: vm.Priority, NICs: vm.NICs, Tags: vm.Tags, Description: vm.Description,
		CDROMs: vm.CDROMs, BootOrder: spec.BootOrder, Seed: spec.Seed,
		Firmware: vm.Firmware, NVRAM: vm.NVRAM,
	})
	if err != nil {
		return model.VM{}, err
	}
	vm = out.(model.VM) //nolint:errcheck,forcetypeassert // the command says what it returns
	return vm, nil
}

// diskName names the volume of a machine's n-th disk after it.
func diskName(vm model.VM, n int) string { return volumeName(vm, fmt.Sprintf("disk%d", n)) }

// volumeName names a volume of a machine after it and after what it is. A name that would
// be too long is cut, and the identifier keeps it apart from others cut alike.
func volumeName(vm model.VM, what string) string {
	name := vm.Name + "-" + what
	if len(name) > model.MaxName {
		end := fmt.Sprintf("-%s-%s", vm.ID, what)
		name = vm.Name[:model.MaxName-len(end)] + end
	}
	return name
}

// diskFor makes or finds the volume of one disk; mine says that it was made.
func (s service) diskFor(ctx context.Context, by model.Actor, d api.DiskFrom, name string,
) (id model.VolumeID, mine bool, err error) {
	if d.Volume != 0 {
		return d.Volume, false, nil
	}
	var vol model.Volume
	if d.Image != 0 {
		vol, err = s.n.agent.Clone(ctx, by, d.Image, 0, name, model.VolumeDisk)
	} else {
		vol, err = s.createVolume(ctx, by, name, model.VolumeDisk, d.Size, 2)
	}
	return vol.ID, err == nil, err
}

// ChangeVM changes a machine's record, by its node if its guest has to give a disk back.
func (s service) ChangeVM(ctx context.Context, by model.Actor, c command.VMUpdate, add []api.DiskFrom) (vm model.VM, err error) {
	view, err := s.n.meta.View(ctx)
	if err != nil {
		return model.VM{}, err
	}
	if vm, err = view.VM(c.VM); err != nil {
		return model.VM{}, err
	}
	var made []model.VolumeID
	defer func() {
		for _, id := range made {
			if err != nil {
				s.undo(ctx, by, command.VolumeDelete{Volume: id})
			}
		}
	}()
	if slices.ContainsFunc(add, func(d api.DiskFrom) bool { return d.Volume == 0 }) {
		if err := s.roomForNew(ctx); err != nil {
			return model.VM{}, err
		}
	}
	n := len(vm.Disks)
	for _, d := range add {
		name, nth := freeDiskName(view, vm, n+1)
		n = nth
		id, mine, err := s.diskFor(ctx, by, d, name)
		if mine {
			made = append(made, id)
		}
		if err != nil {
			return model.VM{}, fmt.Errorf("make a disk: %w", err)
		}
		c.AddDisks = append(c.AddDisks, id)
	}
	if c.Firmware != nil && c.Firmware.UEFI() {
		if c.NVRAM, err = s.nvramFor(ctx, by, c.VM, *c.Firmware); err != nil {
			return model.VM{}, err
		}
		made = append(made, c.NVRAM)
	}
	if off := vm.Power == model.PowerOff && !vm.Runs(); len(c.RemoveDisks) > 0 && !off {
		return s.n.agent.Unplug(ctx, by, vm, c)
	}
	out, err := s.n.meta.Apply(ctx, by, c)
	if err != nil {
		return model.VM{}, err
	}
	return out.(model.VM), nil //nolint:errcheck,forcetypeassert // the command says what it returns
}

// freeDiskName names the volume of a disk that is added: the n-th, or the next whose
// name no volume has.
func freeDiskName(view *state.View, vm model.VM, n int) (name string, nth int) {
	for ; ; n++ {
		name := diskName(vm, n)
		if _, err := view.FindVolume(name); err != nil {
			return name, n
		}
	}
}

// PowerVM writes the wish into the record; the agent of the machine's node makes
// it true.
func (s service) PowerVM(ctx context.Context, by model.Actor, id model.VMID, do schema.PowerAction, node model.NodeID,
) (model.VM, error) {
	view, err := s.n.meta.View(ctx)
	if err != nil {
		return model.VM{}, err
	}
	vm, err := view.VM(id)
	if err != nil {
		return model.VM{}, err
	}
	switch do {
	case schema.PowerStart:
		return s.start(ctx, by, vm, node)
	case schema.PowerStop:
		return s.power(ctx, by, command.VMPower{VM: id, Power: model.PowerOff})
	case schema.PowerShutdown:
		return vm, s.n.agent.Guest(ctx, vm, agent.GuestShutdown)
	case schema.PowerReset:
		return vm, s.n.agent.Guest(ctx, vm, agent.GuestReset)
	}
	return model.VM{}, model.Errorf(model.Invalid, "a vm cannot be asked to %q", do)
}

func (s service) power(ctx context.Context, by model.Actor, cmd command.VMPower) (model.VM, error) {
	out, err := s.n.meta.Apply(ctx, by, cmd)
	if err != nil {
		return model.VM{}, err
	}
	return out.(model.VM), nil //nolint:errcheck,forcetypeassert // the command says what it returns
}

// start places a machine that is off and switches it on.
func (s service) start(ctx context.Context, by model.Actor, vm model.VM, node model.NodeID) (model.VM, error) {
	if vm.Power == model.PowerOn {
		if node != 0 && node != vm.Node {
			return model.VM{}, model.Errorf(model.Conflict, "vm %s is on already, on another node", vm.Name)
		}
		return vm, nil
	}
	node, err := placement.Start(vm, node, s.n.hosts(ctx))
	if err != nil {
		return model.VM{}, err
	}
	return s.power(ctx, by, command.VMPower{VM: vm.ID, Power: model.PowerOn, Node: node})
}

// Spare is what the nodes have for machines, and what would become of these if a node
// were lost.
func (s service) Spare(ctx context.Context) (o schema.Spare) {
	hosts := s.n.hosts(ctx)
	for _, h := range hosts {
		if h.Up && !h.Maintenance {
			o.Memory += h.Memory
			o.MemoryPromised += h.Memory - h.Free
			o.CPUs += h.CPUs
			o.CPUsPromised += h.Promised
		}
	}
	if len(hosts) < 2 {
		return o // nothing could take over
	}
	l := placement.WorstLoss(s.n.meta.Local().VMs(), hosts)
	o.LossOf, o.LossVMs, o.LossMemory = l.Node, len(l.VMs), l.Memory
	return o
}

// MigrateVM has a machine's node move it to another, which is chosen if none is named.
func (s service) MigrateVM(ctx context.Context, _ model.Actor, id model.VMID, to model.NodeID, limit time.Duration,
) (schema.Task, error) {
	view, err := s.n.meta.View(ctx)
	if err != nil {
		return schema.Task{}, err
	}
	vm, err := view.VM(id)
	if err != nil {
		return schema.Task{}, err
	}
	if vm.Node == 0 || vm.Status.State != model.VMRunning {
		return schema.Task{}, model.Errorf(model.Conflict, "the vm %q is not running", vm.Name)
	}
	if to == vm.Node {
		return schema.Task{}, model.Errorf(model.Conflict, "the vm %q runs on that node already", vm.Name)
	}
	hosts := slices.DeleteFunc(s.n.hosts(ctx), func(h placement.Host) bool { return h.Node == vm.Node })
	if to, err = placement.Start(vm, to, hosts); err != nil {
		return schema.Task{}, err
	}
	t, err := s.n.agent.Migrate(ctx, vm, to, cmp.Or(limit, agent.MigrateLimit), model.MoveAsked)
	if err != nil {
		return schema.Task{}, err
	}
	return taskOf(t), nil
}

// DrainNode writes the wish into the record, which the leader carries out.
func (s service) DrainNode(ctx context.Context, by model.Actor, id model.NodeID, cancel bool,
) (model.Node, map[model.VMID]string, error) {
	out, err := s.n.meta.Apply(ctx, by, command.NodeDrain{Node: id, Cancel: cancel})
	if err != nil {
		return model.Node{}, nil, err
	}
	view, err := s.n.meta.View(ctx)
	if err != nil {
		return model.Node{}, nil, err
	}
	plan := placement.Guests(placement.Herd{Now: time.Now(), VMs: view.VMs(), Hosts: s.n.hosts(ctx)})
	return out.(model.Node), plan.Stuck, nil //nolint:errcheck,forcetypeassert // the command says what it returns
}

func (s service) DeleteVM(ctx context.Context, by model.Actor, id model.VMID, keepDisks bool) error {
	_, err := s.n.meta.Apply(ctx, by, command.VMDelete{VM: id, Disks: !keepDisks})
	return err
}

func (s service) ConsoleTicket(ctx context.Context, ask console.Ask) (console.Ticket, error) {
	vm, err := s.n.meta.Local().VM(ask.VM)
	if err != nil {
		return console.Ticket{}, err
	}
	return s.n.agent.ConsoleTicket(ctx, vm, ask)
}

func (s service) OpenConsole(ctx context.Context, h console.Hello) (*console.Line, error) {
	vm, err := s.n.meta.Local().VM(h.VM)
	if err != nil {
		return nil, err
	}
	return s.n.agent.OpenConsole(ctx, vm, h)
}

func (s service) Picture(ctx context.Context, id model.VMID) ([]byte, error) {
	vm, err := s.n.meta.Local().VM(id)
	if err != nil {
		return nil, err
	}
	return s.n.agent.Picture(ctx, vm)
}
