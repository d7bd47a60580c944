package schema

import (
	"reflect"
	"time"

	"drystone.example/drystone/backend/model"
)

// A Network is what network cards of machines are joined to.
type Network struct {
	ID      model.NetworkID   `json:"id"`
	Name    string            `json:"name"`
	Kind    model.NetworkKind `json:"kind" enum:"bridge,user"`
	Bridge  string            `json:"bridge,omitempty" doc:"of the nodes that nodes does not name"`
	Nodes   []NodeBridge      `json:"nodes"`
	VLAN    int               `json:"vlan" doc:"the tag of its frames on the bridge; 0: none"`
	Cards   int               `json:"cards" doc:"how many network cards are joined to it"`
	Created time.Time         `json:"created"`
}

// A NodeBridge says what a network's bridge is called on one node.
type NodeBridge struct {
	Node     model.NodeID `json:"node"`
	NodeName string       `json:"node_name"`
	Bridge   string       `json:"bridge"`
}

// A BridgeFor names a node and the network's bridge there.
type BridgeFor struct {
	Node   string `json:"node" minLength:"1" maxLength:"63" doc:"its name or identifier"`
	Bridge string `json:"bridge" minLength:"1" maxLength:"15"`
}

// A NetworkSpec asks for a network.
type NetworkSpec struct {
	Name   string            `json:"name" maxLength:"63"`
	Kind   model.NetworkKind `json:"kind,omitempty" enum:"bridge,user" doc:"bridge where none is given; user: each guest alone behind its node's address"`
	Bridge string            `json:"bridge,omitempty" maxLength:"15"`
	Nodes  []BridgeFor       `json:"nodes,omitempty" maxItems:"256" doc:"the nodes where the bridge is called otherwise"`
	VLAN   int               `json:"vlan,omitempty" minimum:"0" maximum:"4094"`
}

// A NetworkChange replaces what is given of a network, also while it is in use: the
// cards of running machines follow.
type NetworkChange struct {
	Name   *string      `json:"name,omitempty" maxLength:"63"`
	Bridge *string      `json:"bridge,omitempty" maxLength:"15"`
	Nodes  *[]BridgeFor `json:"nodes,omitempty" maxItems:"256"`
	VLAN   *int         `json:"vlan,omitempty" minimum:"0" maximum:"4094"`
}

// A NIC is one network card of a machine.
type NIC struct {
	MAC         model.MAC       `json:"mac"`
	Model       model.NICModel  `json:"model" enum:"virtio,e1000,rtl8139"`
	Network     model.NetworkID `json:"network"`
	NetworkName string          `json:"network_name"`
	Connected   bool            `json:"connected"`
}

// A NICSpec asks for a network card.
type NICSpec struct {
	Network      string         `json:"network" minLength:"1" maxLength:"63" doc:"name or identifier"`
	Model        model.NICModel `json:"model,omitempty" enum:"virtio,e1000,rtl8139" doc:"virtio where none is given"`
	MAC          string         `json:"mac,omitempty" maxLength:"17" doc:"an own one is drawn where none is given"`
	Disconnected bool           `json:"disconnected,omitempty" doc:"as if the cable were out"`
}

// A NICChange replaces what is given of one network card.
type NICChange struct {
	MAC       string          `json:"mac" maxLength:"17" doc:"of the card that is meant"`
	Network   *string         `json:"network,omitempty" minLength:"1" maxLength:"63" doc:"name or identifier"`
	Model     *model.NICModel `json:"model,omitempty" enum:"virtio,e1000,rtl8139"`
	Connected *bool           `json:"connected,omitempty"`
}

// Empty reports whether nothing is to be changed.
func (c VMChange) Empty() bool { return reflect.ValueOf(c).IsZero() }
