package meta

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
)

// leased waits until every node that runs has a lease.
func (c *cluster) leased() {
	c.t.Helper()
	for _, n := range c.others(nil) {
		if err := n.Lease().Wait(c.t.Context()); err != nil {
			c.t.Fatalf("lease of %s: %v", n.name, err)
		}
	}
}

// A node that is cut off stops before its lease was to end, counted from when it
// last asked, and the leader waits until its guests are dead as well.
func TestLeaseEndsAtTheHolderFirst(t *testing.T) {
	bubble(t, 3, func(c *cluster) {
		t := c.t
		lead := c.leader()
		n := c.others(lead)[0]
		c.leased()
		term := n.Lease().Term()
		time.Sleep(20 * time.Second)
		if !n.Lease().Valid() || n.Lease().Term() != term {
			t.Fatal("a healthy node lost its lease")
		}
		cut := time.Now()
		c.isolate(n)
		if err := n.Lease().Lost(t.Context()); err != nil {
			t.Fatal(err)
		}
		lost := time.Since(cut)
		if lost > drifted(LeaseTime) {
			t.Errorf("the node served %v after it was cut off, want at most %v", lost, LeaseTime)
		}
		for {
			s, err := lead.LeaseState(n.id)
			if err != nil {
				t.Fatalf("LeaseState: %v", err)
			}
			if s.Expired {
				break
			}
			time.Sleep(s.Left)
		}
		waited := time.Since(cut)
		if waited < lost+LeaseKill || waited > drifted(leaseWait) {
			t.Errorf("the leader waited %v, the node served %v; want %v between, and %v at most",
				waited, lost, LeaseKill, leaseWait)
		}
		c.heal(n)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := n.Lease().Wait(ctx); err != nil {
			t.Errorf("the node that came back got no lease: %v", err)
		}
		if got := n.Lease().Term(); got != term+1 {
			t.Errorf("the lease is in term %d after it ran out once, want %d", got, term+1)
		}
		if s, err := lead.LeaseState(n.id); err != nil || s.Expired {
			t.Errorf("LeaseState of the node that came back: %+v, %v", s, err)
		}
	})
}

// However long the leader's word was on its way, the lease it gives ends LeaseTime
// after the node asked for it.
func TestLeaseCountsFromTheQuestion(t *testing.T) {
	bubble(t, 3, func(c *cluster) {
		t := c.t
		lead := c.leader()
		n := c.others(lead)[0]
		c.leased()
		const way = 300 * time.Millisecond
		c.net.Delay(n.name, lead.name, way)
		c.net.Delay(lead.name, n.name, way)
		time.Sleep(10 * time.Second)
		for range 5 {
			<-n.Lease().Renewed()
			left := n.Lease().Deadline() - n.clock()
			if left > LeaseTime-2*way*99/100 || left < LeaseTime/2 {
				t.Errorf("a lease that took %v to come lasts for another %v, of %v", 2*way, left, LeaseTime)
			}
		}
	})
}

// A leader that lost its majority gives no lease, not even to itself; the next
// one counts every lease from when it began to lead.
func TestLeaseAcrossLeaders(t *testing.T) {
	bubble(t, 3, func(c *cluster) {
		t := c.t
		old := c.leader()
		c.leased()
		cut := time.Now()
		c.isolate(old)
		if _, err := old.grant(t.Context(), old.id); model.CodeOf(err) != model.Unavailable {
			t.Errorf("the isolated leader gave itself a lease: %v", err)
		}
		var next *node
		for next == nil {
			for _, n := range c.others(old) {
				if n.IsLeader() {
					next = n
				}
			}
			time.Sleep(10 * time.Millisecond)
		}
		led := time.Now()
		for _, n := range c.nodes {
			s, err := next.LeaseState(n.id)
			if err != nil || s.Expired || s.Left < leaseWait-time.Second {
				t.Errorf("a new leader says of %s: %+v, %v", n.name, s, err)
			}
		}
		if err := old.Lease().Lost(t.Context()); err != nil {
			t.Fatal(err)
		}
		if lost := time.Since(cut); lost > drifted(LeaseTime) {
			t.Errorf("the old leader's node served for %v", lost)
		}
		if _, err := old.LeaseState(next.id); model.CodeOf(err) != model.Unavailable {
			t.Errorf("the old leader still judges leases: %v", err)
		}
		for {
			s, err := next.LeaseState(old.id)
			if err != nil {
				t.Fatal(err)
			}
			if s.Expired {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if waited := time.Since(led); waited < leaseWait*99/100 {
			t.Errorf("the new leader waited %v, want %v", waited, leaseWait)
		}
		if !next.Lease().Valid() {
			t.Error("the new leader's own node has no lease")
		}
	})
}

// A volume goes to another node only when its holder released it or has no
// lease; to the holder itself at any time.
func TestAcquireWaitsForLease(t *testing.T) {
	bubble(t, 3, func(c *cluster) {
		t := c.t
		lead := c.leader()
		holder, other := c.others(lead)[0], c.others(lead)[1]
		vol := c.volume(lead)
		c.leased()
		acquire := func(n *node) error {
			v, err := n.View(t.Context())
			if err != nil {
				return err
			}
			now, err := v.Volume(vol.ID)
			if err != nil {
				return err
			}
			_, err = n.Apply(t.Context(), model.System, command.VolumeAcquire{
				Volume: vol.ID, Node: n.id,
				Purpose: model.ForExport, Generation: now.Generation, Revision: now.Revision,
			})
			return err
		}
		if err := acquire(holder); err != nil {
			t.Fatalf("acquire a free volume: %v", err)
		}
		if err := acquire(other); model.CodeOf(err) != model.Unavailable {
			t.Errorf("another node took a volume that is held: %v", err)
		}
		holder.stop()
		holder.start()
		if err := acquire(holder); err != nil {
			t.Errorf("the holder after a restart: %v", err)
		}
		v := c.must(holder, command.VolumeRelease{Volume: vol.ID, Node: holder.id, Generation: 2})
		if v, ok := v.(model.Volume); !ok || v.Holder != 0 {
			t.Errorf("released, it is %+v", v)
		}
		if err := acquire(other); err != nil {
			t.Errorf("acquire a volume that was released: %v", err)
		}
		other.stop()
		died := time.Now()
		for acquire(holder) != nil {
			time.Sleep(100 * time.Millisecond)
		}
		if took := time.Since(died); took < LeaseTime+LeaseKill-LeaseRenew || took > drifted(leaseWait)+time.Second {
			t.Errorf("the volume of a dead node was taken after %v", took)
		}
	})
}

// A machine is not placed elsewhere while it may still be running, and a node is
// not declared lost while it may still be serving.
func TestPlaceWaitsForLease(t *testing.T) {
	bubble(t, 3, func(c *cluster) {
		t := c.t
		lead := c.leader()
		host, other := c.others(lead)[0], c.others(lead)[1]
		vol := c.volume(lead)
		c.leased()
		id := model.NewID[model.VMID]()
		c.must(lead, command.VMCreate{ID: id, Name: "web", CPUs: 1, Memory: 64 << 20, Disks: []model.VMDisk{{Volume: vol.ID}}})
		c.must(lead, command.VMPower{VM: id, Power: model.PowerOn, Node: host.id})
		place := command.VMPlace{VM: id, Node: other.id, Expected: host.id}
		code := func(cmd command.Command) model.Code {
			_, err := lead.Apply(t.Context(), model.System, cmd)
			return model.CodeOf(err)
		}
		if got := code(place); got != model.Unavailable {
			t.Errorf("placing a machine that may be starting: %q", got)
		}
		if got := code(command.NodeRemove{Node: host.id, Lost: true}); got != model.Unavailable {
			t.Errorf("declaring a live node lost: %q", got)
		}
		c.must(host, command.VMReport{VM: id, Node: host.id, State: model.VMStopped})
		c.must(lead, place)
		back := command.VMPlace{VM: id, Node: host.id, Expected: other.id}
		c.must(other, command.VMReport{VM: id, Node: other.id, State: model.VMRunning})
		if got := code(back); got != model.Unavailable {
			t.Errorf("placing a machine that runs: %q", got)
		}
		other.stop()
		time.Sleep(drifted(leaseWait))
		c.must(lead, back)
		c.must(lead, command.NodeRemove{Node: other.id, Lost: true})
	})
}

// A disk of a node that does not answer goes to another only when the node has had no
// lease for long enough to have closed it; one that its node says it has not got, at
// once. A node claims for itself only.
func TestDiskWaitsForLease(t *testing.T) {
	bubble(t, 3, func(c *cluster) {
		t := c.t
		lead := c.leader()
		owner, other := c.others(lead)[0], c.others(lead)[1]
		c.volume(owner) // its disks too
		c.leased()
		mine := owner.Local().Disks()
		claim := func(by *node, d model.Disk, gone bool) model.Code {
			_, err := by.Apply(t.Context(), model.System, command.DiskFound{
				Disk: d.ID, Node: other.id, Claims: d.Claims, Path: "/found", Gone: gone,
			})
			return model.CodeOf(err)
		}
		if got := claim(owner, mine[0], true); got != model.Denied {
			t.Errorf("claimed for another node: %q", got)
		}
		if got := claim(other, mine[0], true); got != model.Unavailable {
			t.Errorf("the disk of a node that is there: %q", got)
		}
		c.must(owner, command.DiskFound{Disk: mine[1].ID, Node: owner.id, Error: "not found"})
		if got := claim(other, mine[1], false); got != "" {
			t.Errorf("a disk that its node has not got: %q", got)
		}
		owner.stop()
		died := time.Now()
		for claim(other, mine[0], true) != "" {
			time.Sleep(time.Second)
		}
		if took := time.Since(died); took < LeaseTime+LeaseDisks || took > drifted(diskWait)+2*time.Second {
			t.Errorf("the disk of a dead node was claimed after %v", took)
		}
	})
}

// While a node's volume is being taken over, the node gets no lease: else it
// could serve from what it had, unaware.
func TestNoLeaseDuringTakeover(t *testing.T) {
	now := time.Duration(0)
	g := newGrants(func() time.Duration { return now })
	g.begin()
	if _, left := g.takeover(1, leaseWait); left != leaseWait {
		t.Errorf("right after the beginning %v is left, want %v", left, leaseWait)
	}
	now += leaseWait
	done, left := g.takeover(1, leaseWait)
	if left != 0 {
		t.Fatalf("%v is left after %v", left, leaseWait)
	}
	again, left := g.takeover(1, leaseWait)
	if left != 0 {
		t.Fatalf("a second takeover: %v is left", left)
	}
	if g.give(1) {
		t.Error("a lease was given during a takeover")
	}
	if !g.give(2) {
		t.Error("another node got no lease")
	}
	done()
	if g.give(1) {
		t.Error("a lease was given during the second takeover")
	}
	again()
	if !g.give(1) {
		t.Error("no lease was given after the takeovers")
	}
	if _, left := g.takeover(1, leaseWait); left != leaseWait {
		t.Errorf("right after a lease %v is left, want %v", left, leaseWait)
	}
}

// A node speaks for itself only, but the leader's loops speak for all.
func TestSpeaksForItself(t *testing.T) {
	bubble(t, 3, func(c *cluster) {
		t := c.t
		lead := c.leader()
		mine, other := c.others(lead)[0], c.others(lead)[1]
		vol := c.volume(mine) // its disks too
		v, err := lead.View(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		disk := v.Disks()[0].ID
		id := model.NewID[model.VMID]()
		c.must(lead, command.VMCreate{ID: id, Name: "web", CPUs: 1, Memory: 64 << 20, Disks: []model.VMDisk{{Volume: vol.ID}}})
		c.must(lead, command.VMPower{VM: id, Power: model.PowerOn, Node: mine.id})
		c.must(mine, command.VolumeAcquire{Volume: vol.ID, Node: mine.id, Purpose: model.ForGuest, Revision: 1})
		tests := []command.Command{
			command.VMReport{VM: id, Node: mine.id, State: model.VMStopped},
			command.VolumeAcquire{Volume: vol.ID, Node: mine.id, Purpose: model.ForGuest, Generation: 1, Revision: 2},
			command.VolumeMembers{
				Volume: vol.ID, Generation: 1, Revision: 2,
				Changes: []model.MemberChange{{Disk: disk, State: model.Stale}},
			},
			command.DiskUpdate{Disk: disk, State: model.DiskFailed},
			command.DiskAdd{Disk: model.Disk{ID: 5, Node: mine.id, Path: "/x", Size: 1}},
			command.VolumeRelease{Volume: vol.ID, Node: mine.id, Generation: 1},
			command.NodeTrust{Node: mine.id, Trust: model.Trust{Keys: 9}},
			command.NodeUpdate{Node: mine.id, Address: "elsewhere"},
			command.VMUpdate{VM: id, RemoveDisks: []model.VolumeID{vol.ID}, AddDisks: []model.VolumeID{vol.ID}, Released: mine.id},
			command.KeyRotate{Key: keep("BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=")},
			command.CARotate{CA: "pem", CAKey: keep("k"), Heritage: "pem"},
		}
		for _, cmd := range tests {
			if _, err := other.Apply(t.Context(), model.System, cmd); model.CodeOf(err) != model.Denied {
				t.Errorf("%s for another node: %v", cmd.Kind(), err)
			}
		}
		c.must(lead, tests[0])
		c.must(mine, tests[3])
	})
}

// A lease can be waited for, and its end too; waits end with their context.
func TestLeaseWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		l := newLease(func() time.Duration { return time.Since(began) })
		if l.Valid() || l.Over() != 0 {
			t.Error("a new lease is valid, or over before it began")
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Wait(short); err == nil {
			t.Error("Wait returned without a lease")
		}
		if err := l.Lost(t.Context()); err != nil {
			t.Errorf("Lost: %v", err)
		}
		go func() {
			time.Sleep(time.Second)
			l.extend(5 * time.Second)
			time.Sleep(time.Second)
			l.extend(4 * time.Second) // never shorter
		}()
		if err := l.Wait(t.Context()); err != nil || time.Since(began) != 2*time.Second {
			t.Errorf("Wait: %v after %v", err, time.Since(began))
		}
		if err := l.Lost(t.Context()); err != nil || time.Since(began) != 5*time.Second {
			t.Errorf("Lost: %v after %v", err, time.Since(began))
		}
		time.Sleep(time.Minute)
		if over := l.Over(); over != time.Minute {
			t.Errorf("a minute after its end the lease is over for %v", over)
		}
	})
}

// A node whose daemon was restarted has its lease, and what was decided
// meanwhile, soon after: its guests wait for it. How long it was away does not
// matter.
func TestLeaseAfterRestart(t *testing.T) {
	bubble(t, 3, func(c *cluster) {
		t := c.t
		lead := c.leader()
		n := c.others(lead)[0]
		for _, away := range []time.Duration{time.Second, 10 * time.Second, 45 * time.Second} {
			c.leased()
			n.stop()
			time.Sleep(away)
			name := "during-" + away.String()
			c.must(lead, user(name))
			n.start()
			began := time.Now()
			if err := n.Lease().Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > 1500*time.Millisecond {
				t.Errorf("after %v away the lease came %v after the start", away, took)
			}
			if _, err := n.Local().FindUser(name); err != nil {
				t.Errorf("a node with a lease lacks what was decided before: %v", err)
			}
		}
	})
}

// A grant that a node's view is too old for does not count: the node might not
// know that its volumes were taken.
func TestLeaseNeedsTheRecord(t *testing.T) {
	bubble(t, 3, func(c *cluster) {
		t := c.t
		lead := c.leader()
		n := c.others(lead)[0]
		asker := &leaseAsker{m: n.Record}
		defer asker.close()
		if err := n.renew(asker); err != nil {
			t.Fatalf("renew: %v", err)
		}
		// The leader's view is ahead of what the node can get.
		ahead := lead.Local().Index() + 1
		bytes, err := command.Encode(command.Envelope{Request: "ahead", At: time.Now(), Command: command.SessionsPrune{}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := lead.store.ApplyBatch([]state.Entry{{Index: ahead, Data: bytes}}); err != nil {
			t.Fatal(err)
		}
		if err := n.renew(asker); model.CodeOf(err) != model.Unavailable {
			t.Errorf("renew with a view behind the grant: %v", err)
		}
	})
}
