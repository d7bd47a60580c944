package agent

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"time"

	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/proc"
	"drystone.example/drystone/backend/virt"
)

// A cards is what was last done about the network cards of one QEMU.
type cards struct {
	of    proc.ID
	nics  []virt.NIC // that were asked for
	err   error      // why they are not those
	again time.Time  // it is not tried before
}

// cardsAgain is how long a guest is given before it is asked once more to let a card go.
const cardsAgain = 15 * time.Second

// nicsOf are a machine's network cards as they are on this node.
func (g *guests) nicsOf(view *state.View, vm model.VM) ([]virt.NIC, error) {
	var list []virt.NIC
	boot := bootOrders(vm)
	for _, n := range vm.NICs {
		network, err := view.Network(n.Network)
		if err != nil {
			return nil, err
		}
		nic := virt.NIC{MAC: n.MAC, Model: n.Model, Slot: n.Slot, VLAN: network.VLAN, Connected: !n.Disconnected, Boot: boot.Of(model.BootNIC, n.Slot)}
		if network.Type == model.NetworkBridge {
			nic.Bridge = network.BridgeOn(g.agent.cfg.Self)
			if err := bridgeThere(network.Name, nic.Bridge); err != nil {
				return nil, err
			}
		}
		list = append(list, nic)
	}
	return list, nil
}

// bridgeThere returns an error unless a network's bridge is one of this node's.
func bridgeThere(network, bridge string) error {
	if bridge == "" {
		return model.Errorf(model.Unavailable, "the network %q has no bridge on this node", network)
	}
	if _, err := os.Stat(filepath.Join("/sys/class/net", bridge, "bridge")); err != nil {
		return model.Errorf(model.Unavailable, "the network %q needs the bridge %s, and this node has none of that name", network, bridge)
	}
	return nil
}

// matchNICs gives a running guest the network cards of its record, and returns what is
// in the way of that; once all is as it should be it costs nothing.
func (g *guests) matchNICs(ctx context.Context, m *guest, vm model.VM, have virt.Guest) error {
	if have.Hardware < virt.Placed {
		if len(vm.NICs) == 0 {
			return nil
		}
		return model.Errorf(model.Conflict, "it gets them when it is started again, for it runs with older devices")
	}
	want, err := g.nicsOf(g.agent.cfg.Meta.Local(), vm)
	if err != nil {
		return err
	}
	last := m.cards
	same := last.of == have.Process && slices.Equal(last.nics, want)
	if same && (last.err == nil || time.Now().Before(last.again)) {
		return last.err
	}
	done, err := g.hypervisor.MatchNICs(ctx, vm.ID, want)
	if err == nil && !done {
		err = model.Errorf(model.Conflict, "the guest has not let a network card go yet")
	}
	m.cards = cards{of: have.Process, nics: want, err: err, again: time.Now().Add(cardsAgain)}
	if err != nil && (!same || last.err.Error() != err.Error()) {
		g.agent.log.Warn("network cards of a guest are not as they should be", "vm", vm.ID, "err", err)
	}
	return err
}
