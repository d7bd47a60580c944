package devcluster

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A VM as `vm show --json` prints it.
type VM struct {
	Name     string `json:"name"`
	Power    string `json:"power"`
	NodeName string `json:"node_name"`
	MovesTo  string `json:"moves_to"`
	Status   struct {
		State  string `json:"state"`
		Reason string `json:"reason"`
	} `json:"status"`
}

// VM asks for a machine.
func (c *Cluster) VM(t *testing.T, name string) (v VM) {
	t.Helper()
	text := c.Must(t, "vm", "show", name, "--json")
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("vm show %s printed %q: %v", name, text, err)
	}
	return v
}

// AwaitVM waits until a machine is in a state, and fails the test if it has failed.
func (c *Cluster) AwaitVM(t *testing.T, name, state string) {
	t.Helper()
	Eventually(t, 2*time.Minute, name+" is "+state, func() bool {
		now := c.VM(t, name)
		if now.Status.State == "failed" {
			t.Fatalf("%s failed: %s", name, now.Status.Reason)
		}
		return now.Status.State == state
	})
}

// MakeGuest makes a machine whose guest verifies its disk. It does not start it.
func (c *Cluster) MakeGuest(t *testing.T, name, memory, disk string) {
	t.Helper()
	files := filepath.Dir(Program("guest/vmlinuz"))
	if _, err := os.Stat(filepath.Join(files, "vmlinuz")); err != nil {
		t.Fatalf("the demo guest is not built: run tests/guest/build.sh bin/guest: %v", err)
	}
	c.Must(t, "vm", "create", name, "--memory", memory, "--disk", disk,
		"--kernel", filepath.Join(files, "vmlinuz"), "--initrd", filepath.Join(files, "initrd.img"),
		"--append", "console=ttyS0 quiet")
}

// A Port follows what a guest's verifier says on its serial port. Its zero value is one
// for Follow.
type Port struct {
	stop func()

	mu   sync.Mutex // guards what follows
	seen Seen
}

// Seen is what a verifier says it has seen, by its newest line.
type Seen struct {
	Blocks int64 // verified
	Errors int64
	Stall  float64  // the longest, in seconds
	Bad    []string // lines that say so
}

var progress = regexp.MustCompile(`verified (\d+) writes \d+ reads \d+ errors (\d+) longest_stall ([\d.]+)`)

// Listen reads a machine's serial port, through a node that stays up, until Stop or the
// end of the test. Each line is given to also, if that is not nil.
func (c *Cluster) Listen(t *testing.T, name string, also func(line string)) *Port {
	t.Helper()
	cmd := c.command(t.Context(), "vm", "console", name, "--serial")
	in, err := cmd.StdinPipe() // kept open: the end of input leaves the console
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, done := &Port{}, make(chan struct{})
	go func() { // ends with the process, which stop ends
		defer close(done)
		p.Follow(out, also)
		_ = cmd.Wait() // it is killed
	}()
	p.stop = sync.OnceFunc(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		<-done
	})
	t.Cleanup(p.stop)
	return p
}

// Follow takes in what a verifier says, until it ends. Each line is given to also too, if
// that is not nil.
func (p *Port) Follow(out io.Reader, also func(line string)) {
	for s := bufio.NewScanner(out); s.Scan(); {
		p.take(s.Text())
		if also != nil {
			also(s.Text())
		}
	}
}

func (p *Port) take(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if strings.Contains(line, "VERIFY ERROR") || strings.Contains(line, "I/O error") {
		p.seen.Bad = append(p.seen.Bad, line)
	}
	m := progress.FindStringSubmatch(line)
	if m == nil {
		return
	}
	p.seen.Blocks, _ = strconv.ParseInt(m[1], 10, 64)
	p.seen.Errors, _ = strconv.ParseInt(m[2], 10, 64)
	p.seen.Stall, _ = strconv.ParseFloat(m[3], 64)
}

// Now is what the verifier has said so far.
func (p *Port) Now() Seen {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen
}

// Stop ends the listening.
func (p *Port) Stop() { p.stop() }

// Progresses waits until a guest has verified more than so many blocks, without an error,
// and says how many it has.
func (c *Cluster) Progresses(t *testing.T, name string, after int64) int64 {
	t.Helper()
	return c.Reaches(t, name, "verifies on", func(blocks int64) bool { return blocks > after })
}

// BeginsAgain waits until a guest that had verified so many blocks counts from the start,
// after it has scanned its disk, and has verified something since, without an error.
func (c *Cluster) BeginsAgain(t *testing.T, name string, before int64) {
	t.Helper()
	c.Reaches(t, name, "begins again", func(blocks int64) bool { return blocks > 0 && blocks < before })
}

// GoesOn waits until a guest that had verified so many blocks has verified some more, and
// fails the test if it has begun again meanwhile.
func (c *Cluster) GoesOn(t *testing.T, name string, seen int64) int64 {
	t.Helper()
	first := true
	return c.Reaches(t, name, "goes on", func(blocks int64) bool {
		if first && blocks > 0 {
			first = false
			if blocks < seen {
				t.Fatalf("%s has begun again: it had verified %d blocks, and now %d", name, seen, blocks)
			}
		}
		return blocks > seen+200
	})
}

// reachWait is how long a guest may take to say what is waited for: ten that start at once
// on two cores take a minute and more.
const reachWait = 4 * time.Minute

// Reaches waits until a guest has verified as many blocks as enough says, without an
// error, and says how many it has.
func (c *Cluster) Reaches(t *testing.T, name, what string, enough func(blocks int64) bool) int64 {
	t.Helper()
	p := c.Listen(t, name, nil)
	defer p.Stop()
	Eventually(t, reachWait, fmt.Sprintf("the guest of %s %s", name, what), func() bool {
		return enough(p.Now().Blocks)
	})
	now := p.Now()
	if now.Errors != 0 || len(now.Bad) > 0 {
		t.Fatalf("the verifier of %s found %d errors: %v", name, now.Errors, now.Bad)
	}
	t.Logf("%s: verified %d blocks, longest stall %.1f s", name, now.Blocks, now.Stall)
	return now.Blocks
}

// Alive reports whether a process runs, a zombie being dead.
func Alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return !strings.HasPrefix(rest, "Z")
}
