package model

import "drystone.example/drystone/backend/must"

// Upper limits of the arrays in a State. A State has no pointers, so that a copy
// of it is a clone and equal states are equal values.
const (
	maxDisks   = 3
	maxPages   = 2
	maxBlocks  = 2
	maxEpochs  = 2
	maxPending = 4
	maxMsgs    = 24
	maxProps   = 3
	maxLog     = 6
	maxBatch   = 2
)

// wholePage stands for a block number: all blocks of the page.
const wholePage = 0xff

// A Gen is a generation: one holder's reign.
type Gen uint16

// A Stamp is (generation, number). A holder draws the numbers of all it sends
// from one counter.
type Stamp uint16

func at(g Gen, n uint8) Stamp { return Stamp(g)<<8 | Stamp(n) }
func (s Stamp) gen() Gen      { return Gen(s >> 8) }
func (s Stamp) number() uint8 { return uint8(s) }

// A Set is a set of disks.
type Set uint8

func one(d int) Set             { return 1 << d }
func (s Set) has(d int) bool    { return s>>d&1 != 0 }
func (s Set) without(o Set) Set { return s &^ o }

func (s Set) count() (n int) {
	for ; s != 0; s &= s - 1 {
		n++
	}
	return n
}

// first returns the lowest member of a set that is not empty.
func (s Set) first() (d int) {
	for !s.has(d) {
		d++
	}
	return d
}

// A Version is one page in one epoch on one disk. A zero Stamp means none.
type Version struct {
	Stamp Stamp
	Made  Stamp            // the message that made it, while that is above the watermark
	Val   [maxBlocks]uint8 // which guest write put the block there
	Tomb  bool             // discarded
	Bad   bool             // a block is not what its sum says
}

// empty reports whether a version holds no data: there is none, or a tombstone.
func (v Version) empty() bool { return v.Stamp == 0 || v.Tomb }

// same reports whether two disks hold the same, however each came to it.
func same(a, b Version) bool {
	a.Made, b.Made = 0, 0
	return a == b
}

// A Role is a member's state in the record.
type Role uint16

// The roles of a disk, complete.
const (
	Absent Role = iota
	Active
	Joining
	Stale
)

// A Member is a disk's part in the column.
type Member struct {
	Role   Role
	Cutoff Stamp // of one that is not active: what is at or below it is right
}

// A Record is the volume in raft.
type Record struct {
	Gen    Gen
	Rev    uint16
	Epoch  uint16
	Member [maxDisks]Member
}

// with returns the members in any of the roles.
func (r *Record) with(roles ...Role) (set Set) {
	for d, m := range r.Member {
		for _, role := range roles {
			if m.Role == role {
				set |= one(d)
			}
		}
	}
	return set
}

// A Proposal is a compare-and-swap of the record on (Gen, Rev), on its way to
// raft. A zero Gen means none. Nobody waits for a late one.
type Proposal struct {
	Gen    Gen
	Rev    uint16
	Member [maxDisks]Member
	Late   bool
}

// A MsgKind is what a message does.
type MsgKind uint8

// The kinds of messages, complete.
const (
	WriteMsg MsgKind = iota // a guest's write, or its discard of a whole page
	CopyMsg                 // makes (Page, Epoch) what V is; without V it is removed
	MarkMsg                 // only carries a watermark
)

// A Msg was sent and may arrive at any time, or never.
type Msg struct {
	To    uint8
	Kind  MsgKind
	Order Stamp
	Mark  Stamp
	Page  uint8
	Epoch uint8
	Block uint8
	Val   uint8
	Tomb  bool
	Done  bool // was applied; only messages in any order need it
	V     Version
}

// A Pending message is of the holder's open ones: not all members have it yet. A
// zero Val means that no guest waits for it.
type Pending struct {
	Number, Page, Block, Val uint8
	Wait                     Set
}

func (w Pending) overlaps(page, block uint8) bool {
	return w.Page == page && (w.Block == block || w.Block == wholePage || block == wholePage)
}

// A Phase is how far a holder has come.
type Phase uint16

// The phases, complete.
const (
	Gone      Phase = iota // crashed, released or fenced: only its messages live on
	Preparing              // has the generation, collects promises
	Rolling                // has sent the roll-forward
	Serving
)

// A Holder is the volatile state of one holder, and what it believes.
type Holder struct {
	Gen    Gen
	Phase  Phase
	Mark   Stamp  // watermark; before it serves, the highest that was told
	View   Record // the record as it last heard of it
	Answer Record // raft's answer on its way; a zero Gen means none

	Lease  bool // it may talk to the guest
	Awaits bool // a proposal is under way
	Unsure bool // the outcome of the last one is unknown

	Number   uint8 // last one drawn
	Asked    Set   // members asked for a promise since they last joined
	Prepared Set   // of those, the ones that have answered
	Pends    uint8
	Pend     [maxPending]Pending

	Owed [maxPages][maxBlocks]uint8 // completed writes the guest was not told of, by bit

	AskedAt [maxDisks]uint8           // number the promised row begins after
	Roll    [maxDisks]uint8           // number that ends the roll-forward
	Filled  [maxDisks]uint8           // pages it was made equal in, by bit
	FillAt  [maxDisks][maxPages]uint8 // first number of the copy of a page
	FillEnd [maxDisks][maxPages]uint8 // and the last
}

// busy reports whether something in flight overlaps a block.
func (h *Holder) busy(page, block uint8) bool {
	for _, w := range h.Pend[:h.Pends] {
		if w.overlaps(page, block) {
			return true
		}
	}
	return false
}

// A State is everything. H[0] holds the volume, or did last; H[1] is one that was
// overtaken and does not know it.
type State struct {
	Rec  Record
	Disk [maxDisks]Disk
	H    [2]Holder
	Prop [maxProps]Proposal
	Msg  [maxMsgs]Msg // in order of (To, Order)
	Msgs uint8

	// What is used up of the bounds.
	Writes, Drops, Joins, Marks, Crashes, Checkpoints uint8

	// Of the checker: which writes were discards, the newest write to each block
	// that was acknowledged or read, and what each snapshot held when it was cut.
	Discards uint8
	Floor    [maxPages][maxBlocks]uint8
	Gone     uint8 // deleted snapshots, by bit
	Snap     [maxEpochs][maxPages][maxBlocks]uint8
}

// send puts a message on its way.
func (s *State) send(m Msg) {
	must.That(s.Msgs < maxMsgs, "there are at most %d messages within the bounds", maxMsgs)
	i := int(s.Msgs)
	for ; i > 0 && (s.Msg[i-1].To > m.To || s.Msg[i-1].To == m.To && s.Msg[i-1].Order > m.Order); i-- {
		s.Msg[i] = s.Msg[i-1]
	}
	s.Msg[i] = m
	s.Msgs++
}

// learn raises the floor of a block: its guest knows of the write by now.
func (s *State) learn(page, block, val uint8) {
	s.Floor[page][block] = max(s.Floor[page][block], val)
}
