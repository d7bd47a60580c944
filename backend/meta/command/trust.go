package command

import (
	"crypto/rand"
	"encoding/base64"

	"drystone.example/drystone/backend/model"
)

// KeyRotate begins to replace the gossip key by another one. It is refused with
// model.Conflict while one is being replaced. Returns the model.Cluster.
type KeyRotate struct {
	Key Secret `json:"key"` // 32 bytes, base64
}

// NewKeyRotate begins with a key that is made now.
func NewKeyRotate() KeyRotate {
	var key [32]byte
	rand.Read(key[:]) // never fails (crypto/rand)
	return KeyRotate{Key: Keep(model.NewSecret(base64.StdEncoding.EncodeToString(key[:])))}
}

// CARotate replaces the root that signs. It is compare-and-swap on the epoch of the
// one before, which stays trusted; while the one before that does too it is refused,
// with model.Conflict both. Returns the model.Cluster.
type CARotate struct {
	Epoch    uint64 `json:"epoch"`
	CA       string `json:"ca"`       // certificate, PEM
	CAKey    Secret `json:"ca_key"`   // sealed
	Heritage string `json:"heritage"` // PEM
}

// TrustStep says that every member has what the record says, but for some: that the
// gossip keys of a step can be followed by those of the next, or that the root before
// that of an epoch need not be trusted any more. It is refused with model.Conflict if
// one of the others has not said so, or if that was done already. Nobody but an
// operator leaves a member behind with certificates by the old root: it could not come
// back. Returns the model.Cluster.
type TrustStep struct {
	Keys   uint64         `json:"keys,omitempty"`
	Epoch  uint64         `json:"epoch,omitempty"` // one of the two
	Except []model.NodeID `json:"except,omitempty"`
}

// NodeTrust is a node's word about what it has. Returns the model.Node.
type NodeTrust struct {
	Node  model.NodeID `json:"node"`
	Trust model.Trust  `json:"trust"`
}

// Kind implements Command, here and below.
func (KeyRotate) Kind() Kind { return KindKeyRotate }
func (CARotate) Kind() Kind  { return KindCARotate }
func (TrustStep) Kind() Kind { return KindTrustStep }
func (NodeTrust) Kind() Kind { return KindNodeTrust }

// Object implements Command, here and below.
func (c KeyRotate) Object() string { return "gossip key" }
func (c CARotate) Object() string  { return "certificate authority" }
func (c NodeTrust) Object() string { return "node " + c.Node.String() }
func (c TrustStep) Object() string {
	if c.Keys != 0 {
		return "gossip key"
	}
	return "certificate authority"
}
