package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"drystone.example/drystone/backend/block/device"
	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
)

// disks are the disks of this node that are open.
type disks struct {
	mu     sync.Mutex // guards all; nothing blocks under it
	open   map[model.DiskID]*disk.Disk
	path   map[model.DiskID]string
	file   map[model.DiskID]file
	failed map[model.DiskID]bool // while this daemon runs

	families map[model.VolumeID]model.VolumeID // what each disk is told
}

func newDisks() disks {
	return disks{
		open: map[model.DiskID]*disk.Disk{}, path: map[model.DiskID]string{}, file: map[model.DiskID]file{},
		failed: map[model.DiskID]bool{},
	}
}

func (s *disks) get(id model.DiskID) (*disk.Disk, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.open[id]
	return d, ok
}

func (s *disks) all() map[model.DiskID]*disk.Disk {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.open)
}

func (s *disks) put(d *disk.Disk, path string) {
	f := fileAt(path)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[d.ID()], s.path[d.ID()], s.file[d.ID()] = d, path, f
	d.SetFamilies(s.families)
}

// relate tells all disks, and those that come, which volumes are relatives.
func (s *disks) relate(of map[model.VolumeID]model.VolumeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.families = of
	for _, d := range s.open {
		d.SetFamilies(of)
	}
}

func (s *disks) fileOf(id model.DiskID) file {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.file[id]
}

// known lists the disks this node had open since it was started, failed ones too.
func (s *disks) known() []model.DiskID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.path))
}

func (s *disks) pathOf(id model.DiskID) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.path[id]
}

// remove takes a disk out of service; where it is stays known.
func (s *disks) remove(id model.DiskID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, id)
}

// fail is remove for a disk that has failed.
func (s *disks) fail(id model.DiskID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, id)
	s.failed[id] = true
}

// hasFailed reports whether a disk failed since this daemon began.
func (s *disks) hasFailed(id model.DiskID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed[id]
}

// forget is remove for a disk that is no part of the pool.
func (s *disks) forget(id model.DiskID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, id)
	delete(s.path, id)
	delete(s.file, id)
	delete(s.failed, id)
}

// diskOptions are what every disk of this node is opened with.
func (a *Agent) diskOptions() disk.Options {
	return disk.Options{Cluster: a.cfg.Cluster, MapMemory: a.cfg.MapMemory, Logger: a.log}
}

// serveDisk lets holders reach a disk, and watches it for failure.
func (a *Agent) serveDisk(d *disk.Disk, path string) {
	a.disks.put(d, path)
	a.cfg.Server.Add(d.ID(), d)
	a.work.Go(func() {
		select {
		case <-d.Failed():
			a.diskFailed(d)
		case <-a.ctx.Done():
		}
	})
}

// relating tells this node's disks which volumes are relatives, so that they keep once what
// these have in common when it is moved to them or rebuilt.
func (a *Agent) relating(ctx context.Context) {
	for {
		view := a.cfg.Meta.Local()
		a.disks.relate(model.Families(view.Volumes()))
		if !a.sleepUntilChange(ctx, view, state.Volumes, relateSoon, time.Hour) {
			return
		}
	}
}

// relateSoon is how long a disk may not know a new clone: nothing of it is moved before.
const relateSoon = time.Second

// diskFailed takes a disk out of service; its members go stale by their holders.
func (a *Agent) diskFailed(d *disk.Disk) {
	a.log.Error("disk failed and is out of service", "disk", d.ID(), "err", d.Err())
	a.cfg.Server.Remove(d.ID())
	a.disks.fail(d.ID())
	if err := d.Close(); err != nil {
		a.log.Debug("failed disk closed", "disk", d.ID(), "err", err)
	}
	a.reportFailed(d.ID(), Sentence(d.Err()))
}

// reportFailed tells the record of a disk that failed, and goes on trying until it is
// told.
func (a *Agent) reportFailed(id model.DiskID, why string) {
	a.retry("disk was not reported", func(ctx context.Context) error {
		rec, err := a.cfg.Meta.Local().Disk(id)
		if err == nil && (rec.State == model.DiskFailed || rec.Node != a.cfg.Self) {
			return nil
		}
		_, err = a.cfg.Meta.Apply(ctx, model.System, command.DiskUpdate{Disk: id, State: model.DiskFailed, Error: why})
		return err
	})
}

// A NewDisk asks for a file or block device of a node to be made part of the pool.
// With a Size, a file of that size is made first; it has its space at once unless it
// is Sparse. A device that holds anything is taken only if Wipe is set.
type NewDisk struct {
	Path   string      `json:"path"`
	Size   model.Bytes `json:"size"`
	Sparse bool        `json:"sparse,omitempty"`
	Wipe   bool        `json:"wipe,omitempty"`
}

// AddDisk formats a disk of this node and makes it part of the pool. Nothing is left
// behind when it fails, unless the record may name the disk all the same: then the code
// is unavailable, and the disk stays until it is certain that the record does not.
func (a *Agent) AddDisk(ctx context.Context, by model.Actor, n NewDisk) (model.Disk, error) {
	path := n.Path
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return model.Disk{}, model.Errorf(model.Invalid, "the path of a disk is absolute and plain, %q is not", path)
	}
	if device.Is(path) {
		return a.addDevice(ctx, by, n)
	}
	if strings.HasPrefix(path, "/dev/") {
		return model.Disk{}, model.Errorf(model.Invalid, "%s is no block device", path)
	}
	if n.Wipe {
		return model.Disk{}, model.Errorf(model.Invalid, "only a block device can be wiped")
	}
	if known, err := a.knows(ctx, path); err != nil {
		return model.Disk{}, err
	} else if known {
		return model.Disk{}, model.Errorf(model.Conflict, "%s is a disk of the pool already", path)
	}
	made := n.Size > 0
	if n.Sparse && !made {
		return model.Disk{}, model.Errorf(model.Invalid, "only a file to be made can be sparse; say its size")
	}
	if made {
		if _, err := os.Lstat(path); err == nil {
			return model.Disk{}, model.Errorf(model.Conflict, "%s is there already; leave the size out to use it as it is", path)
		}
	}
	_, err := disk.Format(ctx, path, disk.FormatOptions{
		Cluster: a.cfg.Cluster, Size: n.Size, Sparse: n.Sparse,
	})
	if err != nil {
		return model.Disk{}, fmt.Errorf("format disk: %w", err)
	}
	rec, kept, err := a.addFile(ctx, by, path)
	if made && !kept {
		err = errors.Join(err, os.Remove(path), os.RemoveAll(path+".map"))
	}
	return rec, err
}

// addFile opens a disk that was just made in a file and puts it into the record.
func (a *Agent) addFile(ctx context.Context, by model.Actor, path string) (rec model.Disk, kept bool, err error) {
	d, err := disk.Open(ctx, path, a.diskOptions())
	if err != nil {
		return model.Disk{}, false, fmt.Errorf("open disk: %w", err)
	}
	return a.adopt(ctx, by, d, path, false)
}

// adopt puts a disk that was just made into the record, and remembers it with the
// others. It is closed and forgotten, not kept, when that fails.
//
// The invariant: what the record may name is kept. After an answer that is lost it may,
// now or a little later, and others may have written to the disk by then; if it does
// not, forgetDisks lets go of the disk.
func (a *Agent) adopt(ctx context.Context, by model.Actor, d *disk.Disk, path string, onDevice bool,
) (rec model.Disk, kept bool, err error) {
	// Without a lease it would be closed again (closeDisks).
	if err := a.cfg.Meta.Lease().Wait(ctx); err != nil {
		return model.Disk{}, false, errors.Join(err, d.Close())
	}
	if err := a.lockSaving(ctx); err != nil {
		return model.Disk{}, false, errors.Join(err, d.Close())
	}
	defer func() { <-a.saving }()
	paths, devices := a.cfg.Disks, a.cfg.Devices
	if onDevice {
		devices = append(slices.Clone(devices), d.ID())
	} else {
		paths = append(slices.Clone(paths), path)
	}
	if err := a.cfg.SaveDisks(paths, devices); err != nil {
		return model.Disk{}, false, errors.Join(fmt.Errorf("remember disk: %w", err), d.Close())
	}
	// It is served before it is in the record: what the record names is there.
	a.serveDisk(d, path)
	out, err := a.cfg.Meta.Apply(ctx, by, command.DiskAdd{Disk: model.Disk{
		ID: d.ID(), Node: a.cfg.Self, Path: path, Size: d.Usage().Size,
	}})
	switch code := model.CodeOf(err); {
	case err == nil:
	case code == model.Unavailable || code == model.Internal:
		a.cfg.Disks, a.cfg.Devices = paths, devices
		return model.Disk{}, true, model.Errorf(model.Unavailable,
			"nobody has said whether disk %s was added; it may be in the pool in a moment: %w", d.ID(), err)
	default:
		a.cfg.Server.Remove(d.ID())
		a.disks.forget(d.ID())
		return model.Disk{}, false, errors.Join(fmt.Errorf("add disk: %w", err), d.Close(),
			a.cfg.SaveDisks(a.cfg.Disks, a.cfg.Devices))
	}
	a.cfg.Disks, a.cfg.Devices = paths, devices
	return out.(model.Disk), true, nil //nolint:errcheck,forcetypeassert // the command says what it returns
}

// knows reports whether the node was given a disk in a file, open or not.
func (a *Agent) knows(ctx context.Context, path string) (bool, error) {
	if err := a.lockSaving(ctx); err != nil {
		return false, err
	}
	defer func() { <-a.saving }()
	return slices.Contains(a.cfg.Disks, path), nil
}

// lockSaving waits until nobody else changes which disks are the node's. It ends with
// a receive from a.saving.
func (a *Agent) lockSaving(ctx context.Context) error {
	select {
	case a.saving <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("remember disk: %w", ctx.Err())
	}
}
