package vhost

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"golang.org/x/sync/semaphore"

	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
)

// Request types of virtio-blk.
const (
	blkIn          = 0
	blkOut         = 1
	blkFlush       = 4
	blkGetID       = 8
	blkDiscard     = 11
	blkWriteZeroes = 13
)

// What the status byte says.
const (
	statusOK          = 0
	statusIOError     = 1
	statusUnsupported = 2
)

const (
	blkHeader  = 16 // u32 type, u32 reserved, u64 sector
	rangeSize  = 16 // u64 sector, u32 sectors, u32 flags
	rangesMax  = 16
	rangeUnmap = 1 << 0 // flag of write zeroes

	serialSize = 20
	sectorSize = uint64(model.SectorSize)

	// pieceMax is the most that goes to the Device in one call; requestMax is
	// the most data of one request.
	pieceMax   = 2 << 20
	requestMax = 64 << 20
)

// A request is one chain in flight. It is reused.
type request struct {
	chain

	ring   *ring
	head   uint16
	kind   uint32
	sector uint64
	began  time.Time

	ranges [rangesMax * rangeSize]byte
}

// parse reads the chain at q.head. An error means that the chain cannot even be
// answered. The caller holds the locks of r.
func (q *request) parse(r *ring) (err error) {
	defer caught(&err, debug.SetPanicOnFault(true))
	indirect := r.features&featureIndirect != 0
	if err := q.read(r.mem, r.desc, r.setup.num, q.head, indirect); err != nil {
		return err
	}
	if q.outSize < blkHeader || q.inSize < 1 {
		return model.Errorf(model.Invalid, "a request of %d and %d bytes", q.outSize, q.inSize)
	}
	var head [blkHeader]byte
	if err := r.mem.gather(head[:], q.out, 0); err != nil {
		return err
	}
	q.kind = binary.LittleEndian.Uint32(head[:])
	q.sector = binary.LittleEndian.Uint64(head[8:])
	return nil
}

// errDetached says that the ring was stopped: nobody waits for the request.
var errDetached = model.Errorf(model.Unavailable, "the ring was stopped")

// perform carries the request out and answers it. It never panics: a mistake of
// ours costs one guest its disk, not all guests the node.
func (q *request) perform() {
	r := q.ring
	defer r.back(q)
	defer func() {
		if p := recover(); p != nil {
			r.fail(fmt.Errorf("panic in a request: %v\n%s", p, debug.Stack()))
		}
	}()
	status, written, err := q.execute()
	if err != nil && r.srv.ctx.Err() != nil {
		return // cancelled, not failed: the next process carries it out
	}
	answered, fatal := r.finish(q, status, written)
	if answered {
		r.srv.stats.finished(q, status)
	}
	if fatal == nil && errors.Is(err, errFault) {
		fatal = err
	}
	if fatal != nil {
		r.fail(fatal)
	}
}

// execute does what the request asks for. It returns how many bytes of the
// guest's memory are written by it, the status byte included.
func (q *request) execute() (status byte, written uint32, err error) {
	srv := q.ring.srv
	if srv.cfg.ReadOnly && (q.kind == blkOut || q.kind == blkDiscard || q.kind == blkWriteZeroes) {
		return statusIOError, 1, nil
	}
	status = statusOK
	switch q.kind {
	case blkIn:
		written = uint32(q.inSize - 1)
		err = q.readData(q.inSize - 1)
	case blkOut:
		err = q.writeData(q.outSize - blkHeader)
	case blkFlush:
		err = q.ring.dev.Flush(srv.ctx)
	case blkGetID:
		var id [serialSize]byte
		copy(id[:], srv.cfg.Serial)
		written = uint32(min(q.inSize-1, serialSize))
		err = q.ring.deliver(id[:written], q.in, 0)
	case blkDiscard, blkWriteZeroes:
		status, err = q.eachRange()
	default:
		status = statusUnsupported
	}
	if err != nil {
		return statusIOError, 1, err
	}
	return status, written + 1, nil
}

// bounds returns where n bytes from a sector on lie, if they are whole sectors
// within the disk.
func (q *request) bounds(sector, n uint64) (off int64, err error) {
	size := uint64(q.ring.dev.Size()) / sectorSize
	if n%sectorSize != 0 || sector > size || n/sectorSize > size-sector {
		return 0, model.Errorf(model.Invalid, "%d bytes at sector %d of %d", n, sector, size)
	}
	return int64(sector * sectorSize), nil
}

func (q *request) readData(n uint64) error {
	return q.pieces(q.ring.srv.reads, n, func(b *iobuf.Buffer, off int64, done uint64) error {
		if err := q.ring.dev.ReadAt(q.ring.srv.ctx, b.Bytes, off); err != nil {
			return err
		}
		return q.ring.deliver(b.Bytes, q.in, done)
	})
}

func (q *request) writeData(n uint64) error {
	return q.pieces(q.ring.srv.held, n, func(b *iobuf.Buffer, off int64, done uint64) error {
		if err := q.ring.collect(b.Bytes, q.out, blkHeader+done); err != nil {
			return err
		}
		return q.ring.dev.WriteAt(q.ring.srv.ctx, b, off)
	})
}

// pieces calls do for n bytes at q.sector in parts that fit a buffer, with as much of
// held as that takes.
func (q *request) pieces(held *semaphore.Weighted, n uint64, do func(b *iobuf.Buffer, off int64, done uint64) error) error {
	off, err := q.bounds(q.sector, n)
	if err != nil {
		return err
	}
	if n > requestMax {
		return model.Errorf(model.Invalid, "a request of %d bytes", n)
	}
	srv := q.ring.srv
	for done := uint64(0); done < n; {
		step := int64(min(n-done, pieceMax))
		if err := held.Acquire(srv.ctx, step); err != nil {
			return err
		}
		b := iobuf.Get(int(step))
		err := do(b, off+int64(done), done)
		b.Release()
		held.Release(step)
		if err != nil {
			return err
		}
		done += uint64(step)
	}
	return nil
}

// eachRange discards or zeroes what the guest lists.
func (q *request) eachRange() (status byte, err error) {
	n := q.outSize - blkHeader
	if n == 0 || n%rangeSize != 0 || n > uint64(len(q.ranges)) {
		return 0, model.Errorf(model.Invalid, "%d bytes of ranges", n)
	}
	list := q.ranges[:n]
	if err := q.ring.collect(list, q.out, blkHeader); err != nil {
		return 0, err
	}
	le := binary.LittleEndian
	for b := list; len(b) > 0; b = b[rangeSize:] {
		sectors, flags := uint64(le.Uint32(b[8:])), le.Uint32(b[12:])
		limit, known := uint64(discardSectorsMax), uint32(0)
		if q.kind == blkWriteZeroes {
			limit, known = zeroesSectorsMax, rangeUnmap
		}
		if flags&^known != 0 {
			return statusUnsupported, nil
		}
		if _, err := q.bounds(le.Uint64(b), sectors*sectorSize); err != nil {
			return 0, err
		}
		if sectors > limit {
			return 0, model.Errorf(model.Invalid, "a range of %d sectors", sectors)
		}
	}
	dev, ctx := q.ring.dev, q.ring.srv.ctx
	for b := list; len(b) > 0 && err == nil; b = b[rangeSize:] {
		off, length := int64(le.Uint64(b)*sectorSize), int64(le.Uint32(b[8:]))*int64(sectorSize)
		switch {
		case length == 0:
		case q.kind == blkDiscard:
			err = dev.Discard(ctx, off, length)
		default:
			err = dev.WriteZeroes(ctx, off, length)
		}
	}
	return statusOK, err
}

// deliver copies p to the guest, unless the ring was stopped.
func (r *ring) deliver(p []byte, segs []segment, skip uint64) (err error) {
	r.mem.mu.RLock()
	defer r.mem.mu.RUnlock()
	defer caught(&err, debug.SetPanicOnFault(true))
	if r.detached {
		return errDetached
	}
	return r.mem.scatter(p, segs, skip)
}

// collect copies from the guest to p, unless the ring was stopped.
func (r *ring) collect(p []byte, segs []segment, skip uint64) (err error) {
	r.mem.mu.RLock()
	defer r.mem.mu.RUnlock()
	defer caught(&err, debug.SetPanicOnFault(true))
	if r.detached {
		return errDetached
	}
	return r.mem.gather(p, segs, skip)
}
