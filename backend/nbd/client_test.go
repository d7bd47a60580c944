package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// start serves a device for the length of a test and returns its server.
func start(t *testing.T, cfg Config) *Server {
	t.Helper()
	s, _ := startStoppable(t, cfg, drainMax)
	return s
}

// startStoppable is start with a way to close the server before the test ends,
// which waits for it.
func startStoppable(t *testing.T, cfg Config, drain time.Duration) (*Server, func()) {
	t.Helper()
	if cfg.Path == "" {
		cfg.Path = filepath.Join(t.TempDir(), "nbd.sock")
	}
	s, err := Listen(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Listen: %v", err)
	}
	s.drain = drain
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	}
	t.Cleanup(stop)
	return s, stop
}

// A client speaks the protocol by hand, so that it can also break it.
type client struct {
	t *testing.T
	net.Conn
	structured bool
}

func dial(t *testing.T, s *Server) *client {
	t.Helper()
	nc, err := net.Dial("unix", s.cfg.Path)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, Conn: nc}
	hello := c.read(18)
	if got := binary.BigEndian.Uint64(hello); got != magicServer {
		t.Fatalf("server says %#x", got)
	}
	c.write(uint32(fixedNewstyle | noZeroes))
	return c
}

// connect is dial and a handshake that ends in transmission.
func connect(t *testing.T, s *Server, structured bool) *client {
	t.Helper()
	c := dial(t, s)
	if structured {
		c.option(optStructured, nil)
		c.want(optStructured, repAck)
		c.option(optSetMeta, metaBody("", contextAllocation))
		c.want(optSetMeta, repMeta)
		c.want(optSetMeta, repAck)
		c.structured = true
	}
	c.option(optGo, goBody("", infoBlockSize))
	c.want(optGo, repInfo)
	c.want(optGo, repInfo)
	c.want(optGo, repAck)
	return c
}

func (c *client) read(n int) []byte {
	c.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(c.Conn, b); err != nil {
		c.t.Fatalf("read %d bytes: %v", n, err)
	}
	return b
}

// write sends values in the order and width they have.
func (c *client) write(values ...any) {
	c.t.Helper()
	var b bytes.Buffer
	for _, v := range values {
		if err := binary.Write(&b, binary.BigEndian, v); err != nil {
			c.t.Fatal(err)
		}
	}
	if _, err := c.Write(b.Bytes()); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

// ended fails unless the server has hung up.
func (c *client) ended() {
	c.t.Helper()
	if n, err := c.Read(make([]byte, 1)); err == nil || n > 0 {
		c.t.Fatal("the server goes on talking")
	}
}

func (c *client) option(o option, body []byte) {
	c.t.Helper()
	c.write(uint64(magicOption), uint32(o), uint32(len(body)), body)
}

func (c *client) want(o option, a answer) []byte {
	c.t.Helper()
	be, b := binary.BigEndian, c.read(20)
	if got := be.Uint64(b); got != magicAnswer {
		c.t.Fatalf("answer begins with %#x", got)
	}
	if gotO, gotA := option(be.Uint32(b[8:])), answer(be.Uint32(b[12:])); gotO != o || gotA != a {
		c.t.Fatalf("answer %#x to option %d, want %#x to %d", gotA, gotO, a, o)
	}
	return c.read(int(be.Uint32(b[16:])))
}

func stringBody(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

func goBody(name string, infos ...uint16) []byte {
	b := binary.BigEndian.AppendUint16(stringBody(nil, name), uint16(len(infos)))
	for _, i := range infos {
		b = binary.BigEndian.AppendUint16(b, i)
	}
	return b
}

func metaBody(name string, queries ...string) []byte {
	b := binary.BigEndian.AppendUint32(stringBody(nil, name), uint32(len(queries)))
	for _, q := range queries {
		b = stringBody(b, q)
	}
	return b
}

func (c *client) send(cmd command, flags uint16, cookie, off uint64, length int, payload []byte) {
	c.t.Helper()
	c.write(uint32(magicRequest), flags, uint16(cmd), cookie, off, uint32(length), payload)
}

// A got is an answer, whichever form it had.
type got struct {
	cookie uint64
	err    errno
	data   []byte
}

// receive reads one answer; of says which cookies belong to reads, for a simple
// reply does not tell.
func (c *client) receive(readLength func(cookie uint64) int) got {
	c.t.Helper()
	be := binary.BigEndian
	switch magic := be.Uint32(c.read(4)); magic {
	case magicSimple:
		b := c.read(12)
		g := got{err: errno(be.Uint32(b)), cookie: be.Uint64(b[4:])}
		if g.err == errnoNone {
			g.data = c.read(readLength(g.cookie))
		}
		return g
	case magicChunk:
		b := c.read(16)
		kind := be.Uint16(b[2:])
		g := got{cookie: be.Uint64(b[4:])}
		body := c.read(int(be.Uint32(b[12:])))
		switch kind {
		case chunkError:
			g.err = errno(be.Uint32(body))
		case chunkData:
			g.data = body[8:]
		case chunkStatus:
			g.data = body
		case chunkNone:
		default:
			c.t.Fatalf("chunk of kind %d", kind)
		}
		if be.Uint16(b)&chunkDone == 0 {
			c.t.Fatalf("chunk of kind %d is not the last", kind)
		}
		return g
	default:
		c.t.Fatalf("answer begins with %#x", magic)
		return got{}
	}
}

// do sends one request and returns its answer.
func (c *client) do(cmd command, flags uint16, off uint64, length int, payload []byte) got {
	c.t.Helper()
	const cookie = 0x0102030405060708
	c.send(cmd, flags, cookie, off, length, payload)
	g := c.receive(func(uint64) int {
		if cmd == cmdRead {
			return length
		}
		return 0
	})
	if g.cookie != cookie {
		c.t.Fatalf("cookie %#x comes back as %#x", uint64(cookie), g.cookie)
	}
	return g
}
