package agent

import (
	"context"
	"fmt"
	"slices"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
)

// forgetDisks lets go of the disks of this node that were taken out of the pool, and
// of those that are another's now. What is on them stays as it is.
//
// The invariant: a disk is let go only after a linearizable reading of the record
// that does not give it to this node, with no disk being added meanwhile. One that is
// being added is remembered and served before it is in the record.
func (a *Agent) forgetDisks(ctx context.Context) error {
	left := func(view *state.View) func(model.DiskID) bool {
		return func(id model.DiskID) bool {
			rec, err := view.Disk(id)
			return model.CodeOf(err) == model.NotFound || err == nil && rec.Node != a.cfg.Self
		}
	}
	if !slices.ContainsFunc(a.disks.known(), left(a.cfg.Meta.Local())) {
		return nil
	}
	if err := a.lockSaving(ctx); err != nil {
		return err
	}
	defer func() { <-a.saving }()
	view, err := a.cfg.Meta.View(ctx)
	if err != nil {
		return err
	}
	for _, id := range a.disks.known() {
		if !left(view)(id) {
			continue
		}
		if err := a.forgetDisk(id); err != nil {
			return fmt.Errorf("let disk %s go: %w", id, err)
		}
	}
	return nil
}

// forgetDisk closes a disk and forgets where it is; a.saving is held.
func (a *Agent) forgetDisk(id model.DiskID) error {
	path := a.disks.pathOf(id)
	paths := slices.DeleteFunc(slices.Clone(a.cfg.Disks), func(p string) bool { return p == path })
	devices := slices.DeleteFunc(slices.Clone(a.cfg.Devices), func(d model.DiskID) bool { return d == id })
	if err := a.cfg.SaveDisks(paths, devices); err != nil {
		return fmt.Errorf("remember disks: %w", err)
	}
	a.cfg.Disks, a.cfg.Devices = paths, devices
	d, open := a.disks.get(id)
	a.disks.forget(id)
	a.log.Info("disk has left this node", "disk", id, "path", path)
	if !open {
		return nil
	}
	return a.shutDisk(d)
}

// shutDisk takes a disk from those who reach it and closes it.
func (a *Agent) shutDisk(d *disk.Disk) error {
	a.cfg.Server.Remove(d.ID())
	if err := d.Close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}
