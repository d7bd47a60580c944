package state

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

func network(id model.NetworkID, name, bridge string, nodes ...model.NodeBridge) command.NetworkCreate {
	return command.NetworkCreate{Network: model.Network{
		ID: id, Name: name, Type: model.NetworkBridge, Bridge: bridge, Nodes: nodes,
	}}
}

func card(mac model.MAC, network model.NetworkID) model.NIC {
	return model.NIC{MAC: mac, Model: model.NICVirtio, Network: network}
}

func TestNetworks(t *testing.T) {
	r := small(t)
	r.ok(network(1, "lan", "br0", model.NodeBridge{Node: 3, Bridge: "br3"}, model.NodeBridge{Node: 2, Bridge: "br2"}))
	r.ok(command.NetworkCreate{Network: model.Network{ID: 2, Name: "out", Type: model.NetworkUser}})
	vlan := network(3, "dmz", "br0")
	vlan.Network.VLAN = 4095
	both := command.NetworkCreate{Network: model.Network{ID: 3, Name: "dmz", Type: model.NetworkUser, VLAN: 1}}
	refuse(t, r, []refusal{
		{"name taken", network(3, "LAN", "br0"), model.Conflict},
		{"identifier taken", network(1, "dmz", "br0"), model.Conflict},
		{"no bridge", network(3, "dmz", ""), model.Invalid},
		{"a path", network(3, "dmz", "../br0"), model.Invalid},
		{"too long a name for Linux", network(3, "dmz", "a234567890123456"), model.Invalid},
		{"tag too high", vlan, model.Invalid},
		{"tag without a bridge", both, model.Invalid},
		{"no such node", network(3, "dmz", "br0", model.NodeBridge{Node: 9, Bridge: "br"}), model.NotFound},
		{"a node twice", network(3, "dmz", "", model.NodeBridge{Node: 2, Bridge: "a"}, model.NodeBridge{Node: 2, Bridge: "b"}), model.Invalid},
	})
	lan, err := r.store.View().FindNetwork("lan")
	if err != nil || lan.BridgeOn(1) != "br0" || lan.BridgeOn(2) != "br2" || lan.BridgeOn(3) != "br3" {
		t.Errorf("the network is %+v, %v", lan, err)
	}
	name, tag := "office", 20
	r.ok(command.NetworkUpdate{Network: 1, Name: &name, VLAN: &tag})
	bridge := "br1"
	refuse(t, r, []refusal{
		{"a bridge for a user-mode network", command.NetworkUpdate{Network: 2, Bridge: &bridge}, model.Invalid},
		{"unknown", command.NetworkUpdate{Network: 9, Name: &name}, model.NotFound},
	})
	if n, err := r.store.View().Network(1); err != nil || n.Name != "office" || n.VLAN != 20 || n.Bridge != "br0" {
		t.Errorf("after the change the network is %+v, %v", n, err)
	}
}

// A network goes only when no card is joined to it.
func TestNetworkInUse(t *testing.T) {
	r := small(t)
	r.ok(network(1, "lan", "br0"))
	r.ok(volume(1, "data"))
	vm := machine(1, "web", 1)
	vm.NICs = []model.NIC{card("02:00:00:00:00:01", 1)}
	r.ok(vm)
	refuse(t, r, []refusal{{"in use", command.NetworkDelete{Network: 1}, model.Conflict}})
	r.ok(command.VMUpdate{VM: 1, RemoveNICs: []model.MAC{"02:00:00:00:00:01"}})
	r.ok(command.NetworkDelete{Network: 1})
	refuse(t, r, []refusal{
		{"it is gone", command.VMUpdate{VM: 1, AddNICs: []model.NIC{card("02:00:00:00:00:01", 1)}}, model.NotFound},
	})
}

// A network's bridge on a node that leaves is forgotten, unless it is the only one.
func TestNetworkNodeLeaves(t *testing.T) {
	r := small(t)
	r.ok(network(1, "lan", "br0", model.NodeBridge{Node: 3, Bridge: "br3"}))
	r.ok(network(2, "dmz", "", model.NodeBridge{Node: 3, Bridge: "br4"}))
	r.ok(command.NodeRemove{Node: 3})
	lan, err := r.store.View().Network(1)
	if err != nil || len(lan.Nodes) != 0 || lan.Bridge != "br0" {
		t.Errorf("the network is %+v, %v", lan, err)
	}
	if dmz, err := r.store.View().Network(2); err != nil || len(dmz.Nodes) != 0 || dmz.Bridge != "br4" {
		t.Errorf("the other network is %+v, %v", dmz, err)
	}
}

// A card keeps its slot, which is where its guest finds it, whatever comes and goes
// beside it, also while the machine runs; and its address is its own in the cluster.
func TestNICs(t *testing.T) {
	r := small(t)
	r.ok(network(1, "lan", "br0"))
	r.ok(command.NetworkCreate{Network: model.Network{ID: 2, Name: "out", Type: model.NetworkUser}})
	r.ok(volume(1, "data"))
	r.ok(volume(2, "more"))
	const a, b, c = model.MAC("02:00:00:00:00:0a"), model.MAC("02:00:00:00:00:0b"), model.MAC("02:00:00:00:00:0c")
	vm := machine(1, "web", 1)
	vm.NICs = []model.NIC{card(a, 1), card(b, 1)}
	r.ok(vm)
	r.ok(command.VMPower{VM: 1, Power: model.PowerOn, Node: 1})
	out, rtl, cut := model.NetworkID(2), model.NICRTL8139, true
	r.ok(command.VMUpdate{
		VM: 1, RemoveNICs: []model.MAC{a}, AddNICs: []model.NIC{card(c, 2)},
		SetNICs: []model.NICChange{{MAC: b, Network: &out, Model: &rtl, Disconnected: &cut}},
	})
	want := []model.NIC{
		{MAC: c, Model: model.NICVirtio, Network: 2, Slot: 0},
		{MAC: b, Model: model.NICRTL8139, Network: 2, Disconnected: true, Slot: 1},
	}
	if diff := cmp.Diff(want, r.vm(1).NICs); diff != "" {
		t.Errorf("the cards differ:\n%s", diff)
	}
	other := machine(2, "db", 2)
	other.NICs = []model.NIC{card(b, 1)}
	twice := command.VMUpdate{VM: 1, AddNICs: []model.NIC{card(a, 1), card(a, 1)}}
	many := command.VMUpdate{VM: 1}
	for range model.MaxNICs {
		many.AddNICs = append(many.AddNICs, card(model.NewMAC(), 1))
	}
	add := func(n model.NIC) command.VMUpdate { return command.VMUpdate{VM: 1, AddNICs: []model.NIC{n}} }
	refuse(t, r, []refusal{
		{"another machine's address", other, model.Conflict},
		{"an address twice", twice, model.Conflict},
		{"too many", many, model.Invalid},
		{"no such network", add(card(a, 9)), model.NotFound},
		{"no such model", add(model.NIC{MAC: a, Model: "ne2k", Network: 1}), model.Invalid},
		{"the address of a group", add(card("01:00:5e:00:00:01", 1)), model.Invalid},
		{"a bridge's own address", add(card("fe:00:00:00:00:01", 1)), model.Invalid},
		{"large letters", add(card("02:00:00:00:00:0A", 1)), model.Invalid},
		{"no such card", command.VMUpdate{VM: 1, RemoveNICs: []model.MAC{a}}, model.NotFound},
	})
	r.ok(command.VMReport{VM: 1, Node: 1, State: model.VMRunning})
	r.ok(command.VMMigrate{VM: 1, Task: 1, From: 1, To: 2})
	refuse(t, r, []refusal{{"it is being migrated", command.VMUpdate{VM: 1, RemoveNICs: []model.MAC{b}}, model.Conflict}})
}
