package volume

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/model"
)

// Freeing what deleted snapshots have left.
//
// Invariant: a version (page, epoch e) is removed only if no kept epoch sees it.
// Kept are the epochs of model.Volume.KeptEpochs; one sees the newest version at or
// below it. Whether it does is judged under the page's lock, by what all active
// members hold then, and only of versions at or below the present epoch of the very
// record that says what is kept: so a record that is old is safe to judge by.
//
// Every active member, and every joining one that has reached the page, loses the
// version by one message in its row. Others keep what they have: filling takes away
// what its source has not (differs). What a takeover finds half removed it puts back, and the trim of the new
// holder, which starts over, removes again.

// A trimView is what is kept, and what a pass over the volume has found.
type trimView struct {
	kept    []model.Epoch // the present one is the last
	held    atomic.Bool   // a page was passed by: a write to it waits for room
	lingers atomic.Int64  // pages with a version only the present epoch sees
}

// seen reports for each of a page's versions, oldest first, whether it stays.
func (t *trimView) seen(have []disk.Version) []bool {
	out := make([]bool, len(have))
	present := t.kept[len(t.kept)-1]
	for i, h := range have {
		out[i] = h.Epoch > present // the record is too old to tell
		for _, k := range t.kept {
			below := i+1 == len(have) || k < have[i+1].Epoch
			out[i] = out[i] || h.Epoch <= k && below
		}
	}
	return out
}

// lingering reports whether only the present epoch sees the newest version of a
// page, which is of an older one: the next write to the page makes it superfluous.
func (t *trimView) lingering(have []disk.Version) bool {
	present, newest := t.kept[len(t.kept)-1], have[len(have)-1]
	snapshots := t.kept[:len(t.kept)-1]
	return newest.Epoch < present && !slices.ContainsFunc(snapshots, func(k model.Epoch) bool { return k >= newest.Epoch })
}

// trim makes one pass over the volume, and says in the record what that came to.
func (v *Volume) trim(ctx context.Context) error {
	rec, kept, err := v.cfg.Record.Kept(ctx, v.id)
	if err != nil {
		return err
	}
	t := &trimView{kept: kept}
	if v.plant.trimSeen {
		t.kept = kept[len(kept)-1:]
	}
	v.mu.Lock()
	if v.err != nil || !v.adopt(rec) {
		err = v.err
	}
	if err == nil && !v.plant.trimSeen { // readers of deleted snapshots end before anything goes
		v.kept = kept
	}
	v.tending = Tending{}
	v.trimmedAt, v.trimNext = v.overwrites(), time.Now().Add(trimRest)
	v.unlock()
	if err != nil || rec.Trim.Since == 0 || rec.Revert.Due() {
		return err
	}
	goOn := func() bool { return v.known().Trim.Since == rec.Trim.Since }
	todo := func(have []disk.Version) bool {
		free := slices.Contains(t.seen(have), false)
		if !free {
			t.count(have)
		}
		return free
	}
	whole, err := v.eachPage(ctx, goOn, todo, func(ctx context.Context, c int, page uint32) error {
		return v.trimPage(ctx, t, c, page)
	})
	switch {
	case err != nil || !whole:
		return err
	case t.held.Load():
		return model.Errorf(model.Unavailable,
			"the rest of what deleted snapshots of volume %s have left is freed when no write to it waits for room", v.id)
	case t.lingers.Load() == 0:
		return v.tended(ctx, model.Tended{Trimmed: rec.Trim.Since})
	case rec.Trim.Rests:
		return nil
	}
	return v.tended(ctx, model.Tended{Rests: rec.Trim.Since})
}

// overwrites counts what may have made versions superfluous.
func (v *Volume) overwrites() uint64 { return v.stats.writes.ops.Load() + v.stats.discards.ops.Load() }

// trimAgain reports whether a trim that rests shall look again: what a holder
// before this one has written since is not known. Where a disk is
// full it looks sooner: what was overwritten may be what takes the room.
func (v *Volume) trimAgain(now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	next := v.trimNext
	if v.refusedLately(now) {
		next = next.Add(trimHurry - trimRest)
	}
	return v.trimNext.IsZero() || !now.Before(next) && v.overwrites() != v.trimmedAt
}

// count notes what of a page is left, oldest first.
func (t *trimView) count(left []disk.Version) {
	if t.lingering(left) {
		t.lingers.Add(1)
	}
}

// trimPage removes from all members what no kept epoch sees of a page.
func (v *Volume) trimPage(ctx context.Context, t *trimView, c int, page uint32) error {
	began := time.Now()
	j := v.newJob()
	j.span = v.pageSpan(c, page)
	if err := v.spans.acquire(ctx, &j.span); err != nil {
		j.drop()
		if errors.Is(err, errLent) {
			t.held.Store(true)
			return nil
		}
		return err
	}
	freed, err := v.removals(ctx, t, j, c, page)
	if err == nil && len(j.parts) > 0 {
		err = v.start(j)
	}
	if err != nil || len(j.parts) == 0 {
		v.spans.release(&j.span)
		j.drop()
		return err
	}
	if err := v.wait(ctx, j); err != nil { // the page stays locked until it ends
		return err
	}
	v.stats.trimmed.Add(int64(freed))
	return v.pace(ctx, &v.tendNext, v.cfg.TrimRate, freed, time.Since(began))
}

// removals makes the parts that take away what no kept epoch sees; the page is
// locked. A tombstone that is left alone may go as well, when all have it.
func (v *Volume) removals(ctx context.Context, t *trimView, j *job, c int, page uint32) (freed model.Bytes, err error) {
	have, err := v.versions(ctx, c, page)
	if err != nil {
		return 0, err
	}
	var left []disk.Version
	for i, stays := range t.seen(have) {
		if stays {
			left = append(left, have[i])
			continue
		}
		j.parts = append(j.parts, part{
			kind: disk.Remove, column: c, page: page,
			version: disk.Version{Page: page, Epoch: have[i].Epoch},
		})
		if have[i].Mask != 0 {
			freed += model.PageSize
		}
	}
	if len(left) > 0 {
		t.count(left)
	}
	if len(left) == 1 && left[0].Mask == 0 {
		v.noteTomb(tomb{column: c, from: page, to: page + 1})
	}
	return freed, nil
}

// keeps says that an epoch is not kept any more, or nil. What was read as of it
// before the answer is good.
func (v *Volume) keeps(e model.Epoch) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if n := len(v.kept); n == 0 || e >= v.kept[n-1] || slices.Contains(v.kept, e) {
		return nil
	}
	return model.Errorf(model.NotFound, "the snapshot of epoch %d of volume %s was deleted", e, v.id)
}
