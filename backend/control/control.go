// Package control is what the leader does for the cluster: loops that compare the
// record with what is there and write orders. Each order is safe to give twice,
// for a new leader begins where it finds things, not where the last one stopped.
package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"drystone.example/drystone/backend/meta"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/placement"
)

// How often the loops look, beside when the record changes.
const (
	membersEvery  = 2 * time.Second
	volumesEvery  = 2 * time.Second
	machinesEvery = time.Second
	trustEvery    = 2 * time.Second
	pruneEvery    = 10 * time.Minute
)

// Config is what Control works with. Every field must be set.
type Config struct {
	Self  model.NodeID
	Meta  *meta.Record
	Up    func(model.NodeID) bool // a hint
	Met   func(model.NodeID) bool // whether a node was up since this daemon began
	Hosts func(context.Context) []placement.Host
	// Situation is what moves are planned by, of the record as it is in view.
	Situation func(ctx context.Context, view *state.View) placement.Situation
	// Ailments is what was reported of disks that may be going bad, when Situation was
	// asked last.
	Ailments func() map[model.DiskID]model.Ailment
	Maintain func(ctx context.Context, node model.NodeID, volume model.VolumeID) error
	// Loads is how much processor time the nodes and their guests have taken.
	Loads func(context.Context) map[model.NodeID]Load
	// Migrate has the node of a machine move it, and returns the task that does.
	Migrate func(ctx context.Context, vm model.VM, to model.NodeID, why model.MoveReason) (model.TaskID, error)
	// Outcome is what is said of a task of a node that has failed, or nothing.
	Outcome func(ctx context.Context, node model.NodeID, task model.TaskID) string
	Log     *slog.Logger
}

// Control runs the leader's loops on whichever node leads.
type Control struct {
	cfg   Config
	began time.Time

	mover  mover
	herder herder

	mu       sync.Mutex // guards what follows
	away     map[model.NodeID]time.Time
	unplaced []model.Alarm // machines that nobody has room for
	stuck    map[model.VMID]string
	full     []model.Alarm // nodes in maintenance that machines stay on
}

// New makes a Control.
func New(cfg Config) *Control {
	return &Control{cfg: cfg, began: time.Now(), away: map[model.NodeID]time.Time{}}
}

// Run runs the loops whenever this node leads, until ctx ends.
func (c *Control) Run(ctx context.Context) error {
	for {
		lead, err := c.cfg.Meta.Lead(ctx)
		if err != nil {
			return stopped(ctx, err)
		}
		group, lead := errgroup.WithContext(lead)
		group.Go(func() error { return c.loop(lead, membersEvery, state.Nodes, c.members) })
		group.Go(func() error { return c.loop(lead, volumesEvery, state.Volumes, c.volumes) })
		group.Go(func() error { return c.loop(lead, movesEvery, state.Disks, c.moves) })
		group.Go(func() error { return c.loop(lead, machinesEvery, state.VMs, c.machines) })
		group.Go(func() error { return c.loop(lead, trustEvery, state.Nodes, c.trust) })
		group.Go(func() error { return c.loop(lead, guestsEvery, state.Nodes, c.guests) })
		group.Go(func() error { return c.loop(lead, pruneEvery, state.Cluster, c.prune) })
		err = group.Wait()
		c.mover.rest()
		c.herder = herder{}
		c.unplace(nil, time.Time{})
		c.stay(nil, nil, time.Time{})
		if err != nil {
			return stopped(ctx, err)
		}
	}
}

// stopped is nil if ctx was the reason.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // it was told to stop
	}
	return fmt.Errorf("lead the cluster: %w", err)
}

// loop looks at the record whenever a noun of it changed, and every so often. What
// fails for want of a leader or an answer is tried again.
func (c *Control) loop(ctx context.Context, every time.Duration, noun state.Noun,
	look func(context.Context, *state.View) error,
) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		view := c.cfg.Meta.Local()
		if err := look(ctx, view); err != nil && ctx.Err() == nil {
			switch model.CodeOf(err) { //nolint:exhaustive // the rest is worth a line
			case model.Unavailable, model.Conflict:
			default:
				c.cfg.Log.Warn("order was not given", "err", err)
			}
		}
		if !c.changed(ctx, view, noun, tick.C) {
			return nil
		}
	}
}

// changed waits for a change of a noun or the tick; false when ctx ended.
func (c *Control) changed(ctx context.Context, view *state.View, noun state.Noun, tick <-chan time.Time) bool {
	was := view.Changed(noun)
	for {
		select {
		case <-ctx.Done():
			return false
		case <-tick:
			return true
		case <-view.Next():
			view = c.cfg.Meta.Local()
			if view.Changed(noun) != was {
				return true
			}
		}
	}
}

// prune removes sessions and join tokens that have run out.
func (c *Control) prune(ctx context.Context, view *state.View) error {
	now := time.Now()
	for _, s := range view.Sessions() {
		if s.Expires.Before(now) {
			return c.pruneNow(ctx)
		}
	}
	for _, t := range view.Tokens() {
		if t.Expires.Before(now) {
			return c.pruneNow(ctx)
		}
	}
	return nil
}

func (c *Control) pruneNow(ctx context.Context) error {
	_, err := c.cfg.Meta.Apply(ctx, model.System, command.SessionsPrune{})
	return err
}

// volumes orders a node to look after each volume that needs work and that nobody
// holds: a node that has a disk of it and is up. One whose holder is lost needs it: what
// was being written is settled, and it is free again.
func (c *Control) volumes(ctx context.Context, view *state.View) error {
	guests := map[model.VolumeID]bool{} // of machines that are on, whose nodes take them
	for _, vm := range view.VMs() {
		for _, id := range vm.Volumes() {
			guests[id] = vm.Power == model.PowerOn
		}
	}
	var errs []error
	for _, v := range view.Volumes() {
		held := v.Holder != 0 && c.cfg.Up(v.Holder)
		if held || !c.worth(view, v) && (guests[v.ID] || !c.abandoned(v)) {
			continue
		}
		node, found := c.keeper(view, v)
		if !found {
			continue
		}
		if err := c.cfg.Maintain(ctx, node, v.ID); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// abandoned reports whether a volume's holder is lost, by its lease.
func (c *Control) abandoned(v model.Volume) bool {
	return v.Holder != 0 && c.expired(v.Holder)
}

// expired reports whether a node's lease has run out, by the leader's clock.
func (c *Control) expired(node model.NodeID) bool {
	lease, err := c.cfg.Meta.LeaseState(node)
	return err == nil && lease.Expired
}

// worth reports whether a holder could do something for a volume now: for a member
// that moves, that is lost, or that is not active and in reach, or a column with too
// few; or free something, or revert it; for a clone that still needs its origin. It
// needs an active member of each column for that.
func (c *Control) worth(view *state.View, v model.Volume) bool {
	work := v.Trim.Due() || v.Revert.Due() || v.Origin.Volume != 0
	for _, col := range v.Columns {
		work = work || col.Moving() || col.Count(model.Active) < v.Copies && len(col.Members) < v.Copies+1
		served := false
		for _, m := range col.Members {
			up := c.reachable(view, m.Disk)
			served = served || m.State == model.Active && up
			work = work || m.State != model.Active && up || m.State == model.Active && c.lostDisk(view, m.Disk)
		}
		if !served {
			return false
		}
	}
	return work
}

// lostDisk reports whether what a disk had shall be rebuilt elsewhere: it has failed,
// or its node has not got it or has been away for longer than the cluster is told to
// wait.
func (c *Control) lostDisk(view *state.View, id model.DiskID) bool {
	cluster, _ := view.Cluster()
	d, err := view.Disk(id)
	node, _ := view.Node(d.Node)
	patience := cluster.Settings.PatienceFor(node)
	if err != nil || d.State != model.DiskOnline {
		return err != nil || d.Lost(time.Now(), patience)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	since, away := c.away[d.Node]
	return away && time.Since(since) >= patience
}

func (c *Control) reachable(view *state.View, id model.DiskID) bool {
	d, err := view.Disk(id)
	return err == nil && d.State == model.DiskOnline && c.cfg.Up(d.Node)
}

// keeper chooses who looks after a volume: the node that is up and has most of
// its active members, the first by identifier of equals.
func (c *Control) keeper(view *state.View, v model.Volume) (best model.NodeID, found bool) {
	count := map[model.NodeID]int{}
	for _, col := range v.Columns {
		for _, m := range col.Members {
			d, err := view.Disk(m.Disk)
			if err == nil && m.State == model.Active && c.reachable(view, m.Disk) {
				count[d.Node]++
			}
		}
	}
	for node, n := range count {
		if !found || n > count[best] || n == count[best] && node < best {
			best, found = node, true
		}
	}
	return best, found
}
