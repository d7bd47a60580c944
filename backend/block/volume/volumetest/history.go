// Package volumetest judges what clients of a volume saw: whether each of its blocks
// was one register, through all faults and all holders.
package volumetest

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// An Event is what one request did to one block, as its caller saw it.
type Event struct {
	Client  int
	Block   int
	Write   bool
	Value   uint64 // written or read
	Unknown bool   // a write whose answer never came
	Reign   uint64
	Call    time.Duration
	Ret     time.Duration
}

// A History collects events. Reigns tells when each generation began to serve:
// an unanswered write of an older one has happened by then, or never will.
type History struct {
	mu     sync.Mutex
	events []Event
	reigns []reignAt
}

type reignAt struct {
	generation uint64
	at         time.Duration
}

// Add adds what requests did.
func (h *History) Add(e ...Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, e...)
}

// Served notes that a generation began to serve.
func (h *History) Served(generation uint64, at time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reigns = append(h.reigns, reignAt{generation, at})
}

// blockModel is one block: a read returns what was written last; an unanswered
// write happened or did not.
var blockModel = (&porcupine.NondeterministicModel{
	Partition: func(ops []porcupine.Operation) [][]porcupine.Operation {
		by := map[int][]porcupine.Operation{}
		for _, o := range ops {
			e, ok := o.Input.(Event)
			if ok {
				by[e.Block] = append(by[e.Block], o)
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
		e, ok := input.(Event)
		switch {
		case !ok:
			return nil
		case e.Write && e.Unknown:
			return []any{e.Value, state}
		case e.Write:
			return []any{e.Value}
		case e.Value == state:
			return []any{state}
		}
		return nil
	},
	Equal: func(a, b any) bool { return a == b },
}).ToModel()

// Check returns what is wrong with a history, or "".
func (h *History) Check() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var ops []porcupine.Operation
	for _, e := range h.events {
		ret := int64(e.Ret)
		if e.Unknown {
			ret = math.MaxInt64
			for _, r := range h.reigns {
				if r.generation > e.Reign && r.at >= e.Call {
					ret = min(ret, int64(r.at))
				}
			}
		}
		ops = append(ops, porcupine.Operation{ClientId: e.Client, Input: e, Call: int64(e.Call), Output: nil, Return: ret})
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
		e, _ := part[0].Input.(Event)
		return fmt.Sprintf("block %d was not one register:\n%s", e.Block, tell(part))
	}
	return "the history is not linearizable"
}

// tell writes a block's history for a person.
func tell(part []porcupine.Operation) string {
	slices.SortFunc(part, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	var b strings.Builder
	for _, o := range part {
		e, _ := o.Input.(Event)
		verb, ret := "read ", time.Duration(o.Return).String()
		if e.Write {
			verb = "write"
		}
		if e.Unknown {
			verb = "WRITE?"
			if o.Return == math.MaxInt64 {
				ret = "never"
			}
		}
		fmt.Fprintf(&b, "  %12v - %12s  reign %d client %d %s %d\n", e.Call, ret, e.Reign, e.Client, verb, e.Value)
	}
	return b.String()
}
