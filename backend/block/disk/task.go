package disk

import (
	"math"
	"math/bits"
	"time"

	"drystone.example/drystone/backend/block/layout"
	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/uring"
)

// The bounds of what waits in the disk's queue, and of one op.
const (
	maxQueued      = 1024
	maxQueuedBytes = 32 << 20
	maxBlocks      = 2048 // of one Write or Read: 8 MiB
)

const wholePage = 1<<model.BlocksPerPage - 1

// A task is an op on its way to the journal.
type task struct {
	op    *Op
	done  func(error)
	row   *row
	begun time.Time
	size  int // bytes of data; the op is the caller's again before the task ends

	// What follows is guarded by the disk's mutex.
	wait   int   // leaves to load and pages to write, before it can be applied
	err    error // why it is refused whatever the row says
	leaves []*leaf
	parts  []part
	next   int // parts that earlier batches applied
	// Of a Copy: what it shares its place with, and how often that was looked for.
	match *match
	looks int
	// lazy: places are taken when it is applied, because there were few.
	lazy     bool
	reserved int // places set aside for it

	// Of a Discard: it is cut into chunks, each applied by a batch of its own.
	cursor uint64 // page up to which parts reach
	more   bool   // there are pages at or after the cursor
	listed bool   // parts are there
}

// A part is what a task does to one page.
type part struct {
	page  uint32
	first int   // block in the page
	n     int   // blocks
	off   int   // of its data in the op's
	place place // fresh, with all of the page's new content, or noPlace
	from  version
	moved bool // place was filled with from and the op's blocks
}

func (p *part) mask() uint16 { return uint16((1<<p.n - 1) << p.first) }

// Apply queues an op and returns; it waits only while the queue is full. done is
// called exactly once, by a goroutine of the disk that must not be held up, when
// the op is durable or refused; by Apply itself if the disk is closed. It may call
// Apply, which does not wait then. Ops of one volume are applied in the order of
// the calls. The caller keeps op and op.Data
// unchanged until done; the disk needs neither after it.
func (d *Disk) Apply(op *Op, done func(error)) {
	t := &task{op: op, done: done, begun: time.Now(), size: len(op.Sums) * blockSize}
	t.err = op.check()
	if t.err == nil {
		t.parts = op.parts()
	}

	d.mu.Lock()
	for !d.closing && !d.answering && d.queued > 0 &&
		(d.queued >= maxQueued || d.queuedBytes+t.size > maxQueuedBytes) {
		d.room.Wait()
	}
	if d.closing {
		d.mu.Unlock()
		done(ErrClosed)
		return
	}
	d.users++
	d.queued++
	d.queuedBytes += t.size
	t.row = d.rowOf(op.Volume)
	t.row.queue = append(t.row.queue, t)
	var writes []*uring.Request
	if t.err == nil && d.err == nil {
		d.pinLeaves(t)
		writes = d.placeData(t)
	}
	if len(t.row.queue) == 1 && t.wait == 0 {
		d.makeReady(t.row)
	}
	d.mu.Unlock()
	for _, w := range writes {
		d.area.Start(w)
	}
}

// check says what is wrong with an op whatever the disk holds. It verifies the
// sums, so that nothing damaged on its way here is kept.
func (op *Op) check() error {
	blocks := 0
	switch op.Kind {
	case Write:
		if op.Count == 0 || op.Count > maxBlocks || uint64(op.Block) > maxBlock-op.Count {
			return model.Errorf(model.Invalid, "a write of %d blocks at %d", op.Count, op.Block)
		}
		blocks = int(op.Count)
	case Discard:
		if uint64(op.Block) > maxBlock || op.Count > maxBlock-uint64(op.Block) {
			return model.Errorf(model.Invalid, "a discard of %d blocks at %d", op.Count, op.Block)
		}
	case Copy:
		blocks = bits.OnesCount16(op.Version.Mask)
	case Remove, Mark:
	default:
		return model.Errorf(model.Invalid, "an op of kind %d", op.Kind)
	}
	if op.Generation == 0 || op.Number == 0 {
		return model.Errorf(model.Invalid, "an op without a generation or a number")
	}
	if len(op.Sums) != blocks {
		return model.Errorf(model.Invalid, "%d sums for %d blocks", len(op.Sums), blocks)
	}
	if blocks == 0 {
		return nil
	}
	end := op.DataOff + blocks*blockSize
	if op.Data == nil || op.DataOff < 0 || end > len(op.Data.Bytes) ||
		!iobuf.IsAligned(op.Data.Bytes[op.DataOff:]) {
		return model.Errorf(model.Invalid, "the data of %d blocks is missing or not aligned", blocks)
	}
	lost := op.lostBlocks()
	for i, sum := range op.Sums {
		if lost>>i&1 == 0 && sumOf(op.block(i)) != sum {
			return model.Errorf(model.Corrupt, "block %d of the data does not match its checksum", i)
		}
	}
	return nil
}

// lostBlocks is Lost in the order of the data.
func (op *Op) lostBlocks() (lost uint16) {
	if op.Kind != Copy || op.Lost == 0 {
		return 0
	}
	i := 0
	for left := op.Version.Mask; left != 0; left &= left - 1 {
		lost |= op.Lost >> bits.TrailingZeros16(left) & 1 << i
		i++
	}
	return lost
}

// maxBlock is the number of blocks a column can have.
const maxBlock = uint64(math.MaxUint32) * uint64(model.BlocksPerPage)

// block returns the i-th block of the op's data.
func (op *Op) block(i int) []byte {
	return op.Data.Bytes[op.DataOff+i*blockSize:][:blockSize]
}

// parts cuts a Write at pages; a Copy or Remove is one part.
func (op *Op) parts() []part {
	switch op.Kind {
	case Copy, Remove:
		return []part{{page: op.Page, n: model.BlocksPerPage, place: noPlace}}
	case Write:
	case Discard, Mark:
		return nil
	}
	out := make([]part, 0, (int(op.Count)+2*model.BlocksPerPage-2)/model.BlocksPerPage)
	for i := 0; i < int(op.Count); {
		b := op.Block + layout.Block(i)
		n := min(model.BlocksPerPage-b.InPage(), int(op.Count)-i)
		out = append(out, part{
			page: b.Page(), first: b.InPage(), n: n, off: i * blockSize, place: noPlace,
		})
		i += n
	}
	return out
}

// pinLeaves makes sure that the map of the pages a task touches is in memory when
// it is applied.
func (d *Disk) pinLeaves(t *task) {
	last := -1
	for i := range t.parts {
		if n := int(t.parts[i].page / leafPages); n != last {
			last = n
			t.wait++
			d.withLeaf(leafKey{t.op.Volume, t.op.Column, uint32(n)}, func(l *leaf, err error) {
				if err == nil {
					l.pins++
					t.leaves = append(t.leaves, l)
				}
				d.goOn(t, err)
			})
		}
	}
}

// goOn notes that one of the things a task waited for is done.
func (d *Disk) goOn(t *task, err error) {
	if err != nil {
		d.fail(err)
	}
	t.wait--
	if r := t.row; t.wait == 0 && len(r.queue) > 0 && r.queue[0] == t {
		d.makeReady(r)
	}
}

// makeReady puts a row whose head can be applied on the committer's list.
func (d *Disk) makeReady(r *row) {
	if !r.ready && !r.blocked {
		r.ready = true
		d.ready = append(d.ready, r)
		d.work.Signal()
	}
}

// placeData takes places for a task and returns the writes that fill them: pages
// written whole go straight to fresh places. Where none but those kept are left nothing
// is taken: what the task needs is then judged when it is applied.
func (d *Disk) placeData(t *task) []*uring.Request {
	whole, partial := 0, 0
	switch t.op.Kind {
	case Write:
		for i := range t.parts {
			if t.parts[i].n == model.BlocksPerPage {
				whole++
			} else {
				partial++
			}
		}
	case Copy:
		if t.op.Version.Mask != 0 {
			whole = 1
		}
	case Discard, Remove, Mark:
		return nil
	}
	if d.space.available() < whole+partial {
		t.lazy = true
		return nil
	}
	t.reserved = partial
	d.space.reserved += partial
	if t.op.Kind == Copy {
		if whole == 0 {
			return nil
		}
		if t.mayShare() && len(d.relatives(t)) > 0 {
			t.reserved++
			d.space.reserved++
			d.seekMatch(t)
			return nil
		}
		t.parts[0].place = d.space.take()
		return []*uring.Request{d.pageWrite(t, t.parts[0].place, t.op.wholeVersion())}
	}
	var out []*uring.Request
	for i := 0; i < len(t.parts); {
		if t.parts[i].n != model.BlocksPerPage {
			i++
			continue
		}
		left := 0
		for i+left < len(t.parts) && t.parts[i+left].n == model.BlocksPerPage {
			left++
		}
		p, got := d.space.takeRun(left)
		for j := range got {
			t.parts[i+j].place = p + place(j)
		}
		from := t.op.DataOff + t.parts[i].off
		out = append(out, d.pageWrite(t, p, t.op.Data.Bytes[from:][:got*pageSize]))
		i += got
	}
	return out
}

// pageWrite makes the durable write of fresh places that a task waits for.
func (d *Disk) pageWrite(t *task, p place, data []byte) *uring.Request {
	t.wait++
	return &uring.Request{
		Kind: uring.Write, Durable: true, Off: d.offset(p, 0), Bufs: [][]byte{data},
		Done: func(err error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.goOn(t, err)
		},
	}
}

// offset is where a block of a place lies in the area.
func (d *Disk) offset(p place, block int) int64 {
	return d.pagesStart + int64(p)*int64(pageSize) + int64(block*blockSize)
}

// wholeVersion returns the data of a Copy with each block at its position.
func (op *Op) wholeVersion() []byte {
	if op.Version.Mask == wholePage {
		return op.Data.Bytes[op.DataOff:][:pageSize]
	}
	page := iobuf.Aligned(pageSize)
	i := 0
	for left := op.Version.Mask; left != 0; left &= left - 1 {
		copy(page[bits.TrailingZeros16(left)*blockSize:], op.block(i))
		i++
	}
	return page
}

// withLeaf calls f with a leaf, at once if it is in memory, and otherwise when it
// is loaded. f is called under the disk's mutex.
func (d *Disk) withLeaf(k leafKey, f func(*leaf, error)) {
	if l := d.leaf(k); l != nil {
		d.pages.hits++
		f(l, nil)
		return
	}
	d.pages.misses++
	if load := d.pages.loading[k]; load != nil {
		load.waiters = append(load.waiters, f)
		return
	}
	load := &leafLoad{waiters: []func(*leaf, error){f}}
	d.pages.loading[k] = load
	d.tasks.Go(func() {
		l, err := d.load(k)
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.pages.loading, k)
		for _, f := range load.waiters {
			f(l, err)
		}
		if l != nil {
			l.pins--
		}
	})
}

// leaf returns a leaf that is in memory and has what it inherits, or nil.
func (d *Disk) leaf(k leafKey) *leaf {
	if d.origins.of(k) != nil {
		return nil
	}
	return d.pages.get(k)
}

// load brings a leaf into memory, pinned, with what it inherits. Of one leaf there is
// one load at a time.
func (d *Disk) load(k leafKey) (*leaf, error) {
	d.mu.Lock()
	l := d.pages.get(k)
	if l != nil {
		l.pins++
	}
	d.mu.Unlock()
	if l == nil {
		d.loaders <- struct{}{}
		fresh, err := d.store.load(k)
		<-d.loaders
		if err != nil {
			return nil, err
		}
		l = fresh
		d.mu.Lock()
		l.pins++ // insert may evict
		d.pages.insert(l)
		d.mu.Unlock()
	}
	return l, d.inherit(k)
}
