package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A machine whose node is lost is started elsewhere, and never runs twice:
// when only the daemon dies, the guard has killed the guest before it is started
// again; when everything on the node dies, its disk is as the guest left it.
func TestMachineOfALostNode(t *testing.T) {
	t.Parallel()
	c := up(t)
	files := filepath.Join("..", "..", "bin", "guest")
	if _, err := os.Stat(filepath.Join(files, "vmlinuz")); err != nil {
		t.Fatalf("the demo guest is not built: run tests/guest/build.sh bin/guest: %v", err)
	}
	c.must("vm", "create", "g", "--cpus", "1", "--memory", "256M", "--disk", "1G",
		"--kernel", filepath.Join(files, "vmlinuz"), "--initrd", filepath.Join(files, "initrd.img"),
		"--append", "console=ttyS0 quiet")
	c.must("vm", "start", "g", "--node", "node2")
	c.awaitVM("g", "running")
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
