package model

import "time"

// A Node is a member of the cluster.
type Node struct {
	ID      NodeID    `json:"id"`
	Name    string    `json:"name"`
	Address string    `json:"address"` // host or IP, without a port; ports are the same everywhere
	API     string    `json:"api"`     // URL of its web page and API
	Serial  string    `json:"serial"`  // of its present certificate, hex
	Version string    `json:"version"` // of the daemon it last said it runs
	Voter   bool      `json:"voter"`   // takes part in raft's quorum
	Joined  time.Time `json:"joined"`
	Trust   Trust     `json:"trust,omitzero"` // as it said last

	// Maintenance is since when it is drained: no machine is placed on it, and those that
	// run there are moved away. Zero: it runs machines.
	Maintenance time.Time `json:"maintenance,omitzero"`
}

// InMaintenance reports whether the node is drained or to be.
func (n Node) InMaintenance() bool { return !n.Maintenance.IsZero() }

// A DiskState says whether a disk may be used.
type DiskState string

// The states of a disk, complete.
const (
	DiskOnline  DiskState = "online"
	DiskFailed  DiskState = "failed"  // a write or sync failed; it stays out until replaced
	DiskOffline DiskState = "offline" // its node is away, or it was not found there
)

// A Disk is one member of the pool.
type Disk struct {
	ID    DiskID    `json:"id"`
	Node  NodeID    `json:"node"`
	Path  string    `json:"path"` // where its node found it last
	State DiskState `json:"state"`
	Size  Bytes     `json:"size_bytes"` // of its raw area
	Error string    `json:"error,omitempty"`
	Added time.Time `json:"added"`
	Drain Drain     `json:"drain,omitzero"`

	// Forgiven is how many of its blocks had been found damaged when an operator said that
	// it stays all the same.
	Forgiven uint64 `json:"forgiven,omitempty"`

	// Claims counts how often a node has claimed the disk: each does before it opens it.
	// Journal is where the disk's journal began then, which only grows: what claims to
	// be this disk and has a lower one is an older image of it.
	Claims  uint64 `json:"claims,omitempty"`
	Journal uint64 `json:"journal,omitempty"`
	Twin    Twin   `json:"twin,omitzero"`

	Absent time.Time `json:"absent,omitzero"` // since when its node has not got it
}

// Lost reports whether what the disk had shall be rebuilt elsewhere, as far as its own
// state goes: it has failed, or its node has not had it for longer than patience, in
// which it may be on its way into another.
func (d Disk) Lost(now time.Time, patience time.Duration) bool {
	return d.State == DiskFailed || d.State == DiskOffline && now.Sub(d.Absent) >= patience
}

// A Twin is a file or device with the superblock of a disk that its node has open
// elsewhere: one of the two is an image of the other.
type Twin struct {
	Node NodeID `json:"node"` // that found it; zero: there is none
	Path string `json:"path"`
}

// A Drain is the wish that a disk leaves the pool: nothing new is put on it, what is
// on it moves elsewhere, and it is taken out when it is empty. One that the leader
// retired stays listed then, until an operator has seen it.
type Drain struct {
	Since   time.Time `json:"since,omitzero"` // zero: the disk stays
	Columns int       `json:"columns"`        // how many it had a part in then

	// Errors is how many of its blocks had been found damaged, for which the leader retired
	// it; zero: an operator wishes it.
	Errors uint64 `json:"errors,omitempty"`
}

// Draining reports whether the disk shall leave the pool.
func (d Disk) Draining() bool { return !d.Drain.Since.IsZero() }

// Retired reports whether that is because too much of it was found damaged.
func (d Disk) Retired() bool { return d.Draining() && d.Drain.Errors > 0 }

// RetireErrors is for how many blocks found damaged a disk is retired (docs/ARCHITECTURE.md).
const RetireErrors = 100

// Bad reports whether so many blocks of it were found damaged, that an operator has not
// forgiven, that it should be retired.
func (d Disk) Bad(errors uint64) bool { return errors >= d.Forgiven+RetireErrors }

// An Ailment is what the nodes report of a disk that may be going bad.
type Ailment struct {
	Errors uint64 // blocks found damaged, since it was made
	Slow   Slowness
}

// A Slowness is how slow a disk is beside the others, as the holders of volumes see it.
type Slowness struct {
	Volumes int           // that find it slow, or did within the last hour
	Took    time.Duration // at least, for one request in a hundred
	Times   int           // that a volume left it out within the last hour, at most
	Until   time.Time     // the latest time until which one leaves it out; zero: none does
}

// A DiskUsage is what a node reports of one disk, each second.
type DiskUsage struct {
	Disk           DiskID `json:"disk"`
	Size           Bytes  `json:"size_bytes"`
	Used           Bytes  `json:"used_bytes"`
	ChecksumErrors uint64 `json:"checksum_errors"`
	Repaired       uint64 `json:"repaired"`
	Damaged        int    `json:"damaged"` // versions of pages that are known to be damaged now

	// Scrubbed is when all of its data was verified last; zero: never. Scrub is the
	// pass that began after that, if any.
	Scrubbed time.Time `json:"scrubbed,omitzero"`
	Scrub    Scrub     `json:"scrub,omitzero"`

	Map MapCache `json:"map"`

	Hardware Hardware `json:"hardware,omitzero"` // of one that is a block device
}

// Hardware is what a block device says of itself.
type Hardware struct {
	Model  string `json:"model,omitempty"`
	Serial string `json:"serial,omitempty"`
	Health Health `json:"health"`
}

// Health is whether a device thinks that it is about to fail (SMART).
type Health string

// The states of health, complete.
const (
	HealthGood    Health = "good"
	HealthFailing Health = "failing"
	HealthUnknown Health = "unknown" // it does not say, or could not be asked
)

// A MapCache is the part of a disk's page map that is in memory, and how often a page
// that was looked for was there, since the disk was opened.
type MapCache struct {
	Memory Bytes  `json:"memory_bytes"`
	Limit  Bytes  `json:"limit_bytes"` // it goes beyond it only for what a checkpoint has still to write
	Hits   uint64 `json:"hits"`
	Misses uint64 `json:"misses"`
}

// A Damage is a version of a page of which a disk has blocks that do not match their
// sums.
type Damage struct {
	Disk    DiskID   `json:"d"`
	Volume  VolumeID `json:"v"`
	Column  uint32   `json:"c"`
	Page    uint32   `json:"p"`
	Epoch   Epoch    `json:"e"`
	Blocks  uint16   `json:"b"`           // a mask
	Covered bool     `json:"o,omitempty"` // the page has a newer version: only snapshots show this one
}

// A Scrub is a pass over a disk that verifies its data, as far as it has come. One
// that does not run goes on where it was interrupted.
type Scrub struct {
	Began   time.Time `json:"began"`
	Done    Bytes     `json:"done_bytes"`
	Total   Bytes     `json:"total_bytes"`
	Running bool      `json:"running"`
}
