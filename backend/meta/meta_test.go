package meta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
)

// Any node takes a change, and when it says so its own view and every
// linearizable view have it.
func TestApplyFromAnyNode(t *testing.T) {
	bubble(t, 3, func(c *cluster) {
		t := c.t
		for _, n := range c.nodes {
			got, ok := c.must(n, user("at-"+n.name)).(model.User)
			if !ok || got.Name != "at-"+n.name {
				t.Errorf("Apply at %s returned %v", n.name, got)
			}
			if _, err := n.Local().FindUser("at-" + n.name); err != nil {
				t.Errorf("the view of %s after its own Apply: %v", n.name, err)
			}
			for _, o := range c.nodes {
				v, err := o.View(t.Context())
				if err != nil {
					t.Fatalf("View at %s: %v", o.name, err)
				}
				if _, err := v.FindUser("at-" + n.name); err != nil {
					t.Errorf("View at %s after Apply at %s: %v", o.name, n.name, err)
				}
			}
		}
	})
}

// A refusal crosses to the asking node with its code, its sentence and, for a
// lost compare-and-swap, the object as it is; a user's refusal is audited.
func TestRefusalsCross(t *testing.T) {
	bubble(t, 3, func(c *cluster) {
		t := c.t
		lead := c.leader()
		c.must(lead, user("kim"))
		by := model.Actor{User: "root", UserID: 1, Role: model.Owner}
		for _, n := range c.nodes {
			_, err := n.Apply(t.Context(), model.System, user("kim"))
			if model.CodeOf(err) != model.Conflict || err.Error() != `there is already a user named "kim"` {
				t.Errorf("at %s: got %v", n.name, err)
			}
			_, err = n.Apply(t.Context(), by, user("kim"))
			if model.CodeOf(err) != model.Conflict {
				t.Errorf("at %s, for a user: got %v", n.name, err)
			}
			vol := c.volume(n)
			now, err := n.Apply(t.Context(), model.System, command.VolumeAcquire{
				Volume: vol.ID, Node: n.id,
				Purpose: model.ForMaintenance, Generation: 9, Revision: 9,
			})
			if got, ok := now.(model.Volume); model.CodeOf(err) != model.Conflict || !ok || got.Revision != vol.Revision {
				t.Errorf("at %s: a lost compare-and-swap returned %v, %v", n.name, now, err)
			}
		}
		rows, err := lead.Local().Audit(t.Context(), 0, 1000)
		if err != nil {
			t.Fatal(err)
		}
		refused := 0
		for _, r := range rows {
			if r.Result != "ok" {
				refused++
			}
		}
		if refused != 3 {
			t.Errorf("%d refusals are in the audit log, want the user's 3", refused)
		}
	})
}

// volume makes a volume, and the disks for it where they are missing, at a node.
func (c *cluster) volume(at *node) model.Volume {
	c.t.Helper()
	disks := at.Local().Disks()
	for i := len(disks); i < 2; i++ {
		made, ok := c.must(at, command.DiskAdd{Disk: model.Disk{
			ID: model.NewID[model.DiskID](), Node: at.id,
			Path: "/d", Size: 1 << 30,
		}}).(model.Disk)
		if !ok {
			c.t.Fatal("DiskAdd returned no disk")
		}
		disks = append(disks, made)
	}
	id := model.NewID[model.VolumeID]()
	made := c.must(at, command.VolumeCreate{
		ID: id, Name: id.String(), Use: model.VolumeDisk, Size: 1 << 30, Copies: 2,
		Columns: []model.Column{{Members: []model.Member{
			{Disk: disks[0].ID, State: model.Active},
			{Disk: disks[1].ID, State: model.Active},
		}}},
	})
	v, ok := made.(model.Volume)
	if !ok {
		c.t.Fatalf("VolumeCreate returned %T", made)
	}
	return v
}

// When the leader dies, another node leads within eight seconds (one election is
// lost now and then), changes asked for meanwhile get through, and nothing
// acknowledged is lost.
func TestLeaderDies(t *testing.T) {
	bubble(t, 3, func(c *cluster) {
		t := c.t
		for round := range 3 {
			lead := c.leader()
			c.must(lead, user(fmt.Sprint("before", round)))
			asker := c.others(lead)[0]
			died := time.Now()
			lead.stop()
			c.must(asker, user(fmt.Sprint("after", round)))
			if took := time.Since(died); took > 8*time.Second {
				t.Errorf("a change took %v after the leader died", took)
			}
			lead.start()
			v, err := lead.View(t.Context())
			if err != nil {
				t.Fatalf("View at the node that came back: %v", err)
			}
			for i := range round + 1 {
				for _, name := range []string{"before", "after"} {
					if _, err := v.FindUser(fmt.Sprint(name, i)); err != nil {
						t.Errorf("round %d: %v", round, err)
					}
				}
			}
		}
		c.sameEverywhere()
	})
}

// sameEverywhere waits until all nodes have the same entries, and compares every
// row.
func (c *cluster) sameEverywhere() {
	c.t.Helper()
	for range 100 {
		digests := map[string]bool{}
		indexes := map[uint64]bool{}
		for _, n := range c.nodes {
			if _, err := n.View(c.t.Context()); err != nil {
				c.t.Fatalf("View at %s: %v", n.name, err)
			}
		}
		for _, n := range c.nodes {
			digest, err := n.store.Digest(c.t.Context())
			if err != nil {
				c.t.Fatalf("Digest at %s: %v", n.name, err)
			}
			digests[digest] = true
			indexes[n.Local().Index()] = true
		}
		if len(indexes) == 1 && len(digests) == 1 {
			return
		}
		if len(indexes) == 1 {
			c.t.Fatalf("at index %d the nodes have %d different records", c.nodes[0].Local().Index(), len(digests))
		}
		time.Sleep(100 * time.Millisecond) // something asked for long ago is still coming
	}
	c.t.Fatal("the nodes do not come to the same index")
}

// A leader cut off from the others must not answer as one: not a read, not a
// change, not a lease. The others go on without it, and it finds back.
func TestLeaderIsolated(t *testing.T) {
	bubble(t, 3, func(c *cluster) {
		t := c.t
		old := c.leader()
		c.must(old, user("before"))
		c.isolate(old)
		type result struct {
			name string
			err  error
		}
		results := make(chan result, 2)
		short, cancel := context.WithTimeout(t.Context(), 8*time.Second)
		defer cancel()
		go func() {
			_, err := old.View(short)
			results <- result{"View", err}
		}()
		go func() {
			_, err := old.Apply(short, model.System, user("lost"))
			results <- result{"Apply", err}
		}()
		c.must(c.others(old)[0], user("meanwhile"))
		for range 2 {
			if r := <-results; model.CodeOf(r.err) != model.Unavailable {
				t.Errorf("%s at the isolated leader: %v, want %s", r.name, r.err, model.Unavailable)
			}
		}
		if old.IsLeader() {
			t.Error("it still believes that it leads")
		}
		c.heal(old)
		v, err := old.View(t.Context())
		if err != nil {
			t.Fatalf("View at the node that came back: %v", err)
		}
		if _, err := v.FindUser("meanwhile"); err != nil {
			t.Errorf("the node that came back: %v", err)
		}
		c.sameEverywhere()
	})
}

// Without a majority nothing is answered, and every wait ends.
func TestNoQuorum(t *testing.T) {
	bubble(t, 3, func(c *cluster) {
		t := c.t
		last := c.leader()
		for _, n := range c.others(last) {
			n.stop()
		}
		began := time.Now()
		if _, err := last.View(t.Context()); model.CodeOf(err) != model.Unavailable {
			t.Errorf("View: %v", err)
		}
		if took := time.Since(began); took > viewTimeout+time.Second {
			t.Errorf("View took %v", took)
		}
		began = time.Now()
		if _, err := last.Apply(t.Context(), model.System, user("x")); model.CodeOf(err) != model.Unavailable {
			t.Errorf("Apply: %v", err)
		}
		if took := time.Since(began); took > applyTimeout+time.Second {
			t.Errorf("Apply took %v", took)
		}
		if err := last.AddVoter(t.Context(), 99); model.CodeOf(err) != model.Unavailable {
			t.Errorf("AddVoter: %v", err)
		}
		if last.Lease().Valid() {
			t.Error("it still has a lease")
		}
	})
}

// All nodes stop at once and come back: they find each other without anybody
// who has the record, and have everything.
func TestAllNodesRestart(t *testing.T) {
	bubble(t, 3, func(c *cluster) {
		t := c.t
		for i := range 20 {
			c.must(c.nodes[i%3], user(fmt.Sprint("u", i)))
		}
		for range 2 {
			for _, n := range c.nodes {
				n.stop()
				n.peers = nil // only what it remembers
			}
			for _, n := range c.nodes {
				n.start()
			}
			v, err := c.leader().View(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for i := range 20 {
				if _, err := v.FindUser(fmt.Sprint("u", i)); err != nil {
					t.Errorf("after the restart: %v", err)
				}
			}
		}
		c.sameEverywhere()
	})
}

// A change whose answer is lost is asked for again and takes effect once. Here
// the leader's answers are cut off, again and again.
func TestRetriedOnce(t *testing.T) {
	bubble(t, 3, func(c *cluster) {
		t := c.t
		vol := c.volume(c.leader())
		done := make(chan struct{})
		var net sync.WaitGroup
		net.Go(func() {
			for {
				lead := c.leader()
				for _, o := range c.others(lead) {
					c.net.Cut(lead.name, o.name)
				}
				time.Sleep(1500 * time.Millisecond)
				c.heal(lead)
				select {
				case <-done:
					return
				case <-time.After(3 * time.Second):
				}
			}
		})
		// Each acquisition names the generation before: applied twice, the second
		// time would be refused, and the asker told that it lost.
		const reigns = 12
		n := c.others(c.leader())[0]
		for range reigns {
			now, err := n.Apply(t.Context(), model.System, command.VolumeAcquire{
				Volume: vol.ID, Node: n.id,
				Purpose: model.ForExport, Generation: vol.Generation, Revision: vol.Revision,
			})
			if err != nil {
				t.Fatalf("acquire generation %d: %v", vol.Generation+1, err)
			}
			got, ok := now.(model.Volume)
			if !ok || got.Generation != vol.Generation+1 || got.Holder != n.id {
				t.Fatalf("acquire generation %d: got %+v", vol.Generation+1, now)
			}
			vol = got
			time.Sleep(400 * time.Millisecond)
		}
		close(done)
		net.Wait()
		v, err := c.leader().View(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := v.Volume(vol.ID); err != nil || got.Generation != reigns {
			t.Errorf("generation %d after %d acquisitions (%v)", got.Generation, reigns, err)
		}
	})
}

// A node that was away for longer than the log is kept gets a snapshot, and the
// change it waits for arrives within it.
func TestSnapshotCatchesUp(t *testing.T) {
	bubble(t, 3, func(c *cluster) {
		t := c.t
		lead := c.leader()
		away := c.others(lead)[0]
		away.stop()
		var wg sync.WaitGroup
		for w := range 32 {
			wg.Go(func() {
				for i := range (trailingLogs + 256) / 32 {
					_, err := lead.Apply(t.Context(), model.System, command.NodeUpdate{
						Node:    lead.id,
						Version: fmt.Sprint(w, ".", i),
					})
					if err != nil {
						t.Errorf("Apply: %v", err)
					}
				}
			})
		}
		wg.Wait()
		if err := lead.raft.Snapshot().Error(); err != nil {
			t.Fatalf("Snapshot: %v", err)
		}
		away.start()
		c.must(away, user("late"))
		if list, err := os.ReadDir(filepath.Join(away.dir, "raft", "snapshots", "snapshots")); err != nil || len(list) == 0 {
			t.Errorf("the node that was away got no snapshot: %v, %v", list, err)
		}
		c.sameEverywhere()
		// And it starts from that snapshot.
		away.stop()
		away.start()
		c.must(away, user("later"))
		c.sameEverywhere()
	})
}

// A node that is removed is no longer talked to, and cannot come back.
func TestRemovedNode(t *testing.T) {
	bubble(t, 3, func(c *cluster) {
		t := c.t
		lead := c.leader()
		gone := c.others(lead)[0]
		if err := lead.RemoveServer(t.Context(), gone.id); err != nil {
			t.Fatalf("RemoveServer: %v", err)
		}
		c.must(lead, command.NodeRemove{Node: gone.id})
		for _, n := range c.others(gone) {
			if _, err := n.View(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := n.Allowed(gone.id); model.CodeOf(err) != model.Denied {
				t.Errorf("%s still allows it: %v", n.name, err)
			}
		}
		gone.stop()
		gone.start()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if _, err := gone.Apply(ctx, model.System, user("ghost")); err == nil {
			t.Error("a removed node changed the record")
		}
		if gone.Lease().Valid() {
			t.Error("a removed node has a lease")
		}
		if got := len(lead.Servers()); got != 2 {
			t.Errorf("raft has %d servers, want 2", got)
		}
		c.must(lead, user("alive"))
	})
}

// Voters can be demoted and made voters again, and a non-voter has the record.
func TestServers(t *testing.T) {
	bubble(t, 3, func(c *cluster) {
		t := c.t
		lead := c.leader()
		other := c.others(lead)[0]
		voters := func() (n int) {
			for _, s := range lead.Servers() {
				if s.Voter {
					n++
				}
			}
			return n
		}
		if err := lead.Demote(t.Context(), other.id); err != nil || voters() != 2 {
			t.Fatalf("Demote: %v, %d voters", err, voters())
		}
		if err := other.AddVoter(t.Context(), other.id); model.CodeOf(err) != model.Unavailable {
			t.Errorf("AddVoter at a node that does not lead: %v", err)
		}
		c.must(other, user("from-a-non-voter"))
		if err := lead.AddNonvoter(t.Context(), other.id); err != nil {
			t.Errorf("AddNonvoter of one: %v", err)
		}
		if err := lead.AddVoter(t.Context(), other.id); err != nil || voters() != 3 {
			t.Errorf("AddVoter: %v, %d voters", err, voters())
		}
		if err := lead.Lease().Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		s := lead.Stats()
		if s.State != "leader" || s.Leader != lead.id || len(s.Servers) != 3 || s.Applied == 0 || s.LeaseLeft == 0 {
			t.Errorf("Stats: %+v", s)
		}
	})
}

// Views can be waited for by noun.
func TestWatch(t *testing.T) {
	bubble(t, 3, func(c *cluster) {
		t := c.t
		n := c.others(c.leader())[0]
		v, err := n.View(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		seen := v.Changed(state.Users)
		c.must(c.leader(), user("kim"))
		for v.Changed(state.Users) == seen {
			select {
			case <-v.Next():
				v = n.Local()
			case <-time.After(5 * time.Second):
				t.Fatal("the change was not seen")
			}
		}
		if _, err := v.FindUser("kim"); err != nil {
			t.Error(err)
		}
	})
}

// Bootstrap happens once.
func TestBootstrapTwice(t *testing.T) {
	bubble(t, 1, func(c *cluster) {
		t := c.t
		n := c.nodes[0]
		first := command.ClusterCreate{ID: 1, Name: "x", Node: n.model()}
		if _, err := n.Bootstrap(t.Context(), model.System, first); model.CodeOf(err) != model.Conflict {
			t.Errorf("Bootstrap again: %v", err)
		}
		first.Node.ID++
		if _, err := n.Bootstrap(t.Context(), model.System, first); model.CodeOf(err) != model.Invalid {
			t.Errorf("Bootstrap for another node: %v", err)
		}
		n.stop()
		n.start()
		c.must(c.leader(), user("alone"))
	})
}

// A leader that was left behind does not refuse either: what it knows may be old.
// Only a majority makes its refusal true.
func TestIsolatedLeaderDoesNotRefuse(t *testing.T) {
	bubble(t, 3, func(c *cluster) {
		t := c.t
		old := c.leader()
		c.must(old, user("kim"))
		body, err := json.Marshal(user("kim"))
		if err != nil {
			t.Fatal(err)
		}
		q := question{Request: "r", Actor: model.System, Kind: command.KindUserCreate, Body: body}
		a, err := old.propose(t.Context(), old.id, q)
		if err != nil || !a.Refused || a.Code != model.Conflict {
			t.Fatalf("with a majority: %+v, %v", a, err)
		}
		c.isolate(old)
		if a, err = old.propose(t.Context(), old.id, q); err == nil {
			t.Errorf("without a majority: %+v", a)
		}
	})
}

// The leader answers from its view only when that has all that is committed: a
// follower may have applied, and acknowledged, what the leader has not yet.
func TestLeaderCatchesUpFirst(t *testing.T) {
	bubble(t, 1, func(c *cluster) {
		t := c.t
		n := c.leader()
		index := n.Local().Index()
		// An entry that is in the log and that nothing has applied.
		ahead := n.raft.LastIndex() + 1
		if err := n.log.StoreLog(&raft.Log{Index: ahead, Term: n.raft.CurrentTerm(), Type: raft.LogCommand}); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if got, err := n.caughtUp(short, ahead); model.CodeOf(err) != model.Unavailable {
			t.Errorf("caughtUp(%d) with a view at %d: %d, %v", ahead, index, got, err)
		}
		if got, err := n.caughtUp(t.Context(), ahead-1); err != nil || got > n.Local().Index() {
			t.Errorf("caughtUp(%d) with a view at %d: %d, %v", ahead-1, index, got, err)
		}
	})
}

// A change asked for at a follower is seen there as soon as it is committed, not
// when raft next tells of what is.
func TestFollowerSeesSoon(t *testing.T) {
	bubble(t, 3, func(c *cluster) {
		t := c.t
		n := c.others(c.leader())[0]
		began := time.Now()
		for i := range 20 {
			c.must(n, user(fmt.Sprint("u", i)))
		}
		// The network and the disks take no time here: what is left is waiting.
		if took := time.Since(began); took > commitTimeout {
			t.Errorf("20 changes at a follower took %v", took)
		}
	})
}

// Who is told to stop does not lead any more, though the node still does: a daemon
// that stops would begin its leader's loops again and again.
func TestLeadEndsWithItsContext(t *testing.T) {
	bubble(t, 1, func(c *cluster) {
		t := c.t
		n := c.leader()
		ctx, cancel := context.WithCancel(t.Context())
		lead, err := n.Lead(ctx)
		if err != nil || lead.Err() != nil {
			t.Fatalf("lead: %v", err)
		}
		cancel()
		<-lead.Done()
		if _, err := n.Lead(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("lead with a context that has ended: %v", err)
		}
	})
}
