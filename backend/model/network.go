package model

import (
	"crypto/rand"
	"encoding/hex"
	"slices"
	"strings"
	"time"
)

// A NetworkKind says what the cards on a network are joined to.
type NetworkKind string

// The kinds of networks, complete.
const (
	// NetworkBridge is a bridge of each node, which its administrator makes.
	NetworkBridge NetworkKind = "bridge"
	// NetworkUser is a network of each guest alone, behind its node's own address: it
	// reaches out, and nothing reaches it.
	NetworkUser NetworkKind = "user"
)

// A Network is what network cards of machines are joined to, the same on every node.
type Network struct {
	ID      NetworkID    `json:"id"`
	Name    string       `json:"name"`
	Type    NetworkKind  `json:"kind"`
	Bridge  string       `json:"bridge,omitempty"` // of the nodes that have none of their own in Nodes
	Nodes   []NodeBridge `json:"nodes,omitempty"`  // in order of node, each once
	VLAN    int          `json:"vlan,omitempty"`   // the tag of its frames on the bridge; zero: none
	Created time.Time    `json:"created"`
}

// A NodeBridge says what a network's bridge is called on one node.
type NodeBridge struct {
	Node   NodeID `json:"node"`
	Bridge string `json:"bridge"`
}

// MaxVLAN is the highest tag there is.
const MaxVLAN = 4094

// BridgeOn is what the network's bridge is called on a node; empty if it has none there.
func (n Network) BridgeOn(node NodeID) string {
	for _, b := range n.Nodes {
		if b.Node == node {
			return b.Bridge
		}
	}
	return n.Bridge
}

// Validate says what is wrong with a network, or nil.
func (n Network) Validate() error {
	if err := ValidateName("network", n.Name); err != nil {
		return err
	}
	switch n.Type {
	case NetworkUser:
		if n.Bridge != "" || len(n.Nodes) != 0 || n.VLAN != 0 {
			return Errorf(Invalid, "a user-mode network has no bridge and no vlan")
		}
		return nil
	case NetworkBridge:
	default:
		return Errorf(Invalid, "a network is of the kind bridge or user, not %q", n.Type)
	}
	switch {
	case n.Bridge == "" && len(n.Nodes) == 0:
		return Errorf(Invalid, "the network %q needs a bridge", n.Name)
	case n.VLAN < 0 || n.VLAN > MaxVLAN:
		return Errorf(Invalid, "a vlan's tag is 0 to %d, not %d", MaxVLAN, n.VLAN)
	}
	if n.Bridge != "" {
		if err := validateBridge(n.Bridge); err != nil {
			return err
		}
	}
	for i, b := range n.Nodes {
		if err := validateBridge(b.Bridge); err != nil {
			return err
		}
		if b.Node == 0 || i > 0 && n.Nodes[i-1].Node >= b.Node {
			return Errorf(Invalid, "the bridges of the network %q are not one for each node, in order", n.Name)
		}
	}
	return nil
}

// maxInterface is the most bytes Linux gives the name of an interface.
const maxInterface = 15

func validateBridge(name string) error {
	if len(name) > maxInterface {
		return Errorf(Invalid, "the name of a bridge has at most %d characters, not %d", maxInterface, len(name))
	}
	return ValidateName("bridge", name)
}

// A NICModel is the network card a guest sees.
type NICModel string

// The models, complete.
const (
	NICVirtio  NICModel = "virtio"
	NICE1000   NICModel = "e1000"   // for guests without a virtio driver
	NICRTL8139 NICModel = "rtl8139" // for very old guests
)

// A NIC is one network card of a machine. Its address tells it from all others of the
// cluster.
type NIC struct {
	MAC          MAC       `json:"mac"`
	Model        NICModel  `json:"model"`
	Network      NetworkID `json:"network"`
	Disconnected bool      `json:"disconnected,omitempty"` // as if the cable were out
	Slot         int       `json:"slot"`                   // where the guest finds it; set by the record
}

// MaxNICs is the most network cards a machine has.
const MaxNICs = 8

// Validate says what is wrong with a network card, or nil.
func (n NIC) Validate() error {
	if _, err := ParseMAC(string(n.MAC)); err != nil {
		return err
	}
	switch n.Model {
	case NICVirtio, NICE1000, NICRTL8139:
	default:
		return Errorf(Invalid, "a network card is a virtio, an e1000 or an rtl8139, not %q", n.Model)
	}
	if n.Network == 0 {
		return Errorf(Invalid, "the network card %s needs a network", n.MAC)
	}
	return nil
}

// A NICChange replaces what is not nil of one network card.
type NICChange struct {
	MAC          MAC        `json:"mac"`
	Model        *NICModel  `json:"model,omitempty"`
	Network      *NetworkID `json:"network,omitempty"`
	Disconnected *bool      `json:"disconnected,omitempty"`
}

// FreeSlot is the first slot none of a machine's network cards is in, or MaxNICs.
func FreeSlot(nics []NIC) int {
	for slot := range MaxNICs {
		if !slices.ContainsFunc(nics, func(n NIC) bool { return n.Slot == slot }) {
			return slot
		}
	}
	return MaxNICs
}

// A MAC is the address of a network card, as 52:54:00:12:34:56.
type MAC string

// NewMAC draws an address of those that everybody may give away.
func NewMAC() MAC {
	b := [6]byte{0x02}
	rand.Read(b[1:]) // never fails (crypto/rand)
	return formatMAC(b)
}

func formatMAC(b [6]byte) MAC {
	text := make([]string, len(b))
	for i := range b {
		text[i] = hex.EncodeToString(b[i : i+1])
	}
	return MAC(strings.Join(text, ":"))
}

// ParseMAC reads the address of one card, whose letters may be large. That of a group of
// cards, that of none, and those that begin with fe, which bridges' own ends have, are
// refused.
func ParseMAC(s string) (MAC, error) {
	var b [6]byte
	parts := strings.Split(s, ":")
	if len(parts) != len(b) {
		return "", Errorf(Invalid, "%q is not the address of a network card", s)
	}
	for i, p := range parts {
		if n, err := hex.Decode(b[i:i+1], []byte(p)); err != nil || n != 1 || len(p) != 2 {
			return "", Errorf(Invalid, "%q is not the address of a network card", s)
		}
	}
	if b[0]&1 != 0 || b[0] == 0xfe || b == [6]byte{} {
		return "", Errorf(Invalid, "a network card cannot have the address %s", s)
	}
	return formatMAC(b), nil
}
