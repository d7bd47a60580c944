package command

import "drystone.example/drystone/backend/model"

// NetworkCreate makes a network. Returns the model.Network.
type NetworkCreate struct {
	Network model.Network `json:"network"` // Created is set from the envelope
}

// NetworkUpdate replaces what is not nil of a network, also while cards are joined to
// it: those of running machines follow. Its kind stays. Returns the model.Network.
type NetworkUpdate struct {
	Network model.NetworkID     `json:"network"`
	Name    *string             `json:"name,omitempty"`
	Bridge  *string             `json:"bridge,omitempty"`
	Nodes   *[]model.NodeBridge `json:"nodes,omitempty"`
	VLAN    *int                `json:"vlan,omitempty"`
}

// NetworkDelete forgets a network. It is refused while a card of a machine is joined to
// it. Returns the model.Network as it was.
type NetworkDelete struct {
	Network model.NetworkID `json:"network"`
}

// Kind implements Command, here and below.
func (NetworkCreate) Kind() Kind { return KindNetworkCreate }
func (NetworkUpdate) Kind() Kind { return KindNetworkUpdate }
func (NetworkDelete) Kind() Kind { return KindNetworkDelete }

// Object implements Command, here and below.
func (c NetworkCreate) Object() string { return "network " + c.Network.ID.String() }
func (c NetworkUpdate) Object() string { return "network " + c.Network.String() }
func (c NetworkDelete) Object() string { return "network " + c.Network.String() }
