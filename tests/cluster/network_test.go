package cluster

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

var networkAll = flag.Bool("network.all", false, "all faults of the network, not the two that say most")

// faultTime is how long a fault under fio lasts. It is longer than a request may
// take, so that one which waits for the fault's end is seen.
const faultTime = 12 * time.Second

// The network between three nodes fails in each way it can, and a daemon stops for
// a while, with a volume in use: nothing that was acknowledged is lost, nothing old
// is read, nobody who can be served waits long, and all is whole again afterwards.
func TestNetwork(t *testing.T) {
	t.Parallel()
	l := newLab(t, func(string) {})
	for _, fault := range []struct {
		name   string
		always bool
		run    func(l *lab, volume string)
	}{
		{"holder-cut-off", true, holderCutOff},
		{"member-cut-off", true, memberCutOff},
		{"leader-cut-off", false, leaderCutOff},
		{"member-not-heard", false, memberNotHeard},
		{"member-hears-nothing", false, memberHearsNothing},
		{"holder-stopped", false, holderStopped},
		{"holder-not-heard-by-leader", false, holderNotHeardByLeader},
	} {
		if fault.always || *networkAll {
			l.part(fault.name, func(t *testing.T) {
				t.Helper()
				t.Cleanup(l.mend)
				fault.run(l, fault.name)
			})
		}
	}
}

// mend ends the fault of a test that failed before it did so itself.
func (l *lab) mend() {
	if l.t.Failed() {
		l.heal()
		for _, n := range l.Nodes {
			l.signal(n.Name, syscall.SIGCONT)
		}
	}
}

// The node that serves a volume is cut off from all others. It stops answering
// before another one serves the volume, which has everything that was acknowledged.
func holderCutOff(l *lab, volume string) {
	holder, others := l.leader() // worse than another: the rest must elect first
	l.takenFrom(volume, holder, others[0], l.isolate, func(string) { l.heal() }, 0)
}

// The daemon that serves a volume stops for 20 s, and another takes over meanwhile.
// When it wakes up, what it was about to write is not written, what it is asked is
// not answered from what it knew.
func holderStopped(l *lab, volume string) {
	_, others := l.leader()
	l.takenFrom(volume, others[0], others[1],
		func(name string) { l.signal(name, syscall.SIGSTOP) },
		func(name string) { l.signal(name, syscall.SIGCONT) }, 20*time.Second)
}

// takenFrom writes through one node until that one fails, goes on through another,
// and lets the first one come back, after that time at the earliest.
func (l *lab) takenFrom(volume, from, to string, fail, mend func(name string), least time.Duration) {
	t := l.t
	t.Helper()
	l.must("volume", "create", volume, "256M")
	written := newLedger(16 << 20 / block)
	old := l.connect(l.cluster, volume, from)
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() { written.load(old.conn, 16, stop); close(ended) }()
	answers := old.conn.watch(len(written.sent))
	const enough = 1000 // blocks, to prove something
	eventually(t, time.Minute, "enough is written", func() bool { return written.blocks() >= enough })
	fail(from)
	failed := time.Now()

	now := l.takeOver(volume, to)
	taken := time.Now()
	checked, err := written.verify(now.conn)
	if err != nil || checked < enough {
		t.Fatalf("read from %s: %d blocks, %v", to, checked, err)
	}
	if err := written.renew(now.conn); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Until(failed.Add(least)))
	mend(from)

	// The old server ends, or it would keep its client waiting for ever.
	var last time.Time
	select {
	case last = <-answers:
	case <-time.After(time.Minute):
		t.Fatalf("%s neither answers nor says that it does not serve any more", from)
	}
	<-ended
	if err := old.export.Ended(t); err == nil {
		t.Errorf("the export from %s ended as if nothing had happened", from)
	}
	if !last.Before(taken) {
		t.Errorf("%s answered a read %v after %s had taken over", from, last.Sub(taken), to)
	}
	t.Logf("%s failed; its last answer came %v later, %s served %v later, %d acknowledged blocks are there",
		from, last.Sub(failed).Round(time.Millisecond), to, taken.Sub(failed).Round(time.Millisecond), checked)
	if _, err := written.verify(now.conn); err != nil {
		t.Errorf("with %s back: %v", from, err)
	}
	now.conn.close()
	now.export.stop()
	old.export.stop()
	l.whole(volume)
	for _, n := range l.Nodes {
		verifyFrom(t, l.cluster, volume, n.Name, written)
	}
}

// takeOver serves a volume from a node, as soon as the rest of the cluster, which
// may have to elect a leader, lets it.
func (l *lab) takeOver(volume, node string) (s served) {
	l.t.Helper()
	rest := l.at(node)
	eventually(l.t, time.Minute, node+" serves "+volume, func() bool {
		e, err := rest.TryExport(l.t, "nbd", volume, node)
		if err != nil {
			l.t.Log(err)
			return false
		}
		s = l.open(&export{e, e.URI})
		return true
	})
	return s
}

// The leader is cut off while another node serves the volume.
func leaderCutOff(l *lab, volume string) {
	leader, others := l.leader()
	l.underLoad(volume, others[0], stallMax, func() { l.isolate(leader) })
}

// A node that neither leads nor serves the volume is cut off.
func memberCutOff(l *lab, volume string) {
	leader, others := l.leader()
	l.underLoad(volume, leader, stallMax, func() { l.isolate(others[0]) })
}

// The node that serves the volume hears nothing from another any more, which hears
// it; the third one hears both.
func memberNotHeard(l *lab, volume string) {
	_, others := l.leader()
	l.underLoad(volume, others[0], stallMax, func() { l.cut(others[1], others[0]) })
}

// The other way round.
func memberHearsNothing(l *lab, volume string) {
	leader, others := l.leader()
	l.underLoad(volume, leader, stallMax, func() { l.cut(leader, others[0]) })
}

// The leader hears nothing from the node that serves the volume, which has no lease
// then, though it reaches the third one: requests wait until the cut ends, since
// another node might be serving by now, and go on without an error.
func holderNotHeardByLeader(l *lab, volume string) {
	leader, others := l.leader()
	l.underLoad(volume, others[0], faultTime+stallMax, func() { l.cut(others[0], leader) })
}

// underLoad lets fio write and verify through a node while a fault comes and goes:
// no error, no longer wait than that, and all copies are whole and equal afterwards.
func (l *lab) underLoad(volume, holder string, most time.Duration, fault func()) {
	t := l.t
	t.Helper()
	const size = 128 << 20
	l.must("volume", "create", volume, "256M")
	e := l.export(volume, holder)
	f := fio(t, e.uri, strconv.Itoa(size), "--rate=,10m") // so that it lasts as long as the fault
	time.Sleep(3 * time.Second)
	fault()
	time.Sleep(faultTime)
	if !f.running() {
		t.Error("fio ended before the fault did; that proves nothing")
	}
	l.heal()
	if stall := f.wait(); stall > most {
		t.Errorf("a request took %v, want at most %v", stall, most)
	} else {
		t.Logf("the longest request took %v", stall)
	}
	e.stop()
	l.whole(volume)
	l.equal(volume, size)
}

// whole waits until the cluster is as it was before the fault.
func (l *lab) whole(volume string) {
	l.t.Helper()
	l.awaitUp()
	l.awaitWhole(volume)
}

// equal reads a volume from every node. Each reads its own copy where it has one,
// so all copies are read.
func (l *lab) equal(volume string, size int64) {
	l.t.Helper()
	sums := map[[sha256.Size]byte]string{}
	for _, n := range l.Nodes {
		s := l.connect(l.cluster, volume, n.Name)
		sum, p := sha256.New(), make([]byte, 1<<20)
		for off := int64(0); off < size; off += int64(len(p)) {
			if err := s.conn.readAt(p, off); err != nil {
				l.t.Fatalf("read %s from %s: %v", volume, n.Name, err)
			}
			sum.Write(p)
		}
		sums[[sha256.Size]byte(sum.Sum(nil))] = n.Name
		s.conn.close()
		s.export.stop()
	}
	if len(sums) != 1 {
		l.t.Errorf("%s reads in %d different ways: %v", volume, len(sums), sums)
	}
}

// A served volume is an export and a connection to it.
type served struct {
	export *export
	conn   *client
}

func (l *lab) connect(c *cluster, volume, node string) served {
	l.t.Helper()
	return l.open(c.export(volume, node))
}

func (l *lab) open(e *export) served {
	l.t.Helper()
	conn, err := dial(e.socket())
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(conn.close)
	return served{e, conn}
}

// watch reads a block of each MiB again and again, until all of these reads or the
// connection failed, and then says when the last answer came. Some of them can be
// answered by the node that is asked on its own.
func (c *client) watch(blocks int) <-chan time.Time {
	const apart = 1 << 20 / block
	var wait sync.WaitGroup
	answered := make([]time.Time, blocks/apart)
	for i := range answered {
		wait.Go(func() {
			p := make([]byte, block)
			for ; c.readAt(p, int64(i)*apart*block) == nil; time.Sleep(20 * time.Millisecond) {
				answered[i] = time.Now()
			}
		})
	}
	last := make(chan time.Time, 1)
	go func() {
		wait.Wait()
		last <- slices.MaxFunc(answered, time.Time.Compare)
	}()
	return last
}

// blocks counts those of which a write was acknowledged.
func (l *ledger) blocks() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, number := range l.acked {
		if number > 0 {
			n++
		}
	}
	return n
}

// renew writes every block with a number that no write before can have had.
func (l *ledger) renew(c *client) error {
	p := make([]byte, block)
	for at := range l.sent {
		l.sent[at] += 2 // one more may have been sent by a server that failed
		fill(p, at, l.sent[at])
		if err := c.writeAt(p, int64(at)*block); err != nil {
			return fmt.Errorf("write block %d: %w", at, err)
		}
		l.acked[at] = l.sent[at]
	}
	return nil
}
