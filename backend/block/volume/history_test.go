package volume

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// An event is what one request did to one block, as its caller saw it.
type event struct {
	client  int
	block   int
	write   bool
	value   uint64 // written or read
	unknown bool   // a write whose answer never came
	reign   uint64
	call    time.Duration
	ret     time.Duration
}

// A history collects events. Reigns tells when each generation began to serve:
// an unanswered write of an older one has happened by then, or never will.
type history struct {
	mu     sync.Mutex
	events []event
	reigns []reignAt
}

type reignAt struct {
	generation uint64
	at         time.Duration
}

func (h *history) add(e ...event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, e...)
}

func (h *history) served(generation uint64, at time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reigns = append(h.reigns, reignAt{generation, at})
}

// register is one block: a read returns what was written last; an unanswered
// write happened or did not.
var blockModel = (&porcupine.NondeterministicModel{
	Partition: func(ops []porcupine.Operation) [][]porcupine.Operation {
		by := map[int][]porcupine.Operation{}
		for _, o := range ops {
			e, ok := o.Input.(event)
			if ok {
				by[e.block] = append(by[e.block], o)
			}
		}
		var out [][]porcupine.Operation
		for _, part := range by {
			out = append(out, part)
		}
		return out
	},
	Init: func() []any { return []any{uint64(0)} },
	Step: func(state, input, _ any) []any {
		e, ok := input.(event)
		switch {
		case !ok:
			return nil
		case e.write && e.unknown:
			return []any{e.value, state}
		case e.write:
			return []any{e.value}
		case e.value == state:
			return []any{state}
		}
		return nil
	},
	Equal: func(a, b any) bool { return a == b },
}).ToModel()

// check returns what is wrong with a history, or "".
func (h *history) check() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var ops []porcupine.Operation
	for _, e := range h.events {
		ret := int64(e.ret)
		if e.unknown {
			ret = math.MaxInt64
			for _, r := range h.reigns {
				if r.generation > e.reign && r.at >= e.call {
					ret = min(ret, int64(r.at))
				}
			}
		}
		ops = append(ops, porcupine.Operation{ClientId: e.client, Input: e, Call: int64(e.call), Output: nil, Return: ret})
	}
	switch porcupine.CheckOperationsTimeout(blockModel, ops, 20*time.Second) {
	case porcupine.Ok, porcupine.Unknown:
		return ""
	case porcupine.Illegal:
	}
	for _, part := range blockModel.Partition(ops) {
		if porcupine.CheckOperations(blockModel, part) {
			continue
		}
		e, _ := part[0].Input.(event)
		return fmt.Sprintf("block %d was not one register:\n%s", e.block, tell(part))
	}
	return "the history is not linearizable"
}

// tell writes a block's history for a person.
func tell(part []porcupine.Operation) string {
	slices.SortFunc(part, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	var b strings.Builder
	for _, o := range part {
		e, _ := o.Input.(event)
		verb, ret := "read ", time.Duration(o.Return).String()
		if e.write {
			verb = "write"
		}
		if e.unknown {
			verb = "WRITE?"
			if o.Return == math.MaxInt64 {
				ret = "never"
			}
		}
		fmt.Fprintf(&b, "  %12v - %12s  reign %d client %d %s %d\n", e.call, ret, e.reign, e.client, verb, e.value)
	}
	return b.String()
}

// The judge is judged: what a register can do is let pass, and what it cannot is not.
func TestHistoryIsJudged(t *testing.T) {
	w := func(value uint64, call, ret time.Duration) event {
		return event{client: 1, write: true, value: value, reign: 1, call: call, ret: ret}
	}
	unknown := func(e event) event {
		e.unknown = true
		return e
	}
	r := func(value uint64, call, ret time.Duration) event {
		return event{client: 2, value: value, reign: 1, call: call, ret: ret}
	}
	for _, c := range []struct {
		name   string
		events []event
		next   time.Duration // when generation 2 begins to serve; zero: never
		right  bool
	}{
		{"nothing was written", []event{r(0, 1, 2)}, 0, true},
		{"what was written", []event{w(1, 1, 2), r(1, 3, 4)}, 0, true},
		{"a write is lost", []event{w(1, 1, 2), r(0, 3, 4)}, 0, false},
		{"a stale read", []event{w(1, 1, 2), w(2, 3, 4), r(1, 5, 6)}, 0, false},
		{"what nobody wrote", []event{w(1, 1, 2), r(7, 3, 4)}, 0, false},
		{"old beside a write", []event{w(1, 1, 2), w(2, 3, 9), r(1, 4, 5), r(2, 6, 7)}, 0, true},
		{"old after new", []event{w(1, 1, 2), w(2, 3, 9), r(2, 4, 5), r(1, 6, 7)}, 0, false},
		{"an unanswered write happens late", []event{w(1, 1, 2), unknown(w(2, 3, 4)), r(1, 5, 6), r(2, 7, 8)}, 0, true},
		{"or never", []event{w(1, 1, 2), unknown(w(2, 3, 4)), r(1, 5, 6), r(1, 7, 8)}, 0, true},
		{"but not in turns", []event{w(1, 1, 2), unknown(w(2, 3, 4)), r(2, 5, 6), r(1, 7, 8)}, 0, false},
		{"nor in the next reign", []event{w(1, 1, 2), unknown(w(2, 3, 4)), r(1, 9, 10), r(2, 11, 12)}, 8, false},
		{"blocks are apart", []event{w(1, 1, 2), {client: 2, block: 1, call: 3, ret: 4}}, 0, true},
	} {
		var h history
		h.add(c.events...)
		if c.next > 0 {
			h.served(2, c.next)
		}
		if what := h.check(); (what == "") != c.right {
			t.Errorf("%s: right %v, judged %q", c.name, c.right, what)
		}
	}
}
