package model

// prepare gets a promise of a member: when the holder takes over, and of a joining
// one after each join, also in the same generation. That moves the disk's row, so
// that what it was sent before is old. The disk makes it durable before it answers.
func (m *Model) prepare(s *State, k int, out emit) {
	h := &s.H[k]
	for d := range m.Disks {
		role := h.View.Member[d].Role
		if h.Prepared.has(d) || role != Joining && (role != Active || h.Phase != Preparing) {
			continue
		}
		if !h.Asked.has(d) {
			m.ask(s, k, d, out)
			continue
		}
		i := &s.Disk[d].Now
		if m.Mistake == PromiseUnsynced {
			i = s.Disk[d].latest()
		}
		switch {
		case i.Promise == h.Gen && i.Last >= at(h.Gen, h.AskedAt[d]):
			t := *s
			m.promised(&t, k, d, i.Mark)
			out(Step{Name: "promise (disk)", A: uint8(d)}, &t)
		case s.Disk[d].latest().Promise <= h.Gen && s.Disk[d].Batched == 0: // it was lost: ask again
			m.ask(s, k, d, out)
		}
	}
}

// ask has a disk write a promise. Without a journal that is all of it.
func (m *Model) ask(s *State, k, d int, out emit) {
	if s.Disk[d].latest().Promise > s.H[k].Gen || !m.room(&s.Disk[d]) {
		return
	}
	t := *s
	h := &t.H[k]
	skipped := m.Mistake == JoinWithoutPrepare && h.View.Member[d].Role == Joining
	h.Asked |= one(d)
	if h.Phase == Serving {
		h.AskedAt[d] = h.Number
	}
	if !skipped {
		m.promise(&t.Disk[d], h.Gen, h.AskedAt[d])
	}
	if skipped || !m.Journal {
		m.promised(&t, k, d, t.Disk[d].Now.Mark)
	}
	out(Step{Name: "ask for a promise (disk)", A: uint8(d)}, &t)
}

// promised takes the answer to a promise. Only an active member's watermark counts.
func (m *Model) promised(t *State, k, d int, mark Stamp) {
	h := &t.H[k]
	h.Prepared |= one(d)
	if h.View.Member[d].Role == Active {
		h.Mark = max(h.Mark, mark)
	}
}

// rollForward makes every version that an active member lists equal on all of
// them. Copies keep their stamp and carry the old watermark. Who is active must be
// known: no proposal is under way.
func (m *Model) rollForward(s *State, k int, out emit) {
	h := &s.H[k]
	active := h.View.with(Active)
	if h.Phase != Preparing || active.without(h.Prepared) != 0 || h.Awaits || h.Unsure {
		return
	}
	t := *s
	t.H[k].Phase = Rolling
	if m.Mistake == RollMark {
		t.H[k].Mark = at(h.Gen, 0)
	}
	for p := range m.Pages {
		for e := range m.Epochs {
			m.rollVersion(&t, k, p, uint8(e), active)
		}
	}
	out(Step{Name: "roll forward (generation)", A: uint8(h.Gen)}, &t)
}

// rollVersion sends the newest copy of a version to who has another one.
func (m *Model) rollVersion(t *State, k int, p, e uint8, active Set) {
	h := &t.H[k]
	var newest Version
	listed := false
	for d := range m.Disks {
		if !active.has(d) {
			continue
		}
		v := t.Disk[d].Now.Page[p][e]
		listed = listed || v.Made != 0
		if v.Stamp > newest.Stamp {
			newest = v
		}
	}
	for d := range m.Disks {
		if listed && active.has(d) && !same(t.Disk[d].Now.Page[p][e], newest) {
			h.Number++
			h.Roll[d] = h.Number
			t.copyTo(k, d, p, e, newest)
		}
	}
}

// copyTo sends a copy with the number just drawn.
func (s *State) copyTo(k, d int, p, e uint8, v Version) {
	h := &s.H[k]
	v.Made = 0
	s.send(Msg{To: uint8(d), Kind: CopyMsg, Order: at(h.Gen, h.Number), Mark: h.Mark, Page: p, Epoch: e, V: v})
}

// serve begins when all active members have all copies. Only then is everything
// below settled, and the watermark moves.
func (m *Model) serve(s *State, k int, out emit) {
	h := &s.H[k]
	if h.Phase != Rolling {
		return
	}
	for d := range m.Disks {
		if h.View.Member[d].Role == Active && h.Roll[d] != 0 &&
			!m.applied(s, h, d, h.Roll[d]) && m.Mistake != ServeEarly {
			return
		}
	}
	t := *s
	t.H[k].Phase, t.H[k].Roll = Serving, [maxDisks]uint8{}
	t.H[k].Mark = at(h.Gen, h.Number)
	out(Step{Name: "serve (generation)", A: uint8(h.Gen)}, &t)
}

// applied reports whether a disk has made the holder's message n durable. It is
// true for ever, so a lost or late answer is a holder that looks later.
func (m *Model) applied(s *State, h *Holder, d int, n uint8) bool {
	i := &s.Disk[d].Now
	if m.Mistake == AnswerUnsynced {
		i = s.Disk[d].latest()
	}
	if m.Mistake == Unordered {
		for j := range s.Msg[:s.Msgs] {
			if x := &s.Msg[j]; int(x.To) == d && x.Order == at(h.Gen, n) {
				return x.Done
			}
		}
		return true
	}
	return i.Last >= at(h.Gen, n) && i.Last.gen() == h.Gen
}
