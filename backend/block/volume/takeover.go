package volume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/must"
)

const (
	prepareEvery = 100 * time.Millisecond // between two attempts
	rollWorkers  = 8
)

// A takeover is what the promises told.
type takeover struct {
	v *Volume

	mu       sync.Mutex
	promises map[model.DiskID]disk.Promise
}

// takeOver makes the volume ready to serve (tests/model: prepare, roll forward,
// serve): every member promises or is dropped, everything that may not have been
// acknowledged becomes equal on all active members, and then the watermark moves.
func (v *Volume) takeOver(ctx context.Context) error {
	t := &takeover{v: v, promises: map[model.DiskID]disk.Promise{}}
	if err := t.prepare(ctx); err != nil {
		return err
	}
	if err := t.settle(ctx); err != nil {
		return err
	}
	if !v.plant.serveEarly {
		if err := t.rollForward(ctx); err != nil {
			return err
		}
	}
	v.mu.Lock()
	defer v.unlock()
	if v.err != nil {
		return v.err
	}
	for c := range v.columns {
		for _, m := range v.columns[c].members {
			must.That(m.row != nil || m.state != model.Active, "disk %s is served without a promise", m.disk)
		}
	}
	v.serving, v.unmarked, v.wake = true, true, true
	v.lastSent = time.Now()
	return nil
}

// members lists the disks that hold active or joining members.
func (v *Volume) disks() (ids []model.DiskID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for c := range v.columns {
		for _, m := range v.columns[c].members {
			if m.state != model.Stale {
				ids = append(ids, m.disk)
			}
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// prepare gets a promise of every disk with a member, or has the record say that
// it has none.
func (t *takeover) prepare(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, id := range t.v.disks() {
		group.Go(func() error { return t.promise(ctx, id) })
	}
	return group.Wait()
}

// promise asks one disk until it promises or has no member left.
func (t *takeover) promise(ctx context.Context, id model.DiskID) error {
	v := t.v
	began := time.Now()
	var refused time.Time
	for {
		p, d, local, err := t.ask(ctx, id)
		if err == nil {
			t.promised(id, d, local, p)
			return nil
		}
		switch {
		case model.CodeOf(err) == model.Fenced:
			return err
		case !errors.Is(err, syscall.ECONNREFUSED):
			refused = time.Time{}
		case refused.IsZero():
			refused = time.Now()
		}
		late := time.Since(began) >= v.cfg.Timeout ||
			!refused.IsZero() && time.Since(refused) >= refusedFor ||
			v.cfg.Disks.Reach(id) == Failed
		if late && !t.miss(id, err) {
			return nil
		}
		select {
		case <-time.After(prepareEvery):
		case <-v.done:
			return v.Err()
		case <-ctx.Done():
			return t.waitsFor(id, err)
		}
	}
}

func (t *takeover) ask(ctx context.Context, id model.DiskID) (disk.Promise, Disk, bool, error) {
	v := t.v
	d, local, err := v.cfg.Disks.Disk(id)
	if err != nil {
		return disk.Promise{}, nil, false, err
	}
	ctx, cancel := context.WithTimeout(ctx, v.cfg.Timeout)
	defer cancel()
	p, err := d.Prepare(ctx, disk.Prepare{Volume: v.id, Generation: v.gen, Origin: t.origin(id)})
	return p, d, local, err
}

// origin is what the disk's part of a clone begins as, or nil: its active members have
// all of the origin. Others are filled.
func (t *takeover) origin(id model.DiskID) *disk.Origin {
	v := t.v
	v.mu.Lock()
	defer v.mu.Unlock()
	o := v.rec.Origin
	if o.Volume == 0 {
		return nil
	}
	out := &disk.Origin{Volume: o.Volume, Epoch: o.Epoch}
	for c := range v.columns {
		if m := v.columns[c].member(id); m != nil && m.state == model.Active {
			out.Columns = append(out.Columns, uint32(c))
		}
	}
	return out
}

// promised begins the disk's row.
func (t *takeover) promised(id model.DiskID, d Disk, local bool, p disk.Promise) {
	v := t.v
	t.mu.Lock()
	t.promises[id] = p
	t.mu.Unlock()
	v.mu.Lock()
	defer v.unlock()
	var r *row
	for c := range v.columns {
		m := v.columns[c].member(id)
		if m == nil || m.state == model.Stale {
			continue
		}
		if r == nil {
			r = v.newRow(id, d, local, 0)
			r.heard = time.Now()
		}
		if m.refused = nil; m.state == model.Active {
			m.row = r
			if p.Watermark.After(v.told) {
				v.told = p.Watermark
			}
		} else {
			v.give(c, m, r)
		}
	}
	v.change = true // others may be dropped now
}

// miss asks for the disk to be dropped, and reports false when it has been.
func (t *takeover) miss(id model.DiskID, err error) bool {
	v := t.v
	v.mu.Lock()
	defer v.unlock()
	left := false
	for c := range v.columns {
		if m := v.columns[c].member(id); m != nil && m.state != model.Stale {
			m.refused, left = err, true
		}
	}
	v.change = left
	return left
}

// waitsFor says which disk the volume cannot do without.
func (t *takeover) waitsFor(id model.DiskID, cause error) error {
	v := t.v
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.needed()[id] {
		return model.Errorf(model.Unavailable, "volume %s waits for disk %s, the only one with all of its data: %w", v.id, id, cause)
	}
	return model.Errorf(model.Unavailable, "volume %s waits for raft to drop disk %s: %w", v.id, id, cause)
}

// settle waits until no proposal is under way, so that who is active is known.
func (t *takeover) settle(ctx context.Context) error {
	v := t.v
	for {
		v.mu.Lock()
		busy, err := v.proposing || v.unsure != nil, v.err
		v.mu.Unlock()
		if !busy || err != nil {
			return err
		}
		select {
		case <-time.After(prepareEvery):
		case <-ctx.Done():
			return model.Errorf(model.Unavailable, "volume %s waits for raft: %w", v.id, ctx.Err())
		}
	}
}

// rollForward makes every page version that an active member lists equal on all
// of them.
func (t *takeover) rollForward(ctx context.Context) error {
	pages := t.pages()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(rollWorkers)
	for _, p := range pages {
		group.Go(func() error { return t.rollPage(ctx, p) })
	}
	err := group.Wait()
	if n := len(pages); n > 0 && err == nil {
		t.v.log.Info("writes settled", "volume", t.v.id, "generation", t.v.gen, "pages", n)
	}
	return err
}

// A rolledPage is a page of which an active member lists versions.
type rolledPage struct {
	pageKey
	epochs []model.Epoch
	// open are the epochs of which every active member lists its version, so that nobody
	// knows of the last change to any of them that it was acknowledged.
	open map[model.Epoch]bool
}

// pages collects the union of what active members list, less what all of them
// list alike.
func (t *takeover) pages() []rolledPage {
	v := t.v
	type key struct {
		pageKey
		epoch model.Epoch
	}
	type seen struct {
		version disk.Version
		members int
		differ  bool
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	union := map[key]*seen{}
	for id, p := range t.promises {
		for i := range p.Uncertain {
			u := &p.Uncertain[i]
			if int(u.Column) >= len(v.columns) {
				continue
			}
			m := v.columns[u.Column].member(id)
			if m == nil || m.state != model.Active || m.row == nil {
				continue
			}
			k := key{pageKey{int(u.Column), u.Page}, u.Epoch}
			s := union[k]
			if s == nil {
				s = &seen{version: u.Version}
				union[k] = s
			}
			s.members++
			s.differ = s.differ || !s.version.Equal(u.Version)
		}
	}
	byPage := map[pageKey]*rolledPage{}
	for k, s := range union {
		all := s.members == v.columns[k.column].count(model.Active)
		if all && !s.differ {
			continue
		}
		p := byPage[k.pageKey]
		if p == nil {
			p = &rolledPage{pageKey: k.pageKey, open: map[model.Epoch]bool{}}
			byPage[k.pageKey] = p
		}
		p.epochs, p.open[k.epoch] = append(p.epochs, k.epoch), all
	}
	out := make([]rolledPage, 0, len(byPage))
	for _, p := range byPage {
		slices.Sort(p.epochs)
		out = append(out, *p)
	}
	slices.SortFunc(out, func(a, b rolledPage) int {
		return cmp.Or(cmp.Compare(a.column, b.column), cmp.Compare(a.page, b.page))
	})
	return out
}

// rollPage tries until the page is equal on all members that are still active.
func (t *takeover) rollPage(ctx context.Context, p rolledPage) error {
	for {
		err := t.rollOnce(ctx, p)
		if err == nil {
			return nil
		}
		switch model.CodeOf(err) { //nolint:exhaustive // the others are worth another attempt
		case model.Fenced, model.Corrupt:
			return err
		}
		if ended := t.v.Err(); ended != nil {
			return ended
		}
		select {
		case <-time.After(prepareEvery):
		case <-ctx.Done():
			return model.Errorf(model.Unavailable, "volume %s cannot settle page %d of column %d: %w",
				t.v.id, p.page, p.column, err)
		}
	}
}

// rollOnce makes the newest version of each epoch of a page the one of all members.
func (t *takeover) rollOnce(ctx context.Context, p rolledPage) error {
	v := t.v
	rows := v.activeRows(p.column)
	held := make([]map[model.Epoch]disk.Version, len(rows))
	for i, r := range rows {
		var err error
		if held[i], err = v.listPage(ctx, r, p.column, p.page); err != nil {
			v.suspect(r, err)
			return fmt.Errorf("list on disk %s: %w", r.id, err)
		}
	}
	for _, e := range p.epochs {
		have := make([]disk.Version, len(rows))
		for i := range rows {
			have[i] = held[i][e]
		}
		if err := t.rollEpoch(ctx, p, e, rows, have); err != nil {
			return err
		}
	}
	return nil
}

// rollEpoch makes the newest of the versions that the rows have of one epoch the one of
// all.
//
// Invariant: two members have one stamp and not the same only where a write to some
// blocks of the page waited for room on one of them when a later write to others was on
// both (full.go). Both have all that was acknowledged, then, and the difference was not,
// nor read; so either may be the one, and it is the one with more, if that can be read.
// Who holds a write back keeps the watermark below that stamp, so every active member
// lists the version as uncertain; where one does not, it cannot be, and nothing is done.
func (t *takeover) rollEpoch(ctx context.Context, p rolledPage, e model.Epoch, rows []*row, have []disk.Version) (err error) {
	choices := newest(have)
	if len(choices) > 1 && !p.open[e] {
		return t.v.diverged(p.pageKey, e, rows)
	}
	for _, want := range choices {
		var sources, behind []*row
		for i, r := range rows {
			if have[i] == want {
				sources = append(sources, r)
			} else {
				behind = append(behind, r)
			}
		}
		if len(behind) == 0 {
			return nil
		}
		err = t.v.copyVersion(ctx, p.column, want, sources, behind)
		if model.CodeOf(err) != model.Corrupt {
			return err
		}
	}
	return err
}

// newest returns the different versions that have the newest stamp, the one with most
// blocks first. The order does not depend on that of all.
func newest(all []disk.Version) (out []disk.Version) {
	for _, have := range all {
		switch {
		case len(out) == 0 || have.Stamp.After(out[0].Stamp):
			out = append(out[:0], have)
		case have.Stamp == out[0].Stamp && !slices.Contains(out, have):
			out = append(out, have)
		}
	}
	slices.SortFunc(out, func(a, b disk.Version) int {
		return cmp.Or(cmp.Compare(popcount(b.Mask), popcount(a.Mask)), cmp.Compare(b.Mask, a.Mask),
			slices.Compare(b.Sums[:], a.Sums[:]))
	})
	return out
}

// diverged is what cannot be: two members with one stamp and different sums.
// Nobody can say which is right, so nothing is made equal.
func (v *Volume) diverged(p pageKey, e model.Epoch, rows []*row) error {
	names := make([]string, 0, len(rows))
	for _, r := range rows {
		names = append(names, r.id.String())
	}
	return model.Errorf(model.Corrupt, "page %d of column %d, epoch %d, of volume %s has one stamp and different data on disks %s",
		p.page, p.column, e, v.id, strings.Join(names, " and "))
}

// activeRows returns the rows of a column's active members, local ones first.
func (v *Volume) activeRows(c int) (rows []*row) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, m := range v.columns[c].members {
		if m.state == model.Active && m.row != nil {
			rows = append(rows, m.row)
		}
	}
	slices.SortStableFunc(rows, func(a, b *row) int { return rank(a) - rank(b) })
	return rows
}

// rank orders rows for reading: those that are well, then local ones.
func rank(r *row) (n int) {
	if r.state != live || r.failure != nil {
		n += 2
	}
	if !r.local {
		n++
	}
	return n
}

// listPage returns what a disk holds of one page, by epoch.
func (v *Volume) listPage(ctx context.Context, r *row, c int, page uint32) (map[model.Epoch]disk.Version, error) {
	l, err := v.list(ctx, r, disk.List{Column: uint32(c), From: page, To: page + 1, Max: 1})
	if err != nil {
		return nil, err
	}
	out := make(map[model.Epoch]disk.Version, len(l.Versions))
	for _, have := range l.Versions {
		if have.Page == page {
			out[have.Epoch] = have
		}
	}
	return out, nil
}

func (v *Volume) list(ctx context.Context, r *row, l disk.List) (disk.Listing, error) {
	l.Volume, l.Generation = v.id, v.gen
	ctx, cancel := context.WithTimeout(ctx, v.cfg.Timeout)
	defer cancel()
	out, err := v.diskOf(r).List(ctx, l)
	return out, v.judge(err)
}

func (v *Volume) diskOf(r *row) Disk {
	v.mu.Lock()
	defer v.mu.Unlock()
	return r.disk
}

// judge ends the volume if an answer says that it is fenced.
func (v *Volume) judge(err error) error {
	if err != nil && model.CodeOf(err) == model.Fenced {
		v.mu.Lock()
		v.end(err)
		v.unlock()
	}
	return err
}
