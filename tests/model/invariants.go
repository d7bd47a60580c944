package model

import "fmt"

// check returns which invariant a state breaks, or "". The names are those of
// docs/SAFETY.md.
//
//	I1  An active member has, for each block, what was last acknowledged or read,
//	    or something newer; and there always is an active member.
//	I2  So does whatever a holder could answer a read with at this moment.
//	I3  Two active members with one stamp for a page have the same in it.
//	I4  Without faults the volume comes to serve with all members active (recovers).
//	I5  A snapshot never changes until it is deleted.
//	I6  When nothing is under way, all active members hold the same.
//	I7  A block is what its sum says.
func (m *Model) check(s *State) string {
	active := s.Rec.with(Active)
	if active == 0 {
		return "I1: no active member is left"
	}
	for d := range m.Disks {
		if !active.has(d) {
			continue
		}
		if what := m.checkBlocks(s, d); what != "" {
			return what
		}
		if what := m.checkVersions(s, d, active); what != "" {
			return what
		}
	}
	for k := range s.H {
		if what := m.checkReads(s, k); what != "" {
			return what
		}
	}
	return m.checkQuiet(s, active)
}

// plain makes a discarded block one that was never written: both read as zeros.
func (s *State) plain(v uint8) uint8 {
	if s.Discards>>v&1 != 0 {
		return 0
	}
	return v
}

// older reports whether a block reads as something older than the guest knows.
func (s *State) older(v, floor uint8) bool {
	return v < floor && (s.plain(v) != 0 || s.plain(floor) != 0)
}

func (m *Model) checkBlocks(s *State, d int) string {
	i := &s.Disk[d].Now
	for p := range m.Pages {
		for b := range m.Blocks {
			v, floor := i.read(p, b, s.Rec.Epoch), s.Floor[p][b]
			if s.older(v, floor) {
				return fmt.Sprintf("I1: active disk %d has write %d in page %d block %d; "+
					"%d was acknowledged or read", d, v, p, b, floor)
			}
			for e := range s.Rec.Epoch {
				if s.Gone>>e&1 != 0 {
					continue
				}
				if got, want := i.read(p, b, e), s.Snap[e][p][b]; s.plain(got) != s.plain(want) {
					return fmt.Sprintf("I5: snapshot %d on disk %d changed from write %d to %d", e, d, want, got)
				}
			}
		}
	}
	return ""
}

func (m *Model) checkVersions(s *State, d int, active Set) string {
	for p := range m.Pages {
		for e := range m.Epochs {
			v := s.Disk[d].Now.Page[p][e]
			if v.Bad {
				return fmt.Sprintf("I7: page %d on disk %d is not what its sum says", p, d)
			}
			for o := range d {
				w := s.Disk[o].Now.Page[p][e]
				if active.has(o) && w.Stamp == v.Stamp && !same(v, w) {
					return fmt.Sprintf("I3: disks %d and %d hold page %d with stamp %d.%d and differ",
						o, d, p, v.Stamp.gen(), v.Stamp.number())
				}
			}
		}
	}
	return ""
}

func (m *Model) checkReads(s *State, k int) string {
	h := &s.H[k]
	if !m.talks(h) {
		return ""
	}
	for d := range m.Disks {
		for p := range m.Pages {
			for b := range m.Blocks {
				v, floor := s.Disk[d].Now.read(p, b, h.View.Epoch), s.Floor[p][b]
				if s.older(v, floor) && m.readable(s, k, d, p, b) {
					return fmt.Sprintf("I2: the holder of generation %d reads write %d from disk %d; "+
						"%d was acknowledged or read", h.Gen, v, d, floor)
				}
			}
		}
	}
	return ""
}

func (m *Model) checkQuiet(s *State, active Set) string {
	h := &s.H[0]
	if h.Phase != Serving || h.View != s.Rec || h.Pends != 0 {
		return ""
	}
	first := active.first()
	for d := first + 1; d < m.Disks; d++ {
		for p := range m.Pages {
			for e := range m.Epochs {
				if active.has(d) && !same(s.Disk[first].Now.Page[p][e], s.Disk[d].Now.Page[p][e]) {
					return fmt.Sprintf("I6: nothing is under way, and disks %d and %d differ in page %d", first, d, p)
				}
			}
		}
	}
	return ""
}

// tidy drops what can have no effect any more, so that equal futures are equal
// states: messages a disk will never take, late proposals that cannot apply.
func (m *Model) tidy(s *State) {
	kept := uint8(0)
	for i := range s.Msg[:s.Msgs] {
		x := s.Msg[i]
		now := &s.Disk[x.To].Now
		var dead bool
		switch g := x.Order.gen(); m.Mistake { //nolint:exhaustive // the others change nothing here
		case NoFence:
			dead = x.Order <= now.Last && (g == now.Promise || x.Done)
		case Unordered:
			dead = g < now.Promise
		case ReplayNoPromise: // the disk may take it after all
		default:
			dead = g < now.Promise || x.Order <= now.Last
		}
		if !dead {
			s.Msg[kept] = x
			kept++
		}
	}
	clear(s.Msg[kept:s.Msgs])
	s.Msgs = kept
	n := 0
	for _, p := range s.Prop {
		dead := p.Gen == 0 || p.Late && (p.Gen != s.Rec.Gen || p.Rev != s.Rec.Rev)
		if !dead || p.Gen != 0 && m.Mistake == NoSwap {
			s.Prop[n] = p
			n++
		}
	}
	clear(s.Prop[n:])
}
