package cluster

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

var drainGuests = flag.Int("drain.guests", 3, "how many guests a node has that is drained")

// A nodeState as `node show --json` prints it.
type nodeState struct {
	Maintenance *struct {
		Left  int `json:"vms_left"`
		Moved int `json:"vms_moved"`
	} `json:"maintenance"`
	Returning int `json:"vms_returning"`
	Stuck     []struct {
		Name   string `json:"name"`
		Reason string `json:"reason"`
	} `json:"vms_stuck"`
}

// A node is drained: its guests, which verify their disks all the time, go elsewhere and
// do not notice, but for one that may not; it can be stopped then; when it is back and
// undrained they are back. Guests that are kept apart stay so when a node is lost.
func TestDrain(t *testing.T) {
	t.Parallel()
	c := up(t)
	c.must("cluster", "set", "balance", "off")
	seen := map[string]int64{}
	for i := range *drainGuests {
		name := fmt.Sprintf("g%d", i+1)
		c.smallGuest(name)
		c.must("vm", "start", name, "--node", "node1")
	}
	c.must("vm", "edit", "g1", "--apart", "pair")
	c.must("vm", "edit", "g2", "--apart", "pair")
	c.must("vm", "edit", "g3", "--prefer", "node1", "--strict")
	for i := range *drainGuests {
		name := fmt.Sprintf("g%d", i+1)
		c.awaitVM(name, "running")
		seen[name] = c.progresses(name, 100)
	}
	c.part("one may not leave", func(t *testing.T) {
		t.Helper()
		r := c.run("node", "drain", "node1", "--wait")
		if r.status == 0 || !strings.Contains(r.out, "machine g3 is not moved: it may run on its preferred and its backup node only") {
			t.Errorf("drain with one that may not leave: status %d, %s", r.status, r.out)
		}
		if s := c.must("status"); !strings.Contains(s, "node node1 cannot be emptied: 1 machines stay: g3") {
			t.Errorf("the status says\n%s", s)
		}
		c.must("vm", "edit", "g3", "--strict=false")
		c.must("node", "drain", "node1", "--wait")
		c.where(t, seen, func(_, node string) bool { return node != "node1" })
		if guests := guestsOf(t, c.node("node1")); len(guests) != 0 {
			t.Errorf("the drained node has the guests %v", guests)
		}
		if a, b := c.nodeOf("g1"), c.nodeOf("g2"); a == b {
			t.Errorf("g1 and g2, which are kept apart, are both on %s", a)
		}
	})
	c.part("nothing comes", func(t *testing.T) {
		t.Helper()
		for _, args := range [][]string{{"vm", "migrate", "g1", "node1"}, {"vm", "start", "late", "--node", "node1"}} {
			if args[2] == "late" {
				c.smallGuest("late")
			}
			if r := c.run(args...); r.status != 1 || !strings.Contains(r.errs, "maintenance") {
				t.Errorf("%v: status %d, %s%s", args, r.status, r.out, r.errs)
			}
		}
	})
	c.part("stopped and back", func(t *testing.T) {
		t.Helper()
		c.kill("node1")
		c.goOn(seen)
		c.start("node1")
		other := map[string]string{"node2": "node3", "node3": "node2"}[c.nodeOf("g2")]
		eventually(t, time.Minute, "g2 is moved by somebody, to "+other, func() bool {
			return c.run("vm", "migrate", "g2", other).status == 0 // once node1 knows the others
		})
		elsewhere := c.nodeOf("g2")
		c.must("node", "undrain", "node1", "--wait")
		c.where(t, seen, func(name, node string) bool {
			return name != "g2" && node == "node1" || name == "g2" && node == elsewhere
		})
		if n := get[nodeState](c, "node", "show", "node1"); n.Maintenance != nil || n.Returning != 0 || len(n.Stuck) != 0 {
			t.Errorf("the node is %+v", n)
		}
	})
	c.part("apart when a node is lost", func(t *testing.T) {
		t.Helper()
		was := c.nodeOf("g2")
		c.pullThePlug(was)
		c.runsElsewhere("g2", was, func() {})
		if now := c.nodeOf("g2"); now == c.nodeOf("g1") {
			t.Errorf("g2 was started on %s, where g1 is", now)
		}
	})
}

// smallGuest makes a machine whose guest verifies its disk.
func (c *cluster) smallGuest(name string) {
	c.t.Helper()
	c.MakeGuest(c.t, name, "160M", "256M")
}

func (c *cluster) nodeOf(name string) string {
	c.t.Helper()
	return get[vm](c, "vm", "show", name).NodeName
}

// where checks where machines run, and that their guests go on.
func (c *cluster) where(t *testing.T, seen map[string]int64, right func(name, node string) bool) {
	t.Helper()
	for name := range seen {
		now := get[vm](c, "vm", "show", name)
		if now.Status.State != "running" || now.MovesTo != "" || !right(name, now.NodeName) {
			t.Errorf("%s is %s on %s, moving to %q", name, now.Status.State, now.NodeName, now.MovesTo)
		}
	}
	c.goOn(seen)
}

// goOn waits until all guests have verified more than they had, without a break.
func (c *cluster) goOn(seen map[string]int64) {
	c.t.Helper()
	began := time.Now()
	for _, name := range slices.Sorted(maps.Keys(seen)) {
		seen[name] = c.goesOn(name, seen[name])
	}
	c.t.Logf("all go on, seen in %.1f s", time.Since(began).Seconds())
}
