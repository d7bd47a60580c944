package control

import (
	"context"
	"slices"
	"time"

	"drystone.example/drystone/backend/meta"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/placement"
)

// voterGrace is how long a voter may be away before one that is up takes its
// place. Until then the quorum stays as it is, whatever gossip believes.
const voterGrace = 10 * time.Minute

// members makes raft's membership follow the record: every node takes part, as
// many vote as placement says, and who was removed is out. One change at a time,
// each only when the last is done.
//
// The invariant: no change of voters makes a quorum smaller than it was unless
// the operator removed a node. A voter is replaced by adding first.
func (c *Control) members(ctx context.Context, view *state.View) error {
	servers := c.cfg.Meta.Servers()
	for _, s := range servers {
		if view.Removed(s.ID) && s.ID != c.cfg.Self {
			return c.cfg.Meta.RemoveServer(ctx, s.ID)
		}
	}
	nodes := view.Nodes()
	for _, n := range nodes {
		if !slices.ContainsFunc(servers, func(s meta.Server) bool { return s.ID == n.ID }) {
			return c.cfg.Meta.AddNonvoter(ctx, n.ID)
		}
	}
	c.note(nodes, time.Now())
	return c.voters(ctx, nodes, servers)
}

// note remembers since when nodes are away.
func (c *Control) note(nodes []model.Node, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range nodes {
		_, known := c.away[n.ID]
		switch up := n.ID == c.cfg.Self || c.cfg.Up(n.ID); {
		case up:
			delete(c.away, n.ID)
		case !known:
			c.away[n.ID] = now
		}
	}
}

// voters promotes, records and demotes, one step a call.
func (c *Control) voters(ctx context.Context, nodes []model.Node, servers []meta.Server) error {
	votes := map[model.NodeID]bool{}
	count := 0
	for _, s := range servers {
		votes[s.ID] = s.Voter
		if s.Voter {
			count++
		}
	}
	for _, n := range nodes { // the record tells who votes, for people and for the seal key
		if n.Voter != votes[n.ID] {
			_, err := c.cfg.Meta.Apply(ctx, model.System, command.NodeVoter{Node: n.ID, Voter: votes[n.ID]})
			return err
		}
	}
	want := placement.Voters(len(nodes))
	lost := c.lost(nodes, votes, time.Now())
	switch {
	case count < want, lost != 0 && count == want:
		for _, n := range nodes {
			if !votes[n.ID] && (n.ID == c.cfg.Self || c.cfg.Up(n.ID)) {
				return c.cfg.Meta.AddVoter(ctx, n.ID)
			}
		}
	case count > want && lost != 0:
		return c.cfg.Meta.Demote(ctx, lost)
	}
	return nil
}

// lost returns a voter that has been away for longer than the grace, or zero.
func (c *Control) lost(nodes []model.Node, votes map[model.NodeID]bool, now time.Time) model.NodeID {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range nodes {
		since, away := c.away[n.ID]
		if votes[n.ID] && away && now.Sub(since) > voterGrace {
			return n.ID
		}
	}
	return 0
}
