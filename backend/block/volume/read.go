package volume

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/layout"
	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
)

// readRetry is how long a read waits when no active member of a column answers.
const readRetry = 100 * time.Millisecond

// A reading is what one read under way needs; they are used again.
type reading struct {
	span  span
	sums  []uint32
	epoch model.Epoch // to read as of; zero: the present one
}

// ReadAt fills p with what lies at off. Any multiple of model.SectorSize is fine;
// memory aligned to iobuf.Align and whole blocks are read without a copy.
func (v *Volume) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := v.within(off, int64(len(p))); err != nil {
		return err
	}
	return v.readAt(ctx, p, off, 0)
}

// readAt is ReadAt as of an epoch, of a range that lies within the volume as it was
// then.
func (v *Volume) readAt(ctx context.Context, p []byte, off int64, epoch model.Epoch) error {
	began := time.Now()
	n := int64(len(p))
	if err := v.leased(ctx); err != nil {
		return err
	}
	if n == 0 {
		return v.Flush(ctx)
	}
	for {
		var err error
		if aligned(off, n) && iobuf.IsAligned(p) {
			err = v.readLocked(ctx, p, off, epoch)
		} else {
			err = v.bounce(ctx, p, off, epoch)
		}
		if err != nil {
			return err
		}
		if v.cfg.Lease.Valid() {
			v.stats.reads.add(n, time.Since(began))
			return nil
		}
		if err := v.leased(ctx); err != nil { // what was read may be old by now
			return err
		}
	}
}

// bounce reads whole blocks around p.
func (v *Volume) bounce(ctx context.Context, p []byte, off int64, epoch model.Epoch) error {
	for len(p) > 0 {
		lo := off / int64(blockSize) * int64(blockSize)
		n := min(int64(len(p)), lo+maxPiece-off)
		hi := (off + n + int64(blockSize) - 1) / int64(blockSize) * int64(blockSize)
		buf := iobuf.Get(int(hi - lo))
		err := v.readLocked(ctx, buf.Bytes, lo, epoch)
		if err == nil {
			copy(p[:n], buf.Bytes[off-lo:])
		}
		buf.Release()
		if err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// readLocked reads whole blocks under a shared lock: it waits for writes in
// flight, and they wait for it, so that no write is seen before it is settled.
func (v *Volume) readLocked(ctx context.Context, p []byte, off int64, epoch model.Epoch) error {
	rd, ok := v.readings.Get().(*reading)
	if !ok {
		rd = &reading{}
	}
	defer v.readings.Put(rd)
	rd.span.lo, rd.span.hi, rd.epoch = off, off+int64(len(p)), epoch
	if err := v.spans.acquire(ctx, &rd.span); err != nil {
		return err
	}
	defer v.spans.release(&rd.span)
	return v.readInto(ctx, p, off, rd)
}

// readBlocks reads whole blocks; the caller holds their lock.
func (v *Volume) readBlocks(ctx context.Context, p []byte, off int64) error {
	return v.readInto(ctx, p, off, &reading{})
}

func (v *Volume) readInto(ctx context.Context, p []byte, off int64, rd *reading) error {
	if blocks := len(p) / blockSize; cap(rd.sums) < blocks {
		rd.sums = make([]uint32, blocks)
	} else {
		rd.sums = rd.sums[:blocks]
	}
	columns := len(v.columns)
	unit := int64(model.StripeUnit)
	if off/unit == (off+int64(len(p))-1)/unit {
		at := model.Bytes(off)
		row := at / model.StripeUnit / model.Bytes(columns)
		return v.readExtent(ctx, layout.Extent{
			Column: int(at / model.StripeUnit % model.Bytes(columns)),
			Start:  layout.Block((row*model.StripeUnit + at%model.StripeUnit) / model.BlockSize),
			Count:  len(p) / blockSize,
		}, p, rd.sums, rd.epoch)
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, x := range layout.Split(columns, model.Bytes(off), model.Bytes(len(p))) {
		at, first := int(x.Offset), int(x.Offset)/blockSize
		group.Go(func() error {
			return v.readExtent(ctx, x, p[at:at+x.Count*blockSize], rd.sums[first:first+x.Count], rd.epoch)
		})
	}
	return group.Wait()
}

// A reader is an active member to read from.
type reader struct {
	row   *row
	disk  Disk
	epoch model.Epoch
}

// readExtent reads from one active member after the other until one has all of
// it whole. It waits for members that do not answer, and fails when all that are
// left have it damaged.
func (v *Volume) readExtent(
	ctx context.Context, x layout.Extent, p []byte, sums []uint32, epoch model.Epoch,
) error {
	var bad, silent []*row
	var damage error
	for {
		rd, err := v.choose(x.Column, bad, silent)
		switch {
		case err != nil:
			return err
		case rd.row == nil && len(silent) == 0:
			return v.readEach(ctx, x, p, sums, epoch, bad, damage)
		case rd.row == nil: // none is left to ask: start over with those that were silent
			silent = nil
			select {
			case <-time.After(readRetry):
			case <-v.done:
				return v.Err()
			case <-ctx.Done():
				return ctx.Err()
			}
			continue
		}
		if epoch != 0 {
			rd.epoch = epoch
		}
		err = v.readFrom(ctx, &rd, x, p, sums)
		switch {
		case err == nil:
			for _, r := range bad {
				v.repair(x, r)
			}
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case model.CodeOf(err) == model.Corrupt:
			damage = err
			bad = append(bad, rd.row)
			v.tellDamaged.Do(func() {
				v.log.Warn("damaged data", "volume", v.id, "column", x.Column, "disk", rd.row.id, "err", err)
			})
		default:
			silent = append(silent, rd.row)
			v.suspect(rd.row, err)
		}
	}
}

// readEach reads an extent block by block when every active member has some of it
// damaged: they may be damaged in different places. What no member has whole is
// lost, and the read fails with damage.
func (v *Volume) readEach(ctx context.Context, x layout.Extent, p []byte, sums []uint32,
	epoch model.Epoch, bad []*row, damage error,
) error {
	if len(bad) > 1 && x.Count > 1 {
		for i := range x.Count {
			one := layout.Extent{Column: x.Column, Start: x.Start + layout.Block(i), Count: 1}
			if err := v.readExtent(ctx, one, p[i*blockSize:(i+1)*blockSize], sums[i:i+1], epoch); err != nil {
				return err
			}
		}
		return nil
	}
	v.stats.lost.Add(1)
	v.tellLost.Do(func() {
		v.log.Error("data lost: no good copy", "volume", v.id, "column", x.Column, "block", uint64(x.Start), "err", damage)
	})
	return damage
}

// reads reports whether a column may be read from a row. What was asked of one that is
// no active member any more may come from a disk that has freed it meanwhile: it reads
// as zeros there.
func (c *column) reads(r *row) bool {
	for _, m := range c.members {
		if m.row == r {
			return m.state == model.Active
		}
	}
	return false
}

// choose picks an active member that is in neither list: one that is well, local
// rather than not, and the least busy of those. No row and no error: there is none.
func (v *Volume) choose(c int, bad, silent []*row) (best reader, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.err != nil {
		return reader{}, v.err
	}
	var now time.Time
	score := 0
	for _, m := range v.columns[c].members {
		r := m.row
		if m.state != model.Active || r == nil || contains(bad, r) || contains(silent, r) {
			continue
		}
		s := r.reading
		if !r.local {
			s += 1 << 16
		}
		if v.columns[c].pinned {
			s = 0
		}
		if !r.shunned.IsZero() || r.state != live || r.failure != nil {
			if now.IsZero() {
				now = time.Now()
			}
			if r.state != live || r.failure != nil || now.Before(r.shunned) {
				s += 1 << 20
			}
		}
		if best.row == nil || s < score {
			best, score = reader{r, r.disk, v.rec.Epoch}, s
		}
	}
	if best.row != nil {
		best.row.reading++
	}
	return best, nil
}

func contains(list []*row, r *row) bool {
	for _, o := range list {
		if o == r {
			return true
		}
	}
	return false
}

func (v *Volume) readFrom(ctx context.Context, rd *reader, x layout.Extent, p []byte, sums []uint32) error {
	if !rd.row.local { // a disk in this process fails by itself
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, v.cfg.Timeout)
		defer cancel()
	}
	began := time.Now()
	err := rd.disk.Read(ctx, disk.Read{
		Volume: v.id, Generation: v.gen, Column: uint32(x.Column),
		Block: x.Start, Count: x.Count, Epoch: rd.epoch,
	}, p, sums)
	now := time.Now()
	v.mu.Lock()
	if rd.row.reading--; err == nil {
		rd.row.readIn(now, now.Sub(began))
	}
	still := v.columns[x.Column].reads(rd.row)
	v.unlock()
	if err != nil {
		return v.judge(err)
	}
	if !still {
		return model.Errorf(model.Unavailable, "disk %s is no active member any more", rd.row.id)
	}
	for i, want := range sums {
		block := p[i*blockSize : (i+1)*blockSize]
		if got := sumOf(block); got != want && (want != 0 || got != sumOfZeros) {
			return &disk.CorruptError{
				Volume: v.id, Column: uint32(x.Column),
				Blocks: []layout.Block{x.Start + layout.Block(i)},
			}
		}
	}
	return nil
}

// sumOfZeros is the sum of a block of zeros.
var sumOfZeros = sumOf(make([]byte, blockSize))
