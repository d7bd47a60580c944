package disk

import (
	"drystone.example/drystone/backend/block/layout"
	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
)

// A Kind is what an Op does. Values are on the wire and in the journal.
type Kind uint8

// The kinds, complete; appended, never renumbered.
const (
	// Write puts Count blocks at Block into the present epoch. Every page it
	// touches gets the stamp (Generation, Number). A page that has no version in
	// this epoch begins as a copy of the newest older one.
	Write Kind = 1
	// Discard makes Count blocks at Block absent, so that they read as zeros.
	// It touches only pages that have a version; one that loses its last block
	// stays as a tombstone.
	Discard Kind = 2
	// Copy replaces the version of Page in Epoch by Version and Data, or makes
	// it, with the stamp it has. It never goes to the place of the version it
	// replaces, so it also repairs a damaged one; it goes to a fresh place, or to that
	// of a relative's version with the same content (SetFamilies).
	Copy Kind = 3
	// Remove takes the version of Page in Epoch away, if there is one.
	Remove Kind = 4
	// Mark only carries a watermark.
	Mark Kind = 5
)

// An Op is one numbered message from the holder of a volume to one disk. All
// messages of one holder to one disk for one volume are one row: numbers rise,
// and each names the one before it. The disk applies the row in order, each
// number once: a number at or below the last one applied is answered and not
// applied; a Prev that is not the last one applied is refused with ErrGap; a
// Generation that is not the one promised is refused with model.Fenced. All
// three are judged when the op is applied, not when it is received.
type Op struct {
	Kind       Kind
	Volume     model.VolumeID
	Generation model.Generation
	Number     uint64
	Prev       uint64
	Watermark  model.Stamp // all writes up to here were acknowledged

	Column uint32
	Epoch  model.Epoch

	// Of a Write or Discard: blocks in the column's address space.
	Block layout.Block
	Count uint64

	// Of a Copy or Remove: one page's version. Sums and Data are in the order of
	// the set bits of Version.Mask.
	Page    uint32
	Version Version
	// Lost are blocks of a Copy that no disk has whole any more: their sums are those
	// of the version, their data is anything. The disk keeps them as damaged, so that
	// reads of them fail here too.
	Lost uint16

	// Sums are the CRC32C of each block of Data. The disk checks them before it
	// journals anything and refuses with model.Corrupt.
	Sums []uint32
	Data *iobuf.Buffer // nil where there is none; Count (or popcount(Mask)) blocks
	// DataOff is where this op's blocks begin in Data.Bytes, in bytes, a multiple
	// of model.BlockSize: one guest write is cut into ops without copying.
	DataOff int
}

// A Version is what a disk holds of one page in one epoch.
type Version struct {
	Page  uint32
	Epoch model.Epoch
	Stamp model.Stamp
	Mask  uint16                      // blocks that are present; the others read as zeros; 0: a tombstone
	Sums  [model.BlocksPerPage]uint32 // CRC32C of each present block; zero where absent
}

// Equal reports whether two versions have the same stamp, blocks and sums.
func (v Version) Equal(o Version) bool { return v == o }

// A Prepare asks for a promise: to refuse every other generation of the volume,
// for ever, and to begin a row after number Last.
type Prepare struct {
	Volume     model.VolumeID
	Generation model.Generation
	Last       uint64 // the row begins after it; never lowers what the disk has in this generation
	// Origin is what a clone begins as; nil: as nothing. It counts in the first
	// promise of the volume only, and is model.Conflict if its volume was never
	// promised here.
	Origin *Origin
}

// An Origin says of which volume another one is a clone. Each of Columns begins as
// what the disk has of the same column of Volume as of Epoch, in the same places.
// From the promise on the clone has it, whatever becomes of Volume: see origin.go.
type Origin struct {
	Volume  model.VolumeID
	Epoch   model.Epoch
	Columns []uint32
}

// A Promise is durable before it is given.
type Promise struct {
	Watermark model.Stamp // the highest this disk has heard for the volume
	// Uncertain lists every version (any column of the volume on this disk, any
	// epoch) that an op above the watermark made, copies and removals included
	// (a removed one has a zero stamp).
	Uncertain []ColumnVersion
}

// A ColumnVersion is a version and the column it lies in.
type ColumnVersion struct {
	Column uint32
	Version
}

// A Read asks for Count blocks of one column, as of Epoch: of each page the
// newest version at or below it. Generation must be the one promised.
type Read struct {
	Volume     model.VolumeID
	Generation model.Generation
	Column     uint32
	Block      layout.Block
	Count      int
	Epoch      model.Epoch
}

// A List asks for the versions a disk holds of a column, all epochs, in order
// of (page, epoch), from page From on, about Max of them but always whole pages.
type List struct {
	Volume     model.VolumeID
	Generation model.Generation
	Column     uint32
	From       uint32
	To         uint32 // exclusive; 0: to the end
	Max        int
}

// A Listing answers a List. Next is the page to go on from; Done says there is
// none.
type Listing struct {
	Versions []Version
	Next     uint32
	Done     bool
}

// A Held names a column of a volume of which a disk has versions, and how often
// the disk has promised for that volume: Drop names that count so that it cannot
// take away what a later promise began.
type Held struct {
	Volume   model.VolumeID
	Column   uint32
	Promises uint64
	Bytes    model.Bytes // of the pages it has of it in the raw area, all epochs
}
