package model

import "time"

// A Cluster is the record's first row; there is exactly one.
type Cluster struct {
	ID      ClusterID `json:"id"`
	Name    string    `json:"name"`
	CA      string    `json:"ca"` // certificate of the root that signs, PEM
	Created time.Time `json:"created"`

	Succession Succession `json:"succession,omitzero"` // of the root
	Keyring    Keyring    `json:"keyring,omitzero"`    // gossip's

	Settings Settings `json:"settings,omitzero"`

	// CAKey is the root's private key, sealed; it is of no use without the key
	// file of a voter. GossipKeys are serf's: the first encrypts, all decrypt. None
	// leaves the nodes.
	CAKey      Secret   `json:"-"`
	GossipKeys []Secret `json:"-"`
}

// A Succession is what came before the root that signs.
type Succession struct {
	Epoch    uint64    `json:"epoch"`            // counts roots
	Former   string    `json:"former,omitempty"` // PEM, trusted until every member has certificates by the new one
	Heritage string    `json:"heritage"`         // PEM, by which who knows an older root finds this one
	Since    time.Time `json:"since"`            // when this root took over
}

// Rotating reports whether the root before is still trusted.
func (s Succession) Rotating() bool { return s.Former != "" }

// A Keyring is how far the change of the gossip key is. Each of its steps makes other
// keys, and the next comes when every member has said that it has them.
type Keyring struct {
	Step  uint64    `json:"step"` // counts
	Phase KeyPhase  `json:"phase,omitempty"`
	Since time.Time `json:"since"`         // of the step
	Due   bool      `json:"due,omitempty"` // to be replaced: a node was removed that knows the key, or the root was replaced
}

// A KeyPhase is what is being done to the gossip key.
type KeyPhase string

// The phases, complete and in order.
const (
	KeySettled KeyPhase = ""       // there is one key
	KeyAdding  KeyPhase = "adding" // the new one is understood, the old one is used
	KeyUsing   KeyPhase = "using"  // the new one is used, the old one is understood
)

// Trust is what a node says it has: the gossip keys of a step, and certificates by the
// root of an epoch, which it trusts.
type Trust struct {
	Keys  uint64 `json:"keys,omitempty"`
	Epoch uint64 `json:"epoch,omitempty"`
}

// Settings are what a cluster can be told about itself. The zero value is how a
// cluster begins.
type Settings struct {
	BalanceOff bool `json:"balance_off,omitempty"` // nothing moves only to make the disks or the nodes more even

	// RebuildAfter is how many seconds a node may be away before what it had is
	// rebuilt elsewhere; zero: DefaultRebuildAfter.
	RebuildAfter int64 `json:"rebuild_after,omitempty"`
}

// The bounds of RebuildAfter, and what it is unless told otherwise. A node needs some
// time to start again.
const (
	DefaultRebuildAfter = 10 * time.Minute
	MinRebuildAfter     = 5 * time.Second
	MaxRebuildAfter     = 7 * 24 * time.Hour
)

// Patience is how long a node may be away before what it had is rebuilt elsewhere.
func (s Settings) Patience() time.Duration {
	if s.RebuildAfter == 0 {
		return DefaultRebuildAfter
	}
	return time.Duration(s.RebuildAfter) * time.Second
}

// MaintenancePatience is how long at least a node in maintenance may be away before what
// it had is rebuilt elsewhere: somebody works on it and means to bring it back.
const MaintenancePatience = 4 * time.Hour

// PatienceFor is Patience for a node.
func (s Settings) PatienceFor(n Node) time.Duration {
	if n.InMaintenance() {
		return max(s.Patience(), MaintenancePatience)
	}
	return s.Patience()
}

// An AuditRow is one line of the cluster's log of changes. Rows are chained:
// Hash covers the row and the hash of the row before it.
type AuditRow struct {
	Index  uint64    `json:"index"` // of the raft entry that made the change
	Time   time.Time `json:"time"`
	Actor  Actor     `json:"actor"`
	Verb   string    `json:"verb"`
	Object string    `json:"object"` // "volume 01abc... data", never a secret
	Result string    `json:"result"` // "ok", or the code and sentence of the refusal
	Hash   string    `json:"hash"`   // SHA-256, hex
}
