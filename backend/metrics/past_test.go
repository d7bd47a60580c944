package metrics

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"drystone.example/drystone/backend/model"
)

const (
	wanderer = model.VMID(99)
	deleted  = model.VMID(98)
)

// all is a record of every machine but the one that was deleted.
func all(context.Context) (func(model.VMID) bool, error) {
	return func(id model.VMID) bool { return id != deleted }, nil
}

// A nomad is a source whose one guest is on one node at a time, and busy as that has
// its number.
type nomad struct {
	steady

	on *atomic.Uint64
}

func (n nomad) CountGuests() []GuestCount {
	if model.NodeID(n.on.Load()) != n.node {
		return nil
	}
	took := time.Since(n.start) * time.Duration(n.node) / 4
	return []GuestCount{{ID: wanderer, CPUs: 1, CPU: took, Memory: model.Bytes(n.node) << 30}}
}

// memories are what a past says of the memory used at each step; -1 is a gap.
func memories(p Past) (out []int) {
	column := slices.Index(p.Columns, "mem_used")
	for _, q := range p.Points {
		if q.Seconds == 0 {
			out = append(out, -1)
		} else {
			out = append(out, int(q.Values[column])>>30)
		}
	}
	return out
}

// The history of a machine follows it over the nodes, and any of them tells all of it;
// one that is away is named.
func TestPastFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var on atomic.Uint64
		began := time.Now()
		net := startWith(t, func(id model.NodeID) Source {
			return nomad{steady{id, began.Add(-time.Hour)}, &on}
		})
		for _, node := range []uint64{1, 2, 0, 1} {
			on.Store(node)
			time.Sleep(time.Minute)
		}
		for id, m := range net.nodes {
			p, err := m.Past(t.Context(), wanderer, 300, 60)
			if err != nil || len(p.Missing) > 0 || p.Step != 60 {
				t.Fatalf("node %d: steps of %d s, without %v: %v", id, p.Step, p.Missing, err)
			}
			if got, want := memories(p), []int{1, 2, -1, 1}; !slices.Equal(got[:4], want) {
				t.Errorf("node %d: the machine used %v GiB, want %v", id, got, want)
			}
		}
		fine, err := net.nodes[3].Past(t.Context(), wanderer, 3600, 1)
		if err != nil || fine.Step != 1 || len(fine.Points) < 3600 {
			t.Fatalf("%d points of %d s: %v", len(fine.Points), fine.Step, err)
		}
		net.set(2, true)
		p, err := net.nodes[3].Past(t.Context(), wanderer, 300, 60)
		if err != nil || !slices.Equal(p.Missing, []model.NodeID{2}) {
			t.Errorf("missing are %v: %v", p.Missing, err)
		}
		if got := memories(p); got[0] != 1 || got[1] != -1 {
			t.Errorf("with a node away the machine used %v GiB", got)
		}
	})
}

// Questions have an answer of bounded size, whatever they ask for.
func TestPastQuestions(t *testing.T) {
	now := time.Now().Unix()
	for _, q := range []struct{ seconds, step, want int64 }{
		{3600, 0, 5},
		{86400, 0, 120},
		{30 * 86400, 0, 3600},
		{2 * 365 * 86400, 0, 86400},
		{3600, 1, 1},
		{86400, 1, 30},
		{3601, 1, 10},
		{30 * 86400, 60, 660},
		{2 * 365 * 86400, 1, 18000},
		{1, 0, 1},
		{1 << 40, 1 << 40, 2 * 365 * 86400},
		{10, 3600, 3600},
		{-5, -5, 1},
	} {
		a := pastAskOf(1, now, q.seconds, q.step)
		if err := a.validate(); err != nil || a.Step != q.want {
			t.Errorf("%d s in steps of %d: steps of %d, want %d: %v", q.seconds, q.step, a.Step, q.want, err)
		}
	}
	for _, a := range []PastAsk{
		{},
		{Step: 1, From: 0, To: PastPoints + 2},
		{Step: -1, To: 5},
		{Step: 7, From: 6, To: 20},
		{Step: 1, From: -5, To: 5},
		{Step: 1 << 62, From: 0, To: 1 << 62},
	} {
		if a.validate() == nil {
			t.Errorf("%+v is taken", a)
		}
	}
}

// Another node's answer is not trusted to fit the question.
func TestPastHostile(t *testing.T) {
	a := PastAsk{Step: 10, From: 100, To: 131}
	ok := make([]float32, len(guestLayout.Weights))
	out := join(a, [][]Point{{
		{At: 90, Seconds: 1, Values: ok},
		{At: 140, Seconds: 1, Values: ok},
		{At: 1 << 62, Seconds: 1, Values: ok},
		{At: -1 << 62, Seconds: 1, Values: ok},
		{At: 110, Seconds: 11, Values: ok},
		{At: 110, Seconds: -3, Values: ok},
		{At: 110, Seconds: 1},
		{At: 120, Seconds: 4, Values: ok},
	}})
	var known []int64
	for _, p := range out {
		known = append(known, p.Seconds)
	}
	if !slices.Equal(known, []int64{0, 0, 4, 0}) {
		t.Errorf("%v seconds are known", known)
	}
}

// What is kept of machines that are gone is deleted, and no more is kept than a node has
// room for. While the record cannot be asked no machine is taken for gone, however old.
func TestPastSweep(t *testing.T) {
	var mute bool
	p := newPast(Config{Dir: t.TempDir(), Known: func(ctx context.Context) (func(model.VMID) bool, error) {
		if mute {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}
		return all(ctx)
	}})
	at := time.Now()
	for _, id := range []model.VMID{deleted, wanderer} {
		if err := p.keep(Sample{At: at.UnixMilli(), Guests: []Guest{{ID: id}}}); err != nil {
			t.Fatal(err)
		}
	}
	there := func(id model.VMID) bool {
		_, err := os.Stat(p.path(id))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		return err == nil
	}
	for _, step := range []struct {
		age                        time.Duration
		mute                       bool
		open                       model.VMID
		deletedThere, anotherThere bool
	}{
		{720 * 24 * time.Hour, true, 0, true, true},
		{time.Hour, false, deleted, true, true}, // it still runs here
		{time.Hour, false, 0, false, true},
		{800 * 24 * time.Hour, true, 0, false, false},
	} {
		mute = step.mute
		s := Sample{At: at.UnixMilli()}
		if step.open != 0 {
			s.Guests = []Guest{{ID: step.open}}
		}
		if err := errors.Join(p.keep(s), p.sweep(t.Context(), at.Add(step.age))); err != nil {
			t.Fatal(err)
		}
		if there(deleted) != step.deletedThere || there(wanderer) != step.anotherThere {
			t.Errorf("after %v: the deleted one is there: %v, the other: %v", step.age, there(deleted), there(wanderer))
		}
	}
}
