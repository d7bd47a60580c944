package disk

import (
	"cmp"
	"math/bits"
	"slices"

	"drystone.example/drystone/backend/model"
)

// leafPages is how many neighbouring pages the page map loads at once: those of
// one stripe unit.
const leafPages = 16

type leafKey struct {
	vol    model.VolumeID
	column uint32
	number uint32 // page / leafPages
}

func (k leafKey) compare(o leafKey) int {
	return cmp.Or(cmp.Compare(k.vol, o.vol), cmp.Compare(k.column, o.column), cmp.Compare(k.number, o.number))
}

func leafOf(k pageKey) (leafKey, int) {
	return leafKey{k.vol, k.column, k.page / leafPages}, int(k.page % leafPages)
}

func (k leafKey) page(i int) pageKey {
	return pageKey{k.vol, k.column, k.number*leafPages + uint32(i)}
}

// A leaf is all that the map knows of some neighbouring pages. The disk's mutex
// guards it.
type leaf struct {
	key   leafKey
	pages [leafPages][]version // each in order of epoch
	gone  []goneVersion        // taken away since the last checkpoint began

	// dirty pages have changed since the last checkpoint began, flushing ones are its
	// to put into the store, and may not be there yet.
	dirty, flushing uint16
	// frozen pages are flushing ones that are still as they were when the checkpoint
	// began; kept has what others of them were then.
	frozen   uint16
	kept     []keptPage
	goneThen []goneVersion // what had been taken away when it began

	listed bool // on the map's list of dirty leaves
	used   bool // since the last look of the clock
	pins   int  // ops that rely on its being here
	size   int  // what it was counted with
}

// A keptPage is a page as it was when the checkpoint under way began.
type keptPage struct {
	page     int
	versions []version
}

type goneVersion struct {
	page  int
	epoch model.Epoch
}

// find returns where a page has a version of an epoch, or would have it.
func find(vs []version, e model.Epoch) (int, bool) {
	if n := len(vs); n > 0 && vs[n-1].epoch == e { // nearly always
		return n - 1, true
	}
	return slices.BinarySearchFunc(vs, e, func(v version, e model.Epoch) int {
		return int(int64(v.epoch) - int64(e))
	})
}

// visible returns the newest version at or below an epoch, or nil.
func visible(vs []version, e model.Epoch) *version {
	for i := len(vs) - 1; i >= 0; i-- {
		if vs[i].epoch <= e {
			return &vs[i]
		}
	}
	return nil
}

// cost is about how much memory the leaf takes, in bytes.
func (l *leaf) cost() int {
	n := 600 + 16*len(l.gone)
	for i := range l.pages {
		n += 96 * cap(l.pages[i])
	}
	return n
}

// A pageMap is the part of the map that is in memory: what is dirty, and as much
// of the rest as the bound allows. The disk's mutex guards it.
type pageMap struct {
	leaves  map[leafKey]*leaf
	clock   []*leaf // all of them, in no order
	hand    int
	bytes   int
	limit   int
	dirty   []*leaf // those that a checkpoint has to take
	loading map[leafKey]*leafLoad

	hits, misses uint64 // of those that asked for a leaf
}

// A leafLoad is a leaf being read from the store, and who waits for it.
type leafLoad struct {
	waiters []func(*leaf, error)
}

func newPageMap(limit int) *pageMap {
	return &pageMap{
		leaves: make(map[leafKey]*leaf), loading: make(map[leafKey]*leafLoad), limit: limit,
	}
}

// get returns a leaf that is in memory, or nil.
func (m *pageMap) get(k leafKey) *leaf {
	l := m.leaves[k]
	if l != nil {
		l.used = true
	}
	return l
}

func (m *pageMap) insert(l *leaf) {
	m.leaves[l.key] = l
	m.clock = append(m.clock, l)
	l.used = true
	m.recount(l)
	m.evict(evictTries)
}

// evictTries is how many leaves an insertion looks at for one that can go. Where nearly
// all are dirty it finds none, and looking at all of them each time would take longer
// than what it is for.
const evictTries = 64

func (m *pageMap) recount(l *leaf) {
	n := l.cost()
	m.bytes += n - l.size
	l.size = n
}

// freeze hands all that changed to a checkpoint and returns the leaves it is in.
func (m *pageMap) freeze() []*leaf {
	list := m.dirty
	m.dirty = nil
	for _, l := range list {
		l.flushing, l.frozen, l.dirty, l.listed = l.dirty, l.dirty, 0, false
		l.goneThen, l.gone = l.gone, nil
	}
	return list
}

// keep is called before a page changes: if a checkpoint has still to take it, it is
// kept as it is.
func (l *leaf) keep(page int) {
	if l.frozen&(1<<page) == 0 {
		return
	}
	l.frozen &^= 1 << page
	l.kept = append(l.kept, keptPage{page, slices.Clone(l.pages[page])})
}

// thaw returns what the checkpoint has to put into the store, as it was when it began.
func (l *leaf) thaw() (pages []keptPage, gone []goneVersion) {
	pages, gone = l.kept, l.goneThen
	for left := l.frozen; left != 0; left &= left - 1 {
		i := bits.TrailingZeros16(left)
		pages = append(pages, keptPage{i, slices.Clone(l.pages[i])})
	}
	l.frozen, l.kept, l.goneThen = 0, nil, nil
	return pages, gone
}

// touch marks a page as changed.
func (m *pageMap) touch(l *leaf, page int) {
	l.dirty |= 1 << page
	if !l.listed {
		l.listed = true
		m.dirty = append(m.dirty, l)
	}
	m.recount(l)
}

// evict drops leaves that were not used lately until the bound holds, or as many were
// looked at as given: what is dirty or relied on stays.
func (m *pageMap) evict(tries int) {
	for ; len(m.clock) > 0 && m.bytes > m.limit && tries > 0; tries-- {
		if m.hand >= len(m.clock) {
			m.hand = 0
		}
		l := m.clock[m.hand]
		switch {
		case l.pins > 0 || l.listed || l.dirty|l.flushing != 0:
			m.hand++
		case l.used:
			l.used = false
			m.hand++
		default:
			m.bytes -= l.size
			delete(m.leaves, l.key)
			last := len(m.clock) - 1
			m.clock[m.hand] = m.clock[last]
			m.clock[last] = nil
			m.clock = m.clock[:last]
		}
	}
}

// full reports whether so much is dirty that a checkpoint should be made.
func (m *pageMap) full() bool { return len(m.dirty)*leafCost > m.limit/2 }

// stuffed reports whether so much is dirty that changes have to wait for one.
func (m *pageMap) stuffed() bool { return len(m.dirty)*leafCost > m.limit }

// leafCost is what a dirty leaf is counted with: a full one of one epoch.
const leafCost = 600 + 96*leafPages

// load makes the leaf of what the store holds.
func (s *store) load(k leafKey) (*leaf, error) {
	l := &leaf{key: k}
	first := k.number * leafPages
	err := s.scan(k.vol, k.column, first, uint64(first)+leafPages, func(page uint32, v version) bool {
		i := page % leafPages
		l.pages[i] = append(l.pages[i], v)
		return true
	})
	return l, err
}
