package agent

import (
	"context"
	"testing"

	"drystone.example/drystone/backend/model"
)

// terms is a lease that the test switches.
type terms struct {
	valid bool
	term  uint64
}

func (l *terms) Valid() bool                { return l.valid }
func (l *terms) Term() uint64               { return l.term }
func (l *terms) Wait(context.Context) error { return nil }

// TestRenewedLeaseLooksAtTheRecord: a holder whose lease ran out and came back
// serves only if the record still names it, and it looks once.
func TestRenewedLeaseLooksAtTheRecord(t *testing.T) {
	node := &terms{valid: true, term: 1}
	looked := 0
	var taken error
	r := &right{node: node, named: func() error {
		looked++
		return taken
	}}
	for range 3 {
		if !r.Valid() {
			t.Fatal("the holder may not serve")
		}
	}
	if looked != 1 {
		t.Fatalf("the record was looked at %d times in one term", looked)
	}
	node.valid = false
	if r.Valid() {
		t.Fatal("it serves without a lease")
	}
	node.valid, node.term = true, 2
	if !r.Valid() || looked != 2 {
		t.Fatalf("it serves %v after %d looks at the record; want true after 2", r.Valid(), looked)
	}
	node.term, taken = 3, model.Errorf(model.Fenced, "taken over")
	if r.Valid() {
		t.Fatal("it serves a volume that was taken over")
	}
	if err := r.Wait(t.Context()); model.CodeOf(err) != model.Fenced {
		t.Fatalf("waiting for the right: %v; want fenced", err)
	}
}

// TestNamed: only a record at least as new as the generation can take it away.
func TestNamed(t *testing.T) {
	a := &Agent{cfg: Config{Self: 7}}
	for _, c := range []struct {
		gen    model.Generation
		holder model.NodeID
		want   model.Code
	}{
		{4, 9, ""},
		{4, 0, ""},
		{5, 7, ""},
		{5, 0, model.Fenced},
		{5, 9, model.Fenced},
		{6, 7, model.Fenced},
		{6, 9, model.Fenced},
	} {
		err := a.named(model.Volume{Generation: c.gen, Holder: c.holder}, 5)
		if model.CodeOf(err) != c.want {
			t.Errorf("record of generation %d held by %d: %v; want %q", c.gen, c.holder, err, c.want)
		}
	}
}
