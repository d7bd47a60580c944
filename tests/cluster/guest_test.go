package cluster

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A machine as `vm show --json` prints it.
type vm struct {
	Name     string `json:"name"`
	Power    string `json:"power"`
	NodeName string `json:"node_name"`
	MovesTo  string `json:"moves_to"`
	Status   struct {
		State  string `json:"state"`
		Reason string `json:"reason"`
	} `json:"status"`
}

// A port follows what a guest's verifier says on its serial port.
type port struct {
	t   *testing.T
	cmd *exec.Cmd

	mu     sync.Mutex // guards what follows
	blocks int64      // verified, by the newest line
	errors int64
	stall  float64
	bad    []string
	cards  string   // the guest's newest word on its network cards
	leases []string // and on the addresses it was given
	disks  string   // its newest word on its disks
	words  []string // lines of the guest's own, not of the verifier
}

var progress = regexp.MustCompile(`verified (\d+) writes \d+ reads \d+ errors (\d+) longest_stall ([\d.]+)`)

// listen reads the serial port through a node that stays up.
func (c *cluster) listen(name string) *port {
	c.t.Helper()
	p := &port{t: c.t}
	p.cmd = exec.Command(program("drystone"), "vm", "console", name, "--serial")
	p.cmd.Env = append(os.Environ(), "DRYSTONE_DIR="+c.dir)
	in, err := p.cmd.StdinPipe() // kept open: the end of input leaves the console
	if err != nil {
		c.t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.follow(out)
	}()
	c.t.Cleanup(func() {
		_ = in.Close()
		_ = p.cmd.Process.Kill()
		<-done
		_ = p.cmd.Wait()
	})
	return p
}

// follow takes in what a guest says until the end.
func (p *port) follow(out io.Reader) {
	for s := bufio.NewScanner(out); s.Scan(); {
		p.take(s.Text())
	}
}

func (p *port) take(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !strings.HasPrefix(line, "verified ") {
		p.words = append(p.words, line)
	}
	if strings.Contains(line, "VERIFY ERROR") || strings.Contains(line, "I/O error") {
		p.bad = append(p.bad, line)
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
	m := progress.FindStringSubmatch(line)
	if m == nil {
		return
	}
	p.blocks, _ = strconv.ParseInt(m[1], 10, 64)
	p.errors, _ = strconv.ParseInt(m[2], 10, 64)
	p.stall, _ = strconv.ParseFloat(m[3], 64)
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

func (p *port) now() (blocks, errors int64, stall float64, bad []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.blocks, p.errors, p.stall, p.bad
}

// progresses waits until the guest has verified that much more, and says what it
// has seen so far.
func (c *cluster) progresses(name string, after int64) int64 {
	c.t.Helper()
	p := c.listen(name)
	eventually(c.t, 60*time.Second, "the guest verifies on", func() bool {
		blocks, _, _, _ := p.now()
		return blocks > after
	})
	blocks, errors, stall, bad := p.now()
	if errors != 0 || len(bad) > 0 {
		c.t.Fatalf("the guest's verifier found %d errors: %v", errors, bad)
	}
	c.t.Logf("verified %d blocks, longest stall %.1f s", blocks, stall)
	_ = p.cmd.Process.Kill()
	return blocks
}

// beginsAgain waits until the guest counts from the start, after it has scanned
// its disk, and has verified something since.
func (c *cluster) beginsAgain(name string, before int64) {
	c.t.Helper()
	p := c.listen(name)
	eventually(c.t, time.Minute, "the guest begins again", func() bool {
		blocks, _, _, _ := p.now()
		return blocks > 0 && blocks < before
	})
	if _, errors, _, bad := p.now(); errors != 0 || len(bad) > 0 {
		c.t.Fatalf("after it began again the verifier found %d errors: %v", errors, bad)
	}
	_ = p.cmd.Process.Kill()
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
	var last vm
	eventually(c.t, 2*time.Minute, name+" is "+state, func() bool {
		last = get[vm](c, "vm", "show", name)
		if last.Status.State == "failed" {
			c.t.Fatalf("%s failed: %s", name, last.Status.Reason)
		}
		return last.Status.State == state
	})
}
