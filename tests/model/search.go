package model

import (
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

var seed = maphash.MakeSeed()

func hash[S comparable](s *S) uint64 { return maphash.Comparable(seed, *s) }

// Rules are what a Search explores.
type Rules[S comparable] interface {
	start() S
	steps(s *S, out func(Step, *S)) // who calls it does not look at the state again
	tidy(s *S)                      // makes states with equal futures equal
	check(s *S) string              // which invariant is broken, or ""
}

const shards = 64

// A Search is a breadth-first exploration, so that the first violation it finds is
// a shortest one. It keeps of each state its hash and that of the state before it,
// from which a trace is rebuilt.
type Search[S comparable] struct {
	Rules Rules[S]
	Count int  // states met
	Whole bool // all there are

	seen [shards]struct {
		sync.Mutex
		from map[uint64]uint64
	}
	mu   sync.Mutex
	bad  uint64
	what string
}

// A level is the states a number of steps away, in chunks, so that those behind can
// be let go one by one.
type level[S comparable] [][]S

const chunk = 512

func (l *level[S]) add(s *S) {
	if n := len(*l); n == 0 || len((*l)[n-1]) == chunk {
		*l = append(*l, make([]S, 0, chunk))
	}
	last := &(*l)[len(*l)-1]
	*last = append(*last, *s)
}

func (l level[S]) count() (n int) {
	for _, c := range l {
		n += len(c)
	}
	return n
}

// Run explores with some workers, level by level, until there is a violation,
// nothing new, or more than limit states. It returns the violation, or "".
func (x *Search[S]) Run(workers, limit int) string {
	for i := range x.seen {
		x.seen[i].from = map[uint64]uint64{}
	}
	first := x.Rules.start()
	x.claim(hash(&first), 0)
	x.Count = 1
	var here level[S]
	for here.add(&first); len(here) > 0; {
		next := make([]level[S], workers)
		var taken atomic.Int64
		var wait sync.WaitGroup
		for w := range workers {
			wait.Go(func() {
				for i := taken.Add(1) - 1; i < int64(len(here)); i = taken.Add(1) - 1 {
					x.expand(here[i], &next[w])
					here[i] = nil
				}
			})
		}
		wait.Wait()
		here = slices.Concat(next...)
		if x.Count += here.count(); x.what != "" || x.Count > limit {
			return x.what
		}
	}
	x.Whole = true
	return ""
}

// expand takes all steps from some states.
func (x *Search[S]) expand(states []S, next *level[S]) {
	for i := range states {
		from := hash(&states[i])
		x.Rules.steps(&states[i], func(_ Step, t *S) {
			x.Rules.tidy(t)
			h := hash(t)
			if !x.claim(h, from) {
				return
			}
			if what := x.Rules.check(t); what != "" {
				x.mu.Lock()
				x.bad, x.what = h, what
				x.mu.Unlock()
			}
			next.add(t)
		})
	}
}

// claim reports whether a state is new.
func (x *Search[S]) claim(h, from uint64) bool {
	s := &x.seen[h%shards]
	s.Lock()
	defer s.Unlock()
	if _, old := s.from[h]; old {
		return false
	}
	s.from[h] = from
	return true
}

// Trace returns the steps to the violation.
func (x *Search[S]) Trace() string {
	var path []uint64
	for h := x.bad; h != 0; h = x.seen[h%shards].from[h] {
		path = append(path, h)
	}
	var steps []Step
	now := x.Rules.start()
	for i := len(path) - 2; i >= 0; i-- {
		found := false
		x.Rules.steps(&now, func(step Step, t *S) {
			if x.Rules.tidy(t); !found && hash(t) == path[i] {
				found, now = true, *t
				steps = append(steps, step)
			}
		})
	}
	return listing(steps)
}

func listing(steps []Step) string {
	var b strings.Builder
	for i, s := range steps {
		fmt.Fprintf(&b, "  %3d %s: %d %d %d\n", i+1, s.Name, s.A, s.B, s.C)
	}
	return b.String()
}

// Walk takes random steps, optional ones less often, and then sees whether the
// volume recovers. It returns what went wrong, or "", and the steps.
func (m *Model) Walk(r *rand.Rand, length int) (what string, path []Step) {
	s := m.start()
	for range length {
		n := 0
		var pick State
		var taken Step
		m.steps(&s, func(step Step, t *State) {
			weight := 6
			if step.Optional {
				weight = 1
			}
			if n += weight; r.IntN(n) < weight {
				pick, taken = *t, step
			}
		})
		if n == 0 {
			break
		}
		m.tidy(&pick)
		s, path = pick, append(path, taken)
		if what = m.check(&s); what != "" {
			return what, path
		}
	}
	return m.recovers(s), path
}

// recovers goes on without faults, always by the first step there is, until the
// volume serves with all members active (I4).
func (m *Model) recovers(s State) string {
	free := *m
	free.Reigns, free.Joins = uint8(s.Rec.Gen)+1, 255
	free.Drops, free.Writes, free.Marks = s.Drops, s.Writes, s.Marks
	free.Checkpoints = 255
	const enough = 400
	for range enough {
		if m.recovered(&s) {
			return ""
		}
		var next State
		found := false
		free.steps(&s, func(step Step, t *State) {
			need := !step.Optional || strings.HasPrefix(step.Name, "checkpoint")
			if !found && need {
				next, found = *t, true
			}
		})
		if !found {
			break
		}
		free.tidy(&next)
		s = next
		if what := m.check(&s); what != "" {
			return what
		}
	}
	return fmt.Sprintf("I4: the volume does not recover: phase %d, members %v, view %v",
		s.H[0].Phase, s.Rec.Member, s.H[0].View.Member)
}

func (m *Model) recovered(s *State) bool {
	h := &s.H[0]
	return h.Phase == Serving && h.Lease && h.Pends == 0 && h.View == s.Rec &&
		s.Rec.with(Active).count() >= m.Copies && s.Rec.with(Joining, Stale) == 0
}
