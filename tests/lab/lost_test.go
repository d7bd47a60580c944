package lab

import (
	"syscall"
	"testing"
	"time"

	"drystone.example/drystone/tests/internal/devcluster"
)

// mostElsewhere is how long the machine of a lost node may take to run elsewhere.
const mostElsewhere = time.Minute

// A guest that verifies its disk migrates there and back, again and again, and does not
// notice. Then its node is lost in each way it can be: cut off from the others while it goes
// on, without its daemon, with a daemon that stands still, without power. Each time the guest
// is dead before it is started elsewhere, by the kernel's word, and no generation of its
// disk began while it lived; elsewhere it runs within a minute, and finds its disk as it left
// it.
func TestGuest(t *testing.T) {
	l := newLab(t)
	l.makeGuest("g", "node1")
	l.Progresses(t, "g", 500)
	l.part("there and back", func() { l.tour("g", *tours) })
	l.part("asked of a daemon that comes back", func() { l.asked("g") })
	l.part("cut off", func() {
		l.lost("g", l.isolated, func(string) { l.Heal(l.t) })
	})
	if !*all {
		return
	}
	l.part("daemon killed", func() {
		l.lost("g", func(name string) { l.Signal(l.t, name, syscall.SIGKILL) },
			func(name string) { l.Start(l.t, name) })
	})
	l.part("daemon stopped", func() {
		var began time.Time
		l.lost("g",
			func(name string) { l.Signal(l.t, name, syscall.SIGSTOP); began = time.Now() },
			func(name string) {
				time.Sleep(time.Until(began.Add(time.Minute)))
				l.Signal(l.t, name, syscall.SIGCONT)
			})
	})
	l.part("without power", func() {
		l.lost("g", func(name string) { l.PowerOff(l.t, name) }, func(name string) { l.PowerOn(l.t, name) })
	})
	l.part("cut off, the leader's node", func() {
		leader, _ := l.Leader(l.t)
		if l.VM(l.t, "g").NodeName != leader {
			l.must("vm", "migrate", "g", leader)
		}
		l.lost("g", l.isolated, func(string) { l.Heal(l.t) })
	})
}

func (l *lab) isolated(name string) { l.Isolate(l.t, name) }

// lost lets a machine's node be lost, looks until the machine runs elsewhere, and lets the
// node come back, which then must have nothing of it.
func (l *lab) lost(vm string, fail, mend func(name string)) {
	t := l.t
	t.Helper()
	was := l.VM(t, vm).NodeName
	pids := l.qemus(was)
	if len(pids) != 1 {
		t.Fatalf("%s has the guests %v", was, pids)
	}
	rest := l.At(t, l.others(was)[0])
	before, _ := l.generation(rest, vm)
	old := watchDeath(t, pids[0])
	began := now(t)
	fail(was)
	failed := true
	defer func() { // also for the parts that follow a failure
		if failed {
			mend(was)
		}
	}()

	to := l.elsewhere(vm, was, rest, old, before)
	started, err := born(l.qemus(to)[0])
	if err != nil {
		t.Fatal(err)
	}
	died, dead := old.seen()
	if !dead || died > started {
		t.Errorf("the guest on %s was started at %v; the one on %s died at %v (%t)", to, started, was, died, dead)
	}
	if took := now(t) - began; took > mostElsewhere {
		t.Errorf("%s runs on %s after %v", vm, to, took)
	} else {
		t.Logf("dead %.1f s after the fault, started on %s %.1f s after it, runs %.1f s after it",
			(died - began).Seconds(), to, (started - began).Seconds(), took.Seconds())
	}
	l.verifies(rest, vm)
	if g, _ := l.generation(rest, vm); g <= before {
		t.Errorf("the disk's generation is %d, and was %d before", g, before)
	}
	failed = false
	mend(was)
	l.AwaitUp(t)
	l.awaitWhole(vm)
	l.agree(vm)
	l.verifies(l.Cluster, vm)
}

// elsewhere waits until a machine runs on another node than it did, and says on which. All
// the while, if its disk has a new generation the old guest must be dead.
func (l *lab) elsewhere(vm, was string, rest *devcluster.Cluster, old *death, before int64) (to string) {
	t := l.t
	t.Helper()
	l.eventually(2*time.Minute, vm+" runs elsewhere", func() bool {
		if g, ok := l.generation(rest, vm); ok && g > before {
			if _, dead := old.seen(); !dead {
				t.Errorf("its disk has generation %d instead of %d, and the guest on %s lives", g, before, was)
			}
		}
		v, ok := look(rest, vm)
		if !ok || v.NodeName == was || v.Status.State != "running" {
			return false
		}
		to = v.NodeName
		return len(l.qemus(to)) == 1
	})
	return to
}

// verifies waits until a machine's guest verifies its disk now, without an error. What its
// console begins with may be of an earlier time, and comes at once.
func (l *lab) verifies(c *devcluster.Cluster, vm string) {
	l.t.Helper()
	p := c.Listen(l.t, vm, nil)
	defer p.Stop()
	time.Sleep(2 * time.Second)
	old := p.Now().Blocks
	l.eventually(time.Minute, "the guest of "+vm+" verifies its disk", func() bool {
		now := p.Now().Blocks
		return now > 0 && now != old
	})
	if now := p.Now(); now.Errors != 0 || len(now.Bad) > 0 {
		l.t.Fatalf("the verifier of %s found %d errors: %v", vm, now.Errors, now.Bad)
	}
}

// agree waits until the record and the libvirts of all hosts agree on a machine: it runs in
// the one place, or in none.
func (l *lab) agree(vm string) devcluster.VM {
	t := l.t
	t.Helper()
	var is devcluster.VM
	l.eventually(time.Minute, "the record and libvirt agree on "+vm, func() bool {
		v, ok := look(l.Cluster, vm)
		if !ok || v.MovesTo != "" || v.Status.State != "running" && v.Status.State != "stopped" {
			return false
		}
		is = v
		for _, n := range l.Nodes {
			want := map[bool]int{true: 1}[n.Name == v.NodeName && v.Status.State == "running"]
			if got := l.qemus(n.Name); len(got) != want || len(l.domains(n.Name)) != want {
				return false
			}
		}
		return true
	})
	return is
}
