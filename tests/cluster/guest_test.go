package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"drystone.example/drystone/tests/internal/devcluster"
)

// A machine as `vm show --json` prints it.
type vm = devcluster.VM

// A port follows what a guest says on its serial port, its verifier and its init.
type port struct {
	*devcluster.Port
	t *testing.T

	mu     sync.Mutex // guards what follows
	cards  string     // the guest's newest word on its network cards
	leases []string   // and on the addresses it was given
	disks  string     // its newest word on its disks
	words  []string   // lines of the guest's own, not of the verifier
}

// listen reads the serial port through a node that stays up.
func (c *cluster) listen(name string) *port {
	c.t.Helper()
	p := &port{t: c.t}
	p.Port = c.Listen(c.t, name, p.take)
	return p
}

func (p *port) take(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !strings.HasPrefix(line, "verified ") {
		p.words = append(p.words, line)
	}
	if i := strings.Index(line, "network cards:"); i >= 0 {
		p.cards = line[i:]
	}
	if i := strings.Index(line, "disks:"); i >= 0 {
		p.disks = line[i:]
	}
	if i := strings.Index(line, "network card "); i >= 0 {
		p.leases = append(p.leases, strings.TrimSpace(line[i:]))
	}
}

// says returns the lines so far that have a text in them.
func (p *port) says(text string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for _, line := range p.words {
		if strings.Contains(line, text) {
			all = append(all, line)
		}
	}
	return strings.Join(all, "\n")
}

// progresses waits until the guest has verified that much more, and says what it
// has seen so far.
func (c *cluster) progresses(name string, after int64) int64 {
	c.t.Helper()
	return c.Progresses(c.t, name, after)
}

// beginsAgain waits until the guest counts from the start, after it has scanned
// its disk, and has verified something since.
func (c *cluster) beginsAgain(name string, before int64) {
	c.t.Helper()
	c.BeginsAgain(c.t, name, before)
}

// A guest verifies its own disk, without an error, through the death of its own
// node's daemon and of each of the others; it shuts down, starts again and finds
// its disk as it left it.
func TestGuestSurvives(t *testing.T) {
	t.Parallel()
	c := up(t)
	files := filepath.Join("..", "..", "bin", "guest")
	if _, err := os.Stat(filepath.Join(files, "vmlinuz")); err != nil {
		t.Fatalf("the demo guest is not built: run tests/guest/build.sh bin/guest: %v", err)
	}
	c.must("vm", "create", "g", "--cpus", "2", "--memory", "256M", "--disk", "1G",
		"--kernel", filepath.Join(files, "vmlinuz"), "--initrd", filepath.Join(files, "initrd.img"),
		"--append", "console=ttyS0 quiet")
	c.must("vm", "start", "g", "--node", "node2")
	c.awaitVM("g", "running")
	seen := c.progresses("g", 1000)

	for _, victim := range []string{"node2", "node1", "node3"} {
		c.kill(victim)
		if victim != "node2" { // the guest's own is back before its lease has run out
			time.Sleep(5 * time.Second)
		}
		c.start(victim)
		eventually(t, time.Minute, victim+" is back", func() bool {
			r := c.run("node", "show", victim, "--json")
			return r.status == 0 && strings.Contains(strings.ReplaceAll(r.out, " ", ""), `"up":true`)
		})
		c.awaitVM("g", "running")
		seen = c.progresses("g", seen+500)
		c.awaitWhole("g-disk1")
	}
	c.must("vm", "reset", "g")
	c.beginsAgain("g", seen)
	c.must("vm", "stop", "g")
	c.awaitVM("g", "stopped")
	c.must("vm", "start", "g")
	c.awaitVM("g", "running")
	c.beginsAgain("g", seen)
	c.must("vm", "stop", "g")
	c.awaitVM("g", "stopped")
	c.must("vm", "delete", "g", "--yes")
	if list := get[struct {
		Items []volume `json:"items"`
	}](c, "volume", "list"); len(list.Items) != 0 {
		t.Errorf("after the machine was deleted its volume is still there: %+v", list.Items)
	}
}

func (c *cluster) awaitVM(name, state string) {
	c.t.Helper()
	c.AwaitVM(c.t, name, state)
}
