package lab

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"drystone.example/drystone/tests/internal/devcluster"
)

var (
	rounds = flag.Int("lab.rounds", 1, "how often a daemon is killed while something is done with a machine")
	seed   = flag.Uint64("lab.seed", 1, "which one, when, and meanwhile what, is made from it")
)

// Daemons are killed at random moments while a machine is migrated, started, stopped and its
// disk is cut: it never runs in two places, and within a minute the record says where it runs,
// or that it does not, and libvirt says the same.
func TestRandomKills(t *testing.T) {
	l := newLab(t)
	l.makeGuest("g", "node1")
	l.Progresses(t, "g", 500)
	t.Logf("seed %d", *seed)
	rng := rand.New(rand.NewPCG(*seed, 0))
	deeds := []string{"start", "migrate", "stop", "snapshot"}
	for round := range *rounds {
		deed := deeds[round%len(deeds)]
		l.part(fmt.Sprintf("%d %s", round, deed), func() { l.killedDuring(rng, round, deed) })
	}
}

// killedDuring does something with a machine and kills a daemon meanwhile, which comes back
// as a machine's service manager would bring it: at once, or when its lease has run out.
func (l *lab) killedDuring(rng *rand.Rand, round int, deed string) {
	t := l.t
	t.Helper()
	is := l.agree("g")
	running := is.Status.State == "running"
	var words []string
	switch {
	case deed == "snapshot":
		words = []string{"vm", "snapshot", "g", fmt.Sprintf("s%d", round)}
	case deed == "start" && running: // it is turned off first, by force
		l.must("vm", "stop", "g")
		l.AwaitVM(t, "g", "stopped")
		words = []string{"vm", "start", "g"}
	case deed != "start" && !running:
		l.must("vm", "start", "g")
		l.AwaitVM(t, "g", "running")
		fallthrough
	default:
		words = []string{"vm", deed, "g"}
	}
	victim := l.Nodes[rng.IntN(len(l.Nodes))].Name
	if is = l.VM(t, "g"); is.NodeName != "" && rng.IntN(2) == 0 {
		victim = is.NodeName
	}
	// Each moment is met: a migration takes some seconds, the rest less than one.
	after := time.Duration(rng.IntN(map[bool]int{true: 3000, false: 800}[deed == "migrate"])) * time.Millisecond
	back := []time.Duration{0, time.Second, 25 * time.Second}[rng.IntN(3)]

	stop := l.watch(round)
	done := make(chan devcluster.Result, 1)
	go func() { done <- l.At(t, l.others(victim)[0]).Run(words...) }()
	time.Sleep(after)
	l.Signal(t, victim, syscall.SIGKILL)
	time.Sleep(back)
	l.Start(t, victim)
	began := time.Now()
	l.agree("g")
	agreed := time.Since(began)
	r := <-done
	if strings.Contains(r.Errs, "there is no vm") {
		t.Errorf("%v is told of a machine that is there: %s", words, r.Errs)
	}
	is = l.agree("g") // what was asked for may have been done only now
	stop()
	l.AwaitUp(t)
	t.Logf("%v: the daemon of %s killed after %v and back %v later; agreed %.1f s later; the command ended %.1f s later with %d %s; then it is %s on %q",
		words[1:], victim, after, back, agreed.Seconds(), time.Since(began).Seconds(), r.Status, strings.TrimSpace(r.Errs), is.Status.State, is.NodeName)
	if is.Status.State == "running" {
		l.verifies(l.Cluster, "g")
	}
	l.awaitWhole("g")
}

// watch looks all the while where the guest runs. Looks at several hosts are not of one
// moment, so what it must not see is the guest here, then there, then here again, which is
// how two at one time show: nothing that is done meanwhile brings it back.
func (l *lab) watch(round int) (stop func()) {
	t := l.t
	t.Helper()
	end := make(chan struct{})
	var wait sync.WaitGroup
	var places []string
	wait.Go(func() {
		for {
			for _, n := range l.Nodes {
				if len(l.running(n.Name)) == 0 {
					continue
				}
				if last := len(places) - 1; last < 0 || places[last] != n.Name {
					places = append(places, n.Name)
				}
			}
			select {
			case <-end:
				return
			case <-time.After(200 * time.Millisecond):
			}
		}
	})
	return func() {
		t.Helper()
		close(end)
		wait.Wait()
		for i, p := range places {
			if slices.Contains(places[:i], p) {
				t.Errorf("round %d: the guest ran on %v, by libvirt's word", round, places)
				return
			}
		}
	}
}
