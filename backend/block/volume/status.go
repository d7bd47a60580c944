package volume

import (
	"time"

	"drystone.example/drystone/backend/model"
)

// A Status is what a holder knows about its volume, for people.
type Status struct {
	Generation model.Generation
	Revision   model.Revision
	Serving    bool
	Reason     string // why requests wait or fail; empty when they do not
	Columns    []ColumnStatus
	Fill       Fill // of all joining members together
}

// A ColumnStatus is one column as the holder sees it.
type ColumnStatus struct {
	Members []MemberStatus
}

// A MemberStatus is one member of a column.
type MemberStatus struct {
	Disk   model.DiskID
	State  model.MemberState
	Silent bool // it is overdue, refuses, or its connection is broken
	Fill   Fill // of a joining member
}

// A Fill is how far filling is, in bytes of address space.
type Fill struct {
	Done  model.Bytes
	Total model.Bytes
}

// Stats are cumulative since Open.
type Stats struct {
	Reads, Writes         Traffic
	Discards              Traffic
	Repaired              uint64 // versions rewritten because their sums did not match
	Copied                model.Bytes
	Dropped, Joined, Full uint64 // members dropped, members made active, requests held for want of room
}

// A Traffic counts requests answered.
type Traffic struct {
	Ops     uint64
	Bytes   uint64
	Latency time.Duration // sum over all requests
}

// A Run is a stretch of a volume that is alike.
type Run struct {
	Length model.Bytes
	Zero   bool // nothing is stored there; it reads as zeros
}
