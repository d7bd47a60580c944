package meta

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/meta/raftlog"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/wire"
	"drystone.example/drystone/backend/wire/wiretest"
)

func TestMain(m *testing.M) {
	slog.SetLogLoggerLevel(slog.LevelError) // faults are what these tests are about
	m.Run()
}

// A cluster is a number of nodes in one bubble, with the real raft, the real
// wire and the real record, on a network in memory.
type cluster struct {
	t     *testing.T
	net   *wiretest.Net
	ca    *wiretest.Cluster
	epoch time.Time
	nodes []*node
}

// A node is one member, which can be stopped and started.
type node struct {
	c     *cluster
	id    model.NodeID
	name  string
	dir   string
	tls   wire.Config // of which only TLS is set
	fs    raftlog.FS
	peers []model.Node

	*Record
	cancel context.CancelFunc
	ran    chan error
}

const hash64 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// bubble runs a test in virtual time, with a cluster of n voters.
func bubble(t *testing.T, n int, test func(c *cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{t: t, net: wiretest.NewNet(), ca: wiretest.NewCluster(t), epoch: time.Now()}
		for i := range n {
			c.add(fmt.Sprintf("n%d", i+1))
		}
		c.nodes[0].start()
		first := c.nodes[0].model()
		_, err := c.nodes[0].Bootstrap(t.Context(), model.System, command.ClusterCreate{
			ID: c.ca.ID, Name: "test", CA: "pem", CAKey: keep("sealed"), GossipKey: keep("gossip"), Node: first,
			Owner: command.UserCreate{ID: 1, Name: "root", Role: model.Owner, PasswordHash: keep("hash")},
		})
		if err != nil {
			t.Fatalf("Bootstrap: %v", err)
		}
		for _, n := range c.nodes[1:] {
			c.join(n)
		}
		stop := func() {
			for _, n := range c.nodes {
				n.stop()
			}
		}
		t.Cleanup(stop) // where the test has failed
		test(c)
		stop()
	})
}

func keep(s string) command.Secret { return command.Keep(model.NewSecret(s)) }

func (c *cluster) add(name string) *node {
	id := model.NewID[model.NodeID]()
	n := &node{c: c, id: id, name: name, dir: c.t.TempDir(), tls: wire.Config{TLS: c.ca.Keeper(c.t, id)}, fs: vfs.NewMem()}
	c.nodes = append(c.nodes, n)
	return n
}

// join makes a node a member and a voter.
func (c *cluster) join(n *node) {
	c.t.Helper()
	ctx := c.t.Context()
	lead := c.leader()
	token := "t-" + n.name
	c.must(lead, command.TokenCreate{Token: model.JoinToken{
		ID: token, SecretHash: hash64, Uses: 1, Expires: time.Now().Add(time.Hour),
	}})
	c.must(lead, command.TokenRedeem{Token: token, SecretHash: hash64, Node: n.model(), KeyHash: n.keyHash()})
	n.peers = lead.Local().Nodes()
	n.start()
	if err := lead.AddVoter(ctx, n.id); err != nil {
		c.t.Fatalf("AddVoter(%s): %v", n.name, err)
	}
}

func (n *node) keyHash() string { return n.id.String() + hash64[13:] }

func (n *node) model() model.Node {
	return model.Node{ID: n.id, Name: n.name, Address: n.name, API: "https://" + n.name}
}

// clock runs at a speed of its own, within one in a hundred between any two.
func (n *node) clock() time.Duration {
	passed := time.Since(n.c.epoch)
	switch slices.Index(n.c.nodes, n) % 3 {
	case 0:
		return passed - passed/250
	case 1:
		return passed + passed/250
	default:
		return passed
	}
}

// start begins or begins again.
func (n *node) start() {
	n.c.t.Helper()
	ctx, cancel := context.WithCancel(n.c.t.Context())
	n.cancel = cancel
	var rec *Record
	tr := wire.New(wire.Config{
		Self: n.id, Cluster: n.c.ca.ID, Listen: net.JoinHostPort(n.name, "7420"),
		Network: n.c.net.Host(n.name), TLS: n.tls.TLS,
		Allowed: func(id model.NodeID) error { return rec.Allowed(id) },
		Resolve: func(id model.NodeID) (string, error) {
			host, err := rec.Address(id)
			return net.JoinHostPort(host, "7420"), err
		},
	})
	rec, err := Open(ctx, Config{
		Dir: filepath.Join(n.dir, "raft"), Self: n.id, Wire: tr, Peers: n.peers, LogFS: n.fs,
		Clock: n.clock,
	})
	if err != nil {
		n.c.t.Fatalf("Open %s: %v", n.name, err)
	}
	n.Record = rec
	n.ran = make(chan error, 1)
	go func() { n.ran <- tr.Run(ctx) }()
}

// stop ends a node as the death of its process does, for the others.
func (n *node) stop() {
	n.c.t.Helper()
	if n.Record == nil {
		return
	}
	n.c.net.Kill(n.name)
	n.cancel()
	if err := <-n.ran; !errors.Is(err, context.Canceled) && !errors.Is(err, net.ErrClosed) {
		n.c.t.Errorf("wire of %s: %v", n.name, err)
	}
	if err := n.Close(); err != nil && n.Err() == nil { // who failed may say so again
		n.c.t.Errorf("Close %s: %v", n.name, err)
	}
	n.Record = nil
}

// leader waits until one node that runs leads.
func (c *cluster) leader() *node {
	c.t.Helper()
	for range 600 {
		for _, n := range c.nodes {
			if n.Record != nil && n.IsLeader() {
				if _, err := n.View(c.t.Context()); err == nil {
					return n
				}
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	c.t.Fatal("no leader after a minute")
	return nil
}

// others returns the running nodes but one.
func (c *cluster) others(not *node) (out []*node) {
	for _, n := range c.nodes {
		if n != not && n.Record != nil {
			out = append(out, n)
		}
	}
	return out
}

// isolate cuts a node off from all others; heal undoes it.
func (c *cluster) isolate(n *node) {
	for _, o := range c.nodes {
		if o != n {
			c.net.Partition(n.name, o.name)
		}
	}
}

func (c *cluster) heal(n *node) {
	for _, o := range c.nodes {
		if o != n {
			c.net.Join(n.name, o.name)
		}
	}
}

// must applies a command at a node.
func (c *cluster) must(n *node, cmd command.Command) any {
	c.t.Helper()
	out, err := n.Apply(c.t.Context(), model.System, cmd)
	if err != nil {
		c.t.Fatalf("Apply %s at %s: %v", cmd.Kind(), n.name, err)
	}
	return out
}

// user is a command that is easy to tell apart.
func user(name string) command.UserCreate {
	return command.UserCreate{ID: model.NewID[model.UserID](), Name: name, Role: model.Viewer, PasswordHash: keep("h")}
}

// drifted is how long a time can take that a node measures with its own clock.
func drifted(d time.Duration) time.Duration { return d * 101 / 100 }
