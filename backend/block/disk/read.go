package disk

import (
	"context"
	"math/bits"
	"time"

	"drystone.example/drystone/backend/block/layout"
	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/uring"
)

// A pageRead is some blocks of one page being read.
type pageRead struct {
	key   pageKey
	epoch model.Epoch
	exact bool // the version of epoch itself, not the newest at or below it
	first int
	n     int
	dst   []byte // n blocks

	// What plan found.
	found   bool
	ver     version
	pending uint16     // blocks that are not in place yet
	refs    []blockRef // of those, in order
	bad     uint16     // what fetch found damaged
	covered bool       // the page has a newer version
}

func (p *pageRead) mask() uint16 { return uint16((1<<p.n - 1) << p.first) }

func (p *pageRead) block(i int) []byte { return p.dst[(i-p.first)*blockSize:][:blockSize] }

// Read fills dst (Count blocks) and sums (Count) with the blocks asked for; absent
// blocks are zeros with the sum of zeros. Damaged blocks make a *CorruptError;
// the others are filled in all the same. dst is best aligned (package iobuf). Once
// it reads it goes on to the end, whatever becomes of ctx: dst is being written.
func (d *Disk) Read(ctx context.Context, r Read, dst []byte, sums []uint32) error {
	if r.Count <= 0 || r.Count > maxBlocks || uint64(r.Block) > maxBlock-uint64(r.Count) ||
		len(dst) != r.Count*blockSize || len(sums) != r.Count {
		return model.Errorf(model.Invalid, "a read of %d blocks at %d", r.Count, r.Block)
	}
	begun := time.Now()
	if err := d.enter(ctx); err != nil {
		return err
	}
	defer d.exit()
	data := dst
	if !iobuf.IsAligned(dst) {
		b := iobuf.Get(len(dst))
		defer b.Release()
		data = b.Bytes
	}
	var few [2]pageRead
	parts := few[:0]
	for i := 0; i < r.Count; {
		b := r.Block + layout.Block(i)
		n := min(model.BlocksPerPage-b.InPage(), r.Count-i)
		parts = append(parts, pageRead{
			key: pageKey{r.Volume, r.Column, b.Page()}, epoch: r.Epoch,
			first: b.InPage(), n: n, dst: data[i*blockSize:][:n*blockSize],
		})
		i += n
	}
	if err := d.readPages(parts, r.Volume, r.Generation); err != nil {
		return err
	}
	if !iobuf.IsAligned(dst) {
		copy(dst, data)
	}
	var bad []layout.Block
	i := 0
	for p := range parts {
		for b := range parts[p].n {
			at := parts[p].first + b
			sums[i] = zeroSum
			if parts[p].ver.mask&(1<<at) != 0 {
				sums[i] = parts[p].ver.sums[at]
			}
			if parts[p].bad&(1<<at) != 0 {
				bad = append(bad, r.Block+layout.Block(i))
			}
			i++
		}
	}
	d.counters.reads.Add(1)
	d.counters.readBytes.Add(uint64(len(dst)))
	d.counters.readNanos.Add(uint64(time.Since(begun)))
	if len(bad) > 0 {
		return &CorruptError{Volume: r.Volume, Column: r.Column, Blocks: bad}
	}
	return nil
}

// ReadVersion reads exactly one version of a page into dst (64 KiB), each block
// at its position in the page, absent ones as zeros. It is model.NotFound if
// the disk does not hold that version, a *CorruptError if it is damaged.
func (d *Disk) ReadVersion(ctx context.Context, vol model.VolumeID, gen model.Generation,
	column, page uint32, epoch model.Epoch, dst []byte,
) (Version, error) {
	if len(dst) != pageSize {
		return Version{}, model.Errorf(model.Invalid, "a page read into %d bytes", len(dst))
	}
	if err := d.enter(ctx); err != nil {
		return Version{}, err
	}
	defer d.exit()
	data := dst
	if !iobuf.IsAligned(dst) {
		b := iobuf.Get(pageSize)
		defer b.Release()
		data = b.Bytes
	}
	one := []pageRead{{
		key: pageKey{vol, column, page}, epoch: epoch, exact: true, n: model.BlocksPerPage, dst: data,
	}}
	if err := d.readPages(one, vol, gen); err != nil {
		return Version{}, err
	}
	p := &one[0]
	if !p.found {
		return Version{}, model.Errorf(model.NotFound,
			"page %d of column %d of volume %s has no version in epoch %d", page, column, vol, epoch)
	}
	if !iobuf.IsAligned(dst) {
		copy(dst, data)
	}
	if p.bad != 0 {
		err := &CorruptError{Volume: vol, Column: column}
		for left := p.bad; left != 0; left &= left - 1 {
			err.Blocks = append(err.Blocks,
				layout.FirstBlock(page)+layout.Block(bits.TrailingZeros16(left)))
		}
		return p.ver.export(page), err
	}
	return p.ver.export(page), nil
}

func (v *version) export(page uint32) Version {
	return Version{Page: page, Epoch: v.epoch, Stamp: v.stamp, Mask: v.mask, Sums: v.sums}
}

// readWhole reads a version that is about to be copied. A damaged block stays
// damaged: it keeps the sum it does not match.
func (d *Disk) readWhole(k pageKey, v version, dst []byte) error {
	one := []pageRead{{key: k, epoch: v.epoch, exact: true, n: model.BlocksPerPage, dst: dst}}
	return d.readPages(one, 0, 0)
}

// maxAttempts bounds how often a read begins again because what it read was
// replaced meanwhile.
const maxAttempts = 16

// readPages reads and verifies some pages of one volume. A zero volume stands for
// the disk itself, which needs no promise.
func (d *Disk) readPages(parts []pageRead, vol model.VolumeID, gen model.Generation) error {
	if err := d.plan(parts, vol, gen); err != nil {
		return err
	}
	d.fetch(parts)
	d.unplan(parts)
	for i := range parts {
		if parts[i].bad == 0 {
			continue
		}
		if err := d.confirm(&parts[i], vol, gen); err != nil {
			return err
		}
	}
	d.noteDamage(parts)
	return nil
}

// confirm tells damage from a page that was replaced while it was read: what reads
// the same way again is damaged.
func (d *Disk) confirm(p *pageRead, vol model.VolumeID, gen model.Generation) error {
	for range maxAttempts {
		was := *p
		if err := d.readAgain(p, vol, gen); err != nil {
			return err
		}
		if p.bad == 0 || p.ver == was.ver && p.pending == was.pending {
			return nil
		}
	}
	return model.Errorf(model.Unavailable, "a page was replaced too often while it was read")
}

func (d *Disk) readAgain(p *pageRead, vol model.VolumeID, gen model.Generation) error {
	p.bad = 0
	one := []pageRead{*p}
	if err := d.plan(one, vol, gen); err != nil {
		return err
	}
	d.fetch(one)
	d.unplan(one)
	*p = one[0]
	return nil
}

// plan finds the versions to read and pins their places, all at one moment.
func (d *Disk) plan(parts []pageRead, vol model.VolumeID, gen model.Generation) error {
	var held []*leaf
	defer func() {
		if held != nil {
			d.unpinLeaves(held)
		}
	}()
	for {
		missing, err := d.tryPlan(parts, vol, gen)
		if err != nil || missing == nil {
			return err
		}
		l, err := d.pinLeaf(*missing)
		if err != nil {
			return err
		}
		held = append(held, l)
	}
}

// tryPlan plans if all that is needed is in memory; else it says what is missing.
func (d *Disk) tryPlan(parts []pageRead, vol model.VolumeID,
	gen model.Generation,
) (missing *leafKey, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.refusal(); err != nil {
		return nil, err
	}
	if vol != 0 {
		if r := d.rows[vol]; gen == 0 || r == nil || r.state.generation != gen {
			return nil, model.Errorf(model.Fenced, "volume %s is not promised to generation %d", vol, gen)
		}
	}
	for i := range parts {
		k, _ := leafOf(parts[i].key)
		if d.leaf(k) == nil {
			return &k, nil
		}
	}
	for i := range parts {
		d.planPart(&parts[i])
	}
	return nil, nil
}

func (d *Disk) planPart(p *pageRead) {
	k, i := leafOf(p.key)
	vs := d.pages.leaves[k].pages[i]
	p.found, p.pending, p.refs, p.bad = false, 0, p.refs[:0], 0
	var v *version
	if at, ok := find(vs, p.epoch); ok {
		v = &vs[at]
	} else if !p.exact {
		v = visible(vs, p.epoch)
	}
	if v == nil {
		p.ver = version{place: noPlace}
		return
	}
	p.found, p.ver = true, *v
	p.covered = v.epoch != vs[len(vs)-1].epoch
	if v.place == noPlace {
		return
	}
	if !d.space.has(v.place) { // it could be given to another page at any moment
		d.fail(model.Errorf(model.Corrupt, "place %d is free, and page %d of column %d of volume %s is there",
			v.place, p.key.page, p.key.column, p.key.vol))
	}
	d.space.pin(v.place)
	p.pending = d.overlay.mask(v.place) & v.mask & p.mask()
	for left := p.pending; left != 0; left &= left - 1 {
		ref, _ := d.overlay.get(v.place, bits.TrailingZeros16(left))
		p.refs = append(p.refs, ref)
	}
}

// unplan lets the places go.
func (d *Disk) unplan(parts []pageRead) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range parts {
		if p := parts[i].ver.place; parts[i].found && p != noPlace {
			d.space.unpin(p)
		}
	}
}

// A diskRun is one read from the area, of blocks that lie side by side.
type diskRun struct {
	off int64
	buf []byte
	err error
}

// fetch reads what was planned and marks what does not match its sum.
func (d *Disk) fetch(parts []pageRead) {
	var few [4]diskRun
	runs := few[:0]
	for i := range parts {
		p := &parts[i]
		ref := 0
		for b := p.first; b < p.first+p.n; b++ {
			switch bit := uint16(1) << b; {
			case p.ver.mask&bit == 0:
				clear(p.block(b))
			case p.pending&bit != 0:
				copy(p.block(b), p.refs[ref].bytes())
				p.refs[ref].buf.Release()
				ref++
			default:
				runs = appendRun(runs, d.offset(p.ver.place, b), p.block(b))
			}
		}
		p.refs = p.refs[:0]
	}
	d.readRuns(runs)
	for i := range parts {
		p := &parts[i]
		for left := p.ver.mask & p.mask(); left != 0; left &= left - 1 {
			b := bits.TrailingZeros16(left)
			if sumOf(p.block(b)) != p.ver.sums[b] {
				p.bad |= 1 << b
			}
		}
	}
}

// appendRun adds a block to the last run if it lies behind it on the disk and in
// memory.
func appendRun(runs []diskRun, off int64, buf []byte) []diskRun {
	if n := len(runs); n > 0 {
		last := &runs[n-1]
		end := len(last.buf)
		if last.off+int64(end) == off && cap(last.buf) >= end+blockSize &&
			&last.buf[:end+1][end] == &buf[0] {
			last.buf = last.buf[:end+blockSize]
			return runs
		}
	}
	return append(runs, diskRun{off: off, buf: buf})
}

// readRuns reads all of the runs at the same time. What cannot be read is cleared:
// the sums then tell it from what can.
func (d *Disk) readRuns(runs []diskRun) {
	switch len(runs) {
	case 0:
		return
	case 1:
		q := uring.Request{Kind: uring.Read, Off: runs[0].off, Bufs: [][]byte{runs[0].buf}}
		runs[0].err = d.area.Do(&q)
	default:
		done := make(chan struct{}, len(runs))
		for i := range runs {
			r := &runs[i]
			d.area.Start(&uring.Request{
				Kind: uring.Read, Off: r.off, Bufs: [][]byte{r.buf},
				Done: func(err error) {
					r.err = err
					done <- struct{}{}
				},
			})
		}
		for range runs {
			<-done
		}
	}
	for i := range runs {
		if runs[i].err != nil {
			d.readBlocks(runs[i])
		}
	}
}

// readBlocks reads a run that failed block by block, so that only what cannot be
// read is missing.
func (d *Disk) readBlocks(r diskRun) {
	for at := 0; at < len(r.buf); at += blockSize {
		b := r.buf[at:][:blockSize]
		q := uring.Request{Kind: uring.Read, Off: r.off + int64(at), Bufs: [][]byte{b}}
		if d.area.Do(&q) != nil {
			clear(b)
			b[0] = 0xff // also where the content was zeros
		}
	}
}
