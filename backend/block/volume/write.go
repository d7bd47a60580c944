package volume

import (
	"context"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/layout"
	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
)

const (
	// maxPiece bounds one read-modify-write and one bounced read.
	maxPiece = 4 << 20
	// discardPiece bounds what a discard locks at once.
	discardPiece = 1 << 30
)

// WriteAt writes b.Bytes at off and returns when the write will survive. The
// volume retains b as long as it needs it; nobody changes its bytes meanwhile. After
// an error the write may or may not have happened.
func (v *Volume) WriteAt(ctx context.Context, b *iobuf.Buffer, off int64) error {
	began := time.Now()
	n := int64(len(b.Bytes))
	if err := v.admit(ctx, off, n); err != nil {
		return err
	}
	var err error
	switch {
	case n == 0:
		return v.Flush(ctx)
	case aligned(off, n) && iobuf.IsAligned(b.Bytes):
		j := v.newJob()
		b.Retain()
		j.data = b
		j.sums = sumAll(b.Bytes, j.sums)
		v.cut(j, disk.Write, off, n)
		err = v.issue(ctx, j, off, off+n, nil)
	default:
		err = v.modify(ctx, b.Bytes, off, n)
	}
	if err == nil {
		err = v.leased(ctx)
	}
	if err == nil {
		v.stats.writes.add(n, time.Since(began))
	}
	return err
}

func aligned(off, n int64) bool { return (off|n)%int64(blockSize) == 0 }

func sumAll(data []byte, sums []uint32) []uint32 {
	for at := 0; at < len(data); at += blockSize {
		sums = append(sums, sumOf(data[at:at+blockSize]))
	}
	return sums
}

// cut makes the parts of a request for whole blocks, one for each extent.
func (v *Volume) cut(j *job, kind disk.Kind, off, n int64) {
	columns := len(v.columns)
	if unit := int64(model.StripeUnit); off/unit == (off+n-1)/unit { // as nearly always
		at := model.Bytes(off)
		row := at / model.StripeUnit / model.Bytes(columns)
		j.parts = append(j.parts, part{
			kind:   kind,
			column: int(at / model.StripeUnit % model.Bytes(columns)),
			block:  layout.Block((row*model.StripeUnit + at%model.StripeUnit) / model.BlockSize),
			count:  uint64(n / int64(blockSize)),
		})
		return
	}
	for _, x := range layout.Split(columns, model.Bytes(off), model.Bytes(n)) {
		j.parts = append(j.parts, part{
			kind: kind, column: x.Column, block: x.Start, count: uint64(x.Count),
			at: int(x.Offset / model.BlockSize),
		})
	}
}

// issue locks [lo, hi), runs prepare if there is one, sends the job and waits for
// it. It uses the job up.
func (v *Volume) issue(ctx context.Context, j *job, lo, hi int64, prepare func(context.Context) error) error {
	s := &j.span
	s.lo, s.hi, s.exclusive, s.use = lo, hi, true, ofGuest
	if err := v.spans.acquire(ctx, s); err != nil {
		j.drop()
		return err
	}
	var err error
	if prepare != nil {
		err = prepare(ctx)
	}
	if err == nil {
		err = v.start(j)
	}
	if err != nil {
		v.spans.release(s)
		j.drop()
		return err
	}
	return v.wait(ctx, j)
}

// modify writes data that does not begin or end at a block's edge; nil data
// stands for zeros.
func (v *Volume) modify(ctx context.Context, data []byte, off, n int64) error {
	for n > 0 {
		piece := min(n, maxPiece-off%int64(blockSize))
		var part []byte
		if data != nil {
			part, data = data[:piece], data[piece:]
		}
		if err := v.modifyPiece(ctx, part, off, piece); err != nil {
			return err
		}
		off, n = off+piece, n-piece
	}
	return nil
}

func (v *Volume) modifyPiece(ctx context.Context, data []byte, off, n int64) error {
	lo := off / int64(blockSize) * int64(blockSize)
	hi := (off + n + int64(blockSize) - 1) / int64(blockSize) * int64(blockSize)
	j := v.newJob()
	j.data = iobuf.Get(int(hi - lo))
	v.cut(j, disk.Write, lo, hi-lo)
	return v.issue(ctx, j, lo, hi, func(ctx context.Context) error {
		buf := j.data.Bytes
		if off != lo {
			if err := v.readBlocks(ctx, buf[:blockSize], lo); err != nil {
				return err
			}
		}
		if last := hi - int64(blockSize); off+n != hi && (last != lo || off == lo) {
			if err := v.readBlocks(ctx, buf[last-lo:], last); err != nil {
				return err
			}
		}
		if data == nil {
			clear(buf[off-lo : off-lo+n])
		} else {
			copy(buf[off-lo:], data)
		}
		j.sums = sumAll(buf, j.sums)
		return nil
	})
}

// Discard makes n bytes at off read as zeros and frees their space.
func (v *Volume) Discard(ctx context.Context, off, n int64) error {
	began := time.Now()
	if err := v.admit(ctx, off, n); err != nil {
		return err
	}
	const block = int64(blockSize)
	lo, hi := (off+block-1)/block*block, (off+n)/block*block
	var err error
	if lo >= hi { // within a block, or over one edge
		err = v.modify(ctx, nil, off, n)
	} else {
		if off < lo {
			err = v.modify(ctx, nil, off, lo-off)
		}
		for at := lo; at < hi && err == nil; {
			piece := min(hi-at, discardPiece-at%discardPiece)
			err = v.discard(ctx, at, piece)
			at += piece
		}
		if err == nil && hi < off+n {
			err = v.modify(ctx, nil, hi, off+n-hi)
		}
	}
	if err == nil {
		err = v.leased(ctx)
	}
	if err == nil {
		v.stats.discards.add(n, time.Since(began))
	}
	return err
}

// WriteZeroes makes n bytes at off read as zeros.
func (v *Volume) WriteZeroes(ctx context.Context, off, n int64) error { return v.Discard(ctx, off, n) }

func (v *Volume) discard(ctx context.Context, off, n int64) error {
	j := v.newJob()
	for c := range v.columns {
		if start, count := layout.Range(len(v.columns), c, model.Bytes(off), model.Bytes(n)); count > 0 {
			j.parts = append(j.parts, part{kind: disk.Discard, column: c, block: start, count: count})
		}
	}
	parts := append([]part(nil), j.parts...)
	err := v.issue(ctx, j, off, off+n, nil)
	if err == nil {
		v.noteTombs(parts)
	}
	return err
}

// Flush returns at once, unless the lease has run out: what was answered is durable.
func (v *Volume) Flush(ctx context.Context) error {
	if err := v.Err(); err != nil {
		return err
	}
	return v.leased(ctx)
}
