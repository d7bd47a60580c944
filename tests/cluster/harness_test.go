package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A node of a running cluster, as DIR/cluster.json tells.
type node struct {
	Name       string `json:"name"`
	ID         string `json:"id"`
	Address    string `json:"address"`
	API        string `json:"api"`
	PID        int    `json:"pid"`
	Dir        string `json:"dir"`
	Log        string `json:"log"`
	LibvirtURI string `json:"libvirt_uri"`
	Disks      []struct {
		ID   string `json:"id"`
		Path string `json:"path"`
	} `json:"disks"`
}

// A cluster under test.
type cluster struct {
	t   *testing.T
	dir string

	Version   int    `json:"version"`
	ClusterID string `json:"cluster_id"`
	API       string `json:"api"`
	User      string `json:"user"`
	Password  string `json:"password"`
	CA        string `json:"ca"`
	Nodes     []node `json:"nodes"`
}

// bases gives each cluster of this process its own loopback addresses.
var bases atomic.Int32

// up starts a cluster of three nodes with two disks each, and removes it when the
// test ends. The nodes' logs are kept where the test failed.
func up(t *testing.T, extra ...string) *cluster {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("a cluster needs root")
	}
	// Sockets lie in it, so its path is short.
	dir, err := os.MkdirTemp("/var/tmp", "dst-") //nolint:usetesting // t.TempDir is too deep
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, dir: filepath.Join(dir, "c")}
	t.Cleanup(func() {
		if t.Failed() {
			c.keepLogs()
		}
		c.run("dev", "down", "--dir", c.dir)
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	base := fmt.Sprintf("127.0.%d", 10+bases.Add(1))
	args := []string{"dev", "up", "--nodes", "3", "--dir", c.dir, "--disks", "2", "--disk-size", "2G", "--base", base, "--accel", "tcg"}
	c.must(append(args, extra...)...)
	c.load()
	return c
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

// load reads cluster.json, which every dev command rewrites.
func (c *cluster) load() {
	c.t.Helper()
	text, err := os.ReadFile(filepath.Join(c.dir, "cluster.json"))
	if err != nil {
		c.t.Fatal(err)
	}
	if err := json.Unmarshal(text, c); err != nil {
		c.t.Fatal(err)
	}
	for _, n := range c.Nodes {
		if _, err := netip.ParseAddr(n.Address); err != nil || n.PID == 0 && n.Name == "" {
			c.t.Fatalf("cluster.json has a node without what it needs: %+v", n)
		}
	}
}

// keepLogs copies the nodes' logs to where the test keeps what it leaves.
func (c *cluster) keepLogs() {
	to := c.t.ArtifactDir()
	if err := os.MkdirAll(to, 0o700); err != nil {
		c.t.Log(err)
	}
	for _, n := range c.Nodes {
		text, err := os.ReadFile(n.Log)
		if err != nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(to, n.Name+".log"), text, 0o600); err != nil {
			c.t.Log(err)
		}
		c.t.Logf("%s ends with:\n%s", n.Log, tail(string(text), 40))
	}
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// binary is the path of one of ours.
func program(name string) string {
	path, err := filepath.Abs(filepath.Join("../../bin", name))
	if err != nil {
		return name
	}
	return path
}

// A result is what a command came to.
type result struct {
	args   []string
	status int
	out    string
	errs   string
}

func (r result) String() string {
	return fmt.Sprintf("drystone %s: status %d\n%s%s", strings.Join(r.args, " "), r.status, r.out, r.errs)
}

// run runs the CLI against the cluster, for at most three minutes.
func (c *cluster) run(args ...string) result {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program("drystone"), args...)
	cmd.Env = append(os.Environ(), "DRYSTONE_DIR="+c.dir)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	status := cmd.ProcessState.ExitCode()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(&errs, err)
		status = -1
	}
	return result{args, status, out.String(), errs.String()}
}

// must runs the CLI and fails the test unless it succeeds.
func (c *cluster) must(args ...string) string {
	c.t.Helper()
	r := c.run(args...)
	if r.status != 0 {
		c.t.Fatal(r)
	}
	return r.out
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
	for end := time.Now().Add(within); !yes(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after %v still not: %s", within, what)
		}
	}
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
func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return !strings.HasPrefix(rest, "Z")
}

// A volume as `volume show --json` prints it.
type volume struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Size       int64  `json:"size_bytes"`
	Used       int64  `json:"used_bytes"`
	Holder     string `json:"holder"`
	HolderName string `json:"holder_name"`
	Generation int64  `json:"generation"`
	State      string `json:"state"`
	Columns    []struct {
		Members []struct {
			Disk  string `json:"disk"`
			Node  string `json:"node"`
			State string `json:"state"`
		} `json:"members"`
	} `json:"columns"`
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
	uri  string
	cmd  *exec.Cmd
	done chan error
}

// socket is the path in the URI.
func (e *export) socket() string {
	_, path, _ := strings.Cut(e.uri, "socket=")
	return path
}

// export serves a volume by NBD from a node until the test or stop ends it.
func (c *cluster) export(name, node string) *export {
	c.t.Helper()
	return c.exportBy("nbd", name, node)
}

// exportBy is export by a protocol.
func (c *cluster) exportBy(protocol, name, node string) *export {
	c.t.Helper()
	cmd := exec.Command(program("drystone"), "volume", "export", name, "--node", node,
		"--"+protocol, filepath.Join(c.dir, name+"-"+node+".sock"))
	cmd.Env = append(os.Environ(), "DRYSTONE_DIR="+c.dir)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	e := &export{cmd: cmd, done: make(chan error, 1)}
	line := make(chan string, 1)
	go func() {
		buf := make([]byte, 4096)
		n, _ := out.Read(buf)
		line <- strings.TrimSpace(string(buf[:n]))
		e.done <- cmd.Wait()
	}()
	c.t.Cleanup(e.stop)
	select {
	case l := <-line:
		uri, ok := strings.CutPrefix(l, "ready ")
		if !ok {
			c.t.Fatalf("volume export printed %q, %s", l, errs.String())
		}
		e.uri = uri
	case <-time.After(time.Minute):
		c.t.Fatal("volume export was not ready within a minute")
	}
	return e
}

// stop ends the export cleanly.
func (e *export) stop() {
	if e.cmd == nil {
		return
	}
	_ = e.cmd.Process.Signal(syscall.SIGINT)
	select {
	case err := <-e.done:
		e.done <- err
	case <-time.After(30 * time.Second):
		_ = e.cmd.Process.Kill()
		<-e.done //nolint:errcheck // it was killed
	}
	e.cmd = nil
}
