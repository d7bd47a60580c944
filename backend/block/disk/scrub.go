package disk

import (
	"cmp"
	"context"
	"encoding/binary"
	"math"
	"slices"
	"time"

	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
)

const (
	// scrubRate is the most a scrub reads in a second, and scrubBusy what part of
	// that it takes while the disk has other work.
	scrubRate = 64 << 20
	scrubBusy = 8
	// scrubNap is the shortest pause worth a timer.
	scrubNap = 4 * time.Millisecond
	// scrubChunk is how many versions are listed at a time.
	scrubChunk = 64
	// scrubStale is how old a pass may be that is gone on with; an older one begins
	// anew.
	scrubStale = 30 * 24 * time.Hour
)

// A ScrubPoint is a page of a column: where a scrub goes on, or found damage.
type ScrubPoint struct {
	Volume model.VolumeID
	Column uint32
	Page   uint32
}

func (p ScrubPoint) compare(o ScrubPoint) int {
	return cmp.Or(cmp.Compare(p.Volume, o.Volume), cmp.Compare(p.Column, o.Column),
		cmp.Compare(p.Page, o.Page))
}

// A scrub is what is known of the passes over the disk.
type scrub struct {
	model.Scrub
	next  ScrubPoint // where the pass that began goes on
	ended time.Time  // when the last complete pass ended

	// good has a bit for each place that is shared and was read whole and right in this
	// pass since the disk was opened: those who share it need not read it again.
	good []uint64
}

// Scrub reads what the disk holds, all epochs of all volumes, and compares it with
// its sums. A pass that was interrupted, by ctx or by the end of the process, is gone
// on with. damaged is called for each page with a damaged block, by the caller's
// goroutine; the pass waits for it. There is one pass at a time: a second is
// model.Conflict.
//
// It reads one page at a time, at most 64 MiB in a second, and an eighth of that and
// at most half of the time while the disk has other work. What is written meanwhile
// where the pass has been is left for the next one. It needs no promise, changes
// nothing, and never takes a page for damaged that is only being replaced.
func (d *Disk) Scrub(ctx context.Context, damaged func(context.Context, ScrubPoint)) error {
	columns, err := d.beginScrub(ctx)
	if err != nil {
		return err
	}
	pace := scrubPace{d: d, others: d.requests()}
	for _, c := range columns {
		for done := false; !done; {
			if done, err = d.scrubSome(ctx, c, &pace, damaged); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &d.scrub
	s.Running = false
	if err == nil {
		*s = scrub{ended: time.Now()}
	}
	if !d.closing && d.err == nil {
		d.changed()
	}
	return err
}

// beginScrub begins a pass, or goes on with one, and returns the columns there are.
func (d *Disk) beginScrub(ctx context.Context) ([]ScrubPoint, error) {
	held, err := d.Held(ctx)
	if err != nil {
		return nil, err
	}
	var columns []ScrubPoint
	total := model.Bytes(0)
	for _, h := range held {
		columns = append(columns, ScrubPoint{Volume: h.Volume, Column: h.Column})
		total += h.Bytes
	}
	slices.SortFunc(columns, ScrubPoint.compare)
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &d.scrub
	if s.Running {
		return nil, model.Errorf(model.Conflict, "disk %s is being scrubbed already", d.super.disk)
	}
	if s.Began.IsZero() || now.Sub(s.Began) > scrubStale {
		*s = scrub{Scrub: model.Scrub{Began: now}, ended: s.ended}
	}
	s.Running, s.Total = true, max(total, s.Done)
	return columns, nil
}

// scrubSome verifies some pages of a column, from where the pass is.
func (d *Disk) scrubSome(ctx context.Context, column ScrubPoint, pace *scrubPace,
	damaged func(context.Context, ScrubPoint),
) (done bool, err error) {
	d.mu.Lock()
	from := d.scrub.next
	d.mu.Unlock()
	if from.Volume != column.Volume || from.Column != column.Column {
		if from.compare(column) > 0 {
			return true, nil // the pass has been there
		}
		from = column
	}
	if err := d.enter(ctx); err != nil {
		return false, err
	}
	found, err := d.list(List{
		Volume: column.Volume, Column: column.Column, From: from.Page, Max: scrubChunk,
	}, math.MaxUint32+1)
	d.exit()
	if err != nil {
		return false, err
	}
	for vs := found.Versions; len(vs) > 0; {
		at := ScrubPoint{column.Volume, column.Column, vs[0].Page}
		n := 1
		for n < len(vs) && vs[n].Page == at.Page {
			n++
		}
		bad, err := d.scrubPage(ctx, at, vs[:n], pace)
		if err != nil {
			return false, err
		}
		if bad {
			damaged(ctx, at)
		}
		vs = vs[n:]
		if at.Page < math.MaxUint32 {
			at.Page++
		}
		d.scrubbedTo(at)
	}
	if !found.Done {
		d.scrubbedTo(ScrubPoint{column.Volume, column.Column, found.Next})
	}
	return found.Done, nil
}

// scrubbedTo says where the pass goes on.
func (d *Disk) scrubbedTo(at ScrubPoint) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.scrub.next = at
	if !d.closing && d.err == nil {
		d.changed()
	}
}

// scrubPage verifies the versions of a page.
func (d *Disk) scrubPage(ctx context.Context, at ScrubPoint, vs []Version, pace *scrubPace,
) (bad bool, err error) {
	for i := range vs {
		if vs[i].Mask == 0 {
			continue
		}
		begun := time.Now()
		damaged, known, err := d.verify(ctx, at, vs[i].Epoch)
		if err != nil {
			return false, err
		}
		bad = bad || damaged
		d.mu.Lock()
		d.scrub.Done += model.PageSize
		d.scrub.Total = max(d.scrub.Total, d.scrub.Done)
		d.mu.Unlock()
		if known {
			continue
		}
		if err := pace.rest(ctx, time.Since(begun)); err != nil {
			return false, err
		}
	}
	return bad, nil
}

// verify reads one version, if it is still there, and if its place is not known to be
// right.
func (d *Disk) verify(ctx context.Context, at ScrubPoint, e model.Epoch) (bad, known bool, err error) {
	if err := d.enter(ctx); err != nil {
		return false, false, err
	}
	defer d.exit()
	if known, err := d.knownGood(pageKey{at.Volume, at.Column, at.Page}, e); known || err != nil {
		return false, known, err
	}
	b := iobuf.Get(pageSize)
	defer b.Release()
	one := []pageRead{{
		key: pageKey{at.Volume, at.Column, at.Page}, epoch: e, exact: true,
		n: model.BlocksPerPage, dst: b.Bytes,
	}}
	if err := d.readPages(one, 0, 0); err != nil {
		if d.Err() == nil && model.CodeOf(err) == model.Unavailable {
			return false, false, nil // it was replaced again and again: it is new
		}
		return false, false, err
	}
	if one[0].found && one[0].bad == 0 {
		d.noteWhole(&one[0])
		d.noteGood(&one[0].ver)
	}
	return one[0].bad != 0, false, nil
}

// knownGood reports whether a version's place was read whole and right in this pass, for
// another who shares it.
func (d *Disk) knownGood(k pageKey, e model.Epoch) (bool, error) {
	lk, i := leafOf(k)
	l, err := d.pinLeaf(lk)
	if err != nil {
		return false, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	l.pins--
	at, ok := find(l.pages[i], e)
	if _, hurt := d.damaged[damageKey{k.vol, madeKey{k.column, k.page, e}}]; !ok || hurt {
		return false, nil // what was damaged is read, for it may be right again
	}
	p := l.pages[i][at].place
	return p != noPlace && d.refs[p] > 1 && d.scrub.good != nil && d.scrub.good[p/64]>>(p%64)&1 != 0, nil
}

// noteGood notes that the place of a version was read and is right. One that has not all
// blocks says nothing of those that others may have there.
func (d *Disk) noteGood(v *version) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if v.mask != wholePage || d.refs[v.place] < 2 {
		return
	}
	if d.scrub.good == nil {
		d.scrub.good = make([]uint64, len(d.space.used))
	}
	d.scrub.good[v.place/64] |= 1 << (v.place % 64)
}

// requests is how many requests of others the disk has served.
func (d *Disk) requests() uint64 { return d.counters.reads.Load() + d.counters.writes.Load() }

// A scrubPace keeps a scrub below its rate.
type scrubPace struct {
	d      *Disk
	others uint64 // requests served when it was looked at last
	debt   time.Duration
}

// rest pauses after a page that took as long as given to read.
func (p *scrubPace) rest(ctx context.Context, took time.Duration) error {
	least := time.Duration(pageSize) * time.Second / scrubRate
	if now := p.d.requests(); now != p.others {
		p.others = now
		least = max(least*scrubBusy, 2*took)
	}
	p.debt += max(0, least-took)
	if p.debt < scrubNap {
		return ctx.Err()
	}
	nap := time.NewTimer(p.debt)
	defer nap.Stop()
	p.debt = 0
	select {
	case <-nap.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-p.d.stop:
		return ErrClosed
	}
}

const scrubSize = 1 + 5*8 + 2*4

// scrubValue is the state of the passes as the map keeps it.
func (s *scrub) value() []byte {
	le := binary.LittleEndian
	b := []byte{valueVersion}
	b = appendPair(b, seconds(s.Began), seconds(s.ended))
	b = appendPair(b, uint64(s.Done), uint64(s.Total))
	b = le.AppendUint64(b, uint64(s.next.Volume))
	b = le.AppendUint32(b, s.next.Column)
	return le.AppendUint32(b, s.next.Page)
}

func parseScrub(b []byte) (s scrub, err error) {
	if len(b) != scrubSize || b[0] != valueVersion {
		return s, errBadMap
	}
	le := binary.LittleEndian
	s.Began, s.ended = timeOf(le.Uint64(b[1:])), timeOf(le.Uint64(b[9:]))
	s.Done, s.Total = model.Bytes(le.Uint64(b[17:])), model.Bytes(le.Uint64(b[25:]))
	s.next = ScrubPoint{
		Volume: model.VolumeID(le.Uint64(b[33:])), Column: le.Uint32(b[41:]), Page: le.Uint32(b[45:]),
	}
	return s, nil
}

// seconds is a time in seconds since 1970; 0 for none.
func seconds(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.Unix())
}

func timeOf(s uint64) time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Unix(int64(s), 0).UTC()
}
