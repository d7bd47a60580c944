package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
)

// How often a node looks for what no record names any more: soon after the record
// changed, and once an hour in case something was missed.
const (
	garbageSoon  = 5 * time.Second
	garbageEvery = time.Hour
)

// collect frees what lies on this node's disks for volumes that were deleted and
// for columns that the disk is no member of any more.
//
// The invariant: nothing is freed that a record names. What a disk holds is
// listed first, together with how often it has promised for the volume; then the
// record is read, linearizably; what is freed is what that record does not name,
// and only if the disk has promised nothing since. A disk that becomes a member
// after that reading promises before anything is written to it, and its record
// has cutoff zero, so that losing what it had before costs nothing but time. What a
// clone begins as stays while the record names it as the clone's origin; after that
// the clone's disks know themselves what they still need.
func (a *Agent) collect(ctx context.Context) error {
	var errs []error
	for _, d := range a.disks.all() {
		held, err := d.Held(ctx)
		if err != nil {
			errs = append(errs, fmt.Errorf("list what disk %s holds: %w", d.ID(), err))
			continue
		}
		if len(held) == 0 {
			continue
		}
		view, err := a.cfg.Meta.View(ctx)
		if err != nil {
			return err
		}
		for _, h := range held {
			if view.Pinned(h.Volume, d.ID()) {
				continue
			}
			if err := free(ctx, d, h, view.Volume, view.VolumeDeleted); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// free drops one column that a disk holds, or all of a deleted volume, unless
// the record wants it there.
func free(ctx context.Context, d *disk.Disk, h disk.Held,
	record func(model.VolumeID) (model.Volume, error), deleted func(model.VolumeID) bool,
) error {
	if deleted(h.Volume) {
		if err := d.DropVolume(ctx, h.Volume); err != nil {
			return fmt.Errorf("free volume %s on disk %s: %w", h.Volume, d.ID(), err)
		}
		return nil
	}
	rec, err := record(h.Volume)
	if err != nil {
		// Neither there nor deleted: this node does not understand it, so it stays.
		return fmt.Errorf("look up volume %s on disk %s: %w", h.Volume, d.ID(), err)
	}
	if int(h.Column) < len(rec.Columns) {
		if _, member := rec.Columns[h.Column].Member(d.ID()); member {
			return nil
		}
	}
	err = d.Drop(ctx, h.Volume, h.Column, h.Promises)
	if err != nil && model.CodeOf(err) != model.Conflict {
		return fmt.Errorf("free column %d of volume %s on disk %s: %w", h.Column, h.Volume, d.ID(), err)
	}
	return nil
}

// collecting runs collect when the volumes' records changed, until ctx ends.
func (a *Agent) collecting(ctx context.Context) {
	for {
		view := a.cfg.Meta.Local()
		if err := a.collect(ctx); err != nil && ctx.Err() == nil && model.CodeOf(err) != model.Unavailable {
			a.log.Warn("space was not freed", "err", err)
		}
		if !a.sleepUntilChange(ctx, view, state.Volumes, garbageSoon, garbageEvery) {
			return
		}
	}
}
