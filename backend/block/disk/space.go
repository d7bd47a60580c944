package disk

import (
	"math/bits"

	"drystone.example/drystone/backend/must"
)

// A space knows which places of the raw area are in use. The disk's mutex guards
// it.
//
// A place is given back in two steps: first nobody may find it any more, which is
// once the batch that leaves it is durable; and it is used again when nobody
// reads it or writes into it any more.
type space struct {
	used  []uint64 // one bit a place
	pages uint32
	free  int // places not in use
	next  uint32

	reserved int // free places that are promised to ops not yet applied
	keep     int // free places kept for removal and repair

	pins    map[place]int      // how many read it now
	leaving map[place]struct{} // given back while somebody used it
}

func newSpace(pages uint32) *space {
	s := &space{
		used: make([]uint64, (pages+63)/64), pages: pages, free: int(pages),
		keep: int(min(pages/16, 64)),
		pins: make(map[place]int), leaving: make(map[place]struct{}),
	}
	for p := pages; p%64 != 0; p++ { // the last word's bits beyond the end
		s.used[p/64] |= 1 << (p % 64)
	}
	return s
}

// available is how many places an op may still have that makes the disk fuller.
func (s *space) available() int { return s.free - s.reserved - s.keep }

// set marks a place as used, while the disk is opened. False means that it is
// used already or is not on this disk.
func (s *space) set(p place) bool {
	if uint32(p) >= s.pages || s.used[p/64]&(1<<(p%64)) != 0 {
		return false
	}
	s.used[p/64] |= 1 << (p % 64)
	s.free--
	return true
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
	for got < n && p < s.pages && s.used[p/64]&(1<<(p%64)) == 0 {
		s.used[p/64] |= 1 << (p % 64)
		p++
		got++
	}
	s.free -= got
	s.next = p % s.pages
	return first, got
}

// find returns the first free place at or after p, or pages.
func (s *space) find(p uint32) uint32 {
	for w := p / 64; int(w) < len(s.used); w++ {
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

// giveBack frees a place, or lets the last who uses it free it.
func (s *space) giveBack(p place) {
	if s.pins[p] > 0 {
		s.leaving[p] = struct{}{}
		return
	}
	s.clear(p)
}

func (s *space) clear(p place) {
	must.That(s.used[p/64]&(1<<(p%64)) != 0, "place %d is freed twice", p)
	s.used[p/64] &^= 1 << (p % 64)
	s.free++
}
