package model

import "time"

// Moves is how far the moving of data between disks is, as the leader sees it.
type Moves struct {
	UnderWay int               `json:"under_way"`       // members on their way
	Left     int               `json:"left"`            // that have to move, those included
	Seconds  int64             `json:"seconds"`         // that this takes at the pace so far; zero: not known
	Waits    string            `json:"waits,omitempty"` // why nothing is moved for balance where something would be
	Blocked  map[DiskID]string `json:"blocked,omitempty"`
}

// A Leading is what the leader alone knows, for the other nodes to show.
type Leading struct {
	Moves  Moves   `json:"moves"`
	Alarms []Alarm `json:"alarms,omitempty"`

	// Stuck is why machines that are to be moved off a node in maintenance, or back to
	// the one a drain took them from, are not.
	Stuck map[VMID]string `json:"stuck,omitempty"`
}

// An Alarm is something that an operator should know, for as long as it is so.
type Alarm struct {
	Code     string    `json:"code"`
	Severity Severity  `json:"severity"`
	Object   string    `json:"object"` // "pool", or "disk 0123456789abc"
	Text     string    `json:"text"`
	Since    time.Time `json:"since"` // as the present leader has seen it
}

// A Severity is how bad something is.
type Severity string

// The severities, complete.
const (
	Warning  Severity = "warning"
	Serious  Severity = "serious"
	Critical Severity = "critical"
)

// How full the pool or a disk is, in percent, when an operator is told. From FullNoNew
// on new volumes, clones, images and snapshots are refused; a volume can be forced. A
// disk at FullCritical takes no new data of guests; writes of it wait for room.
const (
	FullWarning  = 75
	FullNoNew    = 85
	FullCritical = 92
)
