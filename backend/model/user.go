package model

import (
	"log/slog"
	"time"
)

// A Role bounds what a user may do; each includes the ones before it.
type Role string

// The roles, complete, from least to most.
const (
	Viewer   Role = "viewer"   // sees everything, changes nothing
	Operator Role = "operator" // machines: start, stop, console
	Admin    Role = "admin"    // storage, machines, nodes
	Owner    Role = "owner"    // users, certificates, recovery
)

// Includes reports whether r may do all that least may. A role that is not one
// of the roles above includes nothing and is included in nothing.
func (r Role) Includes(least Role) bool {
	return r.rank() >= least.rank() && least.rank() > 0
}

func (r Role) rank() int {
	switch r {
	case Viewer:
		return 1
	case Operator:
		return 2
	case Admin:
		return 3
	case Owner:
		return 4
	}
	return 0
}

// A User is somebody who logs in.
type User struct {
	ID           UserID    `json:"id"`
	Name         string    `json:"name"`
	Role         Role      `json:"role"`
	PasswordHash Secret    `json:"-"` // PHC string of argon2id
	Created      time.Time `json:"created"`
}

// A Session is one log-in. Only the digest of its token is kept.
type Session struct {
	TokenHash string    `json:"token_hash"` // SHA-256 of the token, hex
	User      UserID    `json:"user"`
	Created   time.Time `json:"created"`
	Expires   time.Time `json:"expires"`
	Address   string    `json:"address"`
}

// A JoinToken lets nodes join. Only the digest of its secret is kept.
type JoinToken struct {
	ID         string    `json:"id"`          // 8 characters of base32
	SecretHash string    `json:"secret_hash"` // SHA-256, hex
	Name       string    `json:"name,omitempty"`
	Uses       int       `json:"uses"` // left
	Expires    time.Time `json:"expires"`
	Created    time.Time `json:"created"`
}

// An Actor is who asked for a change; it travels in the command and is written
// into the audit row. Where UserID is set, the record refuses the change if that
// user is gone or has less than Role by the time it is applied.
type Actor struct {
	User    string `json:"user"` // name; "system" for the cluster's own loops
	UserID  UserID `json:"user_id,omitzero"`
	Role    Role   `json:"role,omitempty"`
	Address string `json:"address,omitempty"`
	Request string `json:"request,omitempty"` // the request's identifier
}

// System is the actor of the cluster's own loops.
var System = Actor{User: "system"}

// A Secret is text that prints as [redacted] wherever it could leak. It cannot
// be compared with ==; call Reveal where it is really needed.
type Secret struct {
	_    [0]func()
	text string
}

// NewSecret wraps text.
func NewSecret(text string) Secret { return Secret{text: text} }

// Reveal returns the text.
func (s Secret) Reveal() string { return s.text }

const redacted = "[redacted]"

func (Secret) String() string               { return redacted }
func (Secret) GoString() string             { return redacted }
func (Secret) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
