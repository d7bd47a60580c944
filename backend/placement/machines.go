package placement

import (
	"cmp"
	"slices"

	"drystone.example/drystone/backend/model"
)

// A Host is what placement knows of a node that can run machines.
type Host struct {
	Node   model.NodeID
	Name   string
	Memory model.Bytes // that may be promised to machines
	Free   model.Bytes // of it, not promised to one
	CPUs   int

	Promised int // processors of the machines that are there

	Busy   float64 // processors of it, in the mean of the last minutes
	Known  bool    // whether Busy is
	Guests int
	Up     bool // reachable, and its hypervisor answers

	Maintenance bool // takes no machines

	// Apart is who is there, or on the way there, of each group that is kept apart.
	Apart map[string][]model.VMID
}

// Turn orders machines by whose turn it is: by their priority, then the older one.
func Turn(a, b model.VM) int {
	return cmp.Or(cmp.Compare(b.Priority.Rank(), a.Priority.Rank()), a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
}

// MayRun says why a machine may not go to a host, or nil. Machines that are kept apart
// may: they only rather would not.
func MayRun(vm model.VM, h Host) error {
	switch {
	case !h.Up:
		return model.Errorf(model.Unavailable, "%s is away or runs no guests", h.Name)
	case h.Maintenance:
		return model.Errorf(model.Conflict, "%s is in maintenance and takes no machines", h.Name)
	case !vm.Affinity.Allows(h.Node):
		return model.Errorf(model.Conflict, "the vm %q may run on its preferred and its backup node only", vm.Name)
	case h.Free < vm.Memory:
		return model.Errorf(model.NoSpace, "%s has %d MiB of memory to spare, the vm needs %d MiB",
			h.Name, h.Free>>20, vm.Memory>>20)
	}
	return nil
}

// VM chooses the node for a machine: of those it may go to, one without others that it is
// kept apart from, then the preferred one, then its backup, then the one with most free
// memory. The error says why there is none.
func VM(vm model.VM, hosts []Host) (model.NodeID, error) {
	var best Host
	for _, h := range hosts {
		if MayRun(vm, h) == nil && (best.Node == 0 || better(vm, h, best) < 0) {
			best = h
		}
	}
	if best.Node == 0 {
		return 0, nowhere(vm, hosts)
	}
	return best.Node, nil
}

func better(vm model.VM, a, b Host) int {
	return cmp.Or(
		cmp.Compare(a.mates(vm), b.mates(vm)),
		cmp.Compare(vm.Affinity.Rank(a.Node), vm.Affinity.Rank(b.Node)),
		cmp.Compare(b.Free, a.Free), cmp.Compare(a.Guests, b.Guests), cmp.Compare(a.Node, b.Node),
	)
}

// mates counts who is on a host that a machine is kept apart from.
func (h Host) mates(vm model.VM) int {
	seen := map[model.VMID]bool{vm.ID: true}
	for _, g := range vm.Affinity.Apart {
		for _, id := range h.Apart[g] {
			seen[id] = true
		}
	}
	return len(seen) - 1
}

// nowhere says why no host takes a machine.
func nowhere(vm model.VM, hosts []Host) error {
	if vm.Affinity.Strict {
		for _, h := range hosts {
			if err := MayRun(vm, h); err != nil && vm.Affinity.Allows(h.Node) {
				return model.Errorf(model.NoSpace, "it may run on its preferred and its backup node only, and %w", err)
			}
		}
		return model.Errorf(model.NoSpace, "it may run on its preferred and its backup node only, and there is no other of these")
	}
	most, up := model.Bytes(0), false
	for _, h := range hosts {
		if h.Up && !h.Maintenance {
			up, most = true, max(most, h.Free)
		}
	}
	if !up {
		return model.Errorf(model.NoSpace, "no node runs guests now that is not in maintenance")
	}
	return model.Errorf(model.NoSpace, "no node that runs guests has %d MiB of memory to spare: the most is %d MiB",
		vm.Memory>>20, most>>20)
}

// Take notes that a machine goes to a host.
func Take(hosts []Host, node model.NodeID, vm model.VM) {
	if h := find(hosts, node); h != nil {
		h.Take(vm)
	}
}

// Take notes that a machine is on a host.
func (h *Host) Take(vm model.VM) {
	h.Free -= vm.Memory
	h.Promised += vm.CPUs
	h.Guests++
	apart := map[string][]model.VMID{}
	for g, ids := range h.Apart {
		apart[g] = ids
	}
	for _, g := range vm.Affinity.Apart {
		apart[g] = append(slices.Clone(apart[g]), vm.ID)
	}
	h.Apart = apart
}

func find(hosts []Host, node model.NodeID) *Host {
	for i := range hosts {
		if hosts[i].Node == node {
			return &hosts[i]
		}
	}
	return nil
}
