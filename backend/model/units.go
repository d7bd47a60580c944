package model

// Bytes counts bytes; every size in the API is in this unit.
type Bytes int64

// The units of the block engine, fixed by the formats (docs/FORMATS.md).
const (
	SectorSize Bytes = 512      // the smallest thing a guest can write
	BlockSize  Bytes = 4 << 10  // what has a checksum of its own
	PageSize   Bytes = 64 << 10 // what has a place of its own on a disk
	StripeUnit Bytes = 1 << 20  // what stays together on one column

	BlocksPerPage = int(PageSize / BlockSize)
)

// A Generation counts the reigns of holders over one volume. A disk that has
// promised generation g refuses every message of another one; that refusal, not
// a lock, is what keeps two holders from writing one volume.
type Generation uint64

// An Epoch counts the snapshots cut of one volume.
type Epoch uint32

// A Revision counts the changes to a volume's record.
type Revision uint64

// A Stamp orders everything the holders of one volume ever sent: by generation,
// then by the number drawn within it. The zero Stamp is before all of them.
type Stamp struct {
	Generation Generation `json:"generation"`
	Number     uint64     `json:"number"`
}

// Compare is negative, zero or positive as s is before, at or after t.
func (s Stamp) Compare(t Stamp) int {
	switch {
	case s.Generation < t.Generation, s.Generation == t.Generation && s.Number < t.Number:
		return -1
	case s == t:
		return 0
	default:
		return 1
	}
}

// After reports whether s is after t.
func (s Stamp) After(t Stamp) bool { return s.Compare(t) > 0 }

// IsZero reports whether s is before every stamp drawn.
func (s Stamp) IsZero() bool { return s == Stamp{} }
