package model

// deleteSnapshot takes a snapshot out of the record.
func (m *Model) deleteSnapshot(s *State, out emit) {
	for e := range s.Rec.Epoch {
		if m.Trim && s.Gone>>e&1 == 0 {
			t := *s
			t.Gone |= 1 << e
			out(Step{Name: "delete snapshot (epoch)", A: uint8(e), Optional: true}, &t)
		}
	}
}

// trim removes a version that no kept epoch sees: not that of a snapshot, and not
// the present one, as the holder knows it. Who takes what is done to the page is sent
// that; a joining member that has not reached it, and one that is stale, loses it when
// it is filled (differs).
func (m *Model) trim(s *State, k int, out emit) {
	h := &s.H[k]
	if !m.Trim || h.Pends == maxPending {
		return
	}
	source := h.View.with(Active).first()
	for p := range m.Pages {
		if h.busy(p, wholePage) || m.copied(s, h, p) {
			continue
		}
		for e := range h.View.Epoch {
			if s.Disk[source].Now.Page[p][e].Stamp == 0 || m.seen(s, h, &s.Disk[source].Now, p, e) {
				continue
			}
			t := *s
			m.begin(&t, k, Pending{Page: p, Block: wholePage}, Msg{Kind: CopyMsg, Page: p, Epoch: uint8(e)})
			out(Step{Name: "trim (page, epoch)", A: p, B: uint8(e)}, &t)
		}
	}
}

// seen reports whether a kept epoch sees the version of epoch e: there is none
// between the two.
func (m *Model) seen(s *State, h *Holder, i *Image, p uint8, e uint16) bool {
	for kept := e; kept <= h.View.Epoch; kept++ {
		if kept > e && i.Page[p][kept].Stamp != 0 {
			return false
		}
		deleted := s.Gone>>kept&1 != 0 || m.Mistake == TrimSeen
		if kept == h.View.Epoch && m.Mistake != TrimPresent || kept < h.View.Epoch && !deleted {
			return true
		}
	}
	return false
}
