package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
)

// disks are the disks of this node that are open.
type disks struct {
	mu   sync.Mutex // guards both; nothing blocks under it
	open map[model.DiskID]*disk.Disk
	path map[model.DiskID]string
}

func newDisks() disks {
	return disks{open: map[model.DiskID]*disk.Disk{}, path: map[model.DiskID]string{}}
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
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[d.ID()], s.path[d.ID()] = d, path
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

// forget is remove for a disk that is no part of the pool.
func (s *disks) forget(id model.DiskID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, id)
	delete(s.path, id)
}

// openDisks opens the disks the node was given. One that cannot be opened is
// left out and reported; the others serve.
func (a *Agent) openDisks(ctx context.Context) {
	var wait sync.WaitGroup
	for _, path := range a.cfg.Disks {
		wait.Go(func() {
			d, err := disk.Open(ctx, path, disk.Options{Cluster: a.cfg.Cluster, Logger: a.log})
			if err != nil {
				a.log.Error("disk was not opened", "path", path, "err", err)
				return
			}
			a.serveDisk(d, path)
		})
	}
	wait.Wait()
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

// diskFailed takes a disk out of service; its members go stale by their holders.
func (a *Agent) diskFailed(d *disk.Disk) {
	a.log.Error("disk failed and is out of service", "disk", d.ID(), "err", d.Err())
	a.cfg.Server.Remove(d.ID())
	a.disks.remove(d.ID())
	if err := d.Close(); err != nil {
		a.log.Debug("failed disk closed", "disk", d.ID(), "err", err)
	}
	a.report(d.ID(), command.DiskUpdate{
		Disk: d.ID(), State: model.DiskFailed, Error: Sentence(d.Err()),
	})
}

// report tells the record about a disk, and goes on trying until it is told.
func (a *Agent) report(id model.DiskID, cmd command.DiskUpdate) {
	a.retry("disk was not reported", func(ctx context.Context) error {
		rec, err := a.cfg.Meta.Local().Disk(id)
		if err == nil && rec.State == cmd.State && (cmd.Path == "" || rec.Path == cmd.Path) {
			return nil
		}
		_, err = a.cfg.Meta.Apply(ctx, model.System, cmd)
		return err
	})
}

// reporting makes the record say what this node found at its start, whenever the
// record of the disks changes.
func (a *Agent) reporting(ctx context.Context) {
	for {
		view := a.cfg.Meta.Local()
		for _, rec := range view.Disks() {
			if rec.Node == a.cfg.Self && rec.State != model.DiskFailed {
				a.reportDisk(rec)
			}
		}
		if !a.sleepUntilChange(ctx, view, state.Disks, 0, time.Hour) {
			return
		}
	}
}

func (a *Agent) reportDisk(rec model.Disk) {
	d, open := a.disks.get(rec.ID)
	switch {
	case open && rec.State != model.DiskOnline:
		a.report(rec.ID, command.DiskUpdate{
			Disk: rec.ID, State: model.DiskOnline, Path: a.disks.pathOf(rec.ID), Size: d.Usage().Size,
		})
	case !open && rec.State == model.DiskOnline:
		a.report(rec.ID, command.DiskUpdate{
			Disk: rec.ID, State: model.DiskOffline, Error: "the disk was not found, or could not be opened",
		})
	}
}

// A NewDisk asks for a file or block device of a node to be made part of the pool.
// With a Size, a file of that size is made first; it has its space at once unless it
// is Sparse.
type NewDisk struct {
	Path   string      `json:"path"`
	Size   model.Bytes `json:"size"`
	Sparse bool        `json:"sparse,omitempty"`
}

// AddDisk formats a disk of this node and makes it part of the pool. Nothing is left
// behind when it fails.
func (a *Agent) AddDisk(ctx context.Context, by model.Actor, n NewDisk) (model.Disk, error) {
	path := n.Path
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return model.Disk{}, model.Errorf(model.Invalid, "the path of a disk is absolute and plain, %q is not", path)
	}
	if slices.Contains(a.diskPaths(), path) {
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
	id, err := disk.Format(ctx, path, disk.FormatOptions{
		Cluster: a.cfg.Cluster, Size: n.Size, Sparse: n.Sparse,
	})
	if err != nil {
		return model.Disk{}, fmt.Errorf("format disk: %w", err)
	}
	rec, err := a.adopt(ctx, by, id, path)
	if err != nil && made {
		err = errors.Join(err, os.Remove(path), os.RemoveAll(path+".map"))
	}
	return rec, err
}

// adopt opens a disk that was just formatted and puts it into the record.
func (a *Agent) adopt(ctx context.Context, by model.Actor, id model.DiskID, path string) (model.Disk, error) {
	d, err := disk.Open(ctx, path, disk.Options{Cluster: a.cfg.Cluster, Logger: a.log})
	if err != nil {
		return model.Disk{}, fmt.Errorf("open disk: %w", err)
	}
	before := a.diskPaths()
	if err := a.cfg.SaveDisks(append(before, path)); err != nil {
		return model.Disk{}, errors.Join(fmt.Errorf("remember disk: %w", err), d.Close())
	}
	// It is served before it is in the record: what the record names is there.
	a.serveDisk(d, path)
	out, err := a.cfg.Meta.Apply(ctx, by, command.DiskAdd{Disk: model.Disk{
		ID: id, Node: a.cfg.Self, Path: path, Size: d.Usage().Size,
	}})
	if err != nil {
		a.cfg.Server.Remove(id)
		a.disks.forget(id)
		return model.Disk{}, errors.Join(fmt.Errorf("add disk: %w", err), d.Close(), a.cfg.SaveDisks(before))
	}
	return out.(model.Disk), nil //nolint:errcheck,forcetypeassert // the command says what it returns
}

// diskPaths lists where this node's disks are.
func (a *Agent) diskPaths() []string {
	a.disks.mu.Lock()
	defer a.disks.mu.Unlock()
	paths := slices.Clone(a.cfg.Disks)
	for _, p := range a.disks.path {
		if !slices.Contains(paths, p) {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	return paths
}
