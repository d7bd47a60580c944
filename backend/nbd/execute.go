package nbd

import (
	"context"
	"encoding/binary"
	"math"
	"time"

	"drystone.example/drystone/backend/iobuf"
)

// statusParts bounds the parts of one block status; a client asks again for
// what is behind them.
const statusParts = 1024

// execute carries a request out. Its result is in r.err and, for a read, r.bufs.
func (c *conn) execute(r *request) {
	dev, st := c.srv.cfg.Device, &c.srv.stats
	off, n := int64(r.off), int64(r.length)
	switch r.cmd {
	case cmdRead:
		for _, b := range r.bufs {
			if r.err = dev.ReadAt(c.ctx, b.Bytes, off); r.err != nil {
				break
			}
			off += int64(len(b.Bytes))
		}
		st.reads.Add(1)
		st.readBytes.Add(uint64(n))
		st.readTime.Add(int64(time.Since(r.began)))
	case cmdWrite:
		for i, b := range r.bufs {
			if r.err = dev.WriteAt(c.ctx, b, off); r.err != nil {
				break
			}
			off += int64(len(b.Bytes))
			b.Release() // early: the answer does not need it
			r.bufs[i] = nil
		}
		r.bufs = compact(r.bufs)
		st.writes.Add(1)
		st.writeBytes.Add(uint64(n))
		st.writeTime.Add(int64(time.Since(r.began)))
	case cmdFlush:
		r.err = dev.Flush(c.ctx)
		st.flushes.Add(1)
	case cmdTrim:
		if n > 0 {
			r.err = dev.Discard(c.ctx, off, n)
		}
		st.discards.Add(1)
	case cmdWriteZeroes:
		r.err = c.writeZeroes(dev, r.flags&flagNoHole != 0, off, n)
		st.zeroes.Add(1)
	case cmdBlockStatus:
		r.sends, r.err = blockStatus(c.ctx, dev, r.sends, off, n, r.flags&flagReqOne != 0)
	case cmdDisconnect: // never gets here
	}
	if r.err != nil && c.ctx.Err() != nil {
		r.err = context.Cause(c.ctx)
	}
}

// compact drops the buffers that are gone.
func compact(bufs []*iobuf.Buffer) []*iobuf.Buffer {
	kept := bufs[:0]
	for _, b := range bufs {
		if b != nil {
			kept = append(kept, b)
		}
	}
	return kept
}

// writeZeroes writes real zeroes if the client wants no hole: it may be about to
// rely on the space.
func (c *conn) writeZeroes(dev Device, noHole bool, off, n int64) error {
	if n == 0 {
		return nil
	}
	if !noHole {
		return dev.WriteZeroes(c.ctx, off, n)
	}
	for n > 0 {
		step := min(n, zeroesMax-off%zeroesMax)
		b := iobuf.Get(int(step))
		clear(b.Bytes)
		err := dev.WriteAt(c.ctx, b, off)
		b.Release()
		if err != nil {
			return err
		}
		off, n = off+step, n-step
	}
	return nil
}

const zeroesMax = 1 << 20

// blockStatus appends the payload of a block status: the context, then the parts
// from off on, neighbours of one kind as one.
func blockStatus(ctx context.Context, dev Device, b []byte, off, n int64, one bool) ([]byte, error) {
	be := binary.BigEndian
	b = be.AppendUint32(b, contextID)
	start := len(b)
	add := func(length int64, data bool) bool {
		flags := uint32(statusHole | statusZero)
		if data {
			flags = 0
		}
		length = min(length, n)
		n -= length
		for length > 0 {
			step := min(length, math.MaxUint32&^4095)
			if last := len(b) - 8; last >= start && be.Uint32(b[last+4:]) == flags &&
				int64(be.Uint32(b[last:]))+step <= math.MaxUint32 {
				be.PutUint32(b[last:], be.Uint32(b[last:])+uint32(step))
			} else {
				if last >= start && (one || len(b)-start == statusParts*8) {
					return false
				}
				b = be.AppendUint32(b, uint32(step))
				b = be.AppendUint32(b, flags)
			}
			length -= step
		}
		return n > 0
	}
	e, ok := dev.(Extents)
	if !ok {
		add(n, true)
		return b, nil
	}
	if err := e.Extents(ctx, off, n, add); err != nil {
		return b, err
	}
	if len(b) == start { // a device that reports nothing knows nothing
		add(n, true)
	}
	return b, nil
}
