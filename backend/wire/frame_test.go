package wire

import (
	"bytes"
	"net"
	"testing"
	"time"
)

// A memConn is a connection that holds what will be read and keeps what is written.
type memConn struct {
	net.Conn
	in  bytes.Reader
	out bytes.Buffer
}

func (c *memConn) Read(p []byte) (int, error)       { return c.in.Read(p) }
func (c *memConn) Write(p []byte) (int, error)      { return c.out.Write(p) }
func (c *memConn) SetReadDeadline(time.Time) error  { return nil }
func (c *memConn) SetWriteDeadline(time.Time) error { return nil }

// Whatever comes, reading a frame ends, takes no more than the limit, and what it
// accepts is written the same way again.
func FuzzReadFrame(f *testing.F) {
	for _, one := range []frame{
		{kind: frameRequest, name: "greet", body: []byte(`{"a":1}`), timeout: time.Second},
		{kind: frameRequest, timeout: time.Millisecond},
	} {
		c := &memConn{}
		if err := writeFrame(c, one); err != nil {
			f.Fatal(err)
		}
		f.Add(c.out.Bytes())
	}
	f.Add([]byte("DR\x01\x01\x05\x00\x00\x00\xff\xff\xff\xff\x00\x00\x00\x00greet"))
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 1 << 10
		c := &memConn{}
		c.in.Reset(b)
		got, err := readFrame(c, frameRequest, func(string) int { return limit })
		if err != nil {
			return
		}
		if len(got.body) > limit || len(got.name) > nameMost {
			t.Fatalf("a frame with %d and %d bytes was accepted", len(got.name), len(got.body))
		}
		if err := writeFrame(c, got); err != nil {
			t.Fatal(err)
		}
		was := b[:len(b)-c.in.Len()]
		again := c.out.Bytes()
		// The time-out is bounded on reading; all else is as it was.
		if !bytes.Equal(was[:12], again[:12]) || !bytes.Equal(was[frameHeader:], again[frameHeader:]) {
			t.Errorf("read %x, wrote %x", was, again)
		}
	})
}

// Every way to cut a frame short is an error, not a frame.
func TestTruncatedFrame(t *testing.T) {
	c := &memConn{}
	if err := writeFrame(c, frame{kind: frameRequest, name: "greet", body: []byte("{}"), timeout: time.Second}); err != nil {
		t.Fatal(err)
	}
	whole := c.out.Bytes()
	for n := range whole {
		c := &memConn{}
		c.in.Reset(whole[:n])
		if f, err := readFrame(c, frameRequest, func(string) int { return DefaultLimit }); err == nil {
			t.Errorf("%d of %d bytes are taken for %+v", n, len(whole), f)
		}
	}
}
