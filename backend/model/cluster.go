package model

import "time"

// A Cluster is the record's first row; there is exactly one.
type Cluster struct {
	ID      ClusterID `json:"id"`
	Name    string    `json:"name"`
	CA      string    `json:"ca"` // certificate of the root, PEM
	Created time.Time `json:"created"`

	// CAKey is the root's private key, sealed; it is of no use without the key
	// file of a voter. GossipKey is serf's. Neither leaves the nodes.
	CAKey     Secret `json:"-"`
	GossipKey Secret `json:"-"`
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
