package disk

import (
	"maps"
	"slices"

	"drystone.example/drystone/backend/model"
)

// A row is one volume as this disk sees it: what it promised, how far it got, and
// the ops waiting to be applied.
type row struct {
	vol   model.VolumeID
	state rowState // what is durable

	queue   []*task // in the order of Apply
	ready   bool    // on the disk's list of rows whose head may be applied
	blocked bool    // the head is being prepared
	dirty   bool    // changed since the map has it
	known   bool    // there was a promise, ever

	match     model.VolumeID // what a Copy shared its place with last
	columns   map[uint32]holding
	uncertain uncertain
}

func newRow(vol model.VolumeID) *row {
	return &row{vol: vol, columns: make(map[uint32]holding)}
}

// A holding is how much the disk has of one column.
type holding struct {
	versions int
	pages    int // versions that have a place; one that is shared counts for each
}

// count notes that a version of a column came or went, and whether it has a place;
// n and pages are changes, of minus one to one.
func (r *row) count(column uint32, n, pages int) {
	h := r.columns[column]
	h.versions += n
	h.pages += pages
	if h.versions == 0 {
		delete(r.columns, column)
		return
	}
	r.columns[column] = h
}

// occupies is how many places a version takes.
func (v *version) occupies() int {
	if v.place == noPlace {
		return 0
	}
	return 1
}

// touched notes that an op changed a version; the zero op changes nothing that could
// be uncertain. An op may take several batches, and the row's state comes with the
// last of them: a checkpoint between two of them must keep what the first touched,
// for the journal will not have it any more.
func (r *row) touched(k madeKey, op model.Stamp) {
	if op.IsZero() {
		return
	}
	r.uncertain.add(k, op)
	r.dirty = true
}

// idle reports whether nothing is known or under way, so that it may be forgotten.
func (r *row) idle() bool {
	return !r.known && len(r.queue) == 0 && len(r.columns) == 0 && !r.dirty
}

// uncertain are the versions made by ops above the watermark: the op that touched
// each last, and the ops in the order they came, to forget them by.
type uncertain struct {
	made map[madeKey]model.Stamp
	fifo []uncertainOp
	head int // fifo begins here
}

type madeKey struct {
	column, page uint32
	epoch        model.Epoch
}

type uncertainOp struct {
	madeKey
	op model.Stamp
}

func (u *uncertain) add(k madeKey, op model.Stamp) {
	if u.made == nil {
		u.made = make(map[madeKey]model.Stamp)
	}
	u.made[k] = op
	if n := len(u.fifo) - u.head; n > 64 && n > 2*len(u.made) { // the same ones again and again
		u.compact()
		u.fifo = slices.DeleteFunc(u.fifo, func(o uncertainOp) bool { return u.made[o.madeKey] != o.op })
	}
	u.fifo = append(u.fifo, uncertainOp{k, op})
}

// settle forgets what was made at or below the watermark.
func (u *uncertain) settle(watermark model.Stamp) {
	for u.head < len(u.fifo) && !u.fifo[u.head].op.After(watermark) {
		if o := u.fifo[u.head]; u.made[o.madeKey] == o.op {
			delete(u.made, o.madeKey)
		}
		u.head++
	}
	if u.head > len(u.fifo)/2 {
		u.compact()
	}
}

func (u *uncertain) compact() {
	u.fifo = u.fifo[:copy(u.fifo, u.fifo[u.head:])]
	u.head = 0
}

// load puts back what a checkpoint kept.
func (u *uncertain) load(ops []uncertainOp) {
	slices.SortFunc(ops, func(a, b uncertainOp) int { return a.op.Compare(b.op) })
	for _, o := range ops {
		u.add(o.madeKey, o.op)
	}
}

// drop forgets what was made in a column.
func (u *uncertain) drop(column uint32) {
	maps.DeleteFunc(u.made, func(k madeKey, _ model.Stamp) bool { return k.column == column })
}

// keys returns what is uncertain in order of column, page and epoch.
func (u *uncertain) keys() []madeKey {
	out := make([]madeKey, 0, len(u.made))
	for k := range u.made {
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b madeKey) int {
		switch {
		case a.column != b.column:
			return int(int64(a.column) - int64(b.column))
		case a.page != b.page:
			return int(int64(a.page) - int64(b.page))
		default:
			return int(int64(a.epoch) - int64(b.epoch))
		}
	})
	return out
}
