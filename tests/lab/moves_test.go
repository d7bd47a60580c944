package lab

import (
	"flag"
	"strings"
	"syscall"
	"time"
)

var tours = flag.Int("lab.tours", 1, "how often a guest migrates there and back")

// tour migrates a machine there and back so often. Each time it runs in one place, goes on
// where it was, and its disk has all copies.
func (l *lab) tour(vm string, times int) {
	t := l.t
	t.Helper()
	home := l.VM(t, vm).NodeName
	other := l.others(home)[0]
	seen := l.Progresses(t, vm, 1)
	for range times {
		for _, to := range []string{other, home} {
			l.must("vm", "migrate", vm, to)
			if is := l.agree(vm); is.NodeName != to || is.Status.State != "running" {
				t.Fatalf("after the migration to %s it is %s on %s", to, is.Status.State, is.NodeName)
			}
			seen = l.GoesOn(t, vm, seen)
		}
		l.awaitWhole(vm)
	}
}

// asked asks for a migration while the node's daemon comes back, which has to be heard from
// the first word: as what it does not know yet, not as what there is not.
func (l *lab) asked(vm string) {
	t := l.t
	t.Helper()
	home := l.VM(t, vm).NodeName
	to := l.others(home)[0]
	rest := l.At(t, to)
	l.Signal(t, home, syscall.SIGKILL)
	l.Start(t, home)
	l.eventually(time.Minute, vm+" is moved", func() bool {
		r := rest.Run("vm", "migrate", vm, to)
		if strings.Contains(r.Errs, "there is no vm") {
			t.Errorf("asked for a machine that is there: %s", r)
		}
		return r.Status == 0 || rest.VM(t, vm).NodeName == to
	})
	l.agree(vm)
	l.verifies(l.Cluster, vm)
}

// domains lists what a host's libvirt has that has a process, by its own word; nothing if it
// does not answer, or is off.
func (l *lab) domains(node string) (names []string) {
	l.t.Helper()
	out, err := l.TryIn(l.t, node, "timeout", "10", "virsh", "-q", "-c", "qemu:///system", "list", "--name")
	if err != nil {
		return nil
	}
	return strings.Fields(out)
}

// running lists those of them that run, which one does not that waits for a migration.
func (l *lab) running(node string) (names []string) {
	l.t.Helper()
	out, err := l.TryIn(l.t, node, "timeout", "10", "virsh", "-q", "-c", "qemu:///system", "list", "--name", "--state-running")
	if err != nil {
		return nil
	}
	return strings.Fields(out)
}
