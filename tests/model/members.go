package model

// drop proposes that some members are stale, with or without a substitute. An
// active member that promised must be left.
func (m *Model) drop(s *State, k int, out emit) {
	h := &s.H[k]
	if s.Drops == m.Drops || !s.mayPropose(k) {
		return
	}
	members := h.View.with(Active, Joining)
	for set := Set(1); set < one(m.Disks); set++ {
		if set.without(members) != 0 || h.View.with(Active).without(set)&h.Prepared == 0 {
			continue
		}
		t := *s
		m.proposeDrop(&t, k, set)
		out(Step{Name: "propose to drop (generation, set)", A: uint8(h.Gen), B: uint8(set), Optional: true}, &t)
		for d := range m.Disks {
			if h.View.Member[d].Role == Absent && h.Phase == Serving && s.Joins < m.Joins {
				t := *s
				t.Joins++
				m.proposeDrop(&t, k, set).Member[d].Role = Joining
				out(Step{
					Name: "propose to drop with a substitute (generation, set, disk)",
					A:    uint8(h.Gen), B: uint8(set), C: uint8(d), Optional: true,
				}, &t)
			}
		}
	}
}

func (m *Model) proposeDrop(t *State, k int, set Set) *Proposal {
	t.Drops++
	p := t.propose(k)
	for d := range m.Disks {
		if set.has(d) {
			p.Member[d] = Member{Stale, m.cutoff(&t.H[k], p.Member[d])}
		}
	}
	return p
}

// cutoff of a member that is dropped: the watermark, which during a takeover is the
// highest that a promise told. A joining one never had all of that, and keeps its own.
func (m *Model) cutoff(h *Holder, member Member) Stamp {
	switch {
	case m.Mistake == CutoffHigh && h.Phase == Serving:
		return at(h.Gen, h.Number)
	case m.Mistake == TakeoverCutoff && h.Phase != Serving:
		return at(h.Gen, 0)
	case member.Role == Joining && m.Mistake != JoiningCutoff:
		return member.Cutoff
	}
	return h.Mark
}

// promote is the mistake of making a stale member active because it can be reached.
func (m *Model) promote(s *State, k int, out emit) {
	for d := range m.Disks {
		if m.Mistake == PromoteStale && s.H[k].Phase == Preparing && s.Rec.Member[d].Role == Stale {
			t := *s
			t.Rec.Member = [maxDisks]Member{}
			t.Rec.Member[d].Role = Active
			t.Rec.Rev++
			t.H[k].View = t.Rec
			out(Step{Name: "promote a stale member (disk)", A: uint8(d)}, &t)
		}
	}
}

// join brings a stale member back with the cutoff it has, or begins a new one,
// which has none, whatever an earlier life left on the disk.
func (m *Model) join(s *State, k int, out emit) {
	h := &s.H[k]
	if s.Joins == m.Joins || !s.mayPropose(k) {
		return
	}
	for d := range m.Disks {
		was := h.View.Member[d]
		short := h.View.with(Active, Joining).count() < m.Copies
		if was.Role == Stale || was.Role == Absent && short {
			t := *s
			t.Joins++
			t.propose(k).Member[d] = Member{Joining, was.Cutoff}
			out(Step{Name: "propose to join (generation, disk)", A: uint8(h.Gen), B: uint8(d)}, &t)
		}
	}
}

// fill makes one page of a joining member equal to an active member's where either
// side is above the cutoff. What differs is copied under the page's lock: no write
// to it is in flight. What does not needs none, but everything that the member was not
// sent must have ended.
func (m *Model) fill(s *State, k int, out emit) {
	h := &s.H[k]
	for d := range m.Disks {
		if h.View.Member[d].Role != Joining || !h.Prepared.has(d) {
			continue
		}
		for p := range m.Pages {
			if h.Filled[d]>>p&1 == 0 && !m.blocked(h, d, p) {
				m.fillPage(s, k, d, p, out)
			}
		}
	}
}

// blocked reports whether something is open of a page that the joining member was not
// sent.
func (m *Model) blocked(h *Holder, d int, p uint8) bool {
	for _, w := range h.Pend[:h.Pends] {
		if w.overlaps(p, wholePage) && !w.Wait.has(d) && m.Mistake != NoBarrier {
			return true
		}
	}
	return false
}

func (m *Model) fillPage(s *State, k, d int, p uint8, out emit) {
	source := s.H[k].View.with(Active).first()
	cutoff := s.H[k].View.Member[d].Cutoff
	t := *s
	h := &t.H[k]
	h.Filled[d] |= 1 << p
	for e := range m.Epochs {
		from, to := s.Disk[source].Now.Page[p][e], s.Disk[d].Now.Page[p][e]
		if !m.differs(from, to, cutoff, d >= m.Copies) {
			continue
		}
		if s.H[k].busy(p, wholePage) && m.Mistake != FillOverwrites {
			return
		}
		h.Number++
		if h.FillEnd[d][p] = h.Number; h.FillAt[d][p] == 0 {
			h.FillAt[d][p] = h.Number
		}
		t.copyTo(k, d, p, uint8(e), from)
	}
	out(Step{Name: "fill (disk, page, from)", A: uint8(d), B: p, C: uint8(source)}, &t)
}

// differs decides whether a version is copied, or removed where the source has
// none. It does not ask which is newer: the returning side may hold writes nobody
// was told of. Of two tombstones it wants the same on both. What only one side has
// at or below the cutoff was removed meanwhile, or its removal never came to be.
func (m *Model) differs(from, to Version, cutoff Stamp, substitute bool) bool {
	switch {
	case same(from, to):
		return false
	case m.Mistake == DeltaOneSided:
		return from.Stamp > cutoff
	case m.Mistake == FillNewer && substitute, m.Mistake == FillNewerAlways:
		return from.Stamp > to.Stamp
	}
	// The rule about forgetting tombstones makes sure of what this one does for them:
	// ForgetEarly leaves out both.
	lone := (from.Stamp == 0) != (to.Stamp == 0) && m.Mistake != DeltaKeeps && m.Mistake != ForgetEarly
	return from.Stamp > cutoff || to.Stamp > cutoff || lone || from.empty() && to.empty()
}

// activate proposes that a filled member is active. Where that makes the column
// whole, the others are let go in the same commit.
func (m *Model) activate(s *State, k int, out emit) {
	h := &s.H[k]
	active := h.View.with(Active)
	if !s.mayPropose(k) || active.count() >= m.Copies {
		return
	}
	for d := range m.Disks {
		if h.View.Member[d].Role != Joining || !h.Prepared.has(d) || !m.filled(s, h, d) {
			continue
		}
		t := *s
		p := t.propose(k)
		p.Member[d] = Member{Role: Active}
		if active.count()+1 >= m.Copies {
			p.letGo()
		}
		out(Step{Name: "propose active (generation, disk)", A: uint8(h.Gen), B: uint8(d)}, &t)
	}
}

// filled reports whether a joining member has all that was copied to it.
func (m *Model) filled(s *State, h *Holder, d int) bool {
	if h.Filled[d] != 1<<m.Pages-1 {
		return false
	}
	for p := range m.Pages {
		if end := h.FillEnd[d][p]; end != 0 && !m.applied(s, h, d, end) {
			return false
		}
	}
	return true
}

// letGo leaves only active members.
func (p *Proposal) letGo() {
	for d := range p.Member {
		if p.Member[d].Role != Active {
			p.Member[d] = Member{}
		}
	}
}

// forget removes a tombstone: every member has it and is active, it is below the
// watermark, and no version of another epoch lies there.
func (m *Model) forget(s *State, k int, out emit) {
	h := &s.H[k]
	if !m.Discard || h.Awaits || h.Unsure || h.Pends == maxPending ||
		h.View.with(Joining, Stale) != 0 && m.Mistake != ForgetEarly {
		return
	}
	for p := range m.Pages {
		for e := range m.Epochs {
			if h.busy(p, wholePage) || !m.settledTomb(s, h, p, uint8(e)) {
				continue
			}
			t := *s
			for b, v := range s.Disk[h.View.with(Active).first()].Now.Page[p][e].Val {
				t.learn(p, uint8(b), v) // it is settled: all have it
			}
			m.begin(&t, k, Pending{Page: p, Block: wholePage}, Msg{Kind: CopyMsg, Page: p, Epoch: uint8(e)})
			out(Step{Name: "forget a tombstone (page, epoch)", A: p, B: uint8(e)}, &t)
		}
	}
}

func (m *Model) settledTomb(s *State, h *Holder, p, e uint8) bool {
	for d := range m.Disks {
		if h.View.Member[d].Role != Active {
			continue
		}
		i := &s.Disk[d].Now
		v := i.Page[p][e]
		lone := m.Mistake == ForgetAbove
		if !lone {
			lone = true
			for o := range i.Page[p] {
				lone = lone && (o == int(e) || i.Page[p][o].Stamp == 0)
			}
		}
		if !v.Tomb || v.Stamp > h.Mark || !lone {
			return false
		}
	}
	return true
}
