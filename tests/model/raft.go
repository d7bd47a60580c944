package model

import "drystone.example/drystone/backend/must"

// acquire raises the generation. The leader lets a node have the volume when the
// holder before released it or is dead, or when that one's lease has run out. What
// it knows then is the record as of that moment.
func (m *Model) acquire(s *State, out emit) {
	old := s.H[0]
	if uint8(s.Rec.Gen) == m.Reigns || old.Phase != Gone && old.Lease && m.Mistake != AcquireEarly {
		return
	}
	t := *s
	t.Rec.Gen++
	t.Rec.Rev++
	if old.Phase != Gone {
		t.end(1)
		t.H[1] = old
	}
	t.H[0] = Holder{Gen: t.Rec.Gen, Phase: Preparing, View: t.Rec, Lease: true}
	if m.Mistake == FillContinues {
		t.H[0].Filled = old.Filled
	}
	out(Step{Name: "acquire (generation)", A: uint8(t.Rec.Gen)}, &t)
}

// end makes a holder none. What it proposed may still reach raft.
func (s *State) end(k int) {
	s.abandon(s.H[k].Gen)
	s.H[k] = Holder{}
}

// abandon makes the proposals of a generation ones nobody waits for.
func (s *State) abandon(g Gen) {
	for i := range s.Prop {
		if s.Prop[i].Gen == g {
			s.Prop[i].Late = true
		}
	}
}

// leave ends a reign at any moment: a crash or a release.
func (m *Model) leave(s *State, k int, out emit) {
	t := *s
	filled := s.H[k].Filled
	t.end(k)
	if m.Mistake == FillContinues && k == 0 {
		t.H[0].Filled = filled
	}
	out(Step{Name: "holder is gone (generation)", A: uint8(s.H[k].Gen), Optional: true}, &t)
}

// lease lets a node's lease run out, or be renewed. The leader's word comes with
// every acquisition decided before it, and a holder whose lease had run out looks
// there before it goes on. Only then is the guest told of what it is owed.
func (m *Model) lease(s *State, k int, out emit) {
	if !m.Overlap {
		return
	}
	t := *s
	h := &t.H[k]
	if h.Lease {
		h.Lease = false
		out(Step{Name: "lease runs out (generation)", A: uint8(h.Gen), Optional: true}, &t)
		return
	}
	step := Step{Name: "lease is renewed (generation)", A: uint8(h.Gen)}
	if h.Gen != s.Rec.Gen && m.Mistake != LeaseBlind {
		t.end(k)
		out(step, &t)
		return
	}
	h.Lease = true
	for p := range m.Pages {
		for b := range m.Blocks {
			for val := range m.Writes {
				if h.Owed[p][b]>>(val+1)&1 != 0 {
					t.learn(p, b, val+1)
				}
			}
		}
	}
	h.Owed = [maxPages][maxBlocks]uint8{}
	out(step, &t)
}

// propose begins a compare-and-swap on the record as the holder knows it. It
// returns nil where none may begin.
func (s *State) propose(k int) *Proposal {
	h := &s.H[k]
	for i := range s.Prop {
		if p := &s.Prop[i]; p.Gen == 0 {
			*p = Proposal{Gen: h.Gen, Rev: h.View.Rev, Member: h.View.Member}
			h.Awaits = true
			return p
		}
	}
	must.That(false, "a holder has one proposal under way, and one that is late")
	return nil
}

// mayPropose reports whether a holder may change the record now.
func (s *State) mayPropose(k int) bool {
	return !s.H[k].Awaits && s.Prop[maxProps-1].Gen == 0
}

// raft applies a proposal, if the record is still what it was made for, and
// answers with the record as it is.
func (m *Model) raft(s *State, out emit) {
	for i := range s.Prop {
		made := s.Prop[i]
		if made.Gen == 0 {
			break
		}
		t := *s
		copy(t.Prop[i:], t.Prop[i+1:])
		t.Prop[maxProps-1] = Proposal{}
		fits := made.Gen == t.Rec.Gen && made.Rev == t.Rec.Rev || m.Mistake == NoSwap
		if fits && keepsActive(&t.Rec, &made) {
			t.Rec.Member = made.Member
			t.Rec.Rev++
		}
		for k := range t.H {
			if h := &t.H[k]; h.Gen == made.Gen && !made.Late {
				if h.Answer = t.Rec; !m.Delay {
					t.adopt(k)
				}
			}
		}
		out(Step{Name: "raft decides a proposal (generation)", A: uint8(made.Gen)}, &t)
	}
}

// keepsActive is raft's own guard: a member that was active is active still.
func keepsActive(was *Record, made *Proposal) bool {
	for d := range was.Member {
		if was.Member[d].Role == Active && made.Member[d].Role == Active {
			return true
		}
	}
	return false
}

// hear lets raft's answer reach the holder.
func (m *Model) hear(s *State, k int, out emit) {
	if s.H[k].Answer.Gen == 0 {
		return
	}
	t := *s
	t.adopt(k)
	out(Step{Name: "hear raft's answer (generation)", A: uint8(s.H[k].Gen)}, &t)
}

// giveUp stops waiting for raft's answer: it may have been lost, or the proposal
// may still be applied. The holder goes on with the record it knows, and proposes
// for the same revision again until it has an answer.
func (m *Model) giveUp(s *State, k int, out emit) {
	if !s.H[k].Awaits {
		return
	}
	t := *s
	h := &t.H[k]
	for i := range t.Prop {
		if p := &t.Prop[i]; p.Gen == h.Gen && p.Late {
			return // one at a time is bad enough
		}
		if m.Mistake == AnswerAssumed && t.Prop[i].Gen == h.Gen {
			t.believe(k, t.Prop[i].Member)
		}
	}
	t.abandon(h.Gen)
	h.Awaits, h.Unsure, h.Answer = false, true, Record{}
	out(Step{Name: "give up waiting for raft (generation)", A: uint8(h.Gen), Optional: true}, &t)
}

// adopt takes over the record that raft answered with. One of another generation
// ends the holder.
func (s *State) adopt(k int) {
	h := &s.H[k]
	rec := h.Answer
	h.Awaits, h.Unsure, h.Answer = false, false, Record{}
	if rec.Gen != h.Gen {
		s.end(k)
		return
	}
	if rec.Rev > h.View.Rev {
		s.believe(k, rec.Member)
		h.View = rec
	}
}

// believe makes members what the holder goes by. Who is another kind of member
// than before begins anew, and nothing waits for it any more; one that becomes
// active keeps its row.
func (s *State) believe(k int, members [maxDisks]Member) {
	h := &s.H[k]
	for d := range members {
		if h.View.Member[d].Role == members[d].Role || members[d].Role == Active {
			continue
		}
		h.Asked, h.Prepared = h.Asked.without(one(d)), h.Prepared.without(one(d))
		h.AskedAt[d], h.Roll[d], h.Filled[d] = 0, 0, 0
		h.FillAt[d], h.FillEnd[d] = [maxPages]uint8{}, [maxPages]uint8{}
		for i := range h.Pend[:h.Pends] {
			h.Pend[i].Wait = h.Pend[i].Wait.without(one(d))
		}
	}
	h.View.Member = members
}
