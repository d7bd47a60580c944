package volume

import (
	"cmp"
	"context"
	"slices"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/layout"
	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
)

const (
	maxRepairs    = 16
	repairTimeout = 30 * time.Second
)

// repair rewrites, in the background, the pages of an extent that were damaged
// on a member's disk. What cannot be repaired now is found again by the next
// read.
func (v *Volume) repair(x layout.Extent, bad *row) {
	last := (x.Start + layout.Block(x.Count) - 1).Page()
	v.mu.Lock()
	defer v.mu.Unlock()
	for page := x.Start.Page(); page <= last; page++ {
		k := pageKey{x.Column, page}
		if v.repairing[k] || len(v.repairing) >= maxRepairs || v.err != nil || v.closing {
			continue
		}
		v.repairing[k] = true
		v.work.Go(func() {
			ctx, cancel := context.WithTimeout(v.ctx, repairTimeout)
			defer cancel()
			n, err := v.repairPage(ctx, k, bad)
			if err != nil && v.ctx.Err() == nil {
				v.tellUnrepaired.Do(func() {
					v.log.Warn("damaged page not repaired", "volume", v.id, "column", k.column, "page", k.page, "disk", bad.id, "err", err)
				})
			} else if n > 0 {
				v.log.Info("damaged page repaired", "volume", v.id, "column", k.column, "page", k.page, "disk", bad.id)
			}
			v.mu.Lock()
			delete(v.repairing, k)
			v.mu.Unlock()
		})
	}
}

// Repair rewrites what is damaged of one page on one disk, in the background of the
// requests, and returns how many versions it rewrote; each comes from another active
// member that has the same version, or is put together of all of them. It fails with
// model.Corrupt if there is a version that no member has whole any more: that stays
// as it is, and reads of it fail. It fails with model.Conflict if the disk is no
// active member of the column.
func (v *Volume) Repair(ctx context.Context, column int, page uint32, id model.DiskID) (int, error) {
	if err := v.leased(ctx); err != nil {
		return 0, err
	}
	type result struct {
		repaired int
		err      error
	}
	done := make(chan result, 1)
	v.mu.Lock()
	err := v.err
	if err == nil && v.closing {
		err = errClosed
	}
	if column < 0 || column >= len(v.columns) { // of pages, a snapshot may have more than the volume
		err = model.Errorf(model.Invalid, "volume %s has no column %d", v.id, column)
	}
	var bad *row
	if err == nil {
		if m := v.columns[column].member(id); m == nil || m.state != model.Active || m.row == nil {
			err = model.Errorf(model.Conflict, "disk %s is no active member of column %d", id, column)
		} else {
			bad = m.row
			v.work.Go(func() {
				ctx, cancel := context.WithTimeout(v.ctx, repairTimeout)
				defer cancel()
				n, err := v.repairPage(ctx, pageKey{column, page}, bad)
				done <- result{n, err}
			})
		}
	}
	v.mu.Unlock()
	if err != nil {
		return 0, err
	}
	select {
	case r := <-done:
		return r.repaired, r.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// repairPage reads each version of the page on the bad disk and replaces those
// that are damaged by the same version of another active member. The page is
// locked, so that all members agree on what it is.
func (v *Volume) repairPage(ctx context.Context, k pageKey, bad *row) (repaired int, err error) {
	s := v.pageSpan(k.column, k.page)
	if !v.plant.repairUnlocked {
		if err := v.spans.acquire(ctx, &s); err != nil {
			return 0, err
		}
		defer v.spans.release(&s)
	}
	var sources []*row
	member := false
	for _, r := range v.activeRows(k.column) {
		if member = member || r == bad; r != bad {
			sources = append(sources, r)
		}
	}
	switch {
	case !member:
		return 0, nil
	case len(sources) == 0:
		return 0, model.Errorf(model.Unavailable, "no other disk has column %d now", k.column)
	}
	mine, err := v.listPage(ctx, bad, k.column, k.page)
	if err != nil {
		return 0, err
	}
	theirs, err := v.listFirst(ctx, sources, k.column, k.page)
	if err != nil {
		return 0, err
	}
	var lost error
	for _, e := range epochs(mine, nil) {
		if mine[e].Mask == 0 {
			continue
		}
		done, err := v.repairVersion(ctx, k, mine[e], theirs[e], sources, bad)
		switch {
		case model.CodeOf(err) == model.Corrupt: // others may be saved
			v.stats.lost.Add(1)
			lost = err
		case err != nil:
			return repaired, err
		case done:
			repaired++
			v.stats.repaired.Add(1)
		}
	}
	return repaired, lost
}

// repairVersion replaces one version, if it is damaged. The page is locked.
func (v *Volume) repairVersion(ctx context.Context, k pageKey, mine, theirs disk.Version,
	sources []*row, bad *row,
) (done bool, err error) {
	all := append(slices.Clone(sources), bad)
	if mine.Stamp == theirs.Stamp && mine != theirs {
		return false, v.diverged(k, mine.Epoch, all)
	}
	buf := iobuf.Get(int(model.PageSize))
	defer buf.Release()
	err = v.fetchFrom(ctx, bad, k.column, mine, buf.Bytes)
	switch {
	case err == nil:
		return false, nil
	case model.CodeOf(err) != model.Corrupt:
		return false, err
	case mine != theirs:
		return false, model.Errorf(model.Corrupt, "no other disk has that version of the page: %w", err)
	}
	switch err := v.copyVersion(ctx, k.column, theirs, all, []*row{bad}); {
	case model.CodeOf(err) == model.Corrupt:
		return false, cmp.Or(v.salvage(ctx, k.column, theirs, all, bad), err)
	case err != nil:
		return false, err
	}
	return true, nil
}

// salvage repairs what can be of a version that has lost blocks: else those that are
// damaged on this member alone would be lost with the others. all are the active
// members. The page is locked.
func (v *Volume) salvage(ctx context.Context, c int, want disk.Version, all []*row, bad *row) error {
	buf := iobuf.Get(blockSize)
	defer buf.Release()
	for i := range want.Sums {
		if want.Mask>>i&1 == 0 {
			continue
		}
		own := v.readBlock(ctx, c, want, i, []*row{bad}, buf.Bytes)
		if model.CodeOf(own) == model.Corrupt && v.readBlock(ctx, c, want, i, all, buf.Bytes) == nil {
			return v.copyLost(ctx, c, want, all, bad)
		}
	}
	return nil
}
