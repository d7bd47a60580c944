// Package hosts makes several machines of one, for tests: each has a network, mounts, a
// name and processes of its own, and with guests a libvirtd of its own at the places where
// a machine has it. A bridge joins them. On each a node is set up as a person would do it,
// by `drystone init` or `drystone join`. What one sends to another can be lost in each
// direction on its own, without anybody being told: packets are dropped where they arrive.
//
// Nothing of it has a name that could be in the way of others, and nothing is left when
// the process that made it ends, however it does, but the folder. It needs root, the
// binaries in bin/ (make build) and, for guests, libvirt and QEMU.
package hosts

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"drystone.example/drystone/tests/internal/devcluster"
)

// How is how machines are made.
type How struct {
	Guests bool             // they have libvirt
	Folder func(dir string) // is told the folder of each node before there is anything in it
}

// A Lab is a cluster of three nodes with two disks each, on machines of their own. Not
// for use by several goroutines, but for what only looks.
type Lab struct {
	*devcluster.Cluster
	how    How
	bridge *box
	boxes  []*box // one for each of Nodes; nil while that is off
}

// New starts a lab. It ends with the test.
func New(t *testing.T, how How) *Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("namespaces need root")
	}
	// Sockets lie in it, so its path is short.
	dir, err := os.MkdirTemp("/var/tmp", "dsl-") //nolint:usetesting // t.TempDir is too deep
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // QEMU's user passes
		t.Fatal(err)
	}
	l := &Lab{how: how, Cluster: &devcluster.Cluster{Dir: dir, User: "admin", Password: rand.Text()}}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	for i := range 3 {
		name := fmt.Sprintf("node%d", i+1)
		n := devcluster.Node{Name: name, Address: fmt.Sprintf("10.77.0.%d", i+1), Dir: filepath.Join(dir, name)}
		n.Log = n.Dir + ".log"
		l.Nodes = append(l.Nodes, n)
		l.boxes = append(l.boxes, nil)
		if how.Folder != nil {
			how.Folder(n.Dir)
		}
	}
	t.Cleanup(func() { l.down(t) }) // before the folder's owner ends
	if l.bridge, err = open([]string{"--net"}, "ip link add br0 type bridge\nip link set br0 up"); err != nil {
		t.Fatal(err)
	}
	for i := range l.Nodes {
		l.powerOn(t, i)
	}
	l.found(t)
	for _, n := range l.Nodes {
		for disk := range 2 {
			path := filepath.Join(n.Dir, fmt.Sprintf("disk%d", disk+1))
			l.Must(t, "disk", "add", path, "--node", n.Name, "--size", "2G", "--sparse")
		}
	}
	l.AwaitUp(t)
	return l
}

// found makes the first node a cluster, lets the others join, and starts them all.
func (l *Lab) found(t *testing.T) {
	t.Helper()
	password := filepath.Join(l.Dir, "password")
	if err := os.WriteFile(password, []byte(l.Password), 0o600); err != nil {
		t.Fatal(err)
	}
	var token struct {
		Token string `json:"token"`
	}
	for i, n := range l.Nodes {
		args := []string{"init", "--password-file", password}
		if i > 0 {
			args = []string{"join", l.Nodes[0].Address, token.Token}
		}
		args = append(args, "--json", "--name", n.Name, "--address", n.Address, "--node-dir", n.Dir, "--accel", "tcg")
		if !l.how.Guests {
			args = append(args, "--libvirt", "")
		}
		out := l.In(t, n.Name, devcluster.Program("drystone"), args...)
		var born struct {
			Node string `json:"node_id"`
		}
		if err := json.Unmarshal([]byte(out), &born); err != nil || born.Node == "" {
			t.Fatalf("%s of %s printed %q: %v", args[0], n.Name, out, err)
		}
		l.Nodes[i].ID = born.Node
		l.start(t, i)
		l.describe(t, l.Dir, l.Nodes[:i+1])
		if i > 0 {
			continue
		}
		l.AwaitUp(t, n.Name)
		out = l.Must(t, "token", "create", "--uses", "2", "--json")
		if err := json.Unmarshal([]byte(out), &token); err != nil {
			t.Fatalf("the token is %q: %v", out, err)
		}
	}
	l.AwaitUp(t)
}

// describe writes down some nodes as `drystone --dir` finds them.
func (l *Lab) describe(t *testing.T, dir string, nodes []devcluster.Node) {
	t.Helper()
	text, err := json.Marshal(map[string]any{"version": 1, "nodes": nodes})
	err = errors.Join(err, os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "cluster.json"), text, 0o600))
	if err != nil {
		t.Fatal(err)
	}
}

// At is the cluster as it is seen from one node: all commands are that node's.
func (l *Lab) At(t *testing.T, name string) *devcluster.Cluster {
	t.Helper()
	dir := filepath.Join(l.Dir, "at-"+name)
	l.describe(t, dir, []devcluster.Node{l.Nodes[l.index(t, name)]})
	return &devcluster.Cluster{Dir: dir}
}

func (l *Lab) index(t *testing.T, name string) int {
	t.Helper()
	i := slices.IndexFunc(l.Nodes, func(n devcluster.Node) bool { return n.Name == name })
	if i < 0 {
		t.Fatalf("there is no %s", name)
	}
	return i
}

// AwaitUp waits until the nodes, or all, are up in the eyes of the cluster and have
// a vote: before that, the rest may be too few to elect a leader.
func (l *Lab) AwaitUp(t *testing.T, names ...string) {
	t.Helper()
	for _, n := range l.Nodes {
		if len(names) > 0 && !slices.Contains(names, n.Name) {
			continue
		}
		devcluster.Eventually(t, time.Minute, n.Name+" is up and votes", func() bool {
			r := l.Run("node", "show", n.Name, "--json")
			var seen struct {
				Up    bool `json:"up"`
				Voter bool `json:"voter"`
			}
			return r.Status == 0 && json.Unmarshal([]byte(r.Out), &seen) == nil && seen.Up && seen.Voter
		})
	}
}

// Leader names the node that leads, and the others.
func (l *Lab) Leader(t *testing.T) (leader string, others []string) {
	t.Helper()
	var id string
	devcluster.Eventually(t, 30*time.Second, "there is a leader", func() bool {
		r := l.Run("status", "--json")
		var seen struct {
			Leader string `json:"leader"`
		}
		ok := r.Status == 0 && json.Unmarshal([]byte(r.Out), &seen) == nil && seen.Leader != ""
		id = seen.Leader
		return ok
	})
	for _, n := range l.Nodes {
		if n.ID == id {
			leader = n.Name
		} else {
			others = append(others, n.Name)
		}
	}
	if leader == "" {
		t.Fatalf("the leader %s is none of the nodes", id)
	}
	return leader, others
}

// down ends all machines, and keeps what they said if the test failed.
func (l *Lab) down(t *testing.T) {
	t.Helper()
	if t.Failed() {
		l.KeepLogs(t)
	}
	for i := range l.boxes {
		l.cut(i)
	}
	for i := range l.boxes {
		l.awaitOff(t, i)
	}
	if l.bridge != nil {
		l.bridge.kill()
		<-l.bridge.ended
	}
}
