package cluster

import (
	"syscall"
	"testing"

	"drystone.example/drystone/tests/internal/hosts"
)

// A lab is a cluster whose nodes are on machines of their own, without guests.
type lab struct {
	*cluster
	hosts *hosts.Lab
}

// newLab starts a lab. Before a node is set up, folder is told where; all that the node
// keeps will lie there.
func newLab(t *testing.T, folder func(dir string)) *lab {
	t.Helper()
	h := hosts.New(t, hosts.How{Folder: folder})
	return &lab{cluster: &cluster{Cluster: h.Cluster, t: t, dir: h.Dir}, hosts: h}
}

// at is the cluster as it is seen from one node: all commands are that node's.
func (l *lab) at(name string) *cluster {
	l.t.Helper()
	c := l.hosts.At(l.t, name)
	return &cluster{Cluster: c, t: l.t, dir: c.Dir}
}

func (l *lab) awaitUp() {
	l.t.Helper()
	l.hosts.AwaitUp(l.t)
}

// leader names the node that leads, and the others.
func (l *lab) leader() (leader string, others []string) {
	l.t.Helper()
	return l.hosts.Leader(l.t)
}

// cut loses what one node sends to another from now on.
func (l *lab) cut(from, to string) {
	l.t.Helper()
	l.hosts.Cut(l.t, from, to)
}

// isolate cuts a node off from all others, both ways.
func (l *lab) isolate(name string) {
	l.t.Helper()
	l.hosts.Isolate(l.t, name)
}

// heal ends every cut.
func (l *lab) heal() {
	l.t.Helper()
	l.hosts.Heal(l.t)
}

// signal sends a signal to a node's daemon.
func (l *lab) signal(name string, s syscall.Signal) {
	l.t.Helper()
	l.hosts.Signal(l.t, name, s)
}
