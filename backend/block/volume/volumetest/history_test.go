package volumetest

import (
	"testing"
	"time"
)

// The judge is judged: what a register can do is let pass, and what it cannot is not.
func TestHistoryIsJudged(t *testing.T) {
	w := func(value uint64, call, ret time.Duration) Event {
		return Event{Client: 1, Write: true, Value: value, Reign: 1, Call: call, Ret: ret}
	}
	unknown := func(e Event) Event {
		e.Unknown = true
		return e
	}
	r := func(value uint64, call, ret time.Duration) Event {
		return Event{Client: 2, Value: value, Reign: 1, Call: call, Ret: ret}
	}
	for _, c := range []struct {
		name   string
		events []Event
		next   time.Duration // when generation 2 begins to serve; zero: never
		right  bool
	}{
		{"nothing was written", []Event{r(0, 1, 2)}, 0, true},
		{"what was written", []Event{w(1, 1, 2), r(1, 3, 4)}, 0, true},
		{"a write is lost", []Event{w(1, 1, 2), r(0, 3, 4)}, 0, false},
		{"a stale read", []Event{w(1, 1, 2), w(2, 3, 4), r(1, 5, 6)}, 0, false},
		{"what nobody wrote", []Event{w(1, 1, 2), r(7, 3, 4)}, 0, false},
		{"old beside a write", []Event{w(1, 1, 2), w(2, 3, 9), r(1, 4, 5), r(2, 6, 7)}, 0, true},
		{"old after new", []Event{w(1, 1, 2), w(2, 3, 9), r(2, 4, 5), r(1, 6, 7)}, 0, false},
		{"an unanswered write happens late", []Event{w(1, 1, 2), unknown(w(2, 3, 4)), r(1, 5, 6), r(2, 7, 8)}, 0, true},
		{"or never", []Event{w(1, 1, 2), unknown(w(2, 3, 4)), r(1, 5, 6), r(1, 7, 8)}, 0, true},
		{"but not in turns", []Event{w(1, 1, 2), unknown(w(2, 3, 4)), r(2, 5, 6), r(1, 7, 8)}, 0, false},
		{"nor in the next reign", []Event{w(1, 1, 2), unknown(w(2, 3, 4)), r(1, 9, 10), r(2, 11, 12)}, 8, false},
		{"blocks are apart", []Event{w(1, 1, 2), {Client: 2, Block: 1, Call: 3, Ret: 4}}, 0, true},
	} {
		var h History
		h.Add(c.events...)
		if c.next > 0 {
			h.Served(2, c.next)
		}
		if what := h.Check(); (what == "") != c.right {
			t.Errorf("%s: right %v, judged %q", c.name, c.right, what)
		}
	}
}
