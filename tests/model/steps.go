package model

// A Bound says how much of the world a run explores.
type Bound struct {
	Name                 string
	Disks, Copies        int
	Pages, Blocks        uint8
	Epochs               uint16
	Writes, Reigns       uint8
	Drops, Joins, Marks  uint8
	Crashes, Checkpoints uint8
	Discard              bool
	Trim                 bool // snapshots are deleted
	Overlap              bool // an old holder lives on, without its lease
	Delay                bool // raft's answers are under way
	Journal              bool // what disks do is not durable at once
}

// A Model is the design within a bound, less one rule if there is a Mistake.
type Model struct {
	Bound
	Mistake Mistake
}

// A Step names what happened, for a trace. An optional one is a fault, or
// something that need not happen for the volume to recover.
type Step struct {
	Name     string
	A, B, C  uint8
	Optional bool
}

// emit takes a state over: who calls it does not look at the state again.
type emit = func(Step, *State)

// start is a new volume: the first Copies disks are active members.
func (m *Model) start() State {
	var s State
	for d := range m.Copies {
		s.Rec.Member[d].Role = Active
	}
	return s
}

// steps emits every state one step away from s.
func (m *Model) steps(s *State, out emit) {
	m.raft(s, out)
	m.journals(s, out)
	m.arrivals(s, out)
	for k := range s.H {
		if s.H[k].Phase != Gone {
			m.holder(s, k, out)
		}
	}
	m.acquire(s, out)
	m.deleteSnapshot(s, out)
}

// holder emits what one holder may do.
func (m *Model) holder(s *State, k int, out emit) {
	h := &s.H[k]
	m.hear(s, k, out)
	m.prepare(s, k, out)
	m.rollForward(s, k, out)
	m.serve(s, k, out)
	if h.Phase == Serving {
		m.complete(s, k, out)
		m.fill(s, k, out)
		m.activate(s, k, out)
		m.join(s, k, out)
		if m.talks(h) {
			m.write(s, k, out)
			m.readBlock(s, k, out)
			m.cut(s, k, out)
		}
		m.forget(s, k, out)
		m.trim(s, k, out)
		m.mark(s, k, out)
	}
	m.promote(s, k, out)
	m.drop(s, k, out)
	m.giveUp(s, k, out)
	m.lease(s, k, out)
	m.leave(s, k, out)
}

// talks reports whether a holder may take from the guest and answer it.
func (m *Model) talks(h *Holder) bool {
	return h.Phase == Serving && (h.Lease || m.Mistake == AnswerUnleased)
}
