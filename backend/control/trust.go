package control

import (
	"context"
	"time"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
)

// How long a step of the gossip keys waits for a member that has not said that it has
// them: one that seems away, and any. Both are generous: who is left behind is not
// heard by the others until it has the keys from the record.
const (
	keyAway     = 5 * time.Second
	keyPatience = 10 * time.Minute
)

// trust brings changes of the gossip key and of the root to their end, a step a call.
// What the steps have to hold, the record holds (meta/state).
func (c *Control) trust(ctx context.Context, view *state.View) error {
	up := func(id model.NodeID) bool { return id == c.cfg.Self || c.cfg.Up(id) }
	cmd := trustOrder(view, up, c.began, time.Now())
	if cmd == nil {
		return nil
	}
	_, err := c.cfg.Meta.Apply(ctx, model.System, cmd)
	return err
}

// trustOrder is what is to be done next, or nil. Until this daemon has had some time
// to hear the others, none of them seems away.
func trustOrder(view *state.View, up func(model.NodeID) bool, began, now time.Time) command.Command {
	cluster, _ := view.Cluster()
	ring := cluster.Keyring
	if ring.Phase == model.KeySettled && ring.Due {
		return command.NewKeyRotate()
	}
	nodes := view.Nodes()
	if ring.Phase != model.KeySettled {
		if without, ready := keysReady(ring, nodes, up, began, now); ready {
			return command.TrustStep{Keys: ring.Step, Except: without}
		}
	}
	if last := cluster.Succession; last.Rotating() {
		for _, n := range nodes {
			if n.Trust.Epoch < last.Epoch {
				return nil
			}
		}
		return command.TrustStep{Epoch: last.Epoch}
	}
	return nil
}

// keysReady reports whether the next step of the gossip keys can come, and without whom.
func keysReady(ring model.Keyring, nodes []model.Node, up func(model.NodeID) bool, began, now time.Time,
) (without []model.NodeID, ready bool) {
	since := ring.Since
	if began.After(since) {
		since = began
	}
	for _, n := range nodes {
		if n.Trust.Keys >= ring.Step {
			continue
		}
		patience := keyPatience
		if !up(n.ID) {
			patience = keyAway
		}
		if now.Sub(since) < patience {
			return nil, false
		}
		without = append(without, n.ID)
	}
	return without, true
}
