package placement

import (
	"slices"

	"drystone.example/drystone/backend/model"
)

// Overcommit is how many processors of machines a node takes for each of its own when
// somebody starts or moves a machine. It does not bind what must run somewhere, such as
// when a node was lost: slow is better than off.
const Overcommit = 8

// mayStart says why a machine may not be started on a host, or nil.
func mayStart(vm model.VM, h Host) error {
	if err := MayRun(vm, h); err != nil {
		return err
	}
	if most := Overcommit * h.CPUs; h.CPUs > 0 && h.Promised+vm.CPUs > most {
		return model.Errorf(model.NoSpace, "machines on %s have %d processors, the vm needs %d, and %d together are the most for its %d",
			h.Name, h.Promised, vm.CPUs, most, h.CPUs)
	}
	return nil
}

// Start chooses the node where somebody starts a machine, or moves it to, if that is zero, and else says
// whether that one takes it. The error says what is missing.
func Start(vm model.VM, node model.NodeID, hosts []Host) (model.NodeID, error) {
	if node != 0 {
		h := find(hosts, node)
		if h == nil {
			return 0, model.Errorf(model.Unavailable, "that node is away or runs no guests")
		}
		return node, mayStart(vm, *h)
	}
	calm := slices.DeleteFunc(slices.Clone(hosts), func(h Host) bool { return MayRun(vm, h) == nil && mayStart(vm, h) != nil })
	node, err := VM(vm, calm)
	if err == nil {
		return node, nil
	}
	if crowded, other := VM(vm, hosts); other == nil { // all that lacks is processors
		return 0, mayStart(vm, *find(hosts, crowded))
	}
	return 0, err
}

// Create says why a new machine could run on no node, however empty, or nil. While a
// node is away nobody knows.
func Create(vm model.VM, hosts []Host) error {
	var most model.Bytes
	for _, h := range hosts {
		if !h.Up {
			return nil
		}
		most = max(most, h.Memory)
	}
	if len(hosts) > 0 && vm.Memory > most {
		return model.Errorf(model.NoSpace, "no node has so much memory: the vm needs %d MiB, and the most that a node has for machines is %d MiB",
			vm.Memory>>20, most>>20)
	}
	return nil
}

// A Loss is what would happen if the node were lost whose loss is the worst.
type Loss struct {
	Node   model.NodeID // zero: no node runs machines
	VMs    []model.VMID // that would run nowhere, in turn
	Memory model.Bytes  // of these
}

// WorstLoss finds the node whose loss leaves the most memory of machines without a
// place, by the same rules as when it happens: in turn, and where the others have room.
// Of losses that all machines survive it is that of the node with the most promised.
func WorstLoss(vms []model.VM, hosts []Host) (worst Loss) {
	vms = slices.SortedFunc(slices.Values(vms), Turn)
	var promised model.Bytes
	for i, lost := range hosts {
		if !lost.Up {
			continue
		}
		rest := slices.Delete(slices.Clone(hosts), i, i+1)
		l := Loss{Node: lost.Node}
		for _, vm := range vms {
			if vm.Node != lost.Node || vm.Power != model.PowerOn {
				continue
			}
			to, err := VM(vm, rest)
			if err != nil {
				l.VMs, l.Memory = append(l.VMs, vm.ID), l.Memory+vm.Memory
				continue
			}
			Take(rest, to, vm)
		}
		if p := lost.Memory - lost.Free; worst.Node == 0 || l.Memory > worst.Memory || l.Memory == worst.Memory && p > promised {
			worst, promised = l, p
		}
	}
	return worst
}
