package disk

import (
	"math/bits"
	"time"

	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/must"
	"drystone.example/drystone/backend/uring"
)

// A batch is what goes into the journal at once: all that was ready while the
// last one was written. It is composed against the durable state and what the
// batch itself has changed so far; nothing is visible before it is durable.
type batch struct {
	records []record
	size    int      // of the records, encoded
	blocks  [][]byte // payload

	rows  map[*row]rowState
	order []*row // of rows
	pages map[pageKey][]version
	refs  map[place]uint32

	noted   bool // an origin: nothing goes into the batch after it, for it is not seen yet
	answers []answer

	controls []answer
	prepare  []*task // whose rows are blocked until they are prepared

	header []byte
}

// An answer is what will be said when the batch is durable.
type answer struct {
	task *task
	done func(error)
	err  error
}

// A control is something other than an op that changes durable state. run is
// called under the disk's mutex when a batch has room for it.
type control struct {
	size int // of its records, at most
	run  func(b *batch) error
	done chan error
}

func newBatch() *batch {
	return &batch{
		rows: make(map[*row]rowState), pages: make(map[pageKey][]version),
		refs: make(map[place]uint32), header: iobuf.Aligned(maxHeader),
	}
}

func (b *batch) reset() {
	clear(b.records)
	b.records, b.size, b.blocks = b.records[:0], batchHeader, b.blocks[:0]
	clear(b.rows)
	clear(b.pages)
	clear(b.refs)
	clear(b.order)
	clear(b.answers)
	b.order, b.answers, b.controls, b.prepare = b.order[:0], b.answers[:0], nil, nil
	b.noted = false
}

// Rows' records come last: room for one of each is kept.
const rowRecSize = 52

// fits reports whether a record with n blocks of data, or n bytes of records,
// still goes in, with what it may bring along.
func (b *batch) fits(bytes, blocks int) bool {
	return b.size+bytes+refsRecSize+(len(b.rows)+2)*rowRecSize <= maxHeader &&
		len(b.blocks)+blocks <= maxPayload
}

func (b *batch) add(r record) {
	b.size += r.size()
	b.records = append(b.records, r)
}

// state returns a row's state as of here in the batch.
func (b *batch) state(r *row) rowState {
	if s, ok := b.rows[r]; ok {
		return s
	}
	return r.state
}

func (b *batch) setState(r *row, s rowState) {
	if _, ok := b.rows[r]; !ok {
		b.order = append(b.order, r)
	}
	b.rows[r] = s
}

// commit is the goroutine that writes the journal.
func (d *Disk) commit() {
	b := newBatch()
	for d.compose(b) {
		buf, err := d.writeBatch(b)
		d.install(b, buf, err)
		for _, a := range b.controls {
			a.done(a.err)
		}
		for i := range b.answers {
			b.answers[i].task.done(b.answers[i].err)
		}
		d.answered(b)
	}
}

// compose waits until something can be applied and fills the batch with it.
// False means that the disk is closing and nothing is left.
func (d *Disk) compose(b *batch) bool {
	b.reset()
	d.mu.Lock()
	defer d.mu.Unlock()
	for !d.mayCompose() {
		if d.closing && d.users == 0 {
			return false
		}
		d.work.Wait()
	}
	for len(d.control) > 0 && !b.noted && b.fits(d.control[0].size, 0) {
		c := d.control[0]
		d.control = d.control[1:]
		err := d.refusal()
		if err == nil {
			err = c.run(b)
		}
		b.controls = append(b.controls, answer{done: func(err error) { c.done <- err }, err: err})
	}
	full := false
	rows := d.ready
	for i, r := range rows {
		if full = b.noted || d.composeRow(b, r); full {
			d.ready = append(d.ready[:0], rows[i:]...)
			break
		}
		r.ready = false
	}
	if !full {
		clear(d.ready)
		d.ready = d.ready[:0]
	}
	for _, r := range b.order {
		rec := record{kind: recRow, pageKey: pageKey{vol: r.vol}, row: b.rows[r]}
		if rec.row == (rowState{}) {
			rec.kind = recRowGone
		}
		b.add(rec)
	}
	for _, t := range b.prepare {
		t.row.blocked = true
	}
	return true
}

// mayCompose reports whether there is something to do and room to do it in.
func (d *Disk) mayCompose() bool {
	if len(d.ready)+len(d.control) == 0 {
		return false
	}
	if d.err != nil {
		return true // to refuse it
	}
	if d.journal.room() && d.overlay.bytes < overlayLimit && !d.pages.stuffed() {
		return true
	}
	d.wantCheckpoint()
	return false
}

// composeRow applies the tasks at the head of a row that are ready, in order. True
// means that the batch is full.
func (d *Disk) composeRow(b *batch, r *row) (full bool) {
	n := 0
	for n < len(r.queue) && r.queue[n].wait == 0 && !full {
		t := r.queue[n]
		out, err := d.composeTask(b, t)
		switch out {
		case batchFull:
			full = true
		case unprepared:
			b.prepare = append(b.prepare, t)
			full = false
		case applied:
			b.answers = append(b.answers, answer{task: t, err: err})
			n++
			continue
		}
		break
	}
	rest := copy(r.queue, r.queue[n:])
	clear(r.queue[rest:])
	r.queue = r.queue[:rest]
	return full
}

// An outcome says what became of a task in a batch.
type outcome int

const (
	applied    outcome = iota // it is in the batch, or refused
	batchFull                 // a later batch has room for it, or for its rest
	unprepared                // something must be read or written before
)

// composeTask judges a task and puts it into the batch.
func (d *Disk) composeTask(b *batch, t *task) (outcome, error) {
	op, s := t.op, b.state(t.row)
	switch {
	case d.err != nil:
		return applied, d.refusal()
	case s.generation != op.Generation:
		return applied, model.Errorf(model.Fenced,
			"volume %s is promised to generation %d, not %d", op.Volume, s.generation, op.Generation)
	case t.err != nil:
		return applied, t.err
	case op.Number <= s.last:
		return applied, nil // applied before
	case op.Prev != s.last:
		return applied, ErrGap
	}
	if !b.fits(rowRecSize, 0) {
		return batchFull, nil
	}
	if d.mustInherit(t) {
		return unprepared, nil
	}
	var out outcome
	var err error
	switch op.Kind {
	case Write:
		out, err = d.composeWrite(b, t)
	case Discard:
		out = d.composeDiscard(b, t)
	case Copy:
		out = d.composeCopy(b, t)
	case Remove:
		out = d.composeRemove(b, t)
	case Mark:
	}
	if out != applied || err != nil {
		return out, err
	}
	s.last = op.Number
	if op.Watermark.After(s.watermark) {
		s.watermark = op.Watermark
	}
	b.setState(t.row, s)
	return applied, nil
}

// versions returns what a page has as of here in the batch. Its leaf is in memory:
// the task that asks has pinned it.
func (d *Disk) versions(b *batch, k pageKey) []version {
	if vs, ok := b.pages[k]; ok {
		return vs
	}
	lk, i := leafOf(k)
	l := d.pages.leaves[lk]
	must.That(l != nil, "the map of page %d of column %d is not in memory", k.page, k.column)
	return l.pages[i]
}

// set puts a page's version into the batch, in the stead of the one of the same
// epoch.
func (d *Disk) set(b *batch, r record) {
	vs := d.versions(b, r.pageKey)
	i, ok := find(vs, r.ver.epoch)
	if !ok {
		out := make([]version, 0, len(vs)+1)
		out = append(append(out, vs[:i]...), r.ver)
		b.pages[r.pageKey] = append(out, vs[i:]...)
		b.add(r)
		return
	}
	out, staged := b.pages[r.pageKey]
	if !staged {
		out = append([]version(nil), vs...)
		b.pages[r.pageKey] = out
	}
	old := out[i].place
	out[i] = r.ver
	b.add(r)
	if old != r.ver.place {
		d.unshare(b, old)
	}
}

// gone takes a page's version of an epoch away.
func (d *Disk) gone(b *batch, k pageKey, e model.Epoch, op model.Stamp) {
	vs := d.versions(b, k)
	i, ok := find(vs, e)
	if !ok {
		return
	}
	old := vs[i].place
	out := append([]version(nil), vs[:i]...)
	b.pages[k] = append(out, vs[i+1:]...)
	b.add(record{kind: recGone, pageKey: k, ver: version{epoch: e}, op: op})
	d.unshare(b, old)
}

// shared returns by how many versions a place is shared, zero or one meaning none.
func (d *Disk) shared(b *batch, p place) uint32 {
	if n, ok := b.refs[p]; ok {
		return n
	}
	return d.refs[p]
}

// unshare lowers the count of a shared place that a version leaves. It comes after
// the record of that version, which therefore does not free it.
func (d *Disk) unshare(b *batch, p place) {
	if n := d.shared(b, p); n > 1 {
		b.refs[p] = n - 1
		b.add(record{kind: recRefs, ver: version{place: p}, refs: n - 1})
	}
}

// share puts a version into the batch that is in the place of another one; not of the one
// that it replaces. The count comes before the version: at no time is a place named more
// often than counted.
func (d *Disk) share(b *batch, r record) {
	n := max(d.shared(b, r.ver.place), 1) + 1
	b.refs[r.ver.place] = n
	b.add(record{kind: recRefs, ver: version{place: r.ver.place}, refs: n})
	r.kind = recShared
	d.set(b, r)
}

// writeBatch makes the batch durable and returns the buffer with its payload, or
// nil if it has none.
func (d *Disk) writeBatch(b *batch) (*iobuf.Buffer, error) {
	if len(b.records) == 0 {
		return nil, nil
	}
	h := header{salt: d.super.salt, lsn: d.journal.head.lsn, payload: len(b.blocks)}
	n := encodeBatch(b.header, h, b.records)
	bufs := [2][]byte{b.header[:n]}
	vec := bufs[:1]
	var buf *iobuf.Buffer
	if len(b.blocks) > 0 {
		buf = iobuf.Get(len(b.blocks) * blockSize)
		for i, from := range b.blocks {
			copy(buf.Bytes[i*blockSize:], from)
		}
		bufs[1] = buf.Bytes
		vec = bufs[:2]
	}
	at := d.journal.start + d.journal.head.offset
	err := d.area.Do(&uring.Request{Kind: uring.Write, Durable: true, Off: at, Bufs: vec})
	d.counters.batches.Add(1)
	d.counters.journalBytes.Add(uint64(n + len(b.blocks)*blockSize))
	return buf, err
}

// install makes what is durable visible, or fails the disk.
func (d *Disk) install(b *batch, buf *iobuf.Buffer, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		d.fail(err)
		err = d.refusal()
		for i := range b.answers {
			b.answers[i].err = err
		}
		for i := range b.controls {
			b.controls[i].err = err
		}
	} else if len(b.records) > 0 {
		whole := (b.size + blockSize - 1) / blockSize * blockSize
		d.journal.head = d.journal.after(d.journal.head, whole+len(b.blocks)*blockSize)
		for i := range b.records {
			d.installRecord(&b.records[i], buf)
		}
		d.changed()
	}
	if buf != nil {
		buf.Release()
	}
	for i := range b.answers {
		d.letGo(b.answers[i].task)
	}
	d.answering = true
	for _, t := range b.prepare { // now that all before it in its row can be seen
		d.tasks.Go(func() { d.prepareTask(t) })
	}
}

// letGo gives back what a task had and did not use.
func (d *Disk) letGo(t *task) {
	for _, l := range t.leaves {
		l.pins--
	}
	t.leaves = nil
	d.dropMatch(t)
	d.space.reserved -= t.reserved
	t.reserved = 0
	d.giveBackParts(t)
}

// giveBackParts frees the fresh places that no version took.
func (d *Disk) giveBackParts(t *task) {
	for i := range t.parts {
		if p := t.parts[i].place; p != noPlace {
			t.parts[i].place = noPlace
			d.space.giveBack(p)
		}
	}
}

// answered ends the tasks of a batch, after their callbacks.
func (d *Disk) answered(b *batch) {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answering = false
	d.users -= len(b.controls)
	for i := range b.answers {
		t := b.answers[i].task
		d.users--
		d.queued--
		d.queuedBytes -= t.size
		d.counters.writeNanos.Add(uint64(now.Sub(t.begun)))
		if b.answers[i].err == nil {
			d.counters.writes.Add(1)
			d.counters.writeBytes.Add(uint64(t.size))
		}
		if t.row.idle() {
			delete(d.rows, t.row.vol)
		}
	}
	d.room.Broadcast()
}

// installRecord applies a durable record to the map in memory. buf holds the data
// of the batch; it is nil when the journal is replayed.
func (d *Disk) installRecord(r *record, buf *iobuf.Buffer) {
	switch r.kind {
	case recVersion, recShared:
		d.installVersion(r, buf)
	case recGone:
		d.installGone(r)
	case recRow:
		row := d.rowOf(r.vol)
		row.state, row.known, row.dirty = r.row, true, true
		row.uncertain.settle(r.row.watermark)
	case recRowGone:
		row := d.rowOf(r.vol)
		row.state, row.known, row.dirty = rowState{}, false, true
		row.uncertain = uncertain{}
	case recRefs:
		if r.refs > 1 {
			d.refs[r.ver.place] = r.refs
		} else {
			delete(d.refs, r.ver.place)
		}
		d.dirtyRefs[r.ver.place] = struct{}{}
	case recSettled:
		row := d.rowOf(r.vol)
		row.dirty = true
		row.uncertain.drop(r.column)
	case recOrigin:
		d.origins.put(columnKey{r.vol, r.column}, r.origin, r.ver.epoch)
	case recInherited:
		d.origins.inherited(leafKey{r.vol, r.column, r.page / leafPages})
	}
}

func (d *Disk) installVersion(r *record, buf *iobuf.Buffer) {
	lk, i := leafOf(r.pageKey)
	l := d.pages.leaves[lk]
	must.That(l != nil, "the map of page %d was dropped while it was changed", r.page)
	l.keep(i)
	vs := l.pages[i]
	at, ok := find(vs, r.ver.epoch)
	was := noPlace
	if len(d.damaged) > 0 {
		d.rewritten(r, vs)
	}
	if ok {
		was = vs[at].place
		if change := r.ver.occupies() - vs[at].occupies(); change != 0 {
			d.count(r.pageKey, 0, change)
		}
		vs[at] = r.ver
	} else {
		vs = append(vs, version{})
		copy(vs[at+1:], vs[at:])
		vs[at] = r.ver
		l.pages[i] = vs
		d.count(r.pageKey, 1, r.ver.occupies())
	}
	d.pages.touch(l, i)
	if r.ver.place != noPlace && r.ver.place != was && d.space != nil {
		d.space.name(r.ver.place)
	}
	if was != noPlace && was != r.ver.place {
		d.leave(was)
	}
	if r.lost != 0 {
		top := l.pages[i][len(l.pages[i])-1].epoch
		d.setDamage(damageKey{r.vol, madeKey{r.column, r.page, r.ver.epoch}}, damage{r.lost, r.ver.epoch < top})
	}
	if p := r.ver.place; p != noPlace {
		switch {
		case r.kind == recShared: // what is pending there is this version's too
		case p != was: // nothing is pending for a place entered anew
			d.forgetPending(p, wholePage)
		case d.refs[p] < 2: // else the others may have more blocks
			d.forgetPending(p, ^r.ver.mask)
		}
		block := r.first
		for left := r.data; left != 0; left &= left - 1 {
			d.putPending(p, bits.TrailingZeros16(left), buf, block, r)
			block++
		}
	}
	d.rowOf(r.vol).touched(madeKey{r.column, r.page, r.ver.epoch}, r.op)
}

func (d *Disk) installGone(r *record) {
	lk, i := leafOf(r.pageKey)
	l := d.pages.leaves[lk]
	must.That(l != nil, "the map of page %d was dropped while it was changed", r.page)
	row := d.rowOf(r.vol)
	mk := madeKey{r.column, r.page, r.ver.epoch}
	if at, ok := find(l.pages[i], r.ver.epoch); ok {
		l.keep(i)
		was, pages := l.pages[i][at].place, l.pages[i][at].occupies()
		l.pages[i] = append(l.pages[i][:at], l.pages[i][at+1:]...)
		l.gone = append(l.gone, goneVersion{i, r.ver.epoch})
		d.count(r.pageKey, -1, -pages)
		d.pages.touch(l, i)
		if was != noPlace {
			d.leave(was)
		}
		if len(d.damaged) > 0 {
			d.dropped(r.pageKey, r.ver.epoch, l.pages[i])
		}
	}
	row.touched(mk, r.op)
}

// leave gives a place back that no version names any more.
func (d *Disk) leave(p place) {
	if d.refs[p] > 1 {
		return // another version has it
	}
	d.forgetPending(p, wholePage)
	switch {
	case d.space == nil: // it is counted when all is known
	case d.replaying != nil && !d.space.has(p):
		d.replaying.doubt = model.Errorf(model.Corrupt, "place %d is left by a version and was free", p)
	default:
		d.space.giveBack(p)
	}
}
