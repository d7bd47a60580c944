package volume

import (
	"testing"
	"time"
)

// The simulation is only worth what it catches: each rule left out is noticed
// within a bounded number of seeds, by faults of the kind the rule is against.
func TestSimulationCatchesMistakes(t *testing.T) {
	const bound = 150
	for _, c := range []struct {
		name   string
		plant  mistakes
		faults []simFault
	}{
		{"acknowledge before the drop is committed", mistakes{ackEarly: true}, []simFault{
			{"the dropped one is the last one standing", 1, func(w *simWorld) { w.lastStanding() }},
		}},
		{"skip the promise", mistakes{skipPromise: true}, []simFault{
			{"a member crashes", 1, func(w *simWorld) { w.crashMember() }},
		}},
		{"serve before the takeover has copied", mistakes{serveEarly: true}, []simFault{
			{"writes half way", 1, func(w *simWorld) { w.halfWay() }},
		}},
		{"fill overwrites newer", mistakes{fillOverwrites: true}, []simFault{
			{"a member crashes", 2, func(w *simWorld) { w.crashMember() }},
			{"slow disk", 2, func(w *simWorld) { w.slowDisk(100 * time.Millisecond) }},
		}},
		{"fill passes what was written meanwhile", mistakes{fillMisses: true}, []simFault{
			{"a member crashes", 2, func(w *simWorld) { w.crashMember() }},
			{"slow disk", 2, func(w *simWorld) { w.slowDisk(100 * time.Millisecond) }},
		}},
		{"delta ignores the returning side", mistakes{deltaOneSided: true}, []simFault{
			{"one is a write ahead", 1, func(w *simWorld) { w.oneAhead() }},
		}},
		{"let a member go while another is filled", mistakes{letGoEarly: true}, []simFault{
			{"a member moves", 1, func(w *simWorld) { w.moveMember() }},
		}},
		{"leave out a slow disk that has the last copy", mistakes{slowLast: true}, []simFault{
			{"the others are gone, and it is slow", 1, func(w *simWorld) { w.slowAlone() }},
		}},
		{"cut without holding writes", mistakes{cutUnheld: true}, []simFault{
			{"snapshot", 3, func(w *simWorld) { w.cutSnapshots(1) }},
			{"raft loses answers", 1, func(w *simWorld) { w.raft.loseFor(w.between(0, 20*time.Second)) }},
		}},
		{"write on after a cut without an answer", mistakes{cutForgets: true}, []simFault{
			{"snapshot", 3, func(w *simWorld) { w.cutSnapshots(1) }},
			{"raft loses answers", 1, func(w *simWorld) { w.raft.loseFor(w.between(0, 20*time.Second)) }},
		}},
		{"free what a kept epoch sees", mistakes{trimSeen: true}, []simFault{
			{"snapshot", 3, func(w *simWorld) { w.cutSnapshots(1) }},
			{"a snapshot is deleted", 2, func(w *simWorld) { w.deleteSnapshot() }},
		}},
		{"what was freed comes back with a member", mistakes{deltaKeeps: true}, []simFault{
			{"snapshot", 3, func(w *simWorld) { w.cutSnapshots(1) }},
			{"a snapshot is deleted", 2, func(w *simWorld) { w.deleteSnapshot() }},
			{"a member crashes", 2, func(w *simWorld) { w.crashMember() }},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := uint64(1); seed <= bound; seed++ {
				p := simProfile{
					nodes: 3, disks: 1, copies: 2, columns: 2, store: newDiskStore, faults: c.faults,
					length: 20 * time.Second, think: 20 * time.Millisecond, clients: 4,
				}
				if what, _ := simulate(t, seed, p, c.plant); what != "" {
					t.Logf("caught by seed %d: %.300s", seed, what)
					return
				}
			}
			t.Fatalf("not caught by %d seeds", bound)
		})
	}
}

// lastStanding silences a member while raft has no quorum, for longer than the
// holder waits; then it comes back, and every other node goes.
func (w *simWorld) lastStanding() {
	h, _ := w.present()
	if h == nil {
		return
	}
	m := w.pick()
	if m == h.proc.node {
		return
	}
	w.raft.stallFor(7 * time.Second)
	links := [][2]int{{h.proc.node.id, m.id}, {m.id, h.proc.node.id}}
	w.mu.Lock()
	for _, l := range links {
		w.cut[l] = time.Now()
	}
	w.mu.Unlock()
	time.Sleep(5 * time.Second)
	for _, n := range w.nodes {
		if n != m {
			w.crashNode(n)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range links {
		delete(w.cut, l)
	}
}

// oneAhead lets one node have writes that no other gets, and brings it back when
// the others have gone on without it.
func (w *simWorld) oneAhead() {
	ahead := w.pick()
	w.lagAll(ahead, 300*time.Millisecond)
	time.Sleep(150 * time.Millisecond)
	w.crashFor(ahead, 6*time.Second)
	for _, n := range w.nodes {
		if n != ahead {
			w.crashFor(n, time.Second)
		}
	}
	w.lagAll(ahead, 0)
	time.Sleep(8 * time.Second)
}

// slowAlone slows one node down, and takes another away when the first is about to be
// left out.
func (w *simWorld) slowAlone() {
	slow, gone := w.pick(), w.pick()
	w.slowFor(slow, 25*time.Second)
	time.Sleep(w.between(8*time.Second, 12*time.Second))
	if gone != slow {
		w.crashFor(gone, 30*time.Second)
	}
	time.Sleep(20 * time.Second)
}

// lagAll slows the disks of all nodes but one.
func (w *simWorld) lagAll(but *simNode, lag time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.nodes {
		for _, d := range n.disks {
			if n != but {
				d.lag = lag
			}
		}
	}
}

// crashMember crashes a node that does not hold the volume.
func (w *simWorld) crashMember() {
	if h, _ := w.present(); h != nil {
		if n := w.pick(); n != h.proc.node {
			w.crashNode(n)
		}
	}
}
