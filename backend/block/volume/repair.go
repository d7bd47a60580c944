package volume

import (
	"context"
	"time"

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
				v.log.Warn("damaged page not repaired", "volume", v.id, "column", k.column, "page", k.page, "disk", bad.id, "err", err)
			} else if n > 0 {
				v.log.Info("damaged page repaired", "volume", v.id, "column", k.column, "page", k.page, "disk", bad.id)
			}
			v.mu.Lock()
			delete(v.repairing, k)
			v.mu.Unlock()
		})
	}
}

// repairPage reads each version of the page on the bad disk and replaces those
// that are damaged by the same version of another active member. The page is
// locked, so that all members agree on what it is.
func (v *Volume) repairPage(ctx context.Context, k pageKey, bad *row) (repaired int, err error) {
	lo := int64(layout.Offset(len(v.columns), k.column, layout.FirstBlock(k.page)))
	s := span{lo: lo, hi: lo + int64(model.PageSize), exclusive: true}
	if err := v.spans.acquire(ctx, &s); err != nil {
		return 0, err
	}
	defer v.spans.release(&s)
	var sources []*row
	member := false
	for _, r := range v.activeRows(k.column) {
		if member = member || r == bad; r != bad {
			sources = append(sources, r)
		}
	}
	if !member || len(sources) == 0 {
		return 0, nil
	}
	mine, err := v.listPage(ctx, bad, k.column, k.page)
	if err != nil {
		return 0, err
	}
	theirs, err := v.listFirst(ctx, sources, k.column, k.page)
	if err != nil {
		return 0, err
	}
	buf := iobuf.Get(int(model.PageSize))
	defer buf.Release()
	for _, e := range epochs(mine, nil) {
		if mine[e].Mask == 0 {
			continue
		}
		if mine[e].Stamp == theirs[e].Stamp && mine[e] != theirs[e] {
			return repaired, v.diverged(k, e, append(sources, bad))
		}
		err := v.fetchFrom(ctx, bad, k.column, mine[e], buf.Bytes)
		switch {
		case err == nil:
			continue
		case model.CodeOf(err) != model.Corrupt:
			return repaired, err
		case mine[e] != theirs[e]:
			return repaired, model.Errorf(model.Corrupt, "no other disk has that version of the page: %w", err)
		}
		if err := v.copyVersion(ctx, k.column, theirs[e], sources, []*row{bad}); err != nil {
			return repaired, err
		}
		repaired++
		v.stats.repaired.Add(1)
	}
	return repaired, nil
}
