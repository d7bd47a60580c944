package placement

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"drystone.example/drystone/backend/model"
)

const gib = model.Bytes(1 << 30)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// herd is nodes, numbered from 1, of 16 GiB and 8 processors each, with machines.
func herdOf(nodes int, vms ...model.VM) Herd {
	s := Herd{Now: noon, Balance: true, Load: map[model.VMID]float64{}}
	for i := range nodes {
		s.Hosts = append(s.Hosts, Host{
			Node: model.NodeID(i + 1), Name: fmt.Sprintf("n%d", i+1), Memory: 16 * gib, CPUs: 8, Known: true, Up: true,
		})
	}
	for i, vm := range vms {
		vm.ID = model.VMID(i + 1)
		vm.Power, vm.Status.State, vm.Created = model.PowerOn, model.VMRunning, noon
		if vm.Memory == 0 {
			vm.Memory = gib
		}
		s.VMs = append(s.VMs, vm)
	}
	count(&s)
	return s
}

// count makes the hosts' counts what the machines come to.
func count(s *Herd) {
	for i := range s.Hosts {
		h := &s.Hosts[i]
		h.Free, h.Guests, h.Busy, h.Apart = h.Memory, 0, 0, nil
		for _, vm := range s.VMs {
			if vm.Node == h.Node {
				h.Take(vm)
				h.Busy += s.Load[vm.ID]
			}
		}
	}
}

func (p GuestPlan) String() string {
	var out []string
	for _, m := range p.Begin {
		out = append(out, fmt.Sprintf("%d to %d for %s", m.VM, m.To, m.For))
	}
	for _, id := range slices.Sorted(maps.Keys(p.Stuck)) {
		out = append(out, fmt.Sprintf("%d stays: %s", id, p.Stuck[id]))
	}
	if p.Even != nil {
		out = append(out, fmt.Sprintf("even: %d to %d", p.Even.VM, p.Even.To))
	}
	return strings.Join(out, "; ")
}

// Which machines move.
func TestGuests(t *testing.T) {
	on := func(node model.NodeID) model.VM { return model.VM{Node: node} }
	with := func(vm model.VM, f func(*model.VM)) model.VM { f(&vm); return vm }
	apart := func(node model.NodeID) model.VM {
		return model.VM{Node: node, Affinity: model.Affinity{Apart: []string{"db"}}}
	}
	drained := func(s *Herd) { s.Hosts[0].Maintenance = true }
	for name, c := range map[string]struct {
		s      Herd
		change func(*Herd)
		want   string
	}{
		"nothing": {s: herdOf(3, on(1), on(2), on(3))},
		"drain, two at a time": {
			s: herdOf(3, on(1), on(1), on(1), on(2)), change: drained,
			want: "1 to 3 for drain; 2 to 2 for drain",
		},
		"drain, one under way": {s: herdOf(3, on(1), on(1), on(1)), change: func(s *Herd) {
			drained(s)
			s.VMs[0].Migration = &model.Migration{To: 2}
		}, want: "2 to 2 for drain"},
		"drain, stopped and starting": {s: herdOf(3, on(1), on(1), on(1)), change: func(s *Herd) {
			drained(s)
			s.VMs[0].Status.State, s.VMs[0].Power = model.VMStopped, model.PowerOff
			s.VMs[1].Status.State = model.VMStarting
			s.VMs[2].Status.State = model.VMFailed
		}},
		"drain, strict and too large": {
			s: herdOf(3, on(1), with(on(1), func(vm *model.VM) { vm.Affinity = model.Affinity{Prefer: 1, Strict: true} }),
				with(on(1), func(vm *model.VM) { vm.Memory = 15 * gib }), with(on(2), func(vm *model.VM) { vm.Memory = 2 * gib }),
				with(on(3), func(vm *model.VM) { vm.Memory = 2 * gib })),
			change: drained,
			want: "1 to 2 for drain; 2 stays: it may run on its preferred and its backup node only, and n1 is in maintenance and takes no machines; " +
				"3 stays: no node that runs guests has 15360 MiB of memory to spare: the most is 14336 MiB",
		},
		"drain, apart": {s: herdOf(3, apart(1), apart(2)), change: drained, want: "1 to 3 for drain"},
		"drain, failed before": {s: herdOf(3, on(1), on(1)), change: func(s *Herd) {
			drained(s)
			s.Resting = map[model.VMID]string{1: "the guest is too busy", 2: ""}
		}, want: "1 stays: the guest is too busy"},
		"drain of a lost node": {s: herdOf(3, on(1)), change: func(s *Herd) { drained(s); s.Hosts[0].Up = false }},
		"return":               {s: herdOf(2, with(on(2), func(vm *model.VM) { vm.Home = 1 })), want: "1 to 1 for return"},
		"return, home drained": {s: herdOf(3, with(on(2), func(vm *model.VM) { vm.Home = 1 })), change: drained},
		"return, full": {
			s:    herdOf(2, with(on(2), func(vm *model.VM) { vm.Home = 1 }), with(on(1), func(vm *model.VM) { vm.Memory = 16 * gib })),
			want: "1 stays: n1 has 0 MiB of memory to spare, the vm needs 1024 MiB",
		},
		"even":        {s: herdOf(2, on(1), on(1), on(1), on(1), on(1), on(1)), want: "even: 6 to 2"},
		"off":         {s: herdOf(2, on(1), on(1), on(1), on(1), on(1), on(1)), change: func(s *Herd) { s.Balance = false }},
		"even enough": {s: herdOf(2, on(1), on(1), on(1), on(2))},
		"busy": {s: herdOf(2, on(1), on(1), on(2)), change: func(s *Herd) {
			s.Load = map[model.VMID]float64{1: 3, 2: 3}
			count(s)
		}, want: "even: 2 to 2"},
		"busy, not known": {s: herdOf(2, on(1), on(1), on(2)), change: func(s *Herd) {
			s.Load = map[model.VMID]float64{1: 3, 2: 3}
			count(s)
			s.Hosts[1].Known = false
		}},
		"one large guest": {s: herdOf(2, with(on(1), func(vm *model.VM) { vm.Memory = 8 * gib }))},
		"moved lately": {s: herdOf(2, on(1), on(1), on(1), on(1), on(1), on(1)), change: func(s *Herd) {
			for i := range s.VMs {
				s.VMs[i].Moved.At = noon.Add(-59 * time.Minute)
			}
		}},
		"enough for an hour": {s: herdOf(2, on(1), on(1), on(1), on(1), on(1), on(1), on(1), on(1), on(1), on(1)), change: func(s *Herd) {
			for i := range 4 {
				s.VMs[i].Moved = model.Moved{At: noon.Add(-59 * time.Minute), For: model.MoveBalance}
			}
		}},
		"apart again":      {s: herdOf(2, apart(1), apart(1)), want: "even: 2 to 2"},
		"nowhere to apart": {s: herdOf(2, apart(1), apart(1), apart(2))},
		"to the preferred": {s: herdOf(3, with(on(1), func(vm *model.VM) { vm.Affinity.Prefer = 2 })), want: "even: 1 to 2"},
		"preferred is full": {s: herdOf(2, with(on(1), func(vm *model.VM) { vm.Affinity.Prefer = 2 }),
			with(on(2), func(vm *model.VM) { vm.Memory = 16 * gib; vm.Affinity = model.Affinity{Prefer: 2, Strict: true} }))},
		"stays on the preferred": {s: herdOf(2, func() (all []model.VM) {
			for range 6 {
				all = append(all, with(on(1), func(vm *model.VM) { vm.Affinity.Prefer = 1 }))
			}
			return all
		}()...)},
	} {
		if c.change != nil {
			c.change(&c.s)
		}
		if got := Guests(c.s).String(); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// Whatever the machines need, balance ends, and brings none back to where it was; drains
// end too, and leave nobody where another node takes it.
func TestGuestsSettle(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := herdOf(2 + r.IntN(4))
		nodes := len(s.Hosts)
		for i := range r.IntN(20) {
			vm := model.VM{
				ID: model.VMID(i + 1), Node: model.NodeID(1 + r.IntN(nodes)), Memory: gib * model.Bytes(1+r.IntN(3)),
				Power: model.PowerOn, Status: model.VMStatus{State: model.VMRunning}, Created: noon,
			}
			if r.IntN(4) == 0 {
				vm.Affinity.Prefer = model.NodeID(1 + r.IntN(nodes))
			}
			if r.IntN(4) == 0 {
				vm.Affinity.Apart = []string{"db"}
			}
			s.VMs = append(s.VMs, vm)
			s.Load[vm.ID] = 2 * r.Float64()
		}
		if r.IntN(2) == 0 {
			s.Hosts[0].Maintenance = true
		}
		if moves := settle(t, &s, seed); moves > 4*len(s.VMs)+8 {
			t.Errorf("seed %d: %d moves of %d machines", seed, moves, len(s.VMs))
		}
		for _, vm := range s.VMs {
			if s.Hosts[0].Maintenance && vm.Node == 1 {
				if to, err := VM(vm, s.Hosts); err == nil {
					t.Errorf("seed %d: machine %d stays though node %d takes it", seed, vm.ID, to)
				}
			}
		}
	}
}

// settle does what plans say until they say nothing, an hour after each other.
func settle(t *testing.T, s *Herd, seed uint64) (moves int) {
	t.Helper()
	been := map[string]bool{}
	for ; moves < 1000; moves++ {
		count(s)
		s.Now = s.Now.Add(time.Hour)
		plan := Guests(*s)
		next := plan.Begin
		if plan.Even != nil {
			next = append(next, *plan.Even)
		}
		if len(next) == 0 {
			return moves
		}
		m := next[0]
		vm := &s.VMs[m.VM-1]
		if h := find(s.Hosts, m.To); MayRun(*vm, *h) != nil {
			t.Fatalf("seed %d: machine %d is moved to %d, which does not take it", seed, m.VM, m.To)
		}
		vm.Node, vm.Moved = m.To, model.Moved{At: s.Now, For: m.For}
		var on []string
		for _, vm := range s.VMs {
			on = append(on, vm.Node.String())
		}
		at := strings.Join(on, " ")
		if been[at] {
			t.Fatalf("seed %d: after %d moves everything is where it was before", seed, moves)
		}
		been[at] = true
	}
	return moves
}
