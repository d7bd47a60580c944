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
	garbageRetry = 30 * time.Second // where a holder has not heard of the change yet
)

// collect frees what lies on this node's disks for volumes that were deleted and
// for columns that the disk is no member of any more.
//
// The invariant: nothing is freed that a record names, or that a holder may still read
// because it has not heard of the record that does not. What a disk holds is
// listed first, together with how often it has promised for the volume; then the
// record is read, linearizably; what is freed is what that record does not name,
// and only if the disk has promised nothing since. A disk that becomes a member
// after that reading promises before anything is written to it, and its record
// has cutoff zero, so that losing what it had before costs nothing but time. What a
// clone begins as stays while the record names it as the clone's origin; after that
// the clone's disks know themselves what they still need. The holder is asked after the
// record was read; what it is being told meanwhile by a disk that is no member any more
// it does not use (volume.readFrom). It reports whether something waits for a holder.
func (a *Agent) collect(ctx context.Context) (waits bool, err error) {
	var errs []error
	var usage map[model.NodeID]Usage
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
			return false, err
		}
		for _, h := range held {
			if view.Pinned(h.Volume, d.ID()) {
				continue
			}
			rec, err := view.Volume(h.Volume)
			if err == nil && rec.Holder != 0 && usage == nil {
				usage = a.Usage(ctx)
			}
			switch {
			case view.VolumeDeleted(h.Volume):
				if err = d.DropVolume(ctx, h.Volume); err != nil {
					err = fmt.Errorf("free volume %s on disk %s: %w", h.Volume, d.ID(), err)
				}
			case err != nil: // neither there nor deleted: this node does not understand it, so it stays
				err = fmt.Errorf("look up volume %s on disk %s: %w", h.Volume, d.ID(), err)
			case named(rec, h, d.ID()):
			case !heard(rec, usage):
				waits = true
			default:
				err = freeColumn(ctx, d, h)
			}
			if err != nil {
				errs = append(errs, err)
			}
		}
	}
	return waits, errors.Join(errs...)
}

// named reports whether a record wants a column where it is.
func named(rec model.Volume, h disk.Held, id model.DiskID) bool {
	if int(h.Column) >= len(rec.Columns) {
		return false
	}
	_, member := rec.Columns[h.Column].Member(id)
	return member
}

// heard reports whether a volume's holder, if it has one, knows this record of it.
func heard(rec model.Volume, usage map[model.NodeID]Usage) bool {
	h := usage[rec.Holder].Holds[rec.ID]
	return rec.Holder == 0 || h.Generation == rec.Generation && h.Revision >= rec.Revision
}

// freeColumn drops a column that a disk holds, unless the disk has promised since.
func freeColumn(ctx context.Context, d *disk.Disk, h disk.Held) error {
	err := d.Drop(ctx, h.Volume, h.Column, h.Promises)
	if err != nil && model.CodeOf(err) != model.Conflict {
		return fmt.Errorf("free column %d of volume %s on disk %s: %w", h.Column, h.Volume, d.ID(), err)
	}
	return nil
}

// collecting runs collect when the volumes' records changed, until ctx ends.
func (a *Agent) collecting(ctx context.Context) {
	for {
		view := a.cfg.Meta.Local()
		waits, err := a.collect(ctx)
		if err != nil && ctx.Err() == nil && model.CodeOf(err) != model.Unavailable {
			a.log.Warn("space was not freed", "err", err)
		}
		most := garbageEvery
		if waits {
			most = garbageRetry
		}
		if !a.sleepUntilChange(ctx, view, state.Volumes, garbageSoon, most) {
			return
		}
	}
}
