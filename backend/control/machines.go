package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/placement"
)

// coldStart is how long after its own start a leader leaves the machines to a node
// that it has not seen yet: after a power cut of all nodes some take longer to start
// than others.
const coldStart = time.Minute

// machines gives the machines of lost nodes another node.
//
// The invariant: a machine is placed elsewhere only when the lease of its node has run
// out and the guests there are dead, by the leader's clock and the guard's. What is
// looked at here is a hint; meta's admission holds it for the command itself, and gives
// the lost node no lease until the command is decided.
func (c *Control) machines(ctx context.Context, view *state.View) error {
	var errs []error
	var hosts []placement.Host
	var without []unplaced
	orphans := slices.DeleteFunc(slices.Clone(view.VMs()), func(vm model.VM) bool { return !c.orphan(view, vm) })
	slices.SortFunc(orphans, placement.Turn)
	for _, vm := range orphans {
		to := model.NodeID(0)
		if vm.Power == model.PowerOn {
			if hosts == nil {
				hosts = c.hosts(ctx)
			}
			var err error
			if to, err = placement.VM(vm, hosts); err != nil {
				without = append(without, unplaced{vm, err})
				continue
			}
		}
		_, err := c.cfg.Meta.Apply(ctx, model.System, command.VMPlace{VM: vm.ID, Node: to, Expected: vm.Node})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if to != 0 {
			placement.Take(hosts, to, vm)
			c.cfg.Log.Warn("machine is started again elsewhere", "vm", vm.ID, "from", vm.Node, "to", to)
		}
	}
	c.unplace(without, time.Now())
	return errors.Join(errs...)
}

// orphan reports whether a machine's node is lost while the machine runs there, by
// what is known, or shall run.
func (c *Control) orphan(view *state.View, vm model.VM) bool {
	if vm.Node == 0 || vm.Power == model.PowerOff && vm.Status.State == model.VMStopped {
		return false
	}
	if view.Removed(vm.Node) {
		return true
	}
	if !c.cfg.Met(vm.Node) && time.Since(c.began) < coldStart {
		return false
	}
	return c.expired(vm.Node)
}

// hosts are the nodes that may be given a machine: not one whose lease has run out,
// also when the gossip still hears of it.
func (c *Control) hosts(ctx context.Context) []placement.Host {
	return slices.DeleteFunc(c.cfg.Hosts(ctx), func(h placement.Host) bool { return c.expired(h.Node) })
}

// An unplaced machine is one of a lost node that no other takes.
type unplaced struct {
	vm  model.VM
	why error
}

// unplace raises an alarm for each of them.
func (c *Control) unplace(without []unplaced, now time.Time) {
	var out []model.Alarm
	for _, u := range without {
		text := fmt.Sprintf("machine %s (%d MiB), whose node is lost, is not started elsewhere: %v", u.vm.Name, u.vm.Memory>>20, u.why)
		out = append(out, model.Alarm{
			Code: "vm_unplaced", Severity: model.Critical, Object: "vm " + u.vm.ID.String(), Text: text,
		})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unplaced = since(out, c.unplaced, now)
}
