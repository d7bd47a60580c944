package nbd

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"time"

	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
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
		r.err = c.blockStatus(r)
	case cmdDisconnect: // never gets here
	}
	if r.err != nil && c.ctx.Err() != nil && !errors.Is(r.err, ErrHangUp) {
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

// blockStatus makes the whole answer of a block status: a chunk of each context.
func (c *conn) blockStatus(r *request) error {
	be := binary.BigEndian
	for i, m := range c.opts.contexts {
		head := len(r.sends)
		r.sends = appendChunk(r.sends, r.cookie, chunkStatus, 0)
		if i < len(c.opts.contexts)-1 {
			be.PutUint16(r.sends[head+4:], 0) // not the last
		}
		r.sends = be.AppendUint32(r.sends, m.id)
		var err error
		if r.sends, err = appendParts(c.ctx, m.status, r.sends, r.header); err != nil {
			return err
		}
		be.PutUint32(r.sends[head+chunkHeaderSize-4:], uint32(len(r.sends)-head-chunkHeaderSize))
	}
	return nil
}

// appendParts appends what a context says of the parts that a request asks for,
// neighbours of one kind as one.
func appendParts(ctx context.Context, status Status, b []byte, h header) ([]byte, error) {
	be := binary.BigEndian
	start, n, one := len(b), int64(h.length), h.flags&flagReqOne != 0
	add := func(length int64, flags uint32) bool {
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
	if err := status(ctx, int64(h.off), n, add); err != nil {
		return b, err
	}
	if len(b) == start && n > 0 {
		return b, model.Errorf(model.Internal, "the device says nothing of %d bytes at %d", n, h.off)
	}
	return b, nil
}

// allocation is base:allocation. A device that knows no holes is all data.
func allocation(dev Device) Status {
	return func(ctx context.Context, off, n int64, report func(length int64, flags uint32) bool) error {
		e, ok := dev.(Extents)
		if !ok {
			report(n, 0)
			return nil
		}
		said := false
		err := e.Extents(ctx, off, n, func(length int64, data bool) bool {
			said = true
			if data {
				return report(length, 0)
			}
			return report(length, statusHole|statusZero)
		})
		if err == nil && !said { // one that reports nothing knows nothing
			report(n, 0)
		}
		return err
	}
}
