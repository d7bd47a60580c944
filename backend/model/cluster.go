package model

import "time"

// A Cluster is the record's first row; there is exactly one.
type Cluster struct {
	ID      ClusterID `json:"id"`
	Name    string    `json:"name"`
	CA      string    `json:"ca"` // certificate of the root, PEM
	Created time.Time `json:"created"`

	Settings Settings `json:"settings,omitzero"`

	// CAKey is the root's private key, sealed; it is of no use without the key
	// file of a voter. GossipKey is serf's. Neither leaves the nodes.
	CAKey     Secret `json:"-"`
	GossipKey Secret `json:"-"`
}

// Settings are what a cluster can be told about itself. The zero value is how a
// cluster begins.
type Settings struct {
	BalanceOff bool `json:"balance_off,omitempty"` // nothing moves only to make the disks more even

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
