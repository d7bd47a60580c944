package disk

import (
	"fmt"

	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/uring"
)

// A journal is the ring of batches. Each is written only when the one before it
// is durable, so that at most the last one can be torn.
type journal struct {
	start int64 // of the ring, in the area
	size  int64
	salt  uint64

	head position // where the next batch goes
	tail position // the first one that the map does not have
}

func newJournal(s *superblock) *journal {
	return &journal{
		start: int64(journalStart), size: int64(s.journal), salt: s.salt, head: s.tail, tail: s.tail,
	}
}

// after returns the position behind a batch of n bytes at p. A batch is never cut
// in two: where the largest would not fit before the end of the ring, the next
// one goes to its beginning.
func (j *journal) after(p position, n int) position {
	p.lsn++
	if p.offset += int64(n); j.size-p.offset < int64(maxBatch) {
		p.offset = 0
	}
	return p
}

// used returns how much of the ring is taken, with what was left over at its end.
func (j *journal) used() int64 {
	if j.head.lsn == j.tail.lsn {
		return 0
	}
	return (j.head.offset - j.tail.offset + j.size) % j.size
}

// room reports whether the largest batch still fits: after it the head must not
// have reached the tail.
func (j *journal) room() bool { return j.size-j.used() > 2*int64(maxBatch) }

// full reports whether it is time for a checkpoint.
func (j *journal) full() bool { return j.used() > j.size/2 }

// replay calls f with each batch from the tail on, in order, and sets the head
// behind the last one.
func (j *journal) replay(area Area, f func(p position, records []record, payload int64)) error {
	r := ringReader{area: area, j: j, buf: iobuf.Aligned(4 * maxBatch)}
	end, err := j.walk(&r, f)
	if err != nil {
		return err
	}
	j.head = end
	return j.checkTorn(&r, end)
}

// walk calls f with each batch from the tail on, in order, and returns what is behind
// the last one. payload is where the batch's payload lies in the area;
// records are f's only until it returns.
func (j *journal) walk(r *ringReader, f func(p position, records []record, payload int64),
) (end position, err error) {
	var records []record
	for at := j.tail; ; {
		b, err := r.batch(at.offset)
		if err != nil {
			return at, err
		}
		h, rs, _, err := decodeBatch(b, j.salt, records[:0])
		if err != nil || h.lsn != at.lsn {
			return at, nil //nolint:nilerr // it is no batch: the end
		}
		records = rs
		f(at, rs, j.start+at.offset+int64(h.headers*blockSize))
		at = j.after(at, (h.headers+h.payload)*blockSize)
	}
}

// checkTorn decides what a bad batch is. A batch is begun only when the one before
// it is durable: if a later one is anywhere in the ring, this one was whole once.
func (j *journal) checkTorn(r *ringReader, bad position) error {
	for off := int64(0); off < j.size; off += int64(blockSize) {
		b, err := r.block(off)
		if err != nil {
			return err
		}
		h, err := decodeHeader(b)
		if err != nil || h.salt != j.salt || h.lsn <= bad.lsn || off+int64(h.headers*blockSize) > j.size {
			continue
		}
		if b, err = r.bytes(off, h.headers*blockSize); err != nil {
			return err
		}
		if goodHeader(b, h) {
			return model.Errorf(model.Corrupt,
				"batch %d of the journal is damaged, and batch %d after it is not: writes are lost",
				bad.lsn, h.lsn)
		}
	}
	return nil
}

// A ringReader reads the ring through a window, so that reading it from front to
// back costs few calls.
type ringReader struct {
	area  Area
	j     *journal
	buf   []byte
	first int64 // what buf[:have] is, in the ring
	have  int
}

// bytes returns n bytes of the ring from off on, valid until the next call.
func (r *ringReader) bytes(off int64, n int) ([]byte, error) {
	if off < r.first || off+int64(n) > r.first+int64(r.have) {
		r.first, r.have = off, int(min(int64(len(r.buf)), r.j.size-off))
		q := uring.Request{
			Kind: uring.Read, Off: r.j.start + off, Bufs: [][]byte{r.buf[:r.have]},
		}
		if err := r.area.Do(&q); err != nil {
			r.have = 0
			return nil, fmt.Errorf("read journal: %w", err)
		}
	}
	return r.buf[off-r.first:][:n], nil
}

func (r *ringReader) block(off int64) ([]byte, error) { return r.bytes(off, blockSize) }

// batch returns as much as the largest batch at off may take.
func (r *ringReader) batch(off int64) ([]byte, error) {
	return r.bytes(off, int(min(int64(maxBatch), r.j.size-off)))
}
