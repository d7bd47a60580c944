package nbd

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/must"
	"drystone.example/drystone/backend/sock"
)

// pieceMax is the most that goes to the Device in one call; longer requests are
// cut where offsets are multiples of it.
const pieceMax = 4 << 20

// readAhead is how much of the stream one system call may bring.
const readAhead = 256 << 10

// errClosing is what cancelled requests are answered with.
var errClosing = errors.New("the export is closing")

// A conn is one client after its handshake. One goroutine, the reader, takes
// requests off the stream; workers carry them out; the worker that finds nobody
// writing writes the answers of all.
//
// A request lives in one of three places: in free, with a worker, or in the
// answers. free holds all of them when nothing is in flight.
type conn struct {
	srv  *Server
	nc   net.Conn
	in   *bufio.Reader
	opts agreement

	ctx    context.Context // of the Device calls
	cancel context.CancelCauseFunc
	giveUp *time.Timer // runs abort

	free    chan *request
	made    int           // requests in existence, of depthMax
	work    chan *request // unbuffered: a send succeeds if a worker is idle
	workers sync.WaitGroup
	begun   int // workers

	held  atomic.Int64  // payload bytes in flight
	freed chan struct{} // held went down

	out answers
}

// A request is one command in flight.
type request struct {
	header
	bufs  []*iobuf.Buffer // the payload, in order
	err   error
	sends []byte // the whole answer of a block status
	began time.Time
	held  int64
}

// serve talks to one client until it leaves or the server closes.
func (s *Server) serve(ctx context.Context, nc net.Conn) {
	nc = sock.New(nc)
	s.stats.connections.Add(1)
	defer s.stats.connections.Add(-1)
	defer func() { _ = nc.Close() }() // the client hears of every error in another way
	c := &conn{
		srv: s, nc: nc, in: bufio.NewReaderSize(nc, readAhead),
		free:  make(chan *request, depthMax),
		work:  make(chan *request),
		freed: make(chan struct{}, 1),
	}
	c.out.c = c
	c.ctx, c.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	defer c.cancel(nil)
	c.giveUp = time.AfterFunc(handshakeMax, c.abort)
	defer c.giveUp.Stop()
	// When the server closes, reading ends; what was read until then is answered.
	stop := context.AfterFunc(ctx, func() {
		if s.cfg.Resumes {
			c.abort()
			return
		}
		_ = nc.SetReadDeadline(past)
		c.giveUp.Reset(c.srv.drain)
	})
	defer stop()

	var err error
	h := &handshake{cfg: &s.cfg, in: c.in, out: nc}
	if c.opts, err = h.run(); err != nil {
		if !errors.Is(err, errAbort) && !errors.Is(err, io.EOF) && ctx.Err() == nil {
			s.log.Warn("nbd handshake ended early", "err", err)
		}
		return
	}
	if ctx.Err() == nil {
		c.giveUp.Stop()
	}
	if err := c.read(); err != nil && !errors.Is(err, io.EOF) && ctx.Err() == nil {
		s.log.Warn("nbd connection broke", "err", err)
	}
	c.drain()
}

// past is a deadline that makes calls under way return at once.
var past = time.Unix(1, 0)

// abort makes reading and writing the socket fail, and cancels what is in flight, which
// the Device must honour. In this order: what is cancelled is not answered.
func (c *conn) abort() {
	_ = c.nc.SetDeadline(past)
	c.cancel(errClosing)
}

// read takes requests until the client leaves, breaks the protocol, or the
// server closes.
func (c *conn) read() error {
	var b [requestSize]byte
	for {
		if _, err := io.ReadFull(c.in, b[:]); err != nil {
			return err
		}
		h, ok := decodeHeader(b[:])
		if !ok {
			return model.Errorf(model.Invalid, "no request where one was due")
		}
		if h.cmd == cmdDisconnect {
			return nil
		}
		r := c.take()
		r.header, r.began = h, time.Now()
		c.srv.stats.inFlight.Add(1)
		if err := c.admit(r); err != nil {
			c.recycle(r)
			return err
		}
		sock.Yield(c.in)
	}
}

// take returns a request that is not in use, waiting for one if there are
// depthMax in flight.
func (c *conn) take() *request {
	select {
	case r := <-c.free:
		return r
	default:
	}
	if c.made < depthMax {
		c.made++
		return &request{}
	}
	return <-c.free
}

// admit starts a request, or answers one that cannot be carried out. An error of
// admit itself means that the stream is of no more use.
func (c *conn) admit(r *request) error {
	if r.cmd == cmdWrite && r.length > payloadMax {
		return model.Errorf(model.Invalid, "a write of %d bytes", r.length)
	}
	if r.err = c.check(r); r.err != nil {
		if r.cmd == cmdWrite {
			if _, err := io.CopyN(io.Discard, c.in, int64(r.length)); err != nil {
				return err
			}
		}
		c.out.add(r)
		return nil
	}
	if r.cmd == cmdWrite || r.cmd == cmdRead {
		if err := c.payload(r); err != nil {
			return err
		}
	}
	c.start(r)
	return nil
}

// payload gets the buffers of a read or a write and fills those of a write from
// the stream.
func (c *conn) payload(r *request) error {
	c.hold(r)
	for off, n := int64(r.off), int64(r.length); n > 0; {
		step := min(n, pieceMax-off%pieceMax)
		b := iobuf.Get(int(step))
		r.bufs = append(r.bufs, b)
		if r.cmd == cmdWrite {
			if _, err := io.ReadFull(c.in, b.Bytes); err != nil {
				return err
			}
		}
		off, n = off+step, n-step
	}
	return nil
}

// check says whether a request can be carried out as it stands.
func (c *conn) check(r *request) error {
	const sector = uint64(model.SectorSize)
	size := uint64(c.srv.cfg.Device.Size()) &^ (sector - 1)
	end := r.off + uint64(r.length)
	writes, allowed := false, uint16(flagFUA)
	switch r.cmd {
	case cmdRead:
		allowed |= flagDF
		if r.length > payloadMax {
			return model.Errorf(model.Invalid, "a read of %d bytes", r.length)
		}
	case cmdWrite, cmdTrim:
		writes = true
	case cmdWriteZeroes:
		writes = true
		allowed |= flagNoHole
	case cmdFlush:
		return nil
	case cmdBlockStatus:
		allowed |= flagReqOne
		if len(c.opts.contexts) == 0 {
			return model.Errorf(model.Invalid, "no metadata context was settled")
		}
	case cmdDisconnect:
		must.That(false, "a disconnect has no answer")
	default:
		return model.Errorf(model.Invalid, "command %d is not known", r.cmd)
	}
	switch {
	case r.flags&^allowed != 0:
		return model.Errorf(model.Invalid, "flags %#x of command %d", r.flags, r.cmd)
	case writes && c.srv.cfg.ReadOnly:
		return model.Errorf(model.Denied, "the export is read-only")
	case r.off%sector != 0 || uint64(r.length)%sector != 0:
		return model.Errorf(model.Invalid, "%d bytes at %d are not whole sectors", r.length, r.off)
	case end < r.off, end > size && r.cmd != cmdWrite:
		return model.Errorf(model.Invalid, "%d bytes at %d end after %d", r.length, r.off, size)
	case end > size:
		return model.Errorf(model.NoSpace, "%d bytes at %d end after %d", r.length, r.off, size)
	}
	return nil
}

// hold waits until the payload of r fits beside those in flight. Only the reader
// calls it, and the largest payload fits when nothing else is held, so it ends.
func (c *conn) hold(r *request) {
	r.held = int64(r.length)
	for c.held.Load()+r.held > heldMax {
		<-c.freed
	}
	c.held.Add(r.held)
}

// recycle takes back a request that has been answered or given up.
func (c *conn) recycle(r *request) {
	for i, b := range r.bufs {
		b.Release()
		r.bufs[i] = nil
	}
	if r.held > 0 {
		c.held.Add(-r.held)
		select {
		case c.freed <- struct{}{}:
		default:
		}
	}
	*r = request{bufs: r.bufs[:0], sends: r.sends[:0]}
	c.srv.stats.inFlight.Add(-1)
	c.free <- r
}

// start gives a request to an idle worker, or to a new one. There are never
// more workers than requests, so it does not wait.
func (c *conn) start(r *request) {
	select {
	case c.work <- r:
		return
	default:
	}
	if c.begun == depthMax {
		c.work <- r // every worker is between its last answer and the next request
		return
	}
	c.begun++
	c.workers.Go(func() { c.serveRequests(r) })
}

// serveRequests is a worker, from its first request on.
func (c *conn) serveRequests(first *request) {
	for r, ok := first, true; ok; r, ok = <-c.work {
		c.execute(r)
		if errors.Is(r.err, ErrHangUp) {
			c.abort()
			c.recycle(r)
			continue
		}
		c.out.add(r)
	}
}

// drain waits for what is in flight and ends the workers. Requests that take
// longer than the server's drain time are cancelled.
func (c *conn) drain() {
	c.giveUp.Reset(c.srv.drain)
	for range c.made {
		<-c.free
	}
	close(c.work)
	c.workers.Wait()
}
