package volume

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
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
