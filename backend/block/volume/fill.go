package volume

import (
	"context"
	"math"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/layout"
	"drystone.example/drystone/backend/model"
)

const (
	fillWorkers = 8
	fillRetry   = time.Second
	listMax     = 2048
	barrierPoll = 10 * time.Millisecond
	careful     = 5 * time.Second // how often to look again for something to fill
	// gatherTime is how long a filled member waits for others, to become active with
	// them by one commit: one that has little to be filled with takes milliseconds.
	gatherTime = 250 * time.Millisecond
)

// A fill is how far a joining member has come. Its fields are guarded by
// Volume.mu.
//
// Invariant: a page that was reached is equal to that of the active members, and gets
// every write. What is written to another one is not sent, for it will be copied: the
// walk passes a page only if it was made equal with no write to it in flight, or was
// found equal after all that was not sent before had ended, with nothing written since.
type fill struct {
	column   int
	member   *member
	barrier  uint64                // numbers up to it were perhaps not sent to the member
	missed   uint32                // the lowest page of which a later one was not sent
	cursor   uint32                // pages below it were reached by the walk
	ahead    map[uint32]*[4]uint64 // pages reached otherwise, 256 to an entry
	finished bool
	began    time.Time
	retryAt  time.Time
}

func (f *fill) has(page uint32) bool {
	if f.finished || page < f.cursor {
		return true
	}
	w := f.ahead[page/256]
	return w != nil && w[page%256/64]>>(page%64)&1 != 0
}

func (f *fill) add(page uint32) {
	if f.has(page) {
		return
	}
	if f.ahead == nil {
		f.ahead = map[uint32]*[4]uint64{}
	}
	w := f.ahead[page/256]
	if w == nil {
		w = new([4]uint64)
		f.ahead[page/256] = w
	}
	w[page%256/64] |= 1 << (page % 64)
}

// moveTo says that the walk has reached every page below to.
func (f *fill) moveTo(to uint32) {
	f.cursor = max(f.cursor, to)
	for k := range f.ahead {
		if (k+1)*256 <= f.cursor {
			delete(f.ahead, k)
		}
	}
}

// takes reports whether the member is sent a part: if its pages were reached, which all
// of them were, or none (split). If not, the walk has to know. Of what is sent again
// some may have been reached since; the others are filled beside it, as ever.
func (f *fill) takes(p *part) bool {
	from, end := p.pages()
	for page := from; page < end; page++ {
		if f.has(page) {
			return true
		}
	}
	if from == end {
		return true
	}
	f.missed = min(f.missed, from)
	return false
}

// noPage is above every page.
const noPage = math.MaxUint32

// pages are the pages [from, end) that a part touches.
func (p *part) pages() (from, end uint32) {
	switch {
	case p.kind == disk.Copy || p.kind == disk.Remove:
		return p.page, p.page + 1
	case p.count == 0:
		return 0, 0
	}
	return p.block.Page(), (p.block + layout.Block(p.count) - 1).Page() + 1
}

// fillAll fills joining members, one column at a time.
func (v *Volume) fillAll(ctx context.Context) {
	for ctx.Err() == nil {
		f, wait := v.nextFill(time.Now())
		if f == nil {
			v.filledAll()
			v.forgetTombs(ctx)
			var timer <-chan time.Time
			if wait > 0 {
				timer = time.After(wait)
			}
			select {
			case <-ctx.Done():
			case <-v.filler:
			case <-timer:
			}
			continue
		}
		if err := v.walk(ctx, f); err != nil && ctx.Err() == nil {
			v.log.Info("filling interrupted", "volume", v.id, "column", f.column, "disk", f.member.disk, "err", err)
			v.mu.Lock()
			f.retryAt = time.Now().Add(fillRetry)
			v.mu.Unlock()
		}
	}
}

// filledAll proposes what was filled, for nothing more will be soon.
func (v *Volume) filledAll() {
	v.mu.Lock()
	v.change = v.change || !v.filledBy.IsZero()
	v.unlock()
}

// nextFill picks the member to fill: of the column with the fewest active ones,
// one that comes back before one that is new. If there is one, but not now, it
// returns how long to wait.
func (v *Volume) nextFill(now time.Time) (best *fill, wait time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.serving || v.closing {
		return nil, 0
	}
	rating := 0
	for c := range v.columns {
		col := &v.columns[c]
		for _, m := range col.members {
			if m.fill == nil || m.fill.finished {
				continue
			}
			ready := v.readyAt(col, m)
			if d := ready.Sub(now); d > 0 {
				if wait == 0 || d < wait {
					wait = min(d, careful)
				}
				continue
			}
			r := 2 * col.count(model.Active)
			if m.cutoff.IsZero() {
				r++
			}
			if best == nil || r < rating {
				best, rating = m.fill, r
			}
		}
	}
	return best, wait
}

// readyAt says when a joining member may be filled. A new one waits for those
// that may come back and then need less: for Grace, and for one that Rests as long as it
// does, which its Reach bounds; v.mu is held.
func (v *Volume) readyAt(col *column, m *member) time.Time {
	at := m.fill.retryAt
	if !m.cutoff.IsZero() {
		return at
	}
	for _, o := range col.members {
		back := o.state == model.Stale && v.reach[o.disk] != Failed || o.state == model.Joining && !o.cutoff.IsZero()
		if grace := m.fill.began.Add(v.cfg.Grace); o != m && back && grace.After(at) {
			at = grace
		}
		if o.state == model.Stale && v.reach[o.disk] == Rests {
			at = later(at, time.Now().Add(careful))
		}
	}
	return at
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// current reports whether a fill still matters.
func (v *Volume) current(f *fill) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.alive(f)
}

func (v *Volume) alive(f *fill) bool {
	return v.err == nil && !v.closing && f.member.fill == f && f.member.row.state != dead &&
		slices.Contains(v.columns[f.column].members, f.member)
}

// walk goes over all pages that the source or the joining member has, in order,
// and makes them equal. It goes over a stretch again as long as something was written
// to pages of it that were not reached; each is reached then.
func (v *Volume) walk(ctx context.Context, f *fill) error {
	for v.current(f) {
		v.mu.Lock()
		from := f.cursor
		f.barrier, f.missed = v.number, noPage
		v.mu.Unlock()
		if err := v.passBarrier(ctx, f); err != nil {
			return err
		}
		pages, to, done, err := v.compare(ctx, f, from)
		if err != nil {
			return err
		}
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(fillWorkers)
		for _, page := range pages {
			group.Go(func() error { return v.fillPage(ctx, f, page) })
		}
		if err := group.Wait(); err != nil {
			return err
		}
		if v.passed(f, to, done) && done {
			return nil
		}
	}
	return nil
}

// passed notes that the walk has reached all pages below to, or, if that is the end,
// all there are; not if something was written to one of them that was not sent.
func (v *Volume) passed(f *fill, to uint32, done bool) bool {
	v.mu.Lock()
	defer v.unlock()
	if f.missed != noPage && (done || f.missed < to) && !v.plant.fillMisses {
		return false
	}
	if f.moveTo(to); done && v.alive(f) {
		f.finished, f.ahead = true, nil
		if v.filledBy.IsZero() {
			v.filledBy, v.wake = time.Now().Add(gatherTime), true
		}
	}
	return true
}

// passBarrier waits until everything that was perhaps not sent to the member has
// reached the active ones, so that a listing of them misses nothing of it. What waits
// for room has, as far as it ever will before it is sent again.
func (v *Volume) passBarrier(ctx context.Context, f *fill) error {
	for {
		v.mu.Lock()
		passed := !v.inFlight(f.barrier) || !v.alive(f)
		v.mu.Unlock()
		if passed {
			return nil
		}
		select {
		case <-time.After(barrierPoll):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// inFlight reports whether something sent with a number up to last is under way to a
// member; v.mu is held.
func (v *Volume) inFlight(last uint64) bool {
	for g := v.firstOpen; g != nil && g.number <= last; g = g.next {
		if !g.held && g.sent <= last {
			return true
		}
	}
	return false
}

// compare lists a stretch of pages on an active member and on the joining one,
// and returns those that are not known to be equal. The others stay equal until one is
// written to, which the fill notes.
func (v *Volume) compare(ctx context.Context, f *fill, from uint32) (pages []uint32, to uint32, done bool, err error) {
	here, err := v.listAny(ctx, f.column, disk.List{Column: uint32(f.column), From: from, Max: listMax})
	if err != nil {
		return nil, 0, false, err
	}
	to, done = here.Next, here.Done
	if done {
		to = 0
	}
	var there []disk.Version
	for at := from; ; {
		l, err := v.list(ctx, f.member.row, disk.List{Column: uint32(f.column), From: at, To: to, Max: listMax})
		if err != nil {
			v.suspect(f.member.row, err)
			return nil, 0, false, err
		}
		there = append(there, l.Versions...)
		if l.Done || to != 0 && l.Next >= to {
			break
		}
		at = l.Next
	}
	for i, k := 0, 0; i < len(here.Versions) || k < len(there); {
		var a, b disk.Version
		switch {
		case k == len(there) || i < len(here.Versions) && before(here.Versions[i], there[k]):
			a = here.Versions[i]
			i++
		case i == len(here.Versions) || before(there[k], here.Versions[i]):
			b = there[k]
			k++
		default:
			a, b = here.Versions[i], there[k]
			i, k = i+1, k+1
		}
		page := max(a.Page, b.Page)
		if v.differs(a, b, f.member.cutoff) && (len(pages) == 0 || pages[len(pages)-1] != page) {
			pages = append(pages, page)
		}
	}
	return pages, to, done, nil
}

func before(a, b disk.Version) bool {
	return a.Page < b.Page || a.Page == b.Page && a.Epoch < b.Epoch
}

// differs is the rule of tests/model (copies): a version is made equal where
// either side is above the cutoff, whichever is newer, and where only one side has
// it: below the cutoff that is one that was removed meanwhile, because nobody saw it
// any more or because it was a tombstone, and that the returning side still has; or
// one whose removal only the returning side has heard of.
func (v *Volume) differs(from, to disk.Version, cutoff model.Stamp) bool {
	above := from.Stamp.After(cutoff) || to.Stamp.After(cutoff) && !v.plant.deltaOneSided
	lone := from.Stamp.IsZero() != to.Stamp.IsZero() && !v.plant.deltaKeeps
	return from != to && (above || lone || from.Mask|to.Mask == 0)
}

// listAny lists on the first active member of a column that answers.
func (v *Volume) listAny(ctx context.Context, c int, l disk.List) (disk.Listing, error) {
	err := error(model.Errorf(model.Unavailable, "column %d has no active member in reach", c))
	for _, r := range v.activeRows(c) {
		var out disk.Listing
		if out, err = v.list(ctx, r, l); err == nil {
			return out, nil
		}
		v.suspect(r, err)
	}
	return disk.Listing{}, err
}

// fillPage makes one page equal, and keeps to the pace of filling.
func (v *Volume) fillPage(ctx context.Context, f *fill, page uint32) error {
	began := time.Now()
	copied, err := v.fillLocked(ctx, f, page)
	if err != nil || copied == 0 {
		return err
	}
	return v.throttle(ctx, copied, time.Since(began))
}

// fillLocked makes one page equal, under its lock. A write that waits for room lends it
// its own (full.go).
func (v *Volume) fillLocked(ctx context.Context, f *fill, page uint32) (model.Bytes, error) {
	s := v.pageSpan(f.column, page)
	s.use = filling
	if !v.plant.fillOverwrites {
		if err := v.spans.acquire(ctx, &s); err != nil {
			return 0, err
		}
		defer v.spans.release(&s)
	}
	return v.equalise(ctx, f, page)
}

// equalise does the work of fillLocked; the page is locked by the caller. It
// returns how many bytes it copied.
func (v *Volume) equalise(ctx context.Context, f *fill, page uint32) (copied model.Bytes, err error) {
	v.mu.Lock()
	skip := !v.alive(f) || f.has(page)
	v.mu.Unlock()
	if skip {
		return 0, nil
	}
	rows := v.activeRows(f.column)
	target := f.member.row
	there, err := v.listPage(ctx, target, f.column, page)
	if err != nil {
		v.suspect(target, err)
		return 0, err
	}
	here, err := v.listFirst(ctx, rows, f.column, page)
	if err != nil {
		return 0, err
	}
	for _, e := range epochs(here, there) {
		from, to := here[e], there[e]
		switch {
		case !v.differs(from, to, f.member.cutoff):
			continue
		case from.Stamp.IsZero():
			err = v.removeVersion(ctx, f.column, page, e, target)
		default:
			err = v.copyVersion(ctx, f.column, from, rows, []*row{target})
			if model.CodeOf(err) == model.Corrupt {
				err = v.copyLost(ctx, f.column, from, rows, target)
			}
			copied += model.Bytes(popcount(from.Mask)) * model.BlockSize
		}
		if err != nil {
			if model.CodeOf(err) == model.NoSpace {
				v.mu.Lock()
				v.refuse(f.column, f.member.disk, err)
				v.unlock()
			}
			return copied, err
		}
	}
	v.stats.copied.Add(int64(copied))
	v.mu.Lock()
	if v.alive(f) {
		f.add(page)
	}
	v.mu.Unlock()
	return copied, nil
}

// listFirst lists a page on the first row that answers.
func (v *Volume) listFirst(ctx context.Context, rows []*row, c int, page uint32) (map[model.Epoch]disk.Version, error) {
	err := error(model.Errorf(model.Unavailable, "column %d has no active member in reach", c))
	for _, r := range rows {
		var out map[model.Epoch]disk.Version
		if out, err = v.listPage(ctx, r, c, page); err == nil {
			return out, nil
		}
		v.suspect(r, err)
	}
	return nil, err
}

// epochs returns the epochs of either side, oldest first.
func epochs(a, b map[model.Epoch]disk.Version) (out []model.Epoch) {
	for e := range a {
		out = append(out, e)
	}
	for e := range b {
		if _, both := a[e]; !both {
			out = append(out, e)
		}
	}
	slices.Sort(out)
	return out
}

// throttle keeps filling below its rate, and to half of the time while the guest
// is at work.
func (v *Volume) throttle(ctx context.Context, copied model.Bytes, took time.Duration) error {
	return v.pace(ctx, &v.fillNext, v.cfg.FillRate, copied, took)
}

// pace keeps work in the background below rate, of which next is the clock, and to
// half of the time while the guest is at work.
func (v *Volume) pace(ctx context.Context, next *time.Time, rate, did model.Bytes, took time.Duration) error {
	now := time.Now()
	v.mu.Lock()
	if next.Before(now) {
		*next = now
	}
	*next = next.Add(time.Duration(did) * time.Second / time.Duration(rate))
	pause := next.Sub(now)
	v.mu.Unlock()
	if v.spans.busy() > fillWorkers {
		pause = max(pause, took)
	}
	if pause < time.Millisecond {
		return nil
	}
	select {
	case <-time.After(pause):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
