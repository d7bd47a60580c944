package cluster

import (
	crand "crypto/rand"
	"crypto/sha256"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drystone.example/drystone/tests/internal/powerfs"
)

var (
	powerRounds = flag.Int("power.rounds", 2, "how often the power is cut")
	powerSeed   = flag.Uint64("power.seed", 1, "when it is cut, and what survives, is made from it")
)

// A powerLab is a lab whose nodes keep everything on drives that have one power supply.
type powerLab struct {
	*lab
	rack *powerfs.Rack
	rng  *rand.Rand
}

func newPowerLab(t *testing.T) *powerLab {
	t.Helper()
	t.Logf("seed %d", *powerSeed)
	l := &powerLab{
		rack: powerfs.New(t.TempDir(), *powerSeed),
		rng:  rand.New(rand.NewPCG(*powerSeed, 0)),
	}
	closes := false
	l.lab = newLab(t, func(dir string) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if !closes { // after the daemons have ended, before the lab is removed
			closes = true
			t.Cleanup(func() {
				if err := l.rack.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		if err := l.rack.Mount(dir); err != nil {
			t.Fatal(err)
		}
	})
	return l
}

// failPower cuts the power of all nodes at one instant, and starts them again with
// what has survived.
func (l *powerLab) failPower(k powerfs.Keep) {
	l.t.Helper()
	l.rack.Cut()
	l.hosts.FailPower(l.t, l.rack.Off, func() {
		if err := l.rack.On(k); err != nil {
			l.t.Fatal(err)
		}
	})
	l.awaitUp()
}

// bootFile uploads a file that a machine boots from, and returns its name on a node.
func (l *powerLab) bootFile() string {
	l.t.Helper()
	text := []byte(crand.Text())
	path := filepath.Join(l.t.TempDir(), "kernel")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		l.t.Fatal(err)
	}
	l.must("vm", "create", "boots", "--kernel", path, "--memory", "64M")
	return fmt.Sprintf("%x", sha256.Sum256(text))
}

// hasFile fails the test unless some node has a boot file.
func (l *powerLab) hasFile(name string) {
	l.t.Helper()
	for _, n := range l.Nodes {
		if _, err := os.Stat(filepath.Join(n.Dir, "files", name)); err == nil {
			return
		}
	}
	l.t.Errorf("no node has file %s any more", name)
}

// remembers fails the test if a node did not know the others' addresses, without
// which none would find another.
func (l *powerLab) remembers() {
	l.t.Helper()
	for _, n := range l.Nodes {
		text, err := os.ReadFile(n.Log)
		if err != nil {
			l.t.Fatal(err)
		}
		if strings.Contains(string(text), "peers file not readable") {
			l.t.Errorf("%s could not read its file of peers", n.Name)
		}
	}
}

// A crowd makes volumes, one after the other, which is a change of the record each.
type crowd struct {
	made  []string // acknowledged
	ended chan struct{}
}

func (l *powerLab) crowd(prefix string, stop <-chan struct{}) *crowd {
	c := &crowd{ended: make(chan struct{})}
	go func() {
		defer close(c.ended)
		for i := 0; ; i++ {
			name := fmt.Sprintf("%s-%d", prefix, i)
			if r := l.run("volume", "create", name, "1G"); r.status != 0 {
				return
			}
			c.made = append(c.made, name)
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	return c
}

// check fails the test unless all that was made is there.
func (c *crowd) check(l *powerLab) {
	l.t.Helper()
	list := get[struct {
		Items []volume `json:"items"`
	}](l.cluster, "volume", "list")
	there := map[string]bool{}
	for _, v := range list.Items {
		there[v.Name] = true
	}
	for _, name := range c.made {
		if !there[name] {
			l.t.Errorf("volume %s was made and is gone", name)
		}
		l.must("volume", "delete", name, "--yes")
	}
	if len(c.made) == 0 {
		l.t.Error("no volume was made; that proves nothing")
	}
}

// The power of all nodes fails at once, again and again, with the record and a volume
// under load. What was not synced is lost, all, in part, or not: every write and
// every volume that was acknowledged is there, and all copies are equal.
//
// Then the drives only say that they sync, and the same test must see what is lost.
func TestPower(t *testing.T) {
	t.Parallel()
	l := newPowerLab(t)
	boot := l.bootFile()
	l.failPower(powerfs.Nothing) // what was set up is there
	l.hasFile(boot)
	l.must("volume", "create", "power", "256M")
	written := newLedger(32 << 20 / block)
	for round := range *powerRounds {
		keep := []powerfs.Keep{50, powerfs.Nothing, powerfs.Everything, 5, 95}[round%5]
		node := l.Nodes[round%len(l.Nodes)].Name
		made := l.loaded(written, node, round, func() { l.failPower(keep) })
		made.check(l)
		checked, err := readBack(t, l.cluster, "power", node, written)
		if err != nil {
			t.Fatalf("round %d, %d %% kept: %v", round, keep, err)
		}
		t.Logf("round %d, %d %% kept: %d acknowledged blocks, %d new volumes", round, keep, checked, len(made.made))
		l.whole("power")
		l.equal("power", int64(len(written.sent))*block)
	}

	l.remembers()
	const lies = powerfs.LieOfWrites | powerfs.LieOfFiles | powerfs.LieOfNames
	l.loaded(written, "node1", *powerRounds, func() { l.failPower(powerfs.Nothing) }, lies)
	_, err := readBack(t, l.cluster, "power", "node1", written)
	if err == nil {
		t.Error("the drives lied, and nothing that was acknowledged is missing")
	}
	t.Logf("with drives that lie: %v", err)
}

// loaded does something while the volume is written through a node and other volumes
// are made; with a lie the drives lie meanwhile.
func (l *powerLab) loaded(written *ledger, node string, round int, do func(), lies ...powerfs.Lie) *crowd {
	t := l.t
	t.Helper()
	s := l.connect(l.cluster, "power", node)
	for _, lie := range lies {
		l.rack.Lie(lie)
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() { written.load(s.conn, 16, stop); close(ended) }()
	made := l.crowd(fmt.Sprintf("made%d", round), stop)
	before := written.writes()
	eventually(t, time.Minute, "enough is written", func() bool { return written.writes() >= before+2000 })
	time.Sleep(time.Duration(l.rng.IntN(2000)) * time.Millisecond)
	do()
	close(stop)
	<-ended
	<-made.ended
	s.conn.close()
	s.export.stop()
	return made
}

// writes counts those that were sent.
func (l *ledger) writes() (n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, number := range l.sent {
		n += int64(number)
	}
	return n
}
