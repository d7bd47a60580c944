package model

// write admits a guest's write or discard, unless one that overlaps is in flight, or
// the page is locked because it is just copied to a joining member.
func (m *Model) write(s *State, k int, out emit) {
	h := &s.H[k]
	if s.Writes == m.Writes || h.Pends == maxPending {
		return
	}
	for p := range m.Pages {
		if m.copied(s, h, p) {
			continue
		}
		for b := range m.Blocks {
			if !h.busy(p, b) {
				m.issue(s, k, p, b, out)
			}
		}
		if m.Discard && !h.busy(p, wholePage) {
			m.issue(s, k, p, wholePage, out)
		}
	}
}

// copied reports whether a page is on its way to a joining member.
func (m *Model) copied(s *State, h *Holder, p uint8) bool {
	joining := h.View.with(Joining) & h.Prepared
	for d := range m.Disks {
		end := h.FillEnd[d][p]
		if joining.has(d) && end != 0 && !m.applied(s, h, d, end) && m.Mistake != FillOverwrites {
			return true
		}
	}
	return false
}

// takers are the members that are sent what is done to a page: the active ones, and
// the joining ones that have reached it.
func (m *Model) takers(h *Holder, p uint8) Set {
	out := h.View.with(Active)
	joining := h.View.with(Joining) & h.Prepared
	for d := range m.Disks {
		if joining.has(d) && (p >= m.Pages || h.Filled[d]>>p&1 != 0 || m.Mistake == FillOverwrites) {
			out |= one(d)
		}
	}
	return out
}

func (m *Model) issue(s *State, k int, p, b uint8, out emit) {
	t := *s
	h := &t.H[k]
	t.Writes++
	if b == wholePage {
		t.Discards |= 1 << t.Writes
	}
	m.begin(&t, k, Pending{Page: p, Block: b, Val: t.Writes}, Msg{
		Kind: WriteMsg, Page: p, Block: b, Val: t.Writes, Tomb: b == wholePage, Epoch: uint8(h.View.Epoch),
	})
	out(Step{Name: "write (id, page, block)", A: t.Writes, B: p, C: b}, &t)
}

// begin draws a number and sends a message to all who take it.
func (m *Model) begin(t *State, k int, w Pending, x Msg) {
	h := &t.H[k]
	h.Number++
	x.Order, x.Mark = at(h.Gen, h.Number), h.Mark
	w.Number = h.Number
	w.Wait = m.takers(h, w.Page)
	h.Pend[h.Pends] = w
	h.Pends++
	for d := range m.Disks {
		if w.Wait.has(d) {
			x.To = uint8(d)
			t.send(x)
		}
	}
}

// complete ends what every member that is still one has. Then the guest is told,
// if the holder has its lease; it is told later, or never, if not.
func (m *Model) complete(s *State, k int, out emit) {
	for i, w := range s.H[k].Pend[:s.H[k].Pends] {
		wait := w.Wait.without(m.dropping(s, k))
		for d := range m.Disks {
			if wait.has(d) && m.applied(s, &s.H[k], d, w.Number) {
				wait = wait.without(one(d))
			}
		}
		if wait != 0 {
			continue
		}
		t := *s
		h := &t.H[k]
		h.Pends--
		copy(h.Pend[i:], h.Pend[i+1:])
		h.Pend[h.Pends] = Pending{}
		h.Mark = m.watermark(s, h)
		for b := range m.Blocks {
			switch {
			case w.Val == 0 || !w.overlaps(w.Page, b):
			case m.talks(h):
				t.learn(w.Page, b, w.Val)
			default:
				h.Owed[w.Page][b] |= 1 << w.Val
			}
		}
		out(Step{Name: "complete (generation, number, write)", A: uint8(h.Gen), B: w.Number, C: w.Val}, &t)
	}
}

// dropping is the mistake of not waiting for a drop to be committed.
func (m *Model) dropping(s *State, k int) (set Set) {
	if m.Mistake != AckEarly {
		return 0
	}
	for i := range s.Prop {
		for d, member := range s.Prop[i].Member {
			if p := &s.Prop[i]; p.Gen == s.H[k].Gen && !p.Late && member.Role == Stale {
				set |= one(d)
			}
		}
	}
	return set
}

// watermark is below the first number that not all have that should.
func (m *Model) watermark(s *State, h *Holder) Stamp {
	n := h.Number
	for _, o := range h.Pend[:h.Pends] {
		n = min(n, o.Number-1)
	}
	for d := range m.Disks {
		for p := range m.Pages {
			if end := h.FillEnd[d][p]; end != 0 && !m.applied(s, h, d, end) {
				n = min(n, h.FillAt[d][p]-1)
			}
		}
	}
	return at(h.Gen, n)
}

// mark tells the members the watermark, as a holder does that falls idle.
func (m *Model) mark(s *State, k int, out emit) {
	if s.Marks == m.Marks || s.H[k].Pends == maxPending {
		return
	}
	t := *s
	t.Marks++
	t.H[k].Mark = m.watermark(s, &s.H[k])
	m.begin(&t, k, Pending{Page: maxPages}, Msg{Kind: MarkMsg}) // a page there is not: it overlaps nothing
	out(Step{Name: "mark (generation)", A: uint8(s.H[k].Gen), Optional: true}, &t)
}

// readable reports whether a holder may read a block from a disk and answer the
// guest. A disk answers the holder it promised.
func (m *Model) readable(s *State, k, d int, p, b uint8) bool {
	h := &s.H[k]
	return m.talks(h) && h.View.Member[d].Role == Active && s.Disk[d].Now.Promise == h.Gen && !h.busy(p, b)
}

// readBlock emits only reads that teach the guest something: a write it was not
// told of.
func (m *Model) readBlock(s *State, k int, out emit) {
	for d := range m.Disks {
		for p := range m.Pages {
			for b := range m.Blocks {
				v := s.Disk[d].Now.read(p, b, s.H[k].View.Epoch)
				if v > s.Floor[p][b] && m.readable(s, k, d, p, b) {
					t := *s
					t.learn(p, b, v)
					out(Step{Name: "read (disk, block, returns)", A: uint8(d), B: b, C: v, Optional: true}, &t)
				}
			}
		}
	}
}

// cut takes a snapshot: one command of raft, while nothing is in flight.
func (m *Model) cut(s *State, k int, out emit) {
	h := &s.H[k]
	if h.View.Epoch+1 >= m.Epochs || h.Awaits || h.Unsure || h.View != s.Rec ||
		h.Pends != 0 && m.Mistake != CutInFlight {
		return
	}
	t := *s
	d := h.View.with(Active).first()
	for p := range m.Pages {
		for b := range m.Blocks {
			t.Snap[h.View.Epoch][p][b] = s.Disk[d].Now.read(p, b, h.View.Epoch)
		}
	}
	t.Rec.Epoch++
	t.Rec.Rev++
	t.H[k].View = t.Rec
	out(Step{Name: "cut snapshot (epoch)", A: uint8(h.View.Epoch), Optional: true}, &t)
}
