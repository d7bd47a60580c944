package command

import (
	"time"

	"drystone.example/drystone/backend/model"
)

// ClusterCreate is the first command of every log: it makes the cluster, its
// first node and its owner. Returns the model.Cluster.
type ClusterCreate struct {
	ID        model.ClusterID `json:"id"`
	Name      string          `json:"name"`
	CA        string          `json:"ca"`         // certificate, PEM
	CAKey     Secret          `json:"ca_key"`     // sealed
	GossipKey Secret          `json:"gossip_key"` // base64
	Node      model.Node      `json:"node"`       // the first; becomes a voter
	Owner     UserCreate      `json:"owner"`
}

// TokenCreate lets nodes join. Returns the model.JoinToken.
type TokenCreate struct {
	Token model.JoinToken `json:"token"` // Created is set from the envelope
}

// TokenRedeem uses a token up and makes the joiner a node. It is refused with
// model.Unknown if there is no such token or the secret is another one, with
// model.Denied if it has been used or has run out. Who redeemed before with the
// same key gets the same node again, whatever else the command says. Returns the
// model.Node, with the identifier that counts.
type TokenRedeem struct {
	Token      string     `json:"token"`       // its identifier
	SecretHash string     `json:"secret_hash"` // SHA-256 of the secret shown, hex
	KeyHash    string     `json:"key_hash"`    // SHA-256 of the public key of the CSR, hex
	Node       model.Node `json:"node"`        // Voter and Joined are not the joiner's to say
}

// TokenDelete takes a token back; one that is not there is no error.
type TokenDelete struct {
	ID string `json:"id"`
}

// NodeUpdate changes what is not empty. Returns the model.Node.
type NodeUpdate struct {
	Node    model.NodeID `json:"node"`
	Address string       `json:"address,omitempty"`
	API     string       `json:"api,omitempty"`
	Version string       `json:"version,omitempty"`
	Serial  string       `json:"serial,omitempty"`
}

// NodeVoter notes that a node takes part in raft's quorum, or no longer does;
// raft itself is told apart from this. Returns the model.Node.
type NodeVoter struct {
	Node  model.NodeID `json:"node"`
	Voter bool         `json:"voter"`
}

// NodeRemove takes a node and its disks out for ever. It is refused while a
// column has a member on one of its disks, while it holds a volume, and while a
// machine is placed on it. A node that is Lost leaves in spite of these, provided
// that every column it has a part in has another active member: its members are
// dropped, its volumes are held by nobody, its machines are placed nowhere. The
// leader proposes that only after the node's lease has run out. Returns the
// model.Node as it was.
type NodeRemove struct {
	Node model.NodeID `json:"node"`
	Lost bool         `json:"lost,omitempty"`
}

// NodeDrain wishes that no machine runs on a node, or with Cancel that they may again.
// From then on no machine is placed there; the leader moves away those that run there,
// and after Cancel back. Returns the model.Node.
type NodeDrain struct {
	Node   model.NodeID `json:"node"`
	Cancel bool         `json:"cancel,omitempty"`
}

// DiskAdd makes a formatted disk part of the pool. Returns the model.Disk.
type DiskAdd struct {
	Disk model.Disk `json:"disk"` // State and Added are set by the record
}

// DiskUpdate is a node's word about its disk: Path, Size and Error replace what
// was known, an empty State, Path or Size leaves it. A failed disk stays failed.
// Returns the model.Disk.
type DiskUpdate struct {
	Disk  model.DiskID    `json:"disk"`
	State model.DiskState `json:"state,omitempty"`
	Path  string          `json:"path,omitempty"`
	Size  model.Bytes     `json:"size,omitempty"`
	Error string          `json:"error,omitempty"`
}

// UserCreate makes somebody who can log in. Returns the model.User.
type UserCreate struct {
	ID           model.UserID `json:"id"`
	Name         string       `json:"name"`
	Role         model.Role   `json:"role"`
	PasswordHash Secret       `json:"password_hash"`
}

// UserPassword replaces a password and ends the user's sessions, but for the one
// it was asked from. Returns the model.User.
type UserPassword struct {
	User         model.UserID `json:"user"`
	PasswordHash Secret       `json:"password_hash"`
	Keep         string       `json:"keep,omitempty"` // TokenHash of the session that stays
}

// UserDelete ends a user and the user's sessions. The last owner stays. Returns
// the model.User as it was.
type UserDelete struct {
	User model.UserID `json:"user"`
}

// SessionCreate is a log-in. A user has at most MaxSessions; the one that would
// run out first makes room. Returns the model.Session.
type SessionCreate struct {
	TokenHash string       `json:"token_hash"` // SHA-256, hex
	User      model.UserID `json:"user"`
	Expires   time.Time    `json:"expires"`
	Address   string       `json:"address"`
}

// MaxSessions is the most sessions a user has.
const MaxSessions = 64

// SessionDelete is a log-out; a session that is not there is no error.
type SessionDelete struct {
	TokenHash string `json:"token_hash"`
}

// SessionsPrune removes the sessions and join tokens that have run out. Returns
// how many, an int.
type SessionsPrune struct{}

// Kind implements Command, here and below.
func (ClusterCreate) Kind() Kind { return KindClusterCreate }
func (TokenCreate) Kind() Kind   { return KindTokenCreate }
func (TokenRedeem) Kind() Kind   { return KindTokenRedeem }
func (TokenDelete) Kind() Kind   { return KindTokenDelete }
func (NodeUpdate) Kind() Kind    { return KindNodeUpdate }
func (NodeVoter) Kind() Kind     { return KindNodeVoter }
func (NodeRemove) Kind() Kind    { return KindNodeRemove }
func (NodeDrain) Kind() Kind     { return KindNodeDrain }
func (DiskAdd) Kind() Kind       { return KindDiskAdd }
func (DiskUpdate) Kind() Kind    { return KindDiskUpdate }
func (UserCreate) Kind() Kind    { return KindUserCreate }
func (UserPassword) Kind() Kind  { return KindUserPassword }
func (UserDelete) Kind() Kind    { return KindUserDelete }
func (SessionCreate) Kind() Kind { return KindSessionCreate }
func (SessionDelete) Kind() Kind { return KindSessionDelete }
func (SessionsPrune) Kind() Kind { return KindSessionsPrune }

// Object implements Command, here and below.
func (c ClusterCreate) Object() string { return "cluster " + c.ID.String() }
func (c TokenCreate) Object() string   { return "token " + c.Token.ID }
func (c TokenRedeem) Object() string   { return "token " + c.Token }
func (c TokenDelete) Object() string   { return "token " + c.ID }
func (c NodeUpdate) Object() string    { return "node " + c.Node.String() }
func (c NodeVoter) Object() string     { return "node " + c.Node.String() }
func (c NodeRemove) Object() string    { return "node " + c.Node.String() }
func (c NodeDrain) Object() string     { return "node " + c.Node.String() }
func (c DiskAdd) Object() string       { return "disk " + c.Disk.ID.String() }
func (c DiskUpdate) Object() string    { return "disk " + c.Disk.String() }
func (c UserCreate) Object() string    { return "user " + c.ID.String() }
func (c UserPassword) Object() string  { return "user " + c.User.String() }
func (c UserDelete) Object() string    { return "user " + c.User.String() }
func (c SessionCreate) Object() string { return "user " + c.User.String() }
func (c SessionDelete) Object() string { return "session" }
func (c SessionsPrune) Object() string { return "sessions" }
