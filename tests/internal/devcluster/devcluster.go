// Package devcluster runs development clusters for tests: real daemons on
// loopback addresses, driven through the command line as a person would. It needs
// root and the binaries in bin/ (make build). What it starts ends with the test.
package devcluster

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
	"runtime"
	"strings"
	"testing"
	"time"
)

// A Node of a running cluster, as DIR/cluster.json tells.
type Node struct {
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

// A Cluster under test.
type Cluster struct {
	Dir string `json:"-"` // of the cluster; what DRYSTONE_DIR names

	Version   int    `json:"version"`
	ClusterID string `json:"cluster_id"`
	API       string `json:"api"`
	User      string `json:"user"`
	Password  string `json:"password"`
	CA        string `json:"ca"`
	Nodes     []Node `json:"nodes"`
}

// Up starts a cluster at the loopback addresses that begin with base, which no
// other cluster of this machine has, with what else `dev up` is to be told, and
// removes it when the test ends. The nodes' logs are kept where the test failed.
func Up(t *testing.T, base string, more ...string) *Cluster {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("a cluster needs root")
	}
	// Sockets lie in it, so its path is short.
	dir, err := os.MkdirTemp("/var/tmp", "dst-") //nolint:usetesting // t.TempDir is too deep
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // QEMU's user passes
		t.Fatal(err)
	}
	c := &Cluster{Dir: filepath.Join(dir, "c")}
	t.Cleanup(func() {
		if t.Failed() {
			c.KeepLogs(t)
		}
		if r := c.Run("dev", "down", "--dir", c.Dir); r.Status != 0 {
			t.Log(r)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	c.Must(t, append([]string{"dev", "up", "--nodes", "3", "--dir", c.Dir, "--base", base}, more...)...)
	c.Load(t)
	return c
}

// Load reads cluster.json, which every dev command rewrites.
func (c *Cluster) Load(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(c.Dir, "cluster.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, c); err != nil {
		t.Fatal(err)
	}
	for _, n := range c.Nodes {
		if _, err := netip.ParseAddr(n.Address); err != nil || n.PID == 0 && n.Name == "" {
			t.Fatalf("cluster.json has a node without what it needs: %+v", n)
		}
	}
}

// KeepLogs copies the nodes' logs to where the test keeps what it leaves.
func (c *Cluster) KeepLogs(t *testing.T) {
	t.Helper()
	to := t.ArtifactDir()
	if err := os.MkdirAll(to, 0o700); err != nil {
		t.Log(err)
	}
	for _, n := range c.Nodes {
		text, err := os.ReadFile(n.Log)
		if err != nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(to, n.Name+".log"), text, 0o600); err != nil { //nolint:gosec // our own names
			t.Log(err)
		}
		t.Logf("%s ends with:\n%s", n.Log, Tail(string(text), 40))
	}
}

// Tail is the last lines of a text.
func Tail(text string, lines int) string {
	all := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// Program is the path of one of our binaries.
func Program(name string) string {
	_, here, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(here), "../../../bin", name)
}

// A Result is what a command came to.
type Result struct {
	Args   []string
	Status int
	Out    string
	Errs   string
}

func (r Result) String() string {
	return fmt.Sprintf("drystone %s: status %d\n%s%s", strings.Join(r.Args, " "), r.Status, r.Out, r.Errs)
}

// command is the CLI, told which cluster is meant.
func (c *Cluster) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, Program("drystone"), args...) //nolint:gosec // ours
	cmd.Env = append(os.Environ(), "DRYSTONE_DIR="+c.Dir)
	return cmd
}

// Run runs the CLI against the cluster, for at most three minutes.
func (c *Cluster) Run(args ...string) Result {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := c.command(ctx, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	status := cmd.ProcessState.ExitCode()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(&errs, err)
		status = -1
	}
	return Result{args, status, out.String(), errs.String()}
}

// Must runs the CLI and fails the test unless it succeeds.
func (c *Cluster) Must(t *testing.T, args ...string) string {
	t.Helper()
	r := c.Run(args...)
	if r.Status != 0 {
		t.Fatal(r)
	}
	return r.Out
}

// Eventually asks until the answer is yes.
func Eventually(t *testing.T, within time.Duration, what string, yes func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !yes(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after %v still not: %s", within, what)
		}
	}
}
