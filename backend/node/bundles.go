package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"drystone.example/drystone/backend/agent"
	"drystone.example/drystone/backend/api"
	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/bundle"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
)

// Invariants of exports. What is exported is of one moment: all disks are read from
// snapshots that were cut together. Outside the node's own folder nothing is written but in
// a folder that its configuration names (export_dirs), and nothing there is replaced: an
// export has its name when it is whole and durable, and until then another.

// ExportVM writes a machine to a file.
func (s service) ExportVM(ctx context.Context, by model.Actor, e api.VMExport, progress func(schema.VMExportEvent),
) (path string, err error) {
	view, err := s.n.meta.View(ctx)
	if err != nil {
		return "", err
	}
	vm, err := view.VM(e.VM)
	if err != nil {
		return "", err
	}
	dir := e.Dir
	if e.Path != "" {
		if dir, err = s.stage(e.Path); err != nil {
			return "", err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	ctx, work := s.n.agent.Tasks.Begin(ctx, "vm.export", vm.Name)
	defer func() { work.End(err) }()
	snaps, drop, err := s.snapshotsOf(ctx, by, view, vm, e.Snapshot)
	if err != nil {
		return "", err
	}
	defer drop()
	x := exporter{service: s, vm: vm, dir: dir, format: e.Format, progress: func(phase string, done, total model.Bytes) {
		work.Progress(done, total)
		progress(schema.VMExportEvent{Phase: phase, Done: done, Total: total})
	}}
	m := describe(view, vm)
	m.Snapshot, m.Exported = e.Snapshot, time.Now().UTC().Truncate(time.Second)
	files, err := x.write(ctx, m, snaps)
	if err != nil {
		return "", err
	}
	if e.Path == "" || e.Format == schema.ExportOVA {
		if path, err = x.pack(ctx, files); err != nil || e.Path == "" {
			return path, err
		}
		return e.Path, publish(path, e.Path)
	}
	return e.Path, publish(dir, e.Path)
}

// stagePrefix begins the names of folders in which exports are made.
func (n *node) stagePrefix() string { return ".drystone-" + n.cfg.Node.String() + "-" }

// stage makes a folder beside where an export shall be.
func (s service) stage(path string) (string, error) {
	parent, name := filepath.Split(path)
	parent = filepath.Clean(parent)
	if !slices.ContainsFunc(s.n.cfg.ExportDirs, func(d string) bool { return filepath.Clean(d) == parent }) {
		return "", model.Errorf(model.Denied, "nothing is exported to %s: export_dirs in the node's node.json does not name it", parent)
	}
	if err := model.ValidateName("export", name); err != nil {
		return "", err
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return "", model.Errorf(model.Conflict, "there is something at %s already", path)
	}
	dir, err := os.MkdirTemp(parent, s.n.stagePrefix())
	if err != nil {
		return "", model.Errorf(model.Unavailable, "the node cannot write to %s: %w", parent, err)
	}
	return dir, nil
}

// sweepStages removes what exports left that ended with the daemon. A file system that does
// not answer holds up nobody but the one who calls.
func (n *node) sweepStages() {
	for _, d := range n.cfg.ExportDirs {
		left, err := filepath.Glob(filepath.Join(d, n.stagePrefix()+"*"))
		for _, path := range left {
			err = errors.Join(err, os.RemoveAll(path))
		}
		if err != nil {
			n.log.Warn("what was left of an export was not removed", "err", err)
		}
	}
}

// publish gives what is durable its name. It replaces nothing.
func publish(from, to string) error {
	if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
		return model.Errorf(model.Conflict, "there is something at %s by now", to)
	}
	if err := os.Rename(from, to); err != nil {
		return fmt.Errorf("name export: %w", err)
	}
	return syncDir(filepath.Dir(to))
}

// snapshotsOf finds the snapshots of a machine's disks that have a name; without one it cuts
// some, if the machine is off, which drop deletes.
func (s service) snapshotsOf(ctx context.Context, by model.Actor, view *state.View, vm model.VM, name string,
) (snaps []model.Snapshot, drop func(), err error) {
	drop = func() {}
	if name == "" {
		return s.cutForExport(ctx, by, vm)
	}
	for _, d := range vm.Disks {
		of := view.SnapshotsOf(d.Volume)
		i := slices.IndexFunc(of, func(s model.Snapshot) bool { return strings.EqualFold(s.Name, name) })
		if i < 0 {
			return nil, nil, model.Errorf(model.NotFound, "a disk of the vm %q has no snapshot %q", vm.Name, name)
		}
		snaps = append(snaps, of[i])
	}
	for _, one := range snaps {
		if len(snaps) > 1 && (one.Group == 0 || one.Group != snaps[0].Group) {
			return nil, nil, model.Errorf(model.Conflict, "the snapshots %q of the disks of %q were not cut at one moment", name, vm.Name)
		}
	}
	return snaps, drop, nil
}

func (s service) cutForExport(ctx context.Context, by model.Actor, vm model.VM) (snaps []model.Snapshot, drop func(), err error) {
	off := func(vm model.VM) error {
		if vm.Power == model.PowerOn || vm.Runs() {
			return model.Errorf(model.Conflict, "the vm %q is on: shut it down, or export a snapshot of it", vm.Name)
		}
		return nil
	}
	if err := off(vm); err != nil {
		return nil, nil, err
	}
	if len(vm.Disks) == 0 {
		return nil, func() {}, nil
	}
	if err := s.roomForNew(ctx); err != nil {
		return nil, nil, err
	}
	name := "export-" + model.NewID[model.TaskID]().String()
	drop = func() { s.dropSnapshots(ctx, by, vm, name) }
	for began := time.Now(); ; {
		if snaps, err = s.n.agent.SnapshotVM(ctx, by, vm.ID, name); err == nil {
			break
		}
		drop() // it may have been done all the same
		if model.CodeOf(err) != model.Unavailable || time.Since(began) > cutPatience {
			return nil, nil, err
		}
		select {
		case <-time.After(cutAgain):
		case <-ctx.Done():
			return nil, nil, err
		}
	}
	view, err := s.n.meta.View(ctx)
	if err == nil {
		var now model.VM
		if now, err = view.VM(vm.ID); err == nil {
			err = off(now) // it was, when they were cut
		}
	}
	if err == nil {
		snaps, err = ofDisks(vm, snaps)
	}
	if err != nil {
		drop()
		return nil, nil, err
	}
	return snaps, drop, nil
}

// ofDisks are those of the snapshots of all volumes of a machine that are of its disks, in
// their order: its NVRAM is cut with them.
func ofDisks(vm model.VM, snaps []model.Snapshot) (list []model.Snapshot, err error) {
	for _, d := range vm.Disks {
		i := slices.IndexFunc(snaps, func(s model.Snapshot) bool { return s.Volume == d.Volume })
		if i < 0 {
			return nil, model.Errorf(model.Conflict, "the disks of the vm %q were changed meanwhile", vm.Name)
		}
		list = append(list, snaps[i])
	}
	return list, nil
}

// A volume that is just being let go cannot be cut; it is tried again, for a while.
const (
	cutPatience = 15 * time.Second
	cutAgain    = 200 * time.Millisecond
)

// dropSnapshots deletes the snapshots of a machine's disks that have a name, also when ctx
// has ended.
func (s service) dropSnapshots(ctx context.Context, by model.Actor, vm model.VM, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cutPatience)
	defer cancel()
	view, err := s.n.meta.View(ctx)
	if err != nil {
		s.n.log.Warn("snapshots of an export were not deleted", "vm", vm.ID, "snapshot", name, "err", err)
		return
	}
	for _, id := range vm.Volumes() {
		for _, one := range view.SnapshotsOf(id) {
			if one.Name == name {
				s.undo(ctx, by, command.SnapshotDelete{Snapshot: one.ID})
			}
		}
	}
}

// describe is a machine as its export has it.
func describe(view *state.View, vm model.VM) bundle.Machine {
	m := bundle.Machine{
		Name: vm.Name, Description: vm.Description, Tags: vm.Tags, CPUs: vm.CPUs, Memory: vm.Memory,
		Priority: vm.Priority, Firmware: vm.Firmware, Boot: vm.Boot, Disks: []bundle.Disk{}, BootOrder: vm.BootOrder,
	}
	for _, c := range vm.CDROMs {
		m.CDROMs = append(m.CDROMs, c.Bus)
	}
	for _, n := range vm.NICs {
		network := ""
		if rec, err := view.Network(n.Network); err == nil {
			network = rec.Name
		}
		m.NICs = append(m.NICs, bundle.NIC{Network: network, Model: n.Model, MAC: n.MAC, Disconnected: n.Disconnected})
	}
	return m
}

// An exporter writes one machine into a folder.
type exporter struct {
	service

	vm       model.VM
	dir      string
	format   schema.ExportFormat
	progress func(phase string, done, total model.Bytes)
}

// write writes the disks and then the description, and returns the names of all in the
// order an archive has them.
func (x exporter) write(ctx context.Context, m bundle.Machine, snaps []model.Snapshot) (files []string, err error) {
	format := "qcow2"
	if x.format == schema.ExportOVA {
		format = "vmdk"
	}
	total, done := model.Bytes(0), model.Bytes(0)
	for _, one := range snaps {
		total += one.Size
	}
	for i, one := range snaps {
		path := filepath.Join(x.dir, fmt.Sprintf("%s-disk%d.%s", x.vm.Name, i+1, format))
		d, err := x.n.agent.ExportImage(ctx, one, format, path, func(share float64) {
			x.progress(schema.PhaseConvert, done+model.Bytes(share*float64(one.Size)), total)
		})
		if err != nil {
			return nil, fmt.Errorf("export disk %d: %w", i+1, err)
		}
		done += one.Size
		d.Bus = x.vm.Disks[i].Bus
		m.Disks = append(m.Disks, d)
		files = append(files, d.File)
	}
	if x.format == schema.ExportOVA {
		return x.writeOVF(m, files)
	}
	text, err := m.Marshal()
	if err != nil {
		return nil, err
	}
	// It comes last: an archive that was cut short has none.
	return append(files, bundle.File), x.file(bundle.File, text)
}

func (x exporter) writeOVF(m bundle.Machine, disks []string) ([]string, error) {
	text, err := m.MarshalOVF()
	if err != nil {
		return nil, err
	}
	ovf, mf := x.vm.Name+".ovf", x.vm.Name+".mf"
	err = errors.Join(x.file(ovf, text), x.file(mf, m.Manifest(ovf, text)))
	return append([]string{ovf, mf}, disks...), err
}

// file makes a small file durable.
func (x exporter) file(name string, text []byte) error {
	f, err := os.OpenFile(filepath.Join(x.dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) //nolint:gosec // in a folder we made
	if err != nil {
		return fmt.Errorf("describe export: %w", err)
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close(), syncDir(x.dir)); err != nil {
		return fmt.Errorf("describe export: %w", err)
	}
	return nil
}

// pack makes one file of all, which it takes away one by one.
func (x exporter) pack(ctx context.Context, files []string) (path string, err error) {
	end := ".tar"
	if x.format == schema.ExportOVA {
		end = ".ova"
	}
	path = filepath.Join(x.dir, x.vm.Name+end)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) //nolint:gosec // in a folder we made
	if err != nil {
		return "", fmt.Errorf("pack export: %w", err)
	}
	err = bundle.Pack(ctx, &packing{to: f, dir: x.dir, progress: x.progress}, x.dir, files)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", fmt.Errorf("pack export: %w", err)
	}
	return path, nil
}

// packing writes while there is room.
type packing struct {
	to       *os.File
	dir      string
	done     model.Bytes
	looked   model.Bytes
	progress func(phase string, done, total model.Bytes)
}

// lookEvery is after how many bytes it is looked how full the file system is.
const lookEvery = 64 << 20

func (p *packing) Write(b []byte) (int, error) {
	if p.done >= p.looked {
		p.looked = p.done + lookEvery
		if room, err := agent.RoomIn(p.dir); err != nil || room < lookEvery {
			return 0, errors.Join(err, model.Errorf(model.NoSpace, "there is no room for the export where it is written"))
		}
		p.progress(schema.PhasePack, p.done, 0)
	}
	n, err := p.to.Write(b)
	p.done += model.Bytes(n)
	return n, err
}

// ImportVM makes a machine of an archive.
func (s service) ImportVM(ctx context.Context, by model.Actor, i api.VMImport, progress func(schema.ImportEvent),
) (vm model.VM, notes []string, err error) {
	m, err := bundle.Open(i.Path)
	if err != nil {
		return vm, nil, err
	}
	m.Name = cmp.Or(i.Name, m.Name)
	view, err := s.n.meta.View(ctx)
	if err != nil {
		return vm, nil, err
	}
	spec, notes, err := specOf(view, m)
	if err != nil {
		return vm, nil, err
	}
	if _, err := view.FindVM(spec.Name); err == nil {
		return vm, nil, model.Errorf(model.Conflict, "there is a vm named %q already; another name can be given", spec.Name)
	}
	if err := s.roomForNew(ctx); err != nil {
		return vm, nil, err
	}
	ctx, work := s.n.agent.Tasks.Begin(ctx, "vm.import", spec.Name)
	defer func() { work.End(err) }()
	var made []model.VolumeID
	defer func() {
		for _, id := range made {
			if err != nil {
				s.undo(ctx, by, command.VolumeDelete{Volume: id})
			}
		}
	}()
	for n, d := range m.Disks {
		vol, err := s.importDisk(ctx, by, i.Path, d, diskName(model.VM{Name: spec.Name, ID: model.NewID[model.VMID]()}, n+1), func(done, total model.Bytes) {
			work.Progress(done, total)
			progress(schema.ImportEvent{Phase: schema.PhaseConvert, Done: done, Total: total})
		})
		if vol != 0 {
			made = append(made, vol)
		}
		if err != nil {
			return vm, nil, fmt.Errorf("import disk %d: %w", n+1, err)
		}
		spec.Disks = append(spec.Disks, api.DiskFrom{Volume: vol, Bus: d.Bus})
	}
	vm, err = s.CreateVM(ctx, by, spec)
	return vm, notes, err
}

// importDisk makes a volume of a disk in an archive; it was made if its identifier is
// returned, also with an error.
func (s service) importDisk(ctx context.Context, by model.Actor, path string, d bundle.Disk, name string,
	progress func(done, total model.Bytes),
) (id model.VolumeID, err error) {
	if d.File == "" {
		vol, err := s.createVolume(ctx, by, name, model.VolumeDisk, d.Size, 2)
		return vol.ID, err
	}
	image, err := s.n.agent.OpenBundled(ctx, path, d)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, image.Close()) }()
	vol, err := s.createVolume(ctx, by, name, model.VolumeDisk, image.Size, 2)
	if err != nil {
		return 0, err
	}
	return vol.ID, s.n.agent.Fill(ctx, vol.ID, image, func(share float64) {
		progress(model.Bytes(share*float64(image.Size)), image.Size)
	})
}

// specOf is a machine as it is made here of what an archive says. A name that cannot be one
// is refused; what else is missing or out of bounds is taken as what is nearest.
func specOf(view *state.View, m bundle.Machine) (spec api.VMSpec, notes []string, err error) {
	const unsaid = model.Bytes(1 << 30)
	spec = api.VMSpec{
		Name: m.Name, CPUs: max(m.CPUs, 1), Memory: cmp.Or(m.Memory, unsaid), Boot: m.Boot, Priority: m.Priority,
		Tags: m.Tags, Description: m.Description, Firmware: m.Firmware,
		BootOrder: m.BootOrder,
	}
	for _, bus := range m.CDROMs {
		spec.CDROMs = append(spec.CDROMs, model.CDROM{Bus: bus})
	}
	for _, n := range m.NICs {
		rec, err := view.FindNetwork(n.Network)
		if err != nil {
			notes = append(notes, fmt.Sprintf("a network card is left out: there is no network %q", n.Network))
			continue
		}
		mac := n.MAC
		taken := func(nics []model.NIC) bool {
			return slices.ContainsFunc(nics, func(o model.NIC) bool { return o.MAC == mac })
		}
		for mac == "" || taken(spec.NICs) || slices.ContainsFunc(view.VMs(), func(vm model.VM) bool { return taken(vm.NICs) }) {
			mac = model.NewMAC()
		}
		if n.MAC != "" && mac != n.MAC {
			notes = append(notes, fmt.Sprintf("a network card has the address %s, since another machine has %s", mac, n.MAC))
		}
		spec.NICs = append(spec.NICs, model.NIC{
			MAC: mac, Model: cmp.Or(n.Model, model.NICVirtio), Network: rec.ID, Disconnected: n.Disconnected,
		})
	}
	if m.Firmware.UEFI() {
		notes = append(notes, "it begins with a new NVRAM: what its firmware remembered is not in the archive")
	}
	draft := model.VM{
		CDROMs:   spec.CDROMs,
		Firmware: m.Firmware,
		Name:     spec.Name, CPUs: spec.CPUs, Memory: spec.Memory, Boot: spec.Boot, Priority: spec.Priority,
		NICs: spec.NICs, Tags: spec.Tags, Description: spec.Description, Disks: make([]model.VMDisk, len(m.Disks)),
	}
	for i, d := range m.Disks {
		draft.Disks[i].Bus = d.Bus
	}
	if err := draft.Validate(); err != nil {
		return spec, nil, fmt.Errorf("the machine in the archive: %w", err)
	}
	return spec, notes, nil
}
