package node

import (
	"context"
	"sync"
	"time"

	"drystone.example/drystone/backend/gossip"
	"drystone.example/drystone/backend/model"
)

// alive remembers since when each node seems to be up or away.
type alive struct {
	mu  sync.Mutex // guards all
	all map[model.NodeID]seen
}

type seen struct {
	up    bool
	since time.Time
	met   bool // it was up at some time
}

// follow keeps up with gossip until ctx ends.
func (a *alive) follow(ctx context.Context, g *gossip.Gossip) error {
	return g.Watch(ctx, func(m gossip.Member) {
		a.mu.Lock()
		defer a.mu.Unlock()
		up := m.Status == gossip.Alive
		if was, known := a.all[m.Node]; !known || was.up != up {
			a.all[m.Node] = seen{up, time.Now(), up || was.met}
		}
	})
}

// state says whether a node seems to be up, and since when; never heard of is
// away since nobody knows when.
func (a *alive) state(id model.NodeID) (up bool, since time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.all[id]
	return s.up, s.since
}

// awayFor is how long a node has seemed away: one never heard of, since this daemon
// began.
func (n *node) awayFor(id model.NodeID) time.Duration {
	up, since := n.alive.state(id)
	switch {
	case up || id == n.cfg.Node:
		return 0
	case since.IsZero():
		since = n.started
	}
	return time.Since(since)
}

// met says whether a node was up at some time since this daemon began.
func (a *alive) met(id model.NodeID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.all[id].met
}
