package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
)

func TestHandshakeRefusals(t *testing.T) {
	s := start(t, Config{Name: "disk", Device: newMemory(1 << 20)})
	c := dial(t, s)
	for _, tc := range []struct {
		name string
		opt  option
		body []byte
		want answer
	}{
		{"starttls", 5, nil, repUnsup},
		{"extended headers", 11, nil, repUnsup},
		{"go with a name that is not there", optGo, goBody("other"), repUnknown},
		{"go cut short", optGo, []byte{0, 0, 0, 9, 'x'}, repInvalid},
		{"go with more infos than it says", optGo, append(goBody("disk"), 1), repInvalid},
		{"list with a body", optList, []byte{1}, repInvalid},
		{"structured with a body", optStructured, []byte{1}, repInvalid},
		{"context before structured", optSetMeta, metaBody("disk", contextAllocation), repInvalid},
		{"contexts of a name that is not there", optListMeta, metaBody("other"), repUnknown},
		{"more queries than bytes", optListMeta, []byte{0, 0, 0, 0, 255, 255, 255, 255}, repInvalid},
		{"too long", optInfo, make([]byte, optionMax+1), repTooBig},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c.t = t
			c.option(tc.opt, tc.body)
			c.want(tc.opt, tc.want)
		})
	}
	c.t = t
	c.option(optAbort, nil)
	c.want(optAbort, repAck)
	c.ended()
}

func TestHandshakeTellsTheExport(t *testing.T) {
	s := start(t, Config{Name: "disk", Device: newMemory(1<<20 + 100), ReadOnly: true})
	c := dial(t, s)
	c.option(optList, nil)
	if got := c.want(optList, repServer); string(got[4:]) != "disk" {
		t.Errorf("list has %q, want disk", got[4:])
	}
	c.want(optList, repAck)

	c.option(optInfo, goBody("disk", infoName, infoBlockSize))
	export := c.want(optInfo, repInfo)
	if got := binary.BigEndian.Uint64(export[2:]); got != 1<<20 {
		t.Errorf("size = %d, want whole sectors: %d", got, 1<<20)
	}
	wantFlags := uint16(hasFlags | readOnly | sendFlush | sendFUA | canMultiConn)
	if got := binary.BigEndian.Uint16(export[10:]); got != wantFlags {
		t.Errorf("flags = %#x, want %#x", got, wantFlags)
	}
	sizes := c.want(optInfo, repInfo)
	if diff := cmp.Diff(sizes[2:], []byte{0, 0, 2, 0, 0, 0, 16, 0, 2, 0, 0, 0}); diff != "" {
		t.Errorf("block sizes (-got +want):\n%s", diff)
	}
	if got := c.want(optInfo, repInfo); string(got[2:]) != "disk" {
		t.Errorf("name = %q", got[2:])
	}
	c.want(optInfo, repAck)

	c.option(optListMeta, metaBody("disk"))
	if got := c.want(optListMeta, repMeta); string(got[4:]) != contextAllocation {
		t.Errorf("context %q", got[4:])
	}
	c.want(optListMeta, repAck)
	c.option(optListMeta, metaBody("disk", "qemu:"))
	c.want(optListMeta, repAck)

	c.option(optExportName, []byte("disk"))
	if got := binary.BigEndian.Uint64(c.read(10)); got != 1<<20 {
		t.Errorf("the old way says %d bytes", got)
	}
	if g := c.do(cmdRead, 0, 0, 512, nil); g.err != 0 || len(g.data) != 512 {
		t.Errorf("read after the old way: %v, %d bytes", g.err, len(g.data))
	}
	if g := c.do(cmdWrite, 0, 0, 512, make([]byte, 512)); g.err != errnoPerm {
		t.Errorf("write to a read-only export: %v, want EPERM", g.err)
	}
}

func TestRequests(t *testing.T) {
	for _, structured := range []bool{false, true} {
		t.Run(fmt.Sprintf("structured=%v", structured), func(t *testing.T) {
			m := newMemory(64 << 20)
			c := connect(t, start(t, Config{Device: m}), structured)
			data := make([]byte, payloadMax)
			_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
			for _, io := range []struct{ off, n int }{
				{0, 512},
				{512, 4096},
				{pieceMax - 512, 1024}, // over a seam
				{1 << 20, payloadMax},
			} {
				if g := c.do(cmdWrite, flagFUA, uint64(io.off), io.n, data[:io.n]); g.err != 0 {
					t.Fatalf("write %d at %d: %v", io.n, io.off, g.err)
				}
				g := c.do(cmdRead, 0, uint64(io.off), io.n, nil)
				if g.err != 0 || !bytes.Equal(g.data, data[:io.n]) {
					t.Fatalf("read %d at %d: error %v, or other data", io.n, io.off, g.err)
				}
			}
			if g := c.do(cmdFlush, 0, 0, 0, nil); g.err != 0 || m.flushes.Load() != 1 {
				t.Errorf("flush: %v, %d reached the device", g.err, m.flushes.Load())
			}
			if g := c.do(cmdTrim, 0, 0, 4096, nil); g.err != 0 {
				t.Errorf("trim: %v", g.err)
			}
			for _, flags := range []uint16{0, flagNoHole} {
				if g := c.do(cmdWriteZeroes, flags, 1<<20, 3<<20, nil); g.err != 0 {
					t.Errorf("write zeroes, flags %#x: %v", flags, g.err)
				}
				g := c.do(cmdRead, 0, 1<<20, 3<<20, nil)
				if !bytes.Equal(g.data, make([]byte, 3<<20)) {
					t.Errorf("zeroes written with flags %#x read as something", flags)
				}
				if holes := !m.hasData(1 << 20); holes != (flags == 0) {
					t.Errorf("write zeroes, flags %#x: hole = %v", flags, holes)
				}
			}
			if g := c.do(cmdRead, 0, 0, 0, nil); g.err != 0 {
				t.Errorf("read of nothing: %v", g.err)
			}
		})
	}
}

func TestRequestRefusals(t *testing.T) {
	const size = 1 << 20
	for _, tc := range []struct {
		name  string
		cmd   command
		flags uint16
		off   uint64
		n     int
		want  errno
	}{
		{"read across the end", cmdRead, 0, size - 512, 1024, errnoInvalid},
		{"read far behind the end", cmdRead, 0, 1<<64 - 512, 1024, errnoInvalid},
		{"read too long", cmdRead, 0, 0, payloadMax + 512, errnoInvalid},
		{"read not whole sectors", cmdRead, 0, 1, 512, errnoInvalid},
		{"write across the end", cmdWrite, 0, size - 512, 1024, errnoNoSpace},
		{"write not whole sectors", cmdWrite, 0, 0, 100, errnoInvalid},
		{"write with a flag of others", cmdWrite, flagNoHole, 0, 512, errnoInvalid},
		{"trim across the end", cmdTrim, 0, 0, size + 512, errnoInvalid},
		{"zeroes across the end", cmdWriteZeroes, 0, 0, size + 512, errnoInvalid},
		{"resize", 8, 0, 0, size, errnoInvalid},
		{"a command there is not", 77, 0, 0, 512, errnoInvalid},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, structured := range []bool{false, true} {
				c := connect(t, start(t, Config{Device: newMemory(size)}), structured)
				var payload []byte
				if tc.cmd == cmdWrite {
					payload = make([]byte, tc.n)
				}
				if g := c.do(tc.cmd, tc.flags, tc.off, tc.n, payload); g.err != tc.want {
					t.Errorf("structured=%v: %v, want %v", structured, g.err, tc.want)
				}
				if g := c.do(cmdRead, 0, 0, 512, nil); g.err != 0 {
					t.Errorf("structured=%v: read afterwards: %v", structured, g.err)
				}
			}
		})
	}
}

func TestBlockStatus(t *testing.T) {
	m := newMemory(1 << 20)
	c := connect(t, start(t, Config{Device: m}), true)
	for _, at := range []uint64{uint64(hole), uint64(2 * hole), uint64(9 * hole)} {
		c.do(cmdWrite, 0, at, 512, make([]byte, 512))
	}
	const data, none = 0, statusHole | statusZero
	h := uint32(hole)
	for _, tc := range []struct {
		name  string
		flags uint16
		off   uint64
		n     int
		want  []uint32
	}{
		{"all", 0, 0, 1 << 20, []uint32{h, none, 2 * h, data, 6 * h, none, h, data, 6 * h, none}},
		{"one", flagReqOne, uint64(hole), 1 << 20 >> 1, []uint32{2 * h, data}},
		{"inside", 0, 512, 1024, []uint32{1024, none}},
	} {
		g := c.do(cmdBlockStatus, tc.flags, tc.off, tc.n, nil)
		want := []uint32{contextID}
		want = append(want, tc.want...)
		var got []uint32
		for b := g.data; len(b) >= 4; b = b[4:] {
			got = append(got, binary.BigEndian.Uint32(b))
		}
		if diff := cmp.Diff(got, want); diff != "" || g.err != 0 {
			t.Errorf("%s: error %v (-got +want):\n%s", tc.name, g.err, diff)
		}
	}
}

// A client learns which contexts there are by wildcards, gets those it asks for by
// their exact names, each once and with a number of its own, and a block status then
// has a chunk of each, the last one marked.
func TestContexts(t *testing.T) {
	m := newMemory(1 << 20)
	s := start(t, Config{Name: "disk", Device: colours{m}})
	c := dial(t, s)
	list := func(queries ...string) (names []string) {
		c.option(optListMeta, metaBody("disk", queries...))
		for {
			b := c.read(20)
			if answer(binary.BigEndian.Uint32(b[12:])) == repAck {
				return names
			}
			names = append(names, string(c.read(int(binary.BigEndian.Uint32(b[16:])))[4:]))
		}
	}
	for _, tc := range []struct {
		queries []string
		want    int
	}{
		{nil, 10},
		{[]string{"base:"}, 1},
		{[]string{"test:"}, 9},
		{[]string{"test:", "base:", "test:3"}, 10},
		{[]string{"test:3", "test:77", "other:"}, 1},
	} {
		if got := list(tc.queries...); len(got) != tc.want {
			t.Errorf("a list of %q has %q, want %d", tc.queries, got, tc.want)
		}
	}
	c.option(optStructured, nil)
	c.want(optStructured, repAck)
	c.option(optSetMeta, metaBody("disk", "test:", "test:4", contextAllocation, "test:4", "test:2", "none:1"))
	for i, name := range []string{"test:4", contextAllocation, "test:2"} {
		got := c.want(optSetMeta, repMeta)
		if id := binary.BigEndian.Uint32(got); string(got[4:]) != name || id != uint32(i+1) {
			t.Errorf("context %d is %q with number %d, want %q", i+1, got[4:], id, name)
		}
	}
	c.want(optSetMeta, repAck)
	c.option(optGo, goBody("disk"))
	c.want(optGo, repInfo)
	c.want(optGo, repInfo)
	c.want(optGo, repAck)
	c.do(cmdWrite, 0, uint64(hole), 512, make([]byte, 512))
	c.send(cmdBlockStatus, 0, 7, 0, int(4*hole), nil)
	h := uint32(hole)
	for i, want := range [][]uint32{
		{1, h, 0, h, 4, 2 * h, 0},
		{2, h, 3, h, 0, 2 * h, 3},
		{3, h, 0, h, 2, 2 * h, 0},
	} {
		head := c.read(chunkHeaderSize)
		flags, kind := binary.BigEndian.Uint16(head[4:]), binary.BigEndian.Uint16(head[6:])
		var got []uint32
		for b := c.read(int(binary.BigEndian.Uint32(head[16:]))); len(b) >= 4; b = b[4:] {
			got = append(got, binary.BigEndian.Uint32(b))
		}
		if diff := cmp.Diff(want, got); diff != "" || kind != chunkStatus || flags&chunkDone != 0 != (i == 2) {
			t.Errorf("chunk %d has kind %d and flags %d (-want +got):\n%s", i, kind, flags, diff)
		}
	}
	if g := c.do(cmdRead, 0, 0, 512, nil); g.err != 0 {
		t.Errorf("read afterwards: %v", g.err)
	}
}

// A gate is a device whose writes wait to be let through or cancelled.
type gate struct {
	*memory
	entered chan int64
	open    chan struct{}
}

func newGate() *gate {
	return &gate{newMemory(1 << 20), make(chan int64, 2*depthMax), make(chan struct{})}
}

func (g *gate) WriteAt(ctx context.Context, b *iobuf.Buffer, off int64) error {
	g.entered <- off
	select {
	case <-g.open:
		return g.memory.WriteAt(ctx, b, off)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Requests overtake each other: a read is answered while depthMax-1 writes hang,
// and no more than depthMax are in flight.
func TestDepth(t *testing.T) {
	g := newGate()
	s := start(t, Config{Device: g})
	c := connect(t, s, false)
	for i := range depthMax - 1 {
		c.send(cmdWrite, 0, uint64(i), uint64(i)*512, 512, make([]byte, 512))
	}
	for range depthMax - 1 {
		<-g.entered
	}
	if r := c.do(cmdRead, 0, 0, 512, nil); r.err != 0 {
		t.Fatalf("read beside hanging writes: %v", r.err)
	}
	for i := range 3 {
		c.send(cmdWrite, 0, uint64(depthMax+i), 0, 512, make([]byte, 512))
	}
	<-g.entered
	if got := s.Stats().InFlight; got != depthMax {
		t.Errorf("%d in flight, want %d", got, depthMax)
	}
	close(g.open)
	seen := map[uint64]bool{}
	for range depthMax + 2 {
		r := c.receive(func(uint64) int { return 0 })
		if r.err != 0 || seen[r.cookie] {
			t.Fatalf("write %d: %v, answered before: %v", r.cookie, r.err, seen[r.cookie])
		}
		seen[r.cookie] = true
	}
}

// Closing answers what is in flight, and nothing that was finished is lost.
func TestCloseDrains(t *testing.T) {
	g := newGate()
	s, stop := startStoppable(t, Config{Device: g}, drainMax)
	c := connect(t, s, true)
	for i := range 8 {
		c.send(cmdWrite, 0, uint64(i), uint64(i)*512, 512, bytes.Repeat([]byte{byte(i + 1)}, 512))
	}
	for range 8 {
		<-g.entered
	}
	time.AfterFunc(20*time.Millisecond, func() { close(g.open) })
	stop()
	for range 8 {
		if r := c.receive(noData); r.err != 0 {
			t.Errorf("write %d: %v", r.cookie, r.err)
		}
	}
	c.ended()
	for i := range 8 {
		if got := g.bytes[i*512]; got != byte(i+1) {
			t.Errorf("write %d was answered and is not there", i)
		}
	}
	if _, err := os.Stat(s.cfg.Path); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func noData(uint64) int { return 0 }

// Closing ends in bounded time even if the device hangs and the client does not
// read; what hangs is cancelled and answered as such.
func TestCloseCancels(t *testing.T) {
	g := newGate()
	s, stop := startStoppable(t, Config{Device: g}, 30*time.Millisecond)
	c := connect(t, s, true)
	c.send(cmdWrite, 0, 7, 0, 512, make([]byte, 512))
	<-g.entered
	stop()
	if n := s.Stats(); n.InFlight != 0 || n.Errors != 1 || n.Connections != 0 {
		t.Errorf("after Run: %+v", n)
	}
}

// A client that breaks off, whatever it left behind, costs others nothing.
func TestClientBreaksOff(t *testing.T) {
	m := newMemory(64 << 20)
	s := start(t, Config{Device: m})
	for _, tc := range []struct {
		name string
		do   func(*client)
	}{
		{"inside a payload", func(c *client) { c.send(cmdWrite, 0, 0, 0, 4096, make([]byte, 100)) }},
		{"inside a header", func(c *client) { c.write(uint32(magicRequest)) }},
		{"without reading", func(c *client) {
			for i := range 64 {
				c.send(cmdRead, 0, uint64(i), 0, 1<<20, nil)
			}
		}},
		{"with a disconnect", func(c *client) { c.send(cmdDisconnect, 0, 0, 0, 0, nil) }},
		{"with nonsense", func(c *client) { c.write(make([]byte, requestSize)); c.ended() }},
		{"with a write too long", func(c *client) {
			c.send(cmdWrite, 0, 0, 0, payloadMax+512, nil)
			c.ended()
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := connect(t, s, true)
			tc.do(c)
			_ = c.Close()
			wait(t, "the connection's end", func() bool { return s.Stats().Connections == 0 })
			if got := s.Stats().InFlight; got != 0 {
				t.Errorf("%d requests in flight afterwards", got)
			}
		})
	}
}

func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited 10 s for %s", what)
		}
	}
}

func TestErrnoOfCode(t *testing.T) {
	for code, want := range map[model.Code]errno{
		model.Invalid: errnoInvalid, model.NoSpace: errnoNoSpace, model.Denied: errnoPerm,
		model.Fenced: errnoIO, model.Corrupt: errnoIO, model.Unavailable: errnoIO,
		model.Internal: errnoIO,
	} {
		if got := errnoOf(fmt.Errorf("write: %w", model.Errorf(code, "x"))); got != want {
			t.Errorf("errnoOf(%s) = %d, want %d", code, got, want)
		}
	}
}

func TestListenRefusals(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"no device", Config{Path: filepath.Join(dir, "a")}, "needs a device"},
		{"a file", Config{Path: file, Device: newMemory(512)}, "is not a socket"},
		{"a long path", Config{
			Path: filepath.Join(dir, strings.Repeat("x", 108)), Device: newMemory(512),
		}, "at most 107"},
	} {
		if _, err := Listen(t.Context(), tc.cfg); err == nil ||
			!strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
	s := start(t, Config{Path: filepath.Join(dir, "ok"), Device: newMemory(512)})
	if now, err := os.Stat(s.cfg.Path); err != nil || now.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("mode %v, %v; want a socket with 0600", now.Mode(), err)
	}
	if got, _ := os.ReadDir(dir); len(got) != 2 {
		t.Errorf("left behind: %v", got)
	}
}

// A fickle device does not know what became of a write.
type fickle struct{ *memory }

func (fickle) WriteAt(context.Context, *iobuf.Buffer, int64) error { return ErrHangUp }

// What a device cannot answer is not answered: the client hears that the connection ended,
// and nothing else.
func TestHangUp(t *testing.T) {
	s := start(t, Config{Name: "disk", Device: fickle{newMemory(1 << 20)}})
	c := connect(t, s, true)
	if got := c.do(cmdRead, 0, 0, 512, nil); got.err != 0 {
		t.Errorf("a read came to %+v", got)
	}
	c.send(cmdWrite, 0, 7, 0, 512, make([]byte, 512))
	c.ended()
	again := connect(t, s, true)
	if got := again.do(cmdRead, 0, 0, 512, nil); got.err != 0 {
		t.Errorf("a read after it came to %+v", got)
	}
}
