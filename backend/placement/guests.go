package placement

import (
	"slices"
	"time"

	"drystone.example/drystone/backend/model"
)

// The bounds of what is moved by itself.
const (
	// GuestsAtOnce is how many machines are moved at the same time: each takes what the
	// network and the target's processors have to spare.
	GuestsAtOnce = 2
	// BalancePerHour is how many are moved in an hour for balance, and BalanceRest how long
	// one that was moved stays where it is.
	BalancePerHour = 4
	BalanceRest    = time.Hour
	// BalanceGap is how far apart the shares of memory promised, or of processors busy,
	// of two nodes are before anything is moved for that.
	BalanceGap = 0.20
	// balanceGain is by how much a move makes the sum of the squares of the shares smaller
	// at least: half of what evening out BalanceGap would.
	balanceGain = 0.01
)

// A Herd is what moves of machines are planned by.
type Herd struct {
	Now   time.Time
	VMs   []model.VM
	Hosts []Host
	Load  map[model.VMID]float64 // processors that a guest keeps busy, where that is known

	// Resting are machines that are not moved now, with the reason why a move of it
	// failed, if one did.
	Resting map[model.VMID]string
	Balance bool
}

// A GuestMove is the live migration of one machine.
type GuestMove struct {
	VM  model.VMID
	To  model.NodeID
	For model.MoveReason
}

// A GuestPlan says which machines shall be moved.
type GuestPlan struct {
	Begin []GuestMove           // now
	Stuck map[model.VMID]string // why one that is to leave a node, or to come back, does not
	// Even is what balance would move next, if anything. Whoever carries it out waits until
	// there has been something for a while.
	Even *GuestMove
}

// Guests plans which machines move: off nodes in maintenance, back to where a drain took
// them from, and then, one at a time, for balance: apart from those they are kept apart
// from, to the node they prefer, and from nodes that have more to do to such as have less.
//
// Of the moves for balance it holds: each leaves fewer machines beside one they are kept
// apart from; or as many, and more on the node they prefer; or as many of both, and the
// sum of the squares of the nodes' shares smaller by balanceGain. So plans end, and what
// one moved no later one moves back, as long as the machines need what they did.
func Guests(s Herd) GuestPlan {
	p := &herd{Herd: s, plan: GuestPlan{Stuck: map[model.VMID]string{}}}
	p.Hosts = slices.Clone(s.Hosts)
	p.VMs = slices.SortedFunc(slices.Values(s.VMs), Turn)
	for _, vm := range p.VMs {
		if vm.Migration != nil {
			p.moving++
		}
	}
	p.leave()
	p.comeBack()
	if s.Balance && p.moving == 0 && p.recent() < BalancePerHour {
		p.plan.Even = p.even()
	}
	return p.plan
}

type herd struct {
	Herd

	plan   GuestPlan
	moving int
}

// settled returns the host of a machine whose guest runs and stays there, or nil.
func (p *herd) settled(vm model.VM) *Host {
	if vm.Power != model.PowerOn || vm.Status.State != model.VMRunning || vm.Migration != nil {
		return nil
	}
	h := find(p.Hosts, vm.Node)
	if h == nil || !h.Up {
		return nil
	}
	return h
}

// begin begins a move if the bound allows it, and counts it as done.
func (p *herd) begin(vm model.VM, to model.NodeID, why model.MoveReason) {
	if reason, rests := p.Resting[vm.ID]; rests {
		if reason != "" {
			p.plan.Stuck[vm.ID] = reason
		}
		return
	}
	if p.moving < GuestsAtOnce {
		p.plan.Begin = append(p.plan.Begin, GuestMove{vm.ID, to, why})
	}
	p.moving++
	Take(p.Hosts, to, vm)
}

// leave moves machines off nodes in maintenance.
func (p *herd) leave() {
	for _, vm := range p.VMs {
		if h := p.settled(vm); h == nil || !h.Maintenance {
			continue
		}
		to, err := VM(vm, p.Hosts)
		if err != nil {
			p.plan.Stuck[vm.ID] = err.Error()
			continue
		}
		p.begin(vm, to, model.MoveDrain)
	}
}

// comeBack moves machines back to the node that a drain took them from.
func (p *herd) comeBack() {
	for _, vm := range p.VMs {
		h, home := p.settled(vm), find(p.Hosts, vm.Home)
		if vm.Home == 0 || h == nil || h.Maintenance || home == nil || home.Maintenance {
			continue
		}
		err := MayRun(vm, *home)
		if err == nil && home.mates(vm) > h.mates(vm) {
			err = model.Errorf(model.Conflict, "%s has a machine that it is kept apart from", home.Name)
		}
		if err != nil {
			p.plan.Stuck[vm.ID] = err.Error()
			continue
		}
		p.begin(vm, vm.Home, model.MoveReturn)
	}
}

// recent counts the machines that were moved for balance within the last hour.
func (p *herd) recent() (n int) {
	for _, vm := range p.VMs {
		if vm.Moved.For == model.MoveBalance && p.Now.Sub(vm.Moved.At) < time.Hour {
			n++
		}
	}
	return n
}

// free are the machines that may be moved for balance, those whose turn is last first.
func (p *herd) free() (out []model.VM) {
	for _, vm := range slices.Backward(p.VMs) {
		h := p.settled(vm)
		_, rests := p.Resting[vm.ID]
		if h == nil || h.Maintenance || vm.Home != 0 || rests || p.Now.Sub(vm.Moved.At) < BalanceRest {
			continue
		}
		out = append(out, vm)
	}
	return out
}

func (p *herd) even() *GuestMove {
	vms := p.free()
	for _, vm := range vms {
		if to := p.apart(vm); to != 0 {
			return &GuestMove{vm.ID, to, model.MoveBalance}
		}
	}
	for _, vm := range slices.Backward(vms) {
		if to := p.preferred(vm); to != 0 {
			return &GuestMove{vm.ID, to, model.MoveBalance}
		}
	}
	return p.level(vms)
}

// apart returns a node where a machine is beside fewer of those it is kept apart from.
func (p *herd) apart(vm model.VM) model.NodeID {
	now := find(p.Hosts, vm.Node).mates(vm)
	if now == 0 {
		return 0
	}
	to, err := VM(vm, p.others(vm))
	if err != nil || find(p.Hosts, to).mates(vm) >= now {
		return 0
	}
	return to
}

// others are the hosts that a machine is not on.
func (p *herd) others(vm model.VM) []Host {
	return slices.DeleteFunc(slices.Clone(p.Hosts), func(h Host) bool { return h.Node == vm.Node })
}

// preferred returns a machine's preferred node, or its backup if it may only run there, if
// it is not on it and that takes it.
func (p *herd) preferred(vm model.VM) model.NodeID {
	a := vm.Affinity
	now := find(p.Hosts, vm.Node)
	for _, node := range []model.NodeID{a.Prefer, a.Backup} {
		to := find(p.Hosts, node)
		wished := node == a.Prefer || !a.Allows(now.Node)
		if node == 0 || node == now.Node || to == nil || !wished {
			continue
		}
		if MayRun(vm, *to) == nil && to.mates(vm) <= now.mates(vm) {
			return node
		}
	}
	return 0
}

// A share is how much of a host is used: of its memory, and of its processors.
type share struct{ memory, cpus float64 }

func (p *herd) share(h Host) share {
	s := share{memory: float64(h.Memory-h.Free) / float64(h.Memory)}
	if h.CPUs > 0 {
		s.cpus = h.Busy / float64(h.CPUs)
	}
	return s
}

// level finds the machine whose move makes the nodes' shares most even, from a node that is
// above another by more than BalanceGap, if that is worth it.
func (p *herd) level(vms []model.VM) *GuestMove {
	var hosts []Host
	known := true
	for _, h := range p.Hosts {
		if h.Up && !h.Maintenance && h.Memory > 0 {
			hosts = append(hosts, h)
			known = known && h.Known
		}
	}
	var best *GuestMove
	gain := balanceGain
	for _, from := range hosts {
		for _, to := range hosts {
			a, b := p.share(from), p.share(to)
			if !known {
				a.cpus, b.cpus = 0, 0
			}
			if max(a.memory-b.memory, a.cpus-b.cpus) <= BalanceGap {
				continue
			}
			for _, vm := range vms {
				if vm.Node != from.Node || !p.fits(vm, from, to) {
					continue
				}
				c, d := a, b
				c.memory -= float64(vm.Memory) / float64(from.Memory)
				d.memory += float64(vm.Memory) / float64(to.Memory)
				if known && from.CPUs > 0 && to.CPUs > 0 {
					c.cpus -= p.Load[vm.ID] / float64(from.CPUs)
					d.cpus += p.Load[vm.ID] / float64(to.CPUs)
				}
				if g := a.cost() + b.cost() - c.cost() - d.cost(); g > gain {
					best, gain = &GuestMove{vm.ID, to.Node, model.MoveBalance}, g
				}
			}
		}
	}
	return best
}

func (s share) cost() float64 { return s.memory*s.memory + s.cpus*s.cpus }

// fits reports whether a machine may move for the nodes' shares: not against its wishes.
func (p *herd) fits(vm model.VM, from, to Host) bool {
	return MayRun(vm, to) == nil && to.mates(vm) <= from.mates(vm) &&
		vm.Affinity.Rank(to.Node) <= vm.Affinity.Rank(from.Node)
}
