package disk

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"math"
)

// A Digest stands for the versions of a stretch of pages of a column: page, epoch,
// stamp, blocks and sums of each, in order. It says nothing about whether the data
// still matches its sums: nothing of it is read.
type Digest struct {
	Sum      [sha256.Size]byte
	Versions int
}

// Digest makes the digest of the pages [l.From, l.To). Two disks with the same digest
// had the same versions there, each at some moment while it was asked. What is written
// meanwhile is in it or not.
func (d *Disk) Digest(ctx context.Context, l List) (out Digest, err error) {
	h := sha256.New()
	to := l.To
	l.Max = scrubChunk
	var b [versionHeader + 8 + 4*len(Version{}.Sums)]byte
	le := binary.LittleEndian
	for {
		found, err := d.List(ctx, l)
		if err != nil {
			return Digest{}, err
		}
		for i := range found.Versions {
			v := &found.Versions[i]
			le.PutUint32(b[0:], v.Page)
			le.PutUint32(b[4:], uint32(v.Epoch))
			putStamp(b[8:], v.Stamp)
			le.PutUint16(b[24:], v.Mask)
			for s, sum := range v.Sums {
				le.PutUint32(b[32+4*s:], sum)
			}
			h.Write(b[:])
		}
		out.Versions += len(found.Versions)
		if found.Done || l.From == math.MaxUint32 || to != 0 && found.Next >= to {
			break
		}
		l.From = found.Next
	}
	h.Sum(out.Sum[:0])
	return out, nil
}
