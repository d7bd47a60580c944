package cluster

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"drystone.example/drystone/tests/internal/devcluster"
)

// A lab is a cluster whose nodes have a network each: a namespace, joined to the
// others by a bridge in one more. It is set up as a person would do it, on each
// node by `drystone init` or `drystone join`. What one node sends to another can be
// lost in each direction on its own, without anybody being told: packets are
// dropped where they arrive.
type lab struct {
	*cluster
	prefix string // of the namespaces' names
}

// oneLab keeps tests that go on at the same time from one another's namespace.
var oneLab sync.Mutex

// newLab starts a lab of three nodes with two disks each. Before a node is set up,
// folder is told where; all that the node keeps will lie there.
func newLab(t *testing.T, folder func(dir string)) *lab {
	t.Helper()
	oneLab.Lock()
	t.Cleanup(oneLab.Unlock)
	if os.Geteuid() != 0 {
		t.Fatal("network namespaces need root")
	}
	// Sockets lie in it, so its path is short.
	dir, err := os.MkdirTemp("/var/tmp", "dsl-") //nolint:usetesting // t.TempDir is too deep
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{
		cluster: &cluster{
			Cluster: &devcluster.Cluster{Dir: dir, User: "admin", Password: rand.Text()}, t: t, dir: dir,
		},
		prefix: fmt.Sprintf("dsl%d", os.Getpid()),
	}
	t.Cleanup(l.down)
	l.sh("ip", "netns", "add", l.prefix)
	l.sh("ip", "-n", l.prefix, "link", "add", "br0", "type", "bridge")
	l.sh("ip", "-n", l.prefix, "link", "set", "br0", "up")
	for i := range 3 {
		l.plug(i)
		folder(l.Nodes[i].Dir)
	}
	l.found()
	for i := range l.Nodes {
		for disk := range 2 {
			path := filepath.Join(l.Nodes[i].Dir, fmt.Sprintf("disk%d", disk+1))
			l.must("disk", "add", path, "--node", l.Nodes[i].Name, "--size", "2G", "--sparse")
		}
	}
	l.awaitUp()
	return l
}

// plug makes a node's namespace and its port of the bridge.
func (l *lab) plug(i int) {
	l.t.Helper()
	n := node{
		Name:    fmt.Sprintf("node%d", i+1),
		Address: fmt.Sprintf("10.77.0.%d", i+1),
		Dir:     filepath.Join(l.dir, fmt.Sprintf("node%d", i+1)),
	}
	n.Log = n.Dir + ".log"
	l.Nodes = append(l.Nodes, n)
	ns, port := l.space(n), "port"+n.Name
	l.sh("ip", "netns", "add", ns)
	l.sh("ip", "-n", l.prefix, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", ns)
	l.sh("ip", "-n", l.prefix, "link", "set", port, "master", "br0", "up")
	l.sh("ip", "-n", ns, "addr", "add", n.Address+"/24", "dev", "eth0")
	l.sh("ip", "-n", ns, "link", "set", "lo", "up")
	l.sh("ip", "-n", ns, "link", "set", "eth0", "up")
}

func (l *lab) space(n node) string { return l.prefix + n.Name }

// found makes the first node a cluster, lets the others join, and starts them all.
func (l *lab) found() {
	l.t.Helper()
	password := filepath.Join(l.dir, "password")
	if err := os.WriteFile(password, []byte(l.Password), 0o600); err != nil {
		l.t.Fatal(err)
	}
	var token string
	for i, n := range l.Nodes {
		setUp := []string{"init", "--password-file", password}
		if i > 0 {
			setUp = []string{"join", l.Nodes[0].Address, token}
		}
		args := append([]string{"netns", "exec", l.space(n), program("drystone")}, setUp...)
		out := l.sh("ip", append(args, "--json", "--name", n.Name, "--address", n.Address,
			"--node-dir", n.Dir, "--libvirt", "")...)
		var born struct {
			Node string `json:"node_id"`
		}
		if err := json.Unmarshal([]byte(out), &born); err != nil || born.Node == "" {
			l.t.Fatalf("%s of %s printed %q: %v", setUp[0], n.Name, out, err)
		}
		l.Nodes[i].ID = born.Node
		l.spawn(i)
		l.describe(l.dir, l.Nodes[:i+1])
		if i == 0 {
			l.awaitUp(n.Name)
			token = get[struct {
				Token string `json:"token"`
			}](l.cluster, "token", "create", "--uses", "2").Token
		}
	}
	l.awaitUp()
}

// spawn starts a node's daemon in its namespace. It ends with the test, however
// that ends.
func (l *lab) spawn(i int) {
	l.t.Helper()
	n := &l.Nodes[i]
	out, err := os.OpenFile(n.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		l.t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	// ip becomes the daemon: it execs.
	cmd := exec.Command("ip", "netns", "exec", l.space(*n), program("drystoned"), "run", "--dir", n.Dir)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // the daemon dies with the thread that started it
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		l.t.Fatal(err)
	}
	n.PID = cmd.Process.Pid
	l.t.Cleanup(func() {
		_ = cmd.Process.Kill() // a stopped one too
		<-ended
	})
}

// describe writes down some nodes as `drystone --dir` finds them.
func (l *lab) describe(dir string, nodes []node) {
	l.t.Helper()
	text, err := json.Marshal(map[string]any{"version": 1, "nodes": nodes})
	err = errors.Join(err, os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "cluster.json"), text, 0o600))
	if err != nil {
		l.t.Fatal(err)
	}
}

// at is the cluster as it is seen from one node: all commands are that node's.
func (l *lab) at(name string) *cluster {
	l.t.Helper()
	dir := filepath.Join(l.dir, "at-"+name)
	l.describe(dir, []node{l.node(name)})
	return &cluster{Cluster: &devcluster.Cluster{Dir: dir}, t: l.t, dir: dir}
}

func (l *lab) node(name string) node {
	l.t.Helper()
	i := slices.IndexFunc(l.Nodes, func(n node) bool { return n.Name == name })
	if i < 0 {
		l.t.Fatalf("there is no %s", name)
	}
	return l.Nodes[i]
}

// awaitUp waits until the nodes, or all, are up in the eyes of the cluster and have
// a vote: before that, the rest may be too few to elect a leader.
func (l *lab) awaitUp(names ...string) {
	l.t.Helper()
	for _, n := range l.Nodes {
		if len(names) > 0 && !slices.Contains(names, n.Name) {
			continue
		}
		eventually(l.t, time.Minute, n.Name+" is up and votes", func() bool {
			r := l.run("node", "show", n.Name, "--json")
			var seen struct {
				Up    bool `json:"up"`
				Voter bool `json:"voter"`
			}
			return r.status == 0 && json.Unmarshal([]byte(r.out), &seen) == nil && seen.Up && seen.Voter
		})
	}
}

// leader names the node that leads, and the others.
func (l *lab) leader() (leader string, others []string) {
	l.t.Helper()
	var id string
	eventually(l.t, 30*time.Second, "there is a leader", func() bool {
		r := l.run("status", "--json")
		var seen struct {
			Leader string `json:"leader"`
		}
		ok := r.status == 0 && json.Unmarshal([]byte(r.out), &seen) == nil && seen.Leader != ""
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
		l.t.Fatalf("the leader %s is none of the nodes", id)
	}
	return leader, others
}

// cut loses what one node sends to another from now on.
func (l *lab) cut(from, to string) {
	l.t.Helper()
	l.sh("ip", "netns", "exec", l.space(l.node(to)), "iptables", "-w", "-A", "INPUT",
		"-s", l.node(from).Address, "-j", "DROP")
}

// isolate cuts a node off from all others, both ways.
func (l *lab) isolate(name string) {
	l.t.Helper()
	for _, n := range l.Nodes {
		if n.Name != name {
			l.cut(name, n.Name)
			l.cut(n.Name, name)
		}
	}
}

// heal ends every cut.
func (l *lab) heal() {
	l.t.Helper()
	for _, n := range l.Nodes {
		l.sh("ip", "netns", "exec", l.space(n), "iptables", "-w", "-F", "INPUT")
	}
}

// signal sends a signal to a node's daemon.
func (l *lab) signal(name string, s syscall.Signal) {
	l.t.Helper()
	if err := syscall.Kill(l.node(name).PID, s); err != nil {
		l.t.Fatal(err)
	}
}

// sh runs a program of the machine and returns what it prints.
func (l *lab) sh(name string, args ...string) string {
	l.t.Helper()
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			l.t.Fatalf("%s %v: %v\n%s", name, args, err, exit.Stderr)
		}
		l.t.Fatalf("%s %v: %v", name, args, err)
	}
	return string(out)
}

// down removes what spawn's cleanup, which runs first, left of a lab.
func (l *lab) down() {
	if l.t.Failed() {
		l.KeepLogs(l.t)
	}
	for _, n := range l.Nodes {
		_ = exec.Command("ip", "netns", "del", l.space(n)).Run() // it may not have come to be
	}
	_ = exec.Command("ip", "netns", "del", l.prefix).Run()
	if err := os.RemoveAll(l.dir); err != nil {
		l.t.Error(err)
	}
}
