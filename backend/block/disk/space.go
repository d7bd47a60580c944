package disk

import (
	"math/bits"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/must"
)

// A space knows which places of the raw area are in use. The disk's mutex guards
// it.
//
// A place is given back in two steps: first nobody may find it any more, which is
// once the batch that leaves it is durable; and it is used again when nobody
// reads it or writes into it any more.
//
// Used are those that a version names, those that are fresh, and those that are
// leaving. What a checkpoint keeps is which ones are named: nothing else outlives the
// process. A place that a version names is never free.
//
// Invariant: a Write that makes the disk fuller leaves spare places free, the part of a
// disk above model.FullCritical percent. That room is for what brings a volume back to
// its copies (Copy), for taking away (Discard, Remove), and for the second place that
// an overwrite of a whole page has until it is durable; a Write that changes only what
// has a place of its own needs none. So a disk that takes no more data from guests can
// still be read, overwritten, repaired, filled and emptied. It is judged exactly, page
// by page, when the Write is applied (grow), and refused before anything is touched.
type space struct {
	used  []uint64 // one bit a place
	room  []uint16 // free places of each chunk
	pages uint32
	free  int // places not in use
	next  uint32

	reserved int // free places that are promised to ops not yet applied
	keep     int // free places kept for removal and repair
	spare    int // free places that no Write makes fewer; at least keep

	pins    map[place]int      // how many read it now
	leaving map[place]struct{} // given back while somebody used it
	fresh   map[place]struct{} // taken, and named by no version yet

	// dirty are the chunks in which other places are named than when the last
	// checkpoint began. frozen are those it has to take: as they were then, or nil
	// if they still are.
	dirty  map[uint32]struct{}
	frozen map[uint32][]byte
}

// A chunk is what one entry of the space table covers: 4 KiB of bits, 2 GiB of pages.
const (
	chunkWords  = 512
	chunkPlaces = 64 * chunkWords
)

func newSpace(pages uint32) *space {
	chunks := (pages + chunkPlaces - 1) / chunkPlaces
	s := &space{
		used: make([]uint64, (pages+63)/64), room: make([]uint16, chunks), pages: pages, free: int(pages),
		keep: int(min(pages/16, 64)),
		pins: make(map[place]int), leaving: make(map[place]struct{}), fresh: make(map[place]struct{}),
		dirty: make(map[uint32]struct{}),
	}
	for c := range s.room {
		s.room[c] = uint16(min(chunkPlaces, pages-uint32(c)*chunkPlaces))
	}
	s.spare = max(s.keep, int(pages)-int(uint64(pages)*model.FullCritical/100))
	for p := pages; p%64 != 0; p++ { // the last word's bits beyond the end
		s.used[p/64] |= 1 << (p % 64)
	}
	return s
}

// available is how many places an op may still have, but for those kept.
func (s *space) available() int { return s.free - s.reserved - s.keep }

// has reports whether a place is in use.
func (s *space) has(p place) bool {
	return uint32(p) < s.pages && s.used[p/64]&(1<<(p%64)) != 0
}

// tight reports whether no more than what Writes leave free is left.
func (s *space) tight() bool { return s.free-s.reserved < s.spare }

// set marks a place as used, while the disk is opened. False means that it is
// used already or is not on this disk.
func (s *space) set(p place) bool {
	if uint32(p) >= s.pages || s.has(p) {
		return false
	}
	s.use(p)
	return true
}

func (s *space) use(p place) {
	s.used[p/64] |= 1 << (p % 64)
	s.room[p/chunkPlaces]--
	s.free--
}

// take takes one free place; there must be one.
func (s *space) take() place {
	p, n := s.takeRun(1)
	must.That(n == 1, "no free place where %d were counted", s.free)
	return p
}

// takeRun takes up to n free places that lie side by side, at least one if there
// is one.
func (s *space) takeRun(n int) (first place, got int) {
	if s.free == 0 || n <= 0 {
		return noPlace, 0
	}
	p := s.find(s.next)
	if p == s.pages {
		p = s.find(0)
	}
	must.That(p < s.pages, "%d places are free and none is found", s.free)
	first = place(p)
	for got < n && p < s.pages && !s.has(place(p)) {
		s.use(place(p))
		s.fresh[place(p)] = struct{}{}
		p++
		got++
	}
	s.next = p % s.pages
	return first, got
}

// find returns the first free place at or after p, or pages.
func (s *space) find(p uint32) uint32 {
	for w := p / 64; int(w) < len(s.used); w++ {
		if c := w / chunkWords; s.room[c] == 0 {
			w = (c+1)*chunkWords - 1
			continue
		}
		free := ^s.used[w]
		if w == p/64 {
			free &= ^uint64(0) << (p % 64)
		}
		if free != 0 {
			return w*64 + uint32(bits.TrailingZeros64(free))
		}
	}
	return s.pages
}

// name notes that a version names a place from now on: one that was taken for it, one
// that it shares, or, while the journal is replayed, any.
func (s *space) name(p place) {
	if _, fresh := s.fresh[p]; !fresh && s.has(p) {
		return
	}
	s.change(p)
	if !s.has(p) {
		s.use(p)
	}
	delete(s.fresh, p)
}

// pin keeps a place from being used again until unpin.
func (s *space) pin(p place) { s.pins[p]++ }

// unpin lets a place go; the last one to do so frees it if it was given back.
func (s *space) unpin(p place) {
	if s.pins[p]--; s.pins[p] > 0 {
		return
	}
	delete(s.pins, p)
	if _, ok := s.leaving[p]; ok {
		delete(s.leaving, p)
		s.clear(p)
	}
}

// giveBack frees a place that no version names, or lets the last who uses it free it.
func (s *space) giveBack(p place) {
	if _, fresh := s.fresh[p]; fresh {
		delete(s.fresh, p)
	} else {
		s.change(p)
	}
	if s.pins[p] > 0 {
		s.leaving[p] = struct{}{}
		return
	}
	s.clear(p)
}

func (s *space) clear(p place) {
	must.That(s.has(p), "place %d is freed twice", p)
	s.used[p/64] &^= 1 << (p % 64)
	s.room[p/chunkPlaces]++
	s.free++
}
