//go:build linux && !race

package sock

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A conn is a socket of the runtime's poller, which waits for it. What a call is
// about lies in the conn, so that the functions the poller calls are made once.
type conn struct {
	net.Conn
	raw     syscall.RawConn
	in, out transfer
	vectors []unix.Iovec // of out
}

// A transfer is one direction.
type transfer struct {
	trap uintptr
	try  func(fd uintptr) bool // calls once; false: wait
	at   unsafe.Pointer        // what is left: bytes, or vectors
	len  int
	n    int
	err  error
}

func direct(c net.Conn) net.Conn {
	s, ok := c.(syscall.Conn)
	if !ok {
		return c
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return c
	}
	d := &conn{Conn: c, raw: raw}
	d.in.trap = unix.SYS_READ
	d.in.try, d.out.try = d.in.once, d.out.once
	return d
}

// once makes the call; it reports false if it would have to wait.
func (t *transfer) once(fd uintptr) bool {
	for {
		n, _, errno := unix.RawSyscall(t.trap, fd, uintptr(t.at), uintptr(t.len))
		if errno == unix.EINTR {
			continue
		}
		if errno == unix.EAGAIN {
			return false
		}
		t.n, t.err = int(n), nil
		if errno != 0 {
			t.n, t.err = 0, errno
		}
		return true
	}
}

func (c *conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	t := &c.in
	t.at, t.len = unsafe.Pointer(&p[0]), len(p) //nolint:gosec // as read(2) wants it
	err := c.raw.Read(t.try)
	t.at = nil
	switch {
	case err != nil:
		return 0, err
	case t.err != nil:
		return 0, c.failed("read", t.err)
	case t.n == 0:
		return 0, io.EOF
	}
	return t.n, nil
}

func (c *conn) Write(p []byte) (done int, err error) {
	for done < len(p) {
		n, err := c.write(unix.SYS_WRITE, unsafe.Pointer(&p[done]), len(p)-done) //nolint:gosec // as write(2) wants it
		if err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// write makes one call that writes something.
func (c *conn) write(trap uintptr, at unsafe.Pointer, n int) (int, error) {
	t := &c.out
	t.trap, t.at, t.len = trap, at, n
	err := c.raw.Write(t.try)
	t.at = nil
	if err == nil && t.err != nil {
		err = c.failed("write", t.err)
	}
	return t.n, err
}

// vectorsMax is IOV_MAX of <limits.h>.
const vectorsMax = 1024

func writeBuffers(to net.Conn, b *net.Buffers) error {
	c, ok := to.(*conn)
	if !ok {
		_, err := b.WriteTo(to)
		return err
	}
	for len(*b) > 0 {
		v := c.vectors[:0]
		for _, part := range (*b)[:min(len(*b), vectorsMax)] {
			if len(part) > 0 {
				v = append(v, unix.Iovec{Base: &part[0], Len: uint64(len(part))})
			}
		}
		n := 0
		var err error
		if len(v) > 0 {
			n, err = c.write(unix.SYS_WRITEV, unsafe.Pointer(&v[0]), len(v)) //nolint:gosec // as writev(2) wants it
		}
		clear(v)
		c.vectors = v
		if err != nil {
			return err
		}
		consume(b, n)
	}
	return nil
}

// consume takes n bytes, and the empty buffers behind them, off the front.
func consume(b *net.Buffers, n int) {
	for len(*b) > 0 {
		first := &(*b)[0]
		if n < len(*first) {
			*first = (*first)[n:]
			return
		}
		n -= len(*first)
		*first = nil
		*b = (*b)[1:]
	}
}

// failed makes the error that the net package makes of the same.
func (c *conn) failed(op string, err error) error {
	return &net.OpError{
		Op: op, Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(),
		Err: os.NewSyscallError(op, err),
	}
}
