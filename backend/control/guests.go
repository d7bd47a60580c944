package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/placement"
)

// Machines that run are moved by live migration: off nodes in maintenance, back when that
// has ended, and, seldom, for balance. What shall be is in the record, where each machine
// came from too, and whether and when it was moved; so a new leader goes on with it, and
// counts no other moves than the last one did.

// How often machines are looked at: while a drain has something to do, and otherwise.
const (
	guestsEvery  = time.Second
	balanceEvery = time.Minute
)

// The times of moving machines.
const (
	loadSpan   = 10 * time.Minute // that the mean load of a node is of
	unevenFor  = 10 * time.Minute // that there is something to move for balance before it is
	tryAgain   = 15 * time.Second // after a move failed; twice as long after each
	tryAgainIn = 10 * time.Minute // at most
	tryGrace   = 3 * time.Second  // in which the record may not say yet that one is under way
)

// A Load is how much processor time a node and its guests have taken, in seconds.
type Load struct {
	Busy   float64 // of the node's processors, since it started
	Clock  float64 // of all its processors, busy or not
	Guests map[model.VMID]float64
}

// A herder remembers what the moving of machines needs beside the record. A new leader
// begins with an empty one, and only waits the longer for that.
type herder struct {
	next   time.Time // when to look again without an occasion
	uneven time.Time // since when there is something to move for balance
	tries  map[model.VMID]try
	loads  []loads
}

// A try is a move that was begun.
type try struct {
	move  placement.GuestMove
	from  model.NodeID
	task  model.TaskID
	began time.Time

	failed int // in a row
	again  time.Time
	why    string
}

type loads struct {
	at    time.Time
	nodes map[model.NodeID]Load
}

// guests moves machines.
//
// The invariant: whether a guest may move, and that it runs in one place, is the record's
// and the nodes' affair (agent.Migrate); here is only wished. A machine is moved to where
// the rules of placement allow it, and never twice at the same time.
func (c *Control) guests(ctx context.Context, view *state.View) error {
	h, now := &c.herder, time.Now()
	due := !now.Before(h.next)
	if !due && !occasion(view) {
		c.stay(view, nil, now)
		return nil
	}
	if due {
		h.next = now.Add(balanceEvery)
		h.sample(now, c.cfg.Loads(ctx))
	}
	h.judge(ctx, view.VM, now, c.cfg.Outcome)
	cluster, _ := view.Cluster()
	herd := placement.Herd{
		Now: now, VMs: view.VMs(), Hosts: c.hosts(ctx), Resting: h.resting(now), Balance: !cluster.Settings.BalanceOff,
	}
	herd.Load = h.mean(herd.Hosts)
	plan := placement.Guests(herd)
	c.stay(view, plan.Stuck, now)
	if due {
		plan.Begin = append(plan.Begin, h.patient(plan.Even, now)...)
	}
	var errs []error
	for _, m := range plan.Begin {
		errs = append(errs, c.move(ctx, view, m, now))
	}
	return errors.Join(errs...)
}

// occasion reports whether the record has something to do at once.
func occasion(view *state.View) bool {
	return slices.ContainsFunc(view.Nodes(), model.Node.InMaintenance) ||
		slices.ContainsFunc(view.VMs(), func(vm model.VM) bool { return vm.Home != 0 })
}

// patient returns a move for balance when there has been one to make for long enough.
func (h *herder) patient(even *placement.GuestMove, now time.Time) []placement.GuestMove {
	switch {
	case even == nil:
		h.uneven = time.Time{}
	case h.uneven.IsZero():
		h.uneven = now
	case now.Sub(h.uneven) >= unevenFor:
		h.uneven = time.Time{}
		return []placement.GuestMove{*even}
	}
	return nil
}

// move has a machine's node move it.
func (c *Control) move(ctx context.Context, view *state.View, m placement.GuestMove, now time.Time) error {
	vm, err := view.VM(m.VM)
	if err != nil {
		return err
	}
	h := &c.herder
	if h.tries == nil {
		h.tries = map[model.VMID]try{}
	}
	t := try{move: m, from: vm.Node, began: now, failed: h.tries[m.VM].failed}
	if t.task, err = c.cfg.Migrate(ctx, vm, m.To, m.For); err != nil {
		t.fails(now, err.Error())
		h.tries[m.VM] = t
		return err
	}
	h.tries[m.VM] = t
	c.cfg.Log.Info("machine is moved", "vm", vm.ID, "from", vm.Node, "to", m.To, "reason", m.For)
	return nil
}

func (t *try) fails(now time.Time, why string) {
	t.task, t.why = 0, why
	t.again = now.Add(min(tryAgain<<min(t.failed, 10), tryAgainIn))
	t.failed++
}

// judge looks what became of the moves that were begun.
func (h *herder) judge(ctx context.Context, find func(model.VMID) (model.VM, error), now time.Time,
	outcome func(context.Context, model.NodeID, model.TaskID) string,
) {
	for id, t := range h.tries {
		vm, err := find(id)
		switch {
		case err != nil || vm.Node != t.from || vm.Power != model.PowerOn:
			delete(h.tries, id)
		case t.task == 0 || vm.Migration != nil || now.Sub(t.began) < tryGrace:
		default:
			why := outcome(ctx, t.from, t.task)
			if why == "" {
				why = "it did not move; the log of its node says why"
			}
			t.fails(now, why)
			h.tries[id] = t
		}
	}
}

// resting is why machines are not moved now.
func (h *herder) resting(now time.Time) map[model.VMID]string {
	out := map[model.VMID]string{}
	for id, t := range h.tries {
		switch {
		case t.task != 0:
			out[id] = "" // it has been begun
		case now.Before(t.again):
			out[id] = "it could not be moved and is tried again: " + t.why
		}
	}
	return out
}

// sample keeps what the nodes have taken by now, for as long as the mean needs it.
func (h *herder) sample(now time.Time, nodes map[model.NodeID]Load) {
	h.loads = append(h.loads, loads{now, nodes})
	for len(h.loads) > 2 && now.Sub(h.loads[1].at) >= loadSpan {
		h.loads = h.loads[1:]
	}
}

// mean fills in how busy hosts were, and returns how busy their guests were, if that is
// known for long enough.
func (h *herder) mean(hosts []placement.Host) map[model.VMID]float64 {
	out := map[model.VMID]float64{}
	if len(h.loads) == 0 {
		return out
	}
	first, last := h.loads[0], h.loads[len(h.loads)-1]
	took := last.at.Sub(first.at)
	if took < loadSpan {
		return out
	}
	for i := range hosts {
		a, known := first.nodes[hosts[i].Node]
		b := last.nodes[hosts[i].Node]
		if !known || b.Clock <= a.Clock || b.Busy < a.Busy { // or it has started anew
			continue
		}
		hosts[i].Known = true
		hosts[i].Busy = (b.Busy - a.Busy) / (b.Clock - a.Clock) * float64(hosts[i].CPUs)
		for id, cpu := range b.Guests {
			if before, was := a.Guests[id]; was && cpu >= before {
				out[id] = (cpu - before) / took.Seconds()
			}
		}
	}
	return out
}

// stay notes which machines do not move that should, and raises an alarm for each node in
// maintenance that some stay on.
func (c *Control) stay(view *state.View, stuck map[model.VMID]string, now time.Time) {
	on := map[model.NodeID][]string{}
	var alarms []model.Alarm
	if len(stuck) > 0 {
		for _, vm := range view.VMs() {
			if why := stuck[vm.ID]; why != "" {
				on[vm.Node] = append(on[vm.Node], vm.Name+" ("+why+")")
			}
		}
		for _, n := range view.Nodes() {
			if who := on[n.ID]; n.InMaintenance() && len(who) > 0 {
				alarms = append(alarms, model.Alarm{
					Code: "node_drain_blocked", Severity: model.Warning, Object: "node " + n.ID.String(),
					Text: fmt.Sprintf("node %s cannot be emptied: %d machines stay: %s", n.Name, len(who), some(who)),
				})
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stuck, c.full = stuck, since(alarms, c.full, now)
}

// some joins the first of many.
func some(all []string) string {
	const most = 5
	if len(all) > most {
		return strings.Join(all[:most], ", ") + fmt.Sprintf(" and %d more", len(all)-most)
	}
	return strings.Join(all, ", ")
}
