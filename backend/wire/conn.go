package wire

import (
	"crypto/tls"
	"net"
	"sync"

	"drystone.example/drystone/backend/model"
)

// A Conn is an admitted connection; what Dial returns and Serve's handlers get
// is one. Like any net.Conn it may be read by one goroutine while another
// writes, and closed by a third.
type Conn struct {
	*tls.Conn
	raw   *rawConn
	owner *Transport
	peer  model.NodeID
	once  sync.Once
}

// Peer returns which node is at the other end.
func (c *Conn) Peer() model.NodeID { return c.peer }

// Close ends the connection after what was written; it may take a few seconds if
// the peer does not read.
func (c *Conn) Close() error {
	c.once.Do(func() { c.owner.forget(c) })
	return c.Conn.Close()
}

// Abort ends the connection at once. What is written may be lost.
func (c *Conn) Abort() {
	c.once.Do(func() { c.owner.forget(c) })
	_ = c.raw.Close()
}

// Buffer makes the connection read and write up to n bytes in one system call
// each. From then on what is written stays here until n bytes are together or
// Flush is called. It is called before the first use, at most once.
func (c *Conn) Buffer(n int) {
	c.raw.mu.Lock()
	defer c.raw.mu.Unlock()
	c.raw.in = make([]byte, n)
	c.raw.out, c.raw.spare = make([]byte, 0, n+recordMax), make([]byte, 0, n+recordMax)
	c.raw.limit = n
}

// Flush writes what Buffer holds back. It is called by whoever writes.
func (c *Conn) Flush() error { return c.raw.Flush() }

// recordMax is more than one TLS record with its header and tag.
const recordMax = 17 << 10

// A rawConn is a plain connection below TLS that collects records into large
// writes, and reads ahead.
type rawConn struct {
	net.Conn

	in       []byte // nil: not buffered; used by TLS's one reader only
	from, to int    // what of in is not yet taken

	mu       sync.Mutex // never held while writing to Conn
	limit    int        // 0: not buffered
	out      []byte     // records not yet written
	spare    []byte     // the buffer that out changes places with
	flushing bool       // somebody is writing spare
}

func (r *rawConn) Read(p []byte) (int, error) {
	if r.from == r.to {
		if len(p) >= len(r.in) {
			return r.Conn.Read(p)
		}
		n, err := r.Conn.Read(r.in)
		r.from, r.to = 0, n
		if n == 0 {
			return 0, err
		}
	}
	n := copy(p, r.in[r.from:r.to])
	r.from += n
	return n, nil
}

// Write is called by TLS, one record at a time: by the writer, and now and then
// by the reader, which answers alerts and key updates.
func (r *rawConn) Write(p []byte) (int, error) {
	r.mu.Lock()
	if r.limit == 0 {
		r.mu.Unlock()
		return r.Conn.Write(p)
	}
	r.out = append(r.out, p...)
	full := len(r.out) >= r.limit
	r.mu.Unlock()
	if full {
		if err := r.Flush(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// Flush writes what has come together. While another goroutine is doing so it
// leaves what is new to the next call: only a key update can meet that case.
func (r *rawConn) Flush() error {
	r.mu.Lock()
	if r.flushing || len(r.out) == 0 {
		r.mu.Unlock()
		return nil
	}
	r.flushing = true
	batch := r.out
	r.out = r.spare[:0]
	r.mu.Unlock()

	_, err := r.Conn.Write(batch)

	r.mu.Lock()
	r.spare, r.flushing = batch, false
	r.mu.Unlock()
	return err
}
