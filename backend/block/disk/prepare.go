package disk

import (
	"drystone.example/drystone/backend/block/layout"
	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/uring"
)

// discardChunk is how many pages of a Discard are applied at once.
const discardChunk = 256

// prepareTask does for the head of a row what needs I/O and depends on all ops
// before it: it finds the pages of a Discard, and moves pages that an older epoch
// or another version still needs. Nothing of the row is applied meanwhile.
func (d *Disk) prepareTask(t *task) {
	err := d.findPages(t)
	if err == nil {
		err = d.inheritFor(t)
	}
	switch t.op.Kind {
	case Write, Discard:
		for i := t.next; err == nil && i < len(t.parts); i++ {
			err = d.move(t, &t.parts[i])
		}
	case Copy:
		if err == nil {
			err = d.placeCopy(t)
		}
	case Remove, Mark: // need no place
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		t.err = err
	}
	t.row.blocked = false
	if t.wait == 0 {
		d.makeReady(t.row)
	}
}

// findPages makes the next chunk of a Discard's parts: the pages it touches that
// have a version.
func (d *Disk) findPages(t *task) error {
	if t.op.Kind != Discard || t.listed {
		return nil
	}
	per := uint64(model.BlocksPerPage)
	first, end := uint64(t.op.Block), uint64(t.op.Block)+t.op.Count
	if t.cursor == 0 {
		t.cursor = first / per
		if err := d.reserveEdges(t); err != nil {
			return err
		}
	}
	l, err := d.list(List{
		Volume: t.op.Volume, Column: t.op.Column, From: uint32(t.cursor), Max: discardChunk,
	}, (end+per-1)/per)
	if err != nil {
		return err
	}
	var parts []part
	for _, v := range l.Versions {
		if n := len(parts); n > 0 && parts[n-1].page == v.Page {
			continue // of another epoch
		}
		if p, ok := t.op.cut(v.Page); ok {
			parts = append(parts, p)
		}
	}
	leaves, err := d.pinPages(t, parts)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range t.leaves {
		l.pins--
	}
	t.leaves = leaves
	d.giveBackParts(t)
	t.parts, t.next, t.cursor, t.more, t.listed = parts, 0, uint64(l.Next), !l.Done, true
	return nil
}

// cut returns what the op does to one page, if it reaches it.
func (op *Op) cut(page uint32) (part, bool) {
	at := layout.FirstBlock(page)
	lo := max(at, op.Block)
	hi := min(at+layout.Block(model.BlocksPerPage), op.Block+layout.Block(op.Count))
	if lo >= hi {
		return part{}, false
	}
	return part{page: page, first: int(lo - at), n: int(hi - lo), place: noPlace}, true
}

// pinPages pins the leaves of a task's pages.
func (d *Disk) pinPages(t *task, parts []part) (leaves []*leaf, err error) {
	for i := range parts {
		k, _ := leafOf(t.key(&parts[i]))
		if n := len(leaves); n > 0 && leaves[n-1].key == k {
			continue
		}
		l, err := d.pinLeaf(k)
		if err != nil {
			d.unpinLeaves(leaves)
			return nil, err
		}
		leaves = append(leaves, l)
	}
	return leaves, nil
}

// reserveEdges sets aside what a Discard needs before it changes anything: places
// for the pages at its ends, if they have to move.
func (d *Disk) reserveEdges(t *task) error {
	var edges []part
	last := t.op.Block + layout.Block(max(t.op.Count, 1)) - 1
	for _, page := range []uint32{t.op.Block.Page(), last.Page()} {
		p, ok := t.op.cut(page)
		if ok && p.n < model.BlocksPerPage && (len(edges) == 0 || edges[0].page != page) {
			edges = append(edges, p)
		}
	}
	leaves, err := d.pinPages(t, edges)
	if err != nil {
		return err
	}
	defer d.unpinLeaves(leaves)
	d.mu.Lock()
	defer d.mu.Unlock()
	need := 0
	for i := range edges {
		if _, ok := d.needsMove(t, &edges[i]); ok {
			need++
		}
	}
	if d.space.free-d.space.reserved < need {
		return errFull
	}
	t.reserved += need
	d.space.reserved += need
	return nil
}

var (
	errFull     = model.Errorf(model.NoSpace, "the disk is full")
	errNoGrowth = model.Errorf(model.NoSpace, "the disk is %d %% full and takes no new data of guests", model.FullCritical)
)

// placeCopy finds a match for a Copy, or else a place of its own: one that was set aside, or
// one of few. Where it replaces a version it makes the disk no fuller, and may have one that
// is kept for that.
func (d *Disk) placeCopy(t *task) error {
	p := &t.parts[0]
	if t.op.Version.Mask == 0 || t.match != nil || d.findMatch(t) || p.place != noPlace {
		return nil
	}
	d.mu.Lock()
	if t.reserved > 0 {
		p.place = d.takeReserved(t)
	} else if d.roomToCopy(t) {
		p.place = d.space.take()
	}
	d.mu.Unlock()
	if p.place == noPlace {
		return errFull
	}
	return d.writePage(p.place, t.op.wholeVersion())
}

// roomToCopy reports whether there is a place for a Copy.
func (d *Disk) roomToCopy(t *task) bool {
	vs := d.leafPage(t.key(&t.parts[0]))
	at, mine := find(vs, t.op.Epoch)
	left := d.space.available()
	if mine && vs[at].place != noPlace {
		left += d.space.keep
	}
	return left > 0
}

// leafPage returns the versions of a page whose leaf is pinned.
func (d *Disk) leafPage(k pageKey) []version {
	lk, i := leafOf(k)
	return d.pages.leaves[lk].pages[i]
}

// writePage writes a fresh place, durably.
func (d *Disk) writePage(p place, data []byte) error {
	err := d.area.Do(&uring.Request{
		Kind: uring.Write, Durable: true, Off: d.offset(p, 0), Bufs: [][]byte{data},
	})
	if err != nil {
		d.mu.Lock()
		d.fail(err)
		err = d.refusal()
		d.mu.Unlock()
	}
	return err
}

// move copies the version that a partial change builds on into a fresh place,
// with the change, where it must not be changed in place.
func (d *Disk) move(t *task, p *part) error {
	d.mu.Lock()
	source, ok := d.needsMove(t, p)
	if !ok {
		d.mu.Unlock()
		return nil
	}
	if p.place == noPlace {
		switch {
		case t.reserved > 0:
			p.place = d.takeReserved(t)
		case d.space.available() > 0:
			p.place = d.space.take()
		default:
			d.mu.Unlock()
			return errFull
		}
	}
	d.mu.Unlock()

	buf := iobuf.Get(pageSize)
	defer buf.Release()
	if err := d.readWhole(t.key(p), source, buf.Bytes); err != nil {
		return err
	}
	if t.op.Kind == Write {
		for i := range p.n {
			copy(buf.Bytes[(p.first+i)*blockSize:], t.op.block(p.off/blockSize+i))
		}
	}
	if err := d.writePage(p.place, buf.Bytes); err != nil {
		return err
	}
	d.mu.Lock()
	p.from, p.moved = source, true
	d.mu.Unlock()
	return nil
}

// needsMove returns the version a part would have to be moved from.
func (d *Disk) needsMove(t *task, p *part) (version, bool) {
	lk, i := leafOf(t.key(p))
	l := d.pages.leaves[lk]
	if l == nil || t.op.Kind == Write && p.n == model.BlocksPerPage {
		return version{}, false
	}
	source := visible(l.pages[i], t.op.Epoch)
	switch {
	case source == nil || source.mask == 0:
		return version{}, false
	case t.op.Kind == Discard && (source.epoch == t.op.Epoch || source.mask&^p.mask() == 0 ||
		source.mask&p.mask() == 0):
		return version{}, false
	case source.epoch == t.op.Epoch && d.refs[source.place] < 2:
		return version{}, false
	}
	return *source, !p.moved || p.from != *source
}
