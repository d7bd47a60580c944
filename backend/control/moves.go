package control

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/placement"
)

// How often moves are planned: while there are any, and otherwise in case something
// changed that is not in the record, such as how full a disk is.
const (
	movesEvery = time.Second
	movesIdle  = 10 * time.Second
	// stalledAfter is how long a member may leave with nobody joining in its stead,
	// before the wish is taken back if it was for balance.
	stalledAfter = time.Minute
)

// A member names one of a volume's members.
type member struct {
	volume model.VolumeID
	column int
	disk   model.DiskID
}

// A mover remembers what it needs to say how long moving will take. Nothing depends
// on it: a new leader begins with an empty one.
type mover struct {
	mu  sync.Mutex // guards now
	now model.Leading

	// Of the loop alone.
	seen     [3]uint64 // the record's disks, volumes and cluster when it was planned last
	next     time.Time
	underWay map[member]time.Time // since when nobody joins in its stead; zero: one does
	began    time.Time            // when there was something to move after there was nothing
	done     int                  // since then
}

// Leading is how far moving is, and what there is to worry about; nothing while this
// node does not lead.
func (c *Control) Leading() model.Leading {
	c.mu.Lock()
	raised, stuck := slices.Concat(c.unplaced, c.full), c.stuck
	c.mu.Unlock()
	c.mover.mu.Lock()
	defer c.mover.mu.Unlock()
	out := c.mover.now
	out.Alarms = slices.Concat(raised, out.Alarms)
	out.Stuck = stuck
	return out
}

// rest forgets everything: this node does not lead any more.
func (m *mover) rest() {
	m.seen, m.next, m.underWay, m.began, m.done = [3]uint64{}, time.Time{}, nil, time.Time{}, 0
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = model.Leading{}
}

// moves begins moves: off the disks that are to leave, and for balance. What is begun
// is in the record, and the volumes' holders do it; so a new leader goes on with it.
// Disks that are to leave and are empty are taken out.
func (c *Control) moves(ctx context.Context, view *state.View) error {
	m := &c.mover
	now := time.Now()
	seen := [3]uint64{view.Changed(state.Disks), view.Changed(state.Volumes), view.Changed(state.Cluster)}
	if seen == m.seen && m.now.Moves.Left == 0 && now.Before(m.next) {
		return nil
	}
	m.seen, m.next = seen, now.Add(movesIdle)
	s := c.cfg.Situation(ctx, view)
	cluster, _ := view.Cluster()
	s.Balance, s.Pace = !cluster.Settings.BalanceOff, placement.Gently
	ailing := c.cfg.Ailments()
	plan := placement.Moves(s)
	retire, stuck := bad(view.Disks(), s, ailing)
	stalled := m.note(view, plan, alarms(view, s.Disks, troubles{plan.Blocked, ailing, stuck}), now)
	var errs []error
	if retire != nil {
		errs = append(errs, c.retire(ctx, *retire))
	}
	for _, cmd := range orders(view, plan.Begin, stalled) {
		if _, err := c.cfg.Meta.Apply(ctx, model.System, cmd); err != nil {
			errs = append(errs, err)
		}
	}
	for _, d := range view.Disks() {
		if d.Draining() && !d.Retired() && !used(view, d.ID) {
			if _, err := c.cfg.Meta.Apply(ctx, model.System, command.DiskRemove{Disk: d.ID}); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// orders makes one command for each volume.
func orders(view *state.View, begin []placement.Order, takeBack []member) []command.VolumeMove {
	moves := map[model.VolumeID][]model.Move{}
	for _, o := range begin {
		moves[o.Volume] = append(moves[o.Volume], o.Move)
	}
	for _, k := range takeBack {
		moves[k.volume] = append(moves[k.volume], model.Move{Column: k.column, From: k.disk})
	}
	var out []command.VolumeMove
	for _, v := range view.Volumes() {
		if len(moves[v.ID]) > 0 {
			out = append(out, command.VolumeMove{Volume: v.ID, Revision: v.Revision, Moves: moves[v.ID]})
		}
	}
	return out
}

// used reports whether a column has a member on a disk.
func used(view *state.View, id model.DiskID) bool {
	return slices.ContainsFunc(view.Volumes(), func(v model.Volume) bool { return on(v, id) })
}

func on(v model.Volume, id model.DiskID) bool {
	return slices.ContainsFunc(v.Columns, func(c model.Column) bool {
		_, member := c.Member(id)
		return member
	})
}

// note counts what has moved since the last look, and returns the members that were
// to leave for balance and whose place nobody takes.
func (m *mover) note(view *state.View, plan placement.Plan, alarms []model.Alarm, now time.Time) (stalled []member) {
	leaving := map[member]time.Time{}
	there := map[member]bool{}
	for _, v := range view.Volumes() {
		for i, col := range v.Columns {
			for _, o := range col.Members {
				k := member{v.ID, i, o.Disk}
				if there[k] = true; o.Leaving {
					leaving[k] = m.aloneSince(k, col, v.Copies, now)
				}
			}
		}
	}
	for k := range m.underWay {
		if !there[k] {
			m.done++
		}
	}
	for k, since := range leaving {
		d, err := view.Disk(k.disk)
		if err == nil && !d.Draining() && !since.IsZero() && now.Sub(since) > stalledAfter {
			stalled = append(stalled, k)
		}
	}
	slices.SortFunc(stalled, func(a, b member) int { return a.column - b.column })
	m.underWay = leaving
	switch {
	case plan.Left == 0:
		m.began, m.done = time.Time{}, 0
	case m.began.IsZero():
		m.began = now
	}
	status := model.Moves{UnderWay: len(leaving), Left: plan.Left, Waits: plan.Waits, Blocked: plan.Blocked}
	if m.done > 0 {
		status.Seconds = int64(now.Sub(m.began).Seconds()*float64(plan.Left)/float64(m.done)) + 1
	}
	m.mu.Lock()
	m.now = model.Leading{Moves: status, Alarms: since(alarms, m.now.Alarms, now)}
	m.mu.Unlock()
	return stalled
}

// since dates alarms: those that were there before keep their time.
func since(alarms, before []model.Alarm, now time.Time) []model.Alarm {
	for i := range alarms {
		a := &alarms[i]
		a.Since = now
		for _, b := range before {
			if b.Code == a.Code && b.Object == a.Object {
				a.Since = b.Since
			}
		}
	}
	return alarms
}

// aloneSince says since when a member is to leave without another that joins or has
// joined in its stead, or zero.
func (m *mover) aloneSince(k member, col model.Column, copies int, now time.Time) time.Time {
	if col.Staying()+col.Count(model.Joining) >= copies {
		return time.Time{}
	}
	if since := m.underWay[k]; !since.IsZero() {
		return since
	}
	return now
}
