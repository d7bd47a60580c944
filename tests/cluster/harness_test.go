package cluster

import (
	"encoding/json"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"drystone.example/drystone/tests/internal/devcluster"
)

// A node of a running cluster.
type node = devcluster.Node

// A cluster under test, and the test or part of one that uses it now.
type cluster struct {
	*devcluster.Cluster
	t   *testing.T
	dir string
}

// bases gives each cluster of this process its own loopback addresses.
var bases atomic.Int32

// up starts a cluster of three nodes with two disks each, for as long as the test
// runs.
func up(t *testing.T, extra ...string) *cluster {
	t.Helper()
	base := fmt.Sprintf("127.0.%d", 10+bases.Add(1))
	c := devcluster.Up(t, base, append([]string{"--disks", "2", "--disk-size", "2G", "--accel", "tcg"}, extra...)...)
	return &cluster{Cluster: c, t: t, dir: c.Dir}
}

// part runs a part of a test on the cluster.
func (c *cluster) part(name string, f func(t *testing.T)) {
	whole := c.t
	whole.Run(name, func(t *testing.T) {
		c.t = t
		defer func() { c.t = whole }()
		f(t)
	})
}

// load reads again what every dev command rewrites.
func (c *cluster) load() {
	c.t.Helper()
	c.Load(c.t)
}

func tail(text string, lines int) string { return devcluster.Tail(text, lines) }

// program is the path of one of our binaries.
func program(name string) string { return devcluster.Program(name) }

// A result is what a command came to.
type result struct {
	args   []string
	status int
	out    string
	errs   string
}

func (r result) String() string {
	return devcluster.Result{Args: r.args, Status: r.status, Out: r.out, Errs: r.errs}.String()
}

// run runs the CLI against the cluster, for at most three minutes.
func (c *cluster) run(args ...string) result {
	r := c.Run(args...)
	return result{r.Args, r.Status, r.Out, r.Errs}
}

// must runs the CLI and fails the test unless it succeeds.
func (c *cluster) must(args ...string) string {
	c.t.Helper()
	return c.Must(c.t, args...)
}

// get runs the CLI with --json and decodes what it prints.
func get[T any](c *cluster, args ...string) (out T) {
	c.t.Helper()
	text := c.must(append(args, "--json")...)
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		c.t.Fatalf("drystone %v printed %q: %v", args, text, err)
	}
	return out
}

// eventually asks until the answer is yes.
func eventually(t *testing.T, within time.Duration, what string, yes func() bool) {
	t.Helper()
	devcluster.Eventually(t, within, what, yes)
}

func (c *cluster) kill(name string) { c.t.Helper(); c.must("dev", "kill", name, "--dir", c.dir) }
func (c *cluster) start(name string) {
	c.t.Helper()
	c.must("dev", "start", name, "--dir", c.dir)
	c.load()
}

// killAll kills every daemon at once, as a power failure would.
func (c *cluster) killAll() {
	c.t.Helper()
	c.load()
	for _, n := range c.Nodes {
		if err := syscall.Kill(n.PID, syscall.SIGKILL); err != nil {
			c.t.Fatal(err)
		}
	}
	for _, n := range c.Nodes {
		eventually(c.t, 10*time.Second, n.Name+" is dead", func() bool {
			return !alive(n.PID)
		})
	}
}

// alive reports whether a process runs, a zombie being dead.
func alive(pid int) bool { return devcluster.Alive(pid) }

// A volume as `volume show --json` prints it.
type lostRange struct {
	Offset int64 `json:"offset_bytes"`
	Length int64 `json:"length_bytes"`
}

type volume struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Size       int64  `json:"size_bytes"`
	Used       int64  `json:"used_bytes"`
	Holder     string `json:"holder"`
	HolderName string `json:"holder_name"`
	Generation int64  `json:"generation"`
	State      string `json:"state"`
	Lost       struct {
		Ranges []lostRange `json:"ranges"`
	} `json:"lost"`
	Columns []column `json:"columns"`
}

type column struct {
	Members []struct {
		Disk  string `json:"disk"`
		Node  string `json:"node"`
		State string `json:"state"`
	} `json:"members"`
}

// whole reports whether every column has two members and all are active.
func (v volume) whole() bool {
	for _, col := range v.Columns {
		if len(col.Members) != 2 {
			return false
		}
		for _, m := range col.Members {
			if m.State != "active" {
				return false
			}
		}
	}
	return len(v.Columns) > 0
}

func (c *cluster) awaitWhole(name string) {
	c.t.Helper()
	eventually(c.t, 2*time.Minute, "all members of "+name+" are active", func() bool {
		r := c.run("volume", "show", name, "--json")
		var v volume
		return r.status == 0 && json.Unmarshal([]byte(r.out), &v) == nil && v.whole()
	})
}

// awaitUsed waits until a volume is said to take so much; what the nodes say is
// a few seconds old.
func (c *cluster) awaitUsed(name string, want int64) {
	c.t.Helper()
	eventually(c.t, 20*time.Second, fmt.Sprintf("%s takes %d bytes", name, want), func() bool {
		r := c.run("volume", "show", name, "--json")
		var v volume
		return r.status == 0 && json.Unmarshal([]byte(r.out), &v) == nil && v.Used == want
	})
}

// awaitFree waits until nobody holds a volume.
func (c *cluster) awaitFree(name string) {
	c.t.Helper()
	eventually(c.t, 10*time.Second, name+" is let go", func() bool {
		return get[volume](c, "volume", "show", name).Holder == ""
	})
}

// An export is a running `volume export`.
type export struct {
	*devcluster.Export
	uri string
}

// socket is the path in the URI.
func (e *export) socket() string { return e.Socket() }

// stop ends the export cleanly.
func (e *export) stop() { e.Stop() }

// export serves a volume by NBD from a node until the test or stop ends it.
func (c *cluster) export(name, node string) *export {
	c.t.Helper()
	return c.exportBy("nbd", name, node)
}

// exportBy is export by a protocol.
func (c *cluster) exportBy(protocol, name, node string) *export {
	c.t.Helper()
	e := c.Export(c.t, protocol, name, node)
	return &export{e, e.URI}
}
