package volume

import (
	"container/heap"
	"context"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/layout"
	"drystone.example/drystone/backend/model"
)

const (
	// listFirst is how many versions of a column are listed first; each further
	// listing of it asks for twice as many, up to listMax.
	listFirst = 32
	// walkMost bounds the stretches that one call answers with.
	walkMost = 1024
	// walkTime is when a call answers with what it knows. Each column is listed
	// twice before that: a walk that listed fewer would get nowhere on a volume
	// that is nearly empty.
	walkTime = 2 * time.Second
)

// A stretch is a part of a volume that is alike.
type stretch struct {
	length int64
	set    bool
}

// A walk finds pages in order of their address. It looks only at what is stored,
// so that it takes as long as there are versions, however large the volume is. It
// keeps at most one listing of each column in mind.
type walk struct {
	v     *Volume
	pick  func([]disk.Version) uint16 // of all versions of a page, in order of epoch: the blocks that count
	lists int
	heap  cursors
}

// A cursor is where a walk is in one column.
type cursor struct {
	column   int
	at       int64        // address of the first page that was not visited, or not listed yet
	found    []pickedPage // those of the last listing that were not visited
	from, to uint32       // pages that were not listed
	max      int
}

type pickedPage struct {
	page   uint32
	blocks uint16
}

type cursors []*cursor

func (c cursors) Len() int           { return len(c) }
func (c cursors) Less(i, j int) bool { return c[i].at < c[j].at }
func (c cursors) Swap(i, j int)      { c[i], c[j] = c[j], c[i] }
func (c *cursors) Push(x any)        { *c = append(*c, x.(*cursor)) } //nolint:errcheck,forcetypeassert // nothing else is pushed
func (c *cursors) Pop() any {
	last := (*c)[len(*c)-1]
	*c = (*c)[:len(*c)-1]
	return last
}

// walkOver begins a walk over the pages that [off, end) touches.
func (v *Volume) walkOver(off, end int64, pick func([]disk.Version) uint16) *walk {
	const page = int64(model.PageSize)
	lo, hi := off/page*page, (end+page-1)/page*page
	w := &walk{v: v, pick: pick}
	for c := range v.columns {
		start, blocks := layout.Range(len(v.columns), c, model.Bytes(lo), model.Bytes(hi-lo))
		if blocks == 0 {
			continue
		}
		x := &cursor{column: c, from: start.Page(), max: listFirst}
		x.to = x.from + uint32(blocks/uint64(model.BlocksPerPage))
		x.at = w.address(c, x.from)
		w.heap = append(w.heap, x)
	}
	heap.Init(&w.heap)
	return w
}

func (w *walk) address(column int, page uint32) int64 {
	return w.v.pageAt(column, page)
}

// reached is up to where everything was visited; done says that it is everything.
func (w *walk) reached() (at int64, done bool) {
	if len(w.heap) == 0 {
		return 0, true
	}
	return w.heap[0].at, false
}

// step visits the next page, or lists where it would be. blocks is zero if it did
// not come to a page.
func (w *walk) step(ctx context.Context) (at int64, blocks uint16, err error) {
	c := w.heap[0]
	if len(c.found) == 0 {
		err = w.list(ctx, c)
	} else {
		at, blocks = c.at, c.found[0].blocks
		c.found = c.found[1:]
	}
	switch {
	case err != nil:
		return 0, 0, err
	case len(c.found) > 0:
		c.at = w.address(c.column, c.found[0].page)
	case c.from < c.to:
		c.at = w.address(c.column, c.from)
	default:
		heap.Pop(&w.heap)
		return at, blocks, nil
	}
	heap.Fix(&w.heap, 0)
	return at, blocks, nil
}

// list goes on with a column. As a read does, it waits for members that do not
// answer, until the volume or ctx ends.
func (w *walk) list(ctx context.Context, c *cursor) error {
	w.lists++
	ask := disk.List{Column: uint32(c.column), From: c.from, To: c.to, Max: c.max}
	l, err := w.v.listAny(ctx, c.column, ask)
	for err != nil {
		select {
		case <-time.After(readRetry):
		case <-w.v.done:
			return w.v.Err()
		case <-ctx.Done():
			return err
		}
		l, err = w.v.listAny(ctx, c.column, ask)
	}
	c.found = c.found[:0]
	for vs := l.Versions; len(vs) > 0; {
		n := 1
		for n < len(vs) && vs[n].Page == vs[0].Page {
			n++
		}
		if blocks := w.pick(vs[:n]); blocks != 0 {
			c.found = append(c.found, pickedPage{vs[0].Page, blocks})
		}
		vs = vs[n:]
	}
	if !l.Done && (l.Next <= c.from || l.Next > c.to) {
		return model.Errorf(model.Internal, "a listing of pages %d to %d of column %d goes on at %d",
			c.from, c.to, c.column, l.Next)
	}
	if c.from = l.Next; l.Done {
		c.from = c.to
	}
	c.max = min(2*c.max, listMax)
	return nil
}

// stretches says which parts of [off, off+n) pick counts. It may answer for less
// than n bytes, never for none. The caller has checked the range.
func (v *Volume) stretches(ctx context.Context, off, n int64, pick func([]disk.Version) uint16) ([]stretch, error) {
	if err := v.leased(ctx); err != nil {
		return nil, err
	}
	var out []stretch
	at, end := off, off+n
	upTo := func(to int64, set bool) {
		to = min(to, end)
		switch k := len(out); {
		case to <= at:
			return
		case k > 0 && out[k-1].set == set:
			out[k-1].length += to - at
		default:
			out = append(out, stretch{to - at, set})
		}
		at = to
	}
	began := time.Now()
	w := v.walkOver(off, end, pick)
	for at < end && len(out) < walkMost && (w.lists < 2*len(v.columns) || time.Since(began) < walkTime) {
		if _, done := w.reached(); done {
			upTo(end, false)
			break
		}
		page, blocks, err := w.step(ctx)
		if err != nil {
			return nil, err
		}
		for b := 0; blocks != 0 && b < model.BlocksPerPage; b++ {
			upTo(page+int64(b*blockSize), false)
			upTo(page+int64((b+1)*blockSize), blocks>>b&1 != 0)
		}
	}
	if to, done := w.reached(); !done {
		upTo(to, false)
	} else {
		upTo(end, false)
	}
	// What was listed by a holder that is none any more may be old by now. One that
	// is told so now was the only one all the time: generations do not come back.
	return out, v.leased(ctx)
}
