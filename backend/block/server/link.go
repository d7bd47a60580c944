package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/sock"
)

// A link is one connection to a peer, from the attempt to make it until all that
// was asked through it has been answered. One goroutine connects and then
// writes, one reads.
type link struct {
	peer   *peer
	out    *outbox
	ctx    context.Context //nolint:containedctx // ends with the link
	cancel context.CancelCauseFunc

	// Guarded by peer.mu.
	lastID  uint64
	pending map[uint64]*call

	heard atomic.Int64 // when something came last, Unix nanoseconds
	armed atomic.Bool  // watch is running
	watch *time.Timer
}

func newLink(p *peer) *link {
	l := &link{peer: p, pending: map[uint64]*call{}}
	l.out = newOutbox(func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(l.pending) > 1
	})
	l.ctx, l.cancel = context.WithCancelCause(p.client.ctx)
	l.watch = time.AfterFunc(time.Hour, l.look)
	l.watch.Stop()
	return l
}

// end makes the link break soon, for a reason.
func (l *link) end(why error) {
	l.cancel(why)
	l.out.close()
}

// look ends a link from which nothing has come for too long although something
// is asked of it.
func (l *link) look() {
	l.peer.mu.Lock()
	waiting := len(l.pending) > 0
	if !waiting {
		l.armed.Store(false)
	}
	l.peer.mu.Unlock()
	if !waiting {
		return
	}
	if silent := time.Since(time.Unix(0, l.heard.Load())); silent >= stallAfter {
		l.end(errStalled)
		return
	}
	if l.ctx.Err() == nil {
		l.watch.Reset(busyEvery)
	}
}

var errStalled = model.Errorf(model.Unavailable, "nothing came for %s", stallAfter)

// run is the link's whole life.
func (l *link) run() {
	stood, err := l.live()
	if cause := context.Cause(l.ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	l.end(err)
	l.watch.Stop()
	if stood {
		err = fmt.Errorf("connection with node %s: %w", l.peer.node, unavailable(err))
	}
	for _, c := range l.peer.lost(l, stood, err) {
		c.finish(err)
	}
}

// unavailable gives every end of a connection the same code: asking again is
// right.
func unavailable(err error) error {
	if model.CodeOf(err) == model.Unavailable {
		return err
	}
	return model.Errorf(model.Unavailable, "it broke: %w", err)
}

// live connects, then serves until something ends it; when it returns nothing of
// the link reads or writes any more.
func (l *link) live() (stood bool, err error) {
	conn, err := l.connect()
	if err != nil {
		return false, err
	}
	defer context.AfterFunc(l.ctx, func() { abort(conn) })()
	l.heard.Store(time.Now().UnixNano())
	var reader sync.WaitGroup
	var readErr error
	reader.Go(func() {
		readErr = l.read(conn)
		l.end(readErr)
	})
	writeErr := l.out.run(conn)
	l.end(writeErr)
	abort(conn)
	reader.Wait()
	if writeErr != nil && errors.Is(readErr, net.ErrClosed) {
		return true, writeErr
	}
	return true, readErr
}

func abort(conn net.Conn) {
	if a, ok := conn.(interface{ Abort() }); ok {
		a.Abort()
		return
	}
	_ = conn.Close()
}

// connect dials and exchanges hellos.
func (l *link) connect() (net.Conn, error) {
	ctx, cancel := context.WithTimeout(l.ctx, dialTimeout)
	defer cancel()
	conn, err := l.peer.client.dialer.Dial(ctx, l.peer.node, Proto)
	if err != nil {
		return nil, err
	}
	if err := l.greet(conn); err != nil {
		abort(conn)
		return nil, unavailable(fmt.Errorf("greet node %s: %w", l.peer.node, err))
	}
	return conn, nil
}

func (l *link) greet(conn net.Conn) error {
	defer context.AfterFunc(l.ctx, func() { abort(conn) })()
	if err := conn.SetDeadline(time.Now().Add(helloTimeout)); err != nil {
		return err
	}
	mine := hello{low: versionLowest, high: versionHighest, instance: l.peer.client.instance}
	if _, err := conn.Write(mine.encode()); err != nil {
		return err
	}
	h, err := readHello(conn)
	if err != nil {
		return err
	}
	if h.low != h.high || h.low < versionLowest || h.low > versionHighest {
		return model.Errorf(model.Invalid, "it speaks no version of the block protocol that we do")
	}
	if f, ok := conn.(flusher); ok {
		f.Buffer(connBuffer)
	}
	return conn.SetDeadline(time.Time{})
}

// read takes answers until the connection ends or the peer breaks the rules.
func (l *link) read(conn net.Conn) error {
	in := bufio.NewReaderSize(heard{conn, l}, headerSize+maxMeta)
	for {
		b, err := in.Peek(headerSize)
		if err != nil {
			return err
		}
		h, err := parseHeader(b)
		if err != nil {
			return err
		}
		if b, err = in.Peek(headerSize + h.meta); err != nil {
			return err
		}
		if err := checkFrame(b); err != nil {
			return err
		}
		if err := l.accept(in, h, b[headerSize:]); err != nil {
			return err
		}
		sock.Yield(in)
	}
}

// heard notes when something came.
type heard struct {
	net.Conn
	link *link
}

func (h heard) Read(p []byte) (int, error) {
	n, err := h.Conn.Read(p)
	h.link.heard.Store(time.Now().UnixNano())
	return n, err
}

// accept takes one answer and tells whoever waits for it.
func (l *link) accept(in *bufio.Reader, h header, meta []byte) error {
	if h.kind == kindBusy|answerBit {
		_, err := in.Discard(headerSize + h.meta)
		return err
	}
	p := l.peer
	p.mu.Lock()
	c := l.pending[h.id]
	if c == nil || c.kind|answerBit != h.kind || c.answered || c.remote.id != h.disk {
		p.mu.Unlock()
		return errFrame
	}
	c.filling = true
	abandoned := c.abandoned
	p.mu.Unlock()

	result, err := take(in, c, h, meta, abandoned)

	p.mu.Lock()
	c.filling = false
	over := false
	if err == nil {
		c.answered, c.err = true, result
		if over = c.written; over {
			l.close(c)
		}
	}
	p.mu.Unlock()
	if over {
		c.finish(result)
	}
	return err // then the link answers c, as everything else that is pending
}

// close takes a call out of the books; then finish is due. peer.mu is held.
func (l *link) close(c *call) {
	delete(l.pending, c.id)
	c.over = true
	c.release()
	if l.peer.waiting > 0 {
		l.peer.room.Broadcast()
	}
}

// take reads the rest of an answer: to its place, or to nowhere. Discard only
// moves on within what was read, so meta stays valid until data is read.
func take(in *bufio.Reader, c *call, h header, meta []byte, abandoned bool) (result, err error) {
	if _, err := in.Discard(headerSize + h.meta); err != nil {
		return nil, err
	}
	if abandoned {
		_, err := io.CopyN(io.Discard, in, int64(h.data))
		return nil, err
	}
	return c.receive(in, h, meta)
}
