package state

import (
	"cmp"
	"slices"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

func networkObject(n model.Network) string { return "network " + n.ID.String() + " " + n.Name }

func (x *tx) networkCreate(c command.NetworkCreate) (any, error) {
	n := c.Network
	n.Created = x.at
	x.object = networkObject(n)
	if _, taken := x.networks.get(n.ID); taken || n.ID == 0 {
		return nil, model.Errorf(model.Conflict, "the identifier %s is a network already", n.ID)
	}
	if err := x.validNetwork(&n); err != nil {
		return nil, err
	}
	return n, put(x, &x.networks, n)
}

func (x *tx) networkUpdate(c command.NetworkUpdate) (any, error) {
	n, err := x.networks.find(c.Network)
	if err != nil {
		return nil, err
	}
	x.object = networkObject(n)
	if c.Name != nil {
		n.Name = *c.Name
	}
	if c.Bridge != nil {
		n.Bridge = *c.Bridge
	}
	if c.Nodes != nil {
		n.Nodes = *c.Nodes
	}
	if c.VLAN != nil {
		n.VLAN = *c.VLAN
	}
	if err := x.validNetwork(&n); err != nil {
		return nil, err
	}
	return n, put(x, &x.networks, n)
}

// validNetwork holds what a network must be, also against the other rows, and puts its
// bridges in order.
func (x *tx) validNetwork(n *model.Network) error {
	n.Nodes = slices.Clone(n.Nodes)
	slices.SortFunc(n.Nodes, func(a, b model.NodeBridge) int { return cmp.Compare(a.Node, b.Node) })
	if err := n.Validate(); err != nil {
		return err
	}
	if other, taken := x.networks.names[lower(n.Name)]; taken && other != n.ID {
		return model.Errorf(model.Conflict, "there is already a network named %q", n.Name)
	}
	for _, b := range n.Nodes {
		if _, err := x.nodes.find(b.Node); err != nil {
			return err
		}
	}
	return nil
}

func (x *tx) networkDelete(c command.NetworkDelete) (any, error) {
	n, err := x.networks.find(c.Network)
	if err != nil {
		return nil, err
	}
	x.object = networkObject(n)
	for _, id := range x.vms.keys() {
		vm := x.vms.rows[id]
		if slices.ContainsFunc(vm.NICs, func(nic model.NIC) bool { return nic.Network == n.ID }) {
			return nil, model.Errorf(model.Conflict, "a network card of the vm %q is joined to the network %q", vm.Name, n.Name)
		}
	}
	drop(x, &x.networks, n.ID)
	return n, nil
}

// forgetBridges takes a node that leaves out of the networks. A network whose only
// bridge was there keeps it for whoever joins.
func (x *tx) forgetBridges(node model.NodeID) error {
	for _, id := range x.networks.keys() {
		n := x.networks.rows[id]
		gone := n.BridgeOn(node)
		rest := slices.DeleteFunc(slices.Clone(n.Nodes), func(b model.NodeBridge) bool { return b.Node == node })
		if len(rest) == len(n.Nodes) {
			continue
		}
		n.Nodes = rest
		if len(rest) == 0 && n.Bridge == "" {
			n.Bridge = gone
		}
		if err := put(x, &x.networks, n); err != nil {
			return err
		}
	}
	return nil
}

// changeNICs removes, changes and adds network cards of a machine.
func changeNICs(vm *model.VM, c command.VMUpdate) error {
	if vm.Migration != nil {
		return model.Errorf(model.Conflict, "the vm %q is being migrated; its network cards stay as they are meanwhile", vm.Name)
	}
	vm.NICs = slices.Clone(vm.NICs)
	for _, mac := range c.RemoveNICs {
		i, err := findNIC(*vm, mac)
		if err != nil {
			return err
		}
		vm.NICs = slices.Delete(vm.NICs, i, i+1)
	}
	for _, change := range c.SetNICs {
		i, err := findNIC(*vm, change.MAC)
		if err != nil {
			return err
		}
		n := &vm.NICs[i]
		if change.Model != nil {
			n.Model = *change.Model
		}
		if change.Network != nil {
			n.Network = *change.Network
		}
		if change.Disconnected != nil {
			n.Disconnected = *change.Disconnected
		}
	}
	vm.NICs = addNICs(vm.NICs, c.AddNICs)
	return nil
}

// addNICs gives each new card a slot. There may be too many of them afterwards.
func addNICs(nics, more []model.NIC) []model.NIC {
	for _, n := range more {
		n.Slot = model.FreeSlot(nics)
		nics = append(nics, n)
	}
	slices.SortStableFunc(nics, func(a, b model.NIC) int { return cmp.Compare(a.Slot, b.Slot) })
	return nics
}

func findNIC(vm model.VM, mac model.MAC) (int, error) {
	i := slices.IndexFunc(vm.NICs, func(n model.NIC) bool { return n.MAC == mac })
	if i < 0 {
		return 0, model.Errorf(model.NotFound, "the vm %q has no network card %s", vm.Name, mac)
	}
	return i, nil
}

// validNICs holds that each card's address is its own in the whole cluster, and that its
// network is there.
func (x *tx) validNICs(vm model.VM) error {
	for i, n := range vm.NICs {
		if canonical, err := model.ParseMAC(string(n.MAC)); err != nil || canonical != n.MAC {
			return model.Errorf(model.Invalid, "the address %q of a network card is not written as it should be", n.MAC)
		}
		if _, err := x.networks.find(n.Network); err != nil {
			return err
		}
		if slices.ContainsFunc(vm.NICs[:i], func(o model.NIC) bool { return o.MAC == n.MAC }) {
			return model.Errorf(model.Conflict, "the address %s is given twice", n.MAC)
		}
	}
	for _, id := range x.vms.keys() {
		other := x.vms.rows[id]
		if other.ID == vm.ID {
			continue
		}
		for _, n := range other.NICs {
			if _, err := findNIC(vm, n.MAC); err == nil {
				return model.Errorf(model.Conflict, "the address %s is that of a network card of the vm %q", n.MAC, other.Name)
			}
		}
	}
	return nil
}
