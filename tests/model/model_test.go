package model

import (
	"cmp"
	"flag"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	nightly = flag.Bool("model.large", false, "explore the large bounds too")
	limit   = flag.Int("model.limit", 3_000_000, "states at most of a large bound")
	walks   = flag.Int("model.walks", 1000, "random walks")
)

// Every state within the bounds keeps every invariant. The small bounds are
// explored whole; the large ones as far as the limit goes.
func TestRulesHold(t *testing.T) {
	for _, b := range small {
		t.Run(b.Name, func(t *testing.T) {
			if x := explore(t, &Model{Bound: b}, 2_000_000); !x.Whole {
				t.Errorf("more than %d states: a small bound has become large", x.Count)
			}
		})
	}
	for _, b := range clones {
		t.Run(b.Name, func(t *testing.T) {
			if x := explore(t, &CloneModel{Bound: b}, 2_000_000); !x.Whole {
				t.Errorf("more than %d states: a small bound has become large", x.Count)
			}
		})
	}
	if !*nightly {
		return
	}
	for _, b := range large {
		t.Run(b.Name, func(t *testing.T) { explore(t, &Model{Bound: b}, *limit) })
	}
	for _, b := range largeClones {
		t.Run(b.Name, func(t *testing.T) { explore(t, &CloneModel{Bound: b}, *limit) })
	}
}

func explore[S comparable](t *testing.T, rules Rules[S], limit int) *Search[S] {
	t.Helper()
	began := time.Now()
	x := &Search[S]{Rules: rules}
	what := x.Run(runtime.GOMAXPROCS(0), limit)
	t.Logf("%d states, whole: %v, %.1f s", x.Count, x.Whole, time.Since(began).Seconds())
	if what != "" {
		t.Errorf("%s after:\n%s", what, x.Trace())
	}
	return x
}

// Each rule is needed: left out, some invariant breaks, and the bound named here is
// large enough to show it.
func TestMistakesAreCaught(t *testing.T) {
	where := map[Mistake]string{
		JoiningCutoff:    "two joins",
		ForgetEarly:      "discard",
		ForgetAbove:      "discard",
		CutInFlight:      "snapshot",
		CopiesUnlisted:   "three copies",
		TrimSeen:         "deleted snapshot",
		TrimPresent:      "deleted snapshot",
		DeltaKeeps:       "deleted snapshot",
		FillNewer:        "substitute",
		AnswerUnleased:   "an old holder",
		LeaseBlind:       "an old holder",
		AnswerUnsynced:   "power loss",
		PromiseUnsynced:  "crash",
		TornBatch:        "power loss",
		ReplayNoPromise:  "crash in a checkpoint",
		TailEarly:        "crash in a checkpoint",
		PlaceUnsynced:    "crash in a checkpoint",
		UncertainDropped: "crash in a checkpoint",
		NoteUnsynced:     "clone and crashes",
		NoteAgain:        "clone and discard",
		FillBare:         "clone with drops and joins",
	}
	for k := None + 1; k < mistakes; k++ {
		t.Run(mistakeName[k], func(t *testing.T) {
			name := cmp.Or(where[k], "three writes")
			if k >= CloneOpen {
				name = cmp.Or(where[k], "clone")
			}
			if b := bound(t, name); k < CloneOpen {
				caught(t, &Model{Bound: b, Mistake: k}, name)
			} else {
				caught(t, &CloneModel{Bound: b, Mistake: k}, name)
			}
		})
	}
}

func caught[S comparable](t *testing.T, rules Rules[S], name string) {
	t.Helper()
	x := &Search[S]{Rules: rules}
	what := x.Run(runtime.GOMAXPROCS(0), 2_000_000)
	if what == "" {
		t.Fatalf("not caught in the %d states of %q", x.Count, name)
	}
	trace := x.Trace()
	if n := strings.Count(trace, "\n"); n < 2 {
		t.Errorf("the trace to %q has %d steps", what, n)
	}
	t.Logf("%q, %d states: %s after:\n%s", name, x.Count, what, trace)
}

func bound(t *testing.T, name string) Bound {
	t.Helper()
	for _, b := range slices.Concat(small, clones) {
		if b.Name == name {
			return b
		}
	}
	t.Fatalf("there is no bound %q", name)
	return Bound{}
}

// Random walks go where no exploration comes: all of it together, several reigns
// long. Each walk ends without faults, and the volume must recover. All steps
// there are must have been taken, or the model says less than it seems to.
func TestRandomWalks(t *testing.T) {
	first := uint64(1)
	if *nightly {
		first = rand.Uint64()
	}
	taken := map[string]int{}
	total := 0
	m := Model{Bound: wide}
	for n := range *walks {
		seed := first + uint64(n)
		what, path := m.Walk(rand.New(rand.NewPCG(seed, 1)), 300)
		for _, s := range path {
			taken[s.Name]++
		}
		if total += len(path); what != "" {
			t.Fatalf("walk with seed %d: %s after:\n%s", seed, what, listing(path))
		}
	}
	t.Logf("%d walks from seed %d, %d steps", *walks, first, total)
	for _, name := range []string{
		"acquire", "holder is gone", "lease runs out", "lease is renewed", "give up waiting for raft",
		"raft decides", "hear raft", "ask for a promise", "promise (disk)", "roll forward", "serve",
		"write", "complete", "read", "mark", "cut snapshot", "forget a tombstone",
		"delete snapshot", "trim",
		"propose to drop (", "propose to drop with a substitute", "propose to join", "fill",
		"propose active", "arrive", "sync batch", "crash and replay",
		"checkpoint begins", "checkpoint has synced", "checkpoint has flushed", "checkpoint moves",
	} {
		found := 0
		for step, n := range taken {
			if strings.HasPrefix(step, name) {
				found += n
			}
		}
		if found == 0 {
			t.Errorf("no walk has taken the step %q", name)
		}
	}
}
