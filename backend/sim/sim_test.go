package sim

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

var (
	seeds  = flag.Int("sim.seeds", 50, "how many seeds TestNodes runs")
	first  = flag.Uint64("sim.first", 1, "the first seed")
	logged = flag.Bool("sim.log", false, "write down what the nodes log")
)

func TestMain(m *testing.M) {
	slog.SetLogLoggerLevel(slog.LevelError + 1) // faults are what this is about
	m.Run()
}

// A fault is one thing that goes wrong. Those that last end by themselves.
type fault struct {
	name string
	do   func(w *world)
}

var faults = []fault{
	{"nothing", func(*world) {}},
	{"a disk's node crashes", func(w *world) { w.crash(w.nodes[w.intn(w.disks)]) }},
	{"a holder's node crashes", func(w *world) { w.crash(w.nodes[w.disks+w.intn(2)]) }},
	{"writes half way", func(w *world) { // one disk lags until the holder is gone
		n := w.nodes[w.intn(w.disks)]
		n.drive.SetDelay(time.Second)
		time.Sleep(w.between(100*time.Millisecond, 700*time.Millisecond))
		w.crash(w.nodes[w.disks])
		w.crash(w.nodes[w.disks+1])
		w.crash(n)
		n.drive.SetDelay(100 * time.Microsecond)
	}},
	{"the leader crashes", func(w *world) { w.crash(w.leads()) }},
	{"all crash", func(w *world) {
		for _, n := range w.nodes {
			w.crash(n)
		}
	}},
	{"the leader is cut off", func(w *world) { w.isolate(w.leads(), true, true) }},
	{"a node is cut off", func(w *world) { w.isolate(w.any(), true, true) }},
	{"a node does not hear", func(w *world) { w.isolate(w.any(), true, false) }},
	{"a node is not heard", func(w *world) { w.isolate(w.any(), false, true) }},
	{"two do not reach each other", func(w *world) {
		a, b := w.any(), w.any()
		w.net.Partition(a.name, b.name)
		w.later(func() { w.net.Join(a.name, b.name) })
	}},
	{"clogged one by one, and freed in another order", func(w *world) {
		for _, n := range w.nodes {
			if w.intn(2) == 0 {
				time.Sleep(w.between(0, time.Second))
				w.isolate(n, true, true)
			}
		}
	}},
	{"a slow node", func(w *world) {
		n, d := w.any(), w.between(5*time.Millisecond, 300*time.Millisecond)
		w.links(n, func(o *node) { w.net.Delay(n.name, o.name, d); w.net.Delay(o.name, n.name, d) })
		w.later(func() {
			w.links(n, func(o *node) { w.net.Delay(n.name, o.name, 0); w.net.Delay(o.name, n.name, 0) })
		})
	}},
	{"a slow disk", func(w *world) {
		n := w.nodes[w.intn(w.disks)]
		n.drive.SetDelay(w.between(10*time.Millisecond, 4*time.Second))
		w.later(func() { n.drive.SetDelay(100 * time.Microsecond) })
	}},
}

func (w *world) any() *node { return w.nodes[w.intn(len(w.nodes))] }

// leads returns who leads, or anybody.
func (w *world) leads() *node {
	for _, n := range w.nodes {
		if p := n.now(); p != nil && p.rec.IsLeader() {
			return n
		}
	}
	return w.any()
}

// later does something within some seconds.
func (w *world) later(f func()) {
	pause := w.between(100*time.Millisecond, 15*time.Second)
	w.work.Go(func() {
		time.Sleep(pause)
		f()
	})
}

func (w *world) links(n *node, f func(o *node)) {
	for _, o := range w.nodes {
		if o != n {
			f(o)
		}
	}
}

// crash ends a node's process; it begins again by itself.
func (w *world) crash(n *node) {
	if n.now() == nil {
		return
	}
	n.crash(w.intn(101))
	w.later(func() {
		if err := n.start(); err != nil {
			w.t.Errorf("%s does not start again: %v", n.name, err)
		}
		w.logf("%s is back", n.name)
	})
}

func (w *world) isolate(n *node, in, out bool) {
	w.links(n, func(o *node) {
		if in {
			w.net.Cut(o.name, n.name)
		}
		if out {
			w.net.Cut(n.name, o.name)
		}
	})
	w.later(func() { w.links(n, func(o *node) { w.net.Join(n.name, o.name) }) })
}

// run is a time of faults, then one of healing, then everything is checked.
func (w *world) run() string {
	for id := range clients {
		w.work.Go(func() { w.client(id) })
	}
	for w.now() < time.Minute {
		time.Sleep(w.between(0, 8*time.Second))
		f := faults[w.intn(len(faults))]
		w.logf("fault: %s", f.name)
		f.do(w)
	}
	time.Sleep(16 * time.Second) // they have ended
	w.logf("healed")
	healed := w.whole()
	close(w.stop)
	w.work.Wait()
	what := "the volume is not whole three minutes after the last fault"
	if healed {
		what = w.hist.Check()
	}
	if what == "" {
		time.Sleep(time.Minute) // who holds the volume lets go of it
		what = w.compare()
	}
	if what == "" && w.done < 100 {
		what = fmt.Sprintf("only %d requests were answered", w.done)
	}
	for _, n := range w.nodes {
		n.crash(0)
	}
	return what
}

// Through crashes of any node and of all, with what was not synced lost; leaders and
// others cut off, in both directions or one; slow nodes and disks: every block is one
// register, wherever it is read and written, also at a holder that was taken over and
// does not know. Once all is healed the volume is served with all members active and
// equal, and every node has the same record.
func TestNodes(t *testing.T) {
	for i := range *seeds {
		seed := *first + uint64(i)
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, seed, false)
			if what := w.run(); what != "" {
				name := filepath.Join(t.ArtifactDir(), fmt.Sprintf("seed-%d.txt", seed))
				if err := os.WriteFile(name, []byte(what+"\n"+w.out.String()), 0o600); err != nil {
					t.Error(err)
				}
				t.Errorf("seed %d (rerun with -sim.first=%d -sim.seeds=1): %s\nhistory: %s", seed, seed, what, name)
			}
			t.Logf("seed %d: %d requests answered in %v", seed, w.done, w.now())
		})
		if t.Failed() {
			return
		}
	}
}
