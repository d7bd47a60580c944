package cluster

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

var howManyTours = flag.Int("tours", 1, "how often a guest migrates around the nodes")

// A machine whose node is lost is started elsewhere, and never runs twice:
// when only the daemon dies, the guard has killed the guest before it is started
// again; when everything on the node dies, its disk is as the guest left it.
func TestMachineOfALostNode(t *testing.T) {
	t.Parallel()
	c := up(t)
	c.makeGuest("g", "node2")
	c.progresses("g", 1000)

	c.part("the daemon alone", func(t *testing.T) {
		t.Helper()
		qemu := guestsOf(t, c.node("node2"))
		if len(qemu) != 1 {
			t.Fatalf("node2 runs %d guests", len(qemu))
		}
		c.kill("node2")
		c.runsElsewhere("g", "node2", func() {
			if alive(qemu[0]) {
				t.Error("the guest of the lost node is alive while it is started elsewhere")
			}
		})
		c.start("node2")
		c.awaitWhole("g-disk1")
		if left := guestsOf(t, c.node("node2")); len(left) != 0 {
			t.Errorf("node2 has guests again: %v", left)
		}
	})
	c.part("everything on the node", func(*testing.T) {
		was := get[vm](c, "vm", "show", "g").NodeName
		c.pullThePlug(was)
		c.runsElsewhere("g", was, func() {})
		c.start(was)
		c.awaitWhole("g-disk1")
	})
	c.part("off while its node is lost", func(t *testing.T) {
		t.Helper()
		was := get[vm](c, "vm", "show", "g").NodeName
		c.pullThePlug(was)
		c.must("vm", "stop", "g")
		c.awaitVM("g", "stopped")
		eventually(t, time.Minute, "the disk is free of its lost holder", func() bool {
			return c.run("vm", "delete", "g", "--yes").status == 0
		})
		c.start(was)
	})
}

// runsElsewhere waits until a machine runs on another node than it did and its guest
// verifies what it finds. moved is called when the record says that it was moved.
func (c *cluster) runsElsewhere(name, was string, moved func()) {
	c.t.Helper()
	began := time.Now()
	var now vm
	eventually(c.t, 2*time.Minute, name+" is placed elsewhere", func() bool {
		now = get[vm](c, "vm", "show", name)
		return now.NodeName != was && now.NodeName != ""
	})
	moved()
	c.awaitVM(name, "running")
	c.t.Logf("%s runs on %s instead of %s after %.1f s", name, now.NodeName, was, time.Since(began).Seconds())
	c.progresses(name, 1)
}

// node finds a node by its name.
func (c *cluster) node(name string) node {
	c.t.Helper()
	for _, n := range c.Nodes {
		if n.Name == name {
			return n
		}
	}
	c.t.Fatalf("there is no %s", name)
	return node{}
}

// pullThePlug kills everything of a node: its daemon, the guard, libvirt, its guests.
func (c *cluster) pullThePlug(name string) {
	c.t.Helper()
	n := c.node(name)
	pids := processesOf(c.t, n.Dir)
	if len(pids) < 4 {
		c.t.Fatalf("%s has only the processes %v", name, pids)
	}
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	c.must("dev", "kill", name, "--dir", c.dir)
	c.load()
}

// guestsOf lists the QEMUs of a node.
func guestsOf(t *testing.T, n node) (pids []int) {
	t.Helper()
	for _, pid := range processesOf(t, n.Dir) {
		if line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); strings.Contains(string(line), "qemu-system") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// processesOf lists the processes whose command line names a node's folder.
func processesOf(t *testing.T, dir string) (pids []int) {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range lines {
		line, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(line), dir) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// A guest moves to another node and back while it verifies its disk, and does not
// notice; a migration that cannot be done leaves it where it is.
func TestLiveMigration(t *testing.T) {
	t.Parallel()
	c := up(t)
	c.makeGuest("g", "node1")
	seen := c.progresses("g", 1000)
	for i := range 3 * *howManyTours {
		from, to := fmt.Sprintf("node%d", i%3+1), fmt.Sprintf("node%d", (i+1)%3+1)
		c.must("vm", "migrate", "g", to)
		if now := get[vm](c, "vm", "show", "g"); now.NodeName != to || now.Status.State != "running" {
			t.Fatalf("after the migration g is %s on %s", now.Status.State, now.NodeName)
		}
		seen = c.goesOn("g", seen)
		eventually(t, time.Minute, "nothing of the guest is left on "+from, func() bool {
			return len(guestsOf(t, c.node(from))) == 0
		})
		c.awaitWhole("g-disk1")
	}
	c.part("refused", func(t *testing.T) {
		t.Helper()
		for _, args := range [][]string{{"g", "node1"}, {"g", "nowhere"}, {"nobody"}} {
			if r := c.run(append([]string{"vm", "migrate"}, args...)...); r.status != 1 {
				t.Errorf("migrate %v: status %d, %s", args, r.status, r.out)
			}
		}
	})
	c.part("called off", func(t *testing.T) {
		t.Helper()
		cmd := exec.Command(program("drystone"), "vm", "migrate", "g", "node2")
		cmd.Env = append(os.Environ(), "DRYSTONE_DIR="+c.dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, time.Minute, "a guest waits on node2", func() bool { return len(guestsOf(t, c.node("node2"))) > 0 })
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait() // it may have moved already
		eventually(t, time.Minute, "g runs in one place", func() bool {
			now := get[vm](c, "vm", "show", "g")
			elsewhere := map[string]string{"node1": "node2", "node2": "node1"}[now.NodeName]
			return now.MovesTo == "" && now.Status.State == "running" && len(guestsOf(t, c.node(elsewhere))) == 0
		})
		seen = c.goesOn("g", seen)
		if now := get[vm](c, "vm", "show", "g"); now.NodeName == "node2" {
			t.Log("the guest had moved before it was called off")
			c.must("vm", "migrate", "g", "node1")
			seen = c.goesOn("g", seen)
		}
	})
	c.part("the other node dies", func(t *testing.T) {
		t.Helper()
		done := make(chan result, 1)
		go func() { done <- c.run("vm", "migrate", "g", "node2") }()
		eventually(t, time.Minute, "a guest waits on node2", func() bool { return len(guestsOf(t, c.node("node2"))) > 0 })
		c.pullThePlug("node2")
		r := <-done
		now := get[vm](c, "vm", "show", "g")
		if r.status == 0 || now.NodeName != "node1" {
			t.Logf("the guest had moved before the node died: %+v", now)
			c.runsElsewhere("g", "node2", func() {})
		} else {
			c.awaitVM("g", "running")
			seen = c.goesOn("g", seen)
		}
		c.start("node2")
		c.awaitWhole("g-disk1")
	})
	var commands []<-chan result // that wait for a task that nobody knows any more
	c.part("the daemon that moves it dies", func(t *testing.T) {
		t.Helper()
		commands = append(commands, c.sourceDies("node3", 200*time.Millisecond))
	})
	c.part("the daemon that moves it dies before it has sent anything", func(t *testing.T) {
		t.Helper()
		to := map[bool]string{true: "node2", false: "node3"}[get[vm](c, "vm", "show", "g").NodeName == "node3"]
		c.must("vm", "edit", "g", "--prefer", to) // it is started anew where QEMU waits for what never comes
		// QEMU is there for longer before libvirt says that it waits.
		commands = append(commands, c.sourceDies(to, 5*time.Millisecond))
	})
	for _, done := range commands {
		if r := <-done; r.status < 0 { // it failed, or the guest had moved
			t.Errorf("the command did not end by itself: %s", r)
		}
	}
}

// sourceDies begins a migration, and kills the daemon that sends when it sees, looking
// so often, a guest that waits on the other node. Then the machine must run in one place.
// The command ends by itself.
func (c *cluster) sourceDies(to string, every time.Duration) (command <-chan result) {
	c.t.Helper()
	from := get[vm](c, "vm", "show", "g").NodeName
	pid := c.node(from).PID
	done := make(chan result, 1)
	migrate := func() { done <- c.run("vm", "migrate", "g", to) }
	go migrate()
	for late := time.Now().Add(time.Minute); len(guestsOf(c.t, c.node(to))) == 0; {
		select {
		case r := <-done: // a node that was away is not known to run guests at once
			if r.status != 3 || time.Now().After(late) {
				c.t.Fatalf("no guest came to wait on %s: %s", to, r)
			}
			go migrate()
		case <-time.After(every):
		}
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		c.t.Fatal(err)
	}
	c.kill(from)
	eventually(c.t, 2*time.Minute, "g runs in one place, which is where the record says", func() bool {
		now := get[vm](c, "vm", "show", "g")
		if now.Status.State != "running" || now.MovesTo != "" {
			return false
		}
		for _, n := range []string{"node1", "node2", "node3"} {
			if want := map[bool]int{true: 1}[n == now.NodeName]; len(guestsOf(c.t, c.node(n))) != want {
				return false
			}
		}
		return true
	})
	c.progresses("g", 1)
	c.start(from)
	c.awaitWhole("g-disk1")
	return done
}

// goesOn waits until a guest that had verified so many blocks has verified some more, and
// fails if it has begun again meanwhile.
func (c *cluster) goesOn(name string, seen int64) int64 {
	c.t.Helper()
	return c.GoesOn(c.t, name, seen)
}

// makeGuest makes a machine whose guest verifies its disk, and starts it on a node.
func (c *cluster) makeGuest(name, node string) {
	c.t.Helper()
	c.MakeGuest(c.t, name, "256M", "1G")
	c.must("vm", "start", name, "--node", node)
	c.awaitVM(name, "running")
}
