package model

import (
	"slices"
	"time"
)

// An Affinity says where a machine would rather run, and beside which it would not.
type Affinity struct {
	Prefer NodeID `json:"prefer,omitzero"`
	Backup NodeID `json:"backup,omitzero"`  // where Prefer cannot be
	Strict bool   `json:"strict,omitempty"` // runs on these two only

	// Apart names groups of machines of which no two run on one node while another can
	// take one of them. In order, none twice.
	Apart []string `json:"apart,omitempty"`
}

// MaxApart is in how many groups a machine is at most.
const MaxApart = 8

// Allows reports whether a machine may run on a node at all.
func (a Affinity) Allows(node NodeID) bool {
	return !a.Strict || node != 0 && (node == a.Prefer || node == a.Backup)
}

// Rank orders nodes by the machine's wish: the lower is wished for more.
func (a Affinity) Rank(node NodeID) int {
	switch node {
	case a.Prefer:
		return 0
	case a.Backup:
		return 1
	}
	return 2
}

// Validate says what is wrong with an affinity, or nil.
func (a Affinity) Validate() error {
	switch {
	case a.Strict && a.Prefer == 0 && a.Backup == 0:
		return Errorf(Invalid, "a vm that is strict about its nodes needs a preferred or a backup node")
	case a.Prefer != 0 && a.Prefer == a.Backup:
		return Errorf(Invalid, "the preferred and the backup node of a vm are the same")
	case len(a.Apart) > MaxApart:
		return Errorf(Invalid, "a vm is in at most %d groups that are kept apart, not %d", MaxApart, len(a.Apart))
	}
	for i, g := range a.Apart {
		if err := ValidateName("group", g); err != nil {
			return err
		}
		if slices.Contains(a.Apart[:i], g) {
			return Errorf(Invalid, "the group %q is given twice", g)
		}
	}
	return nil
}

// A MoveReason says why a machine is moved while it runs.
type MoveReason string

// The reasons, complete.
const (
	MoveAsked   MoveReason = "" // somebody asks for it
	MoveDrain   MoveReason = "drain"
	MoveReturn  MoveReason = "return" // to where a drain took it from
	MoveBalance MoveReason = "balance"
)

// A Moved is the last time that a machine was moved while it ran.
type Moved struct {
	At  time.Time  `json:"at,omitzero"`
	For MoveReason `json:"for,omitempty"`
}
