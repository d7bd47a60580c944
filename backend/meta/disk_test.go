package meta

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"drystone.example/drystone/backend/model"
)

// A disk is a node's, for raft's log; it can hang and it can fail.
type disk struct {
	mem *vfs.MemFS

	mu   sync.Mutex
	hung chan struct{}
	err  error
}

// MaybeError implements errorfs.Injector.
func (d *disk) MaybeError(op errorfs.Op) error {
	switch op.Kind { //nolint:exhaustive // only what makes a write durable
	case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
	default:
		return nil
	}
	if !strings.HasSuffix(op.Path, ".log") {
		return nil
	}
	d.mu.Lock()
	hung, err := d.hung, d.err
	d.mu.Unlock()
	if hung != nil {
		<-hung
	}
	return err
}

// String implements errorfs.Injector.
func (d *disk) String() string { return "disk" }

func (d *disk) hang() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hung = make(chan struct{})
}

func (d *disk) lift() {
	d.mu.Lock()
	defer d.mu.Unlock()
	close(d.hung)
	d.hung = nil
}

func (d *disk) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

// disked gives a node a disk that obeys; it must be asked before the node starts
// for the last time.
func (c *cluster) disked(n *node) *disk {
	d := &disk{mem: vfs.NewMem()}
	mem, ok := n.fs.(*vfs.MemFS)
	if ok {
		d.mem = mem
	}
	n.stop()
	n.fs = errorfs.Wrap(d.mem, d)
	n.start()
	return d
}

// A leader whose disk hangs steps down and another one leads, in seconds; when
// its disk is back it takes part, but does not lead for a minute.
func TestLeaderDiskHangs(t *testing.T) {
	bubble(t, 3, func(c *cluster) {
		t := c.t
		disks := map[*node]*disk{}
		for _, n := range c.nodes {
			disks[n] = c.disked(n)
		}
		old := c.leader()
		c.leased()
		disks[old].hang()
		began := time.Now()
		c.must(c.others(old)[0], user("through"))
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("a change took %v while the leader's disk hung", took)
		}
		next := c.leader()
		if next == old {
			t.Fatal("the leader with a hung disk leads on")
		}
		if err := old.Lease().Lost(t.Context()); err != nil {
			t.Fatal(err)
		}
		disks[old].lift()
		back := time.Now()
		if err := old.Lease().Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		next.stop()
		for time.Since(back) < candidacyPause/2 {
			if old.IsLeader() {
				t.Fatalf("the node leads %v after its disk hung", time.Since(back))
			}
			time.Sleep(100 * time.Millisecond)
		}
		third := c.leader()
		c.must(third, user("later"))
		next.start()
		// When the minute is over it may lead again.
		time.Sleep(candidacyPause)
		if err := old.trans.mayLead(); err != nil {
			t.Errorf("two minutes after the hang: %v", err)
		}
		c.sameEverywhere()
	})
}

// A node whose log fails says so, does not crash, and can be closed; the others
// go on, whether it led them or not.
func TestDiskFails(t *testing.T) {
	bubble(t, 3, func(c *cluster) {
		t := c.t
		disks := map[*node]*disk{}
		for _, n := range c.nodes {
			disks[n] = c.disked(n)
		}
		for _, role := range []string{"leader", "follower"} {
			n := c.leader()
			if role == "follower" {
				n = c.others(n)[0]
			}
			disks[n].fail(errors.New("input/output error"))
			for range 5 {
				c.must(c.others(n)[0], user(model.NewID[model.TaskID]().String()))
			}
			select {
			case <-n.Failed():
			case <-time.After(10 * time.Second):
				t.Errorf("a %s whose disk failed does not say so", role)
			}
			if err := n.Err(); err == nil || !strings.Contains(err.Error(), "input/output error") {
				t.Errorf("Err: %v", err)
			}
			n.stop()
			disks[n].fail(nil)
			n.start()
			c.must(n, user("back-"+role))
		}
		c.sameEverywhere()
	})
}
