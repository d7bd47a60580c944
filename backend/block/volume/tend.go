package volume

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/layout"
	"drystone.example/drystone/backend/model"
)

// What the record says a holder has to do for a volume's snapshots is done here, in
// the background: reverting, then freeing what deleted snapshots have left. The
// record says so until it is done, so a new holder finds it and starts over: what
// was done is recognised by what the members hold.

const (
	tendWorkers = 4
	tendRetry   = 5 * time.Second
	// trimRest is how long a trim rests until it looks whether writes have left
	// something to free, and trimHurry how long where a disk has refused something
	// for want of room since it last did.
	trimRest  = 30 * time.Minute
	trimHurry = 30 * time.Second
)

// tend does what the record says until the volume ends.
func (v *Volume) tend(ctx context.Context) {
	for ctx.Err() == nil {
		wait := v.tendOnce(ctx)
		var timer <-chan time.Time
		if wait > 0 {
			timer = time.After(wait)
		}
		select {
		case <-ctx.Done():
		case <-v.tender:
		case <-timer:
		}
	}
}

// tendOnce does what there is to do now and returns when to look again; zero means
// not before it is poked.
func (v *Volume) tendOnce(ctx context.Context) (wait time.Duration) {
	for ctx.Err() == nil {
		v.mu.Lock()
		rec, idle := v.rec, v.closing || v.err != nil
		v.mu.Unlock()
		var err error
		switch {
		case idle:
			return 0
		case rec.Revert.Due():
			err = v.revert(ctx, rec.Revert)
		case rec.Trim.Due(), rec.Trim.Rests && v.trimAgain(time.Now()):
			err = v.trim(ctx)
		default:
			v.tendingIs(func(t *Tending) { *t = Tending{} })
			switch {
			case !rec.Trim.Rests:
				return 0
			case v.cramped(time.Now()):
				return trimHurry
			}
			return trimRest
		}
		if err != nil {
			if ctx.Err() == nil {
				v.notTended(rec, err)
			}
			return tendRetry
		}
	}
	return 0
}

// notTended keeps why something waits, and logs it when it was not the same before.
func (v *Volume) notTended(rec model.Volume, err error) {
	news := false
	v.tendingIs(func(t *Tending) { news, t.Error = t.Error != err.Error(), err.Error() })
	if news {
		v.log.Info("snapshots not tended", "volume", v.id, "reverts", rec.Revert.Due(), "err", err)
	}
}

func (v *Volume) tendingIs(f func(*Tending)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f(&v.tending)
}

// tended tells the record what was done. A Conflict is news of what else there is
// to do.
func (v *Volume) tended(ctx context.Context, done model.Tended) error {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	rec, err := v.cfg.Record.Tended(ctx, v.id, v.gen, done)
	code := model.CodeOf(err)
	v.mu.Lock()
	defer v.unlock()
	switch {
	case err == nil || code == model.Conflict && rec.ID == v.id:
		if v.err == nil {
			v.adopt(rec)
		}
		return nil
	case code == model.Fenced || code == model.NotFound:
		v.end(err)
	}
	return err
}

// eachPage calls do for each page of which a member's versions, oldest first, are
// such that there is something to do: column after column, for several pages at a
// time, until goOn says no. Until do has locked the page that may have changed.
func (v *Volume) eachPage(ctx context.Context, goOn func() bool, todo func(have []disk.Version) bool,
	do func(ctx context.Context, c int, page uint32) error,
) (whole bool, err error) {
	total := model.Bytes(layout.Pages(len(v.columns), v.known().Size)) * model.PageSize
	v.tendingIs(func(t *Tending) { t.Total = total * model.Bytes(len(v.columns)) })
	for c := range v.columns {
		for from, done := uint32(0), false; !done; {
			if !goOn() {
				return false, ctx.Err()
			}
			began := time.Now()
			l, err := v.listAny(ctx, c, disk.List{Column: uint32(c), From: from, Max: listMax})
			if err != nil {
				return false, err
			}
			if err := v.pace(ctx, &v.tendNext, v.cfg.TrimRate, 0, time.Since(began)); err != nil {
				return false, err
			}
			group, ctx := errgroup.WithContext(ctx)
			group.SetLimit(tendWorkers)
			for _, have := range byPage(l.Versions) {
				if todo(have) {
					group.Go(func() error { return do(ctx, c, have[0].Page) })
				}
			}
			if err := group.Wait(); err != nil {
				return false, err
			}
			done = l.Done || l.Next <= from
			from = l.Next
			at := total
			if !done {
				at = min(total, model.Bytes(from)*model.PageSize)
			}
			v.tendingIs(func(t *Tending) { t.Done = total*model.Bytes(c) + at })
		}
	}
	return true, ctx.Err()
}

// byPage cuts versions in order of (page, epoch) into those of each page.
func byPage(all []disk.Version) (out [][]disk.Version) {
	for i, k := 0, 0; i < len(all); i = k {
		for k < len(all) && all[k].Page == all[i].Page {
			k++
		}
		out = append(out, all[i:k])
	}
	return out
}

// versions lists a page's versions on an active member, oldest first.
func (v *Volume) versions(ctx context.Context, c int, page uint32) ([]disk.Version, error) {
	byEpoch, err := v.listFirst(ctx, v.activeRows(c), c, page)
	if err != nil {
		return nil, err
	}
	have := make([]disk.Version, 0, len(byEpoch))
	for _, e := range epochs(byEpoch, nil) {
		have = append(have, byEpoch[e])
	}
	return have, nil
}

// pageAt is where a page of a column lies in the volume.
func (v *Volume) pageAt(c int, page uint32) int64 {
	return int64(layout.Offset(len(v.columns), c, layout.FirstBlock(page)))
}

// pageSpan is the lock of one page of a column, for the holder's own work.
func (v *Volume) pageSpan(c int, page uint32) span {
	lo := v.pageAt(c, page)
	return span{lo: lo, hi: lo + int64(model.PageSize), exclusive: true, use: inner}
}
