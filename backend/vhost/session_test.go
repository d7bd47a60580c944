package vhost

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drystone.example/drystone/backend/model"
)

// settle is how long a test watches for something that must not happen.
const settle = 50 * time.Millisecond

// A valve holds calls of one kind until it is opened.
type valve struct {
	op      string
	entered chan int64 // offsets
	open    chan struct{}
}

func newValve(d *disk, op string) *valve {
	v := &valve{op: op, entered: make(chan int64, 1024), open: make(chan struct{})}
	d.hook = func(ctx context.Context, op string, off, _ int64) error {
		if op != v.op {
			return nil
		}
		v.entered <- off
		select {
		case <-v.open:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return v
}

func TestOffers(t *testing.T) {
	d := newDisk(3 << 20)
	s, _ := start(t, d.config())
	v := newVMM(t, s.cfg.Path, 1)
	v.dial()
	if got := binary.LittleEndian.Uint64(v.ask(getFeatures, nil)); got != v.features|featureLogAll {
		t.Errorf("features %#x, want %#x", got, v.features|featureLogAll)
	}
	v.handshake()
	le, c := binary.LittleEndian, v.config()
	if len(c) != 57 {
		t.Fatalf("%d bytes of configuration, want 57", len(c))
	}
	for _, tc := range []struct {
		name      string
		got, want uint64
	}{
		{"capacity", le.Uint64(c), 3 << 20 / 512},
		{"seg_max", uint64(le.Uint32(c[12:])), 126},
		{"blk_size", uint64(le.Uint32(c[20:])), 512},
		{"physical_block_exp", uint64(c[24]), 3},
		{"min_io_size", uint64(le.Uint16(c[26:])), 8},
		{"opt_io_size", uint64(le.Uint32(c[28:])), 128},
		{"wce", uint64(c[32]), 1},
		{"num_queues", uint64(le.Uint16(c[34:])), queuesDefault},
		{"max_discard_sectors", uint64(le.Uint32(c[36:])), discardSectorsMax},
		{"max_discard_seg", uint64(le.Uint32(c[40:])), 16},
		{"discard_sector_alignment", uint64(le.Uint32(c[44:])), 128},
		{"max_write_zeroes_sectors", uint64(le.Uint32(c[48:])), zeroesSectorsMax},
		{"max_write_zeroes_seg", uint64(le.Uint32(c[52:])), 16},
		{"write_zeroes_may_unmap", uint64(c[56]), 1},
	} {
		if tc.got != tc.want {
			t.Errorf("%s = %d, want %d", tc.name, tc.got, tc.want)
		}
	}
}

// A refusal is a message that makes no sense.
type refusal struct {
	name  string
	kind  kind
	body  []byte
	files []int
}

func two(a, b uint32) []byte {
	return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, a), b)
}

// refusals lists some, with the files they need.
func refusals(v *vmm, mem, event int) []refusal {
	page := region{size: 4096}
	big := inflightShape{queues: 65, size: 128}
	return []refusal{
		{"features that were not offered", setFeatures, u64(1 << 34), nil},
		{"packed rings' memory region", setFeatures, u64(v.features | 1<<33), nil},
		{"post-copy", setProtocolFeatures, u64(1 << 8), nil},
		{"a short number", setFeatures, []byte{1}, nil},
		{"a queue there is not", setVringNum, two(64, 128), nil},
		{"a ring of no power of two", setVringNum, two(0, 100), nil},
		{"a ring too large", setVringNum, two(0, 1<<16), nil},
		{"a base too large", setVringBase, two(0, 1<<16), nil},
		{"enabled twice", setVringEnable, two(0, 2), nil},
		{"a kick that is a file", setVringKick, u64(0), []int{mem}},
		{"a kick without a file", setVringKick, u64(0), nil},
		{"a polled ring", setVringKick, u64(noFile), nil},
		{"an interrupt that is a file", setVringCall, u64(0), []int{mem}},
		{"memory without a file", setMemTable, table(page), nil},
		{"memory that is an eventfd", setMemTable, table(page), []int{event}},
		{"memory not of whole pages", setMemTable, table(region{size: 4095}), []int{mem}},
		{
			"memory behind the file's end", setMemTable,
			table(region{size: 4096, offset: 1 << 40}),
			[]int{mem},
		},
		{"no memory", setMemTable, table(region{}), []int{mem}},
		{
			"memory beyond the address space", setMemTable,
			table(region{guest: 1<<64 - 4096, size: 8192}),
			[]int{mem},
		},
		{
			"memory that overlaps in the guest", setMemTable,
			table(region{size: 8192}, region{guest: 4096, size: 4096, user: 1 << 30}),
			[]int{mem, mem},
		},
		{
			"memory that overlaps in QEMU", setMemTable,
			table(region{size: 8192}, region{guest: 1 << 30, size: 4096, user: 4096}),
			[]int{mem, mem},
		},
		{"a table of nine regions", setMemTable, table(make([]region, 9)...), nil},
		{"a table cut short", setMemTable, table(page)[:39], []int{mem}},
		{"a memory slot", 37, append(make([]byte, 8), table(page)[8:]...), []int{mem}},
		{
			"a record for too many queues", setInflightFD,
			encodeInflight(big.bytes(), big, inflightLen),
			[]int{mem},
		},
		{
			"a record shorter than it says", setInflightFD,
			encodeInflight(10, v.shape, inflightLen),
			[]int{mem},
		},
		{
			"configuration the guest may not write", setConfig,
			append(append(two(0, 8), two(0, 0)[:4]...), make([]byte, 8)...), nil,
		},
		{"a message there is not", 99, nil, nil},
		{"post-copy advise", 28, nil, nil},
	}
}

// What makes no sense is refused, and the connection goes on.
func TestMessageRefusals(t *testing.T) {
	s, _ := start(t, newDisk(1<<20).config())
	v := newVMM(t, s.cfg.Path, 1)
	v.dial()
	v.handshake()
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(event) }()
	q := v.queues[0]
	for _, tc := range refusals(v, v.memory.fd, event) {
		if v.try(tc.kind, tc.body, tc.files...) {
			t.Errorf("%s: accepted", tc.name)
		}
	}
	wce := append(append(two(configWCE, 1), two(0, 0)[:4]...), 0)
	v.must(setConfig, wce)
	if b := v.ask(getConfig, append(two(250, 20), make([]byte, 24)...)); len(b) != 0 {
		t.Errorf("configuration behind its end: %d bytes", len(b))
	}
	if b := v.ask(getVringBase, two(99, 0)); len(b) != 0 {
		t.Errorf("base of a queue there is not: %d bytes", len(b))
	}
	v.run()
	if st, _ := q.do(blkFlush, 0, nil, 0); st != statusOK {
		t.Errorf("flush afterwards: status %d", st)
	}
	if v.try(setInflightFD, v.inflightBody(), v.inflight.fd) {
		t.Error("a record for a ring that runs: accepted")
	}
	if v.try(setVringNum, two(0, 64)) {
		t.Error("another size for a ring that runs: accepted")
	}
}

// R4: a kicked ring that is not enabled stays untouched; one that is disabled
// answers what it took and takes no more.
func TestEnableGates(t *testing.T) {
	d := newDisk(1 << 20)
	valve := newValve(d, "write")
	s, _ := start(t, d.config())
	v := newVMM(t, s.cfg.Path, 1)
	v.dial()
	v.handshake()
	v.prepare()
	q := v.queues[0]
	first := q.request(blkOut, 0, make([]byte, 512), 0)
	q.poke()
	time.Sleep(settle)
	if len(valve.entered) > 0 || q.usedIndex() != 0 || s.Stats().Running != 0 {
		t.Fatal("a ring that was not enabled was touched")
	}
	v.enable(0, true)
	<-valve.entered
	v.enable(0, false)
	second := q.request(blkOut, 1, make([]byte, 512), 0)
	q.poke()
	close(valve.open)
	q.wait(first)
	time.Sleep(settle)
	if q.collect(); second.done || len(valve.entered) > 0 {
		t.Fatal("a chain was taken from a disabled ring")
	}
	v.enable(0, true)
	q.wait(second)
}

// GET_VRING_BASE waits for what is in flight and says where the next start goes
// on.
func TestStopDrains(t *testing.T) {
	d := newDisk(1 << 20)
	valve := newValve(d, "write")
	s, v := boot(t, d, 1)
	q := v.queues[0]
	for i := range 5 {
		q.request(blkOut, uint64(i), make([]byte, 512), 0)
	}
	for range 5 {
		<-valve.entered
	}
	time.AfterFunc(settle, func() { close(valve.open) })
	if got := v.stop(0); got != 5 {
		t.Errorf("base %d, want 5", got)
	}
	if q.collect(); q.completed != 5 {
		t.Errorf("%d requests were answered before the base, want 5", q.completed)
	}
	if got := s.Stats(); got.Parked != 0 || got.Running != 0 {
		t.Errorf("stats %+v", got)
	}
}

// R5: a stalled device parks its requests after a while; QEMU goes on, and at
// the next start they are carried out, once, after the old ones have come back.
func TestStopParks(t *testing.T) {
	d := newDisk(1 << 20)
	valve := newValve(d, "write")
	var released atomic.Int32
	cfg := d.config()
	cfg.Release = func() { released.Add(1) }
	const park = time.Second
	s, _ := start(t, cfg, func(s *Server) { s.times.park = park })
	v := newVMM(t, s.cfg.Path, 2)
	v.dial()
	v.handshake()
	v.run()
	data := random(1, 512)
	for i := range 6 {
		v.queues[i/3].request(blkOut, uint64(i), data, 0)
	}
	for range 6 {
		<-valve.entered
	}
	v.enable(0, false)
	v.enable(1, false)
	began := time.Now()
	if got := v.stop(0); got != 3 || s.Stats().Parked != 3 {
		t.Fatalf("base %d, parked %d; want 3 and 3", got, s.Stats().Parked)
	}
	first := time.Since(began)
	le := binary.LittleEndian
	v.ask(getVringBase, le.AppendUint32(le.AppendUint32(nil, 1), 0))
	if both := time.Since(began); first < park || both > first+park/2 {
		t.Errorf("the first queue was waited for %v, both %v; want %v once", first, both, park)
	}
	v.ask(getFeatures, nil) // QEMU is answered although the device is not
	for i := range v.queues {
		v.prepareRing(i)
		v.enable(i, true)
	}
	time.Sleep(settle)
	for _, q := range v.queues {
		if len(valve.entered) > 0 || q.usedIndex() != 0 || released.Load() > 0 {
			t.Fatal("parked requests were started beside those they repeat")
		}
	}
	close(valve.open)
	for i, q := range v.queues {
		q.waitAll()
		if q.completed != 3 || !d.holds(int64(i)*3*512, data) {
			t.Errorf("queue %d: %d answers, want 3, or other data", i, q.completed)
		}
	}
	if got := s.Stats(); got.Parked != 0 || got.Resubmitted != 6 {
		t.Errorf("stats %+v", got)
	}
}

// R5: what was parked never touches the guest again: it may have been reset and
// use its memory for something else when the device comes back.
func TestParkedTouchNothing(t *testing.T) {
	d := newDisk(1 << 20)
	valve := newValve(d, "read")
	s, _ := start(t, d.config(), func(s *Server) { s.times.park = settle })
	v := newVMM(t, s.cfg.Path, 1)
	v.dial()
	v.handshake()
	v.run()
	q := v.queues[0]
	o := q.request(blkIn, 0, nil, 4096)
	<-valve.entered
	v.stop(0)
	q.reset()
	v.inflight = nil
	v.getInflight()
	before := bytes.Repeat([]byte{0xaa}, lowSize+highSize)
	copy(v.memory.data[o.data:], before[:8192])
	copy(before, v.memory.data)
	close(valve.open)
	eventually(t, "the request to come back", func() bool { return s.Stats().InFlight == 0 })
	if !bytes.Equal(v.memory.data, before) {
		t.Error("the guest's memory changed after its ring was stopped")
	}
	v.must(setInflightFD, v.inflightBody(), v.inflight.fd)
	v.prepareRing(0)
	v.enable(0, true)
	if st, _ := q.do(blkIn, 0, nil, 512); st != statusOK || s.Stats().Resubmitted != 0 {
		t.Errorf("after the reset: status %d, %d resubmitted", st, s.Stats().Resubmitted)
	}
}

// The park time is what the rules say.
func TestParkAfter(t *testing.T) {
	s, _ := start(t, newDisk(512).config())
	if s.times.park != 5*time.Second {
		t.Errorf("a stalled device is waited for %v, want 5 s", s.times.park)
	}
}

// R5: during a migration requests are never parked; QEMU that gives up frees the
// control goroutine.
func TestStopNeverParksWhileLogging(t *testing.T) {
	d := newDisk(1 << 20)
	valve := newValve(d, "write")
	s, _ := start(t, d.config(), func(s *Server) { s.times.park = time.Millisecond })
	v := newVMM(t, s.cfg.Path, 1)
	v.dial()
	v.handshake()
	v.run()
	v.startLog()
	v.queues[0].request(blkOut, 0, make([]byte, 512), 0)
	<-valve.entered
	v.enable(0, false)
	v.send(getVringBase, make([]byte, 8))
	time.Sleep(settle)
	if got := s.Stats(); got.Parked != 0 || got.InFlight != 1 {
		t.Fatalf("stats %+v", got)
	}
	_ = v.nc.Close()
	eventually(t, "the connection's end", func() bool { return !s.Stats().Connected })
	close(valve.open)
}

// R3: a QEMU that reconnects while its device is stopped starts it without a
// handshake, against a process that has never seen it.
func TestStartWithoutHandshake(t *testing.T) {
	d := newDisk(1 << 20)
	dir := t.TempDir()
	cfg := d.config()
	cfg.Path, cfg.State = filepath.Join(dir, "s"), filepath.Join(dir, "state")
	_, stop := start(t, cfg)
	v := newVMM(t, cfg.Path, 1)
	v.dial()
	v.handshake()
	v.run()
	q := v.queues[0]
	data := random(1, 512)
	q.do(blkOut, 0, data, 0)
	v.stop(0)
	stop()

	start(t, cfg)
	v.dial()
	v.run() // needs REPLY_ACK, which nobody negotiated on this connection
	if st, got := q.do(blkIn, 0, nil, 512); st != statusOK || !bytes.Equal(got, data) {
		t.Errorf("status %d, or other data", st)
	}
	if err := os.WriteFile(cfg.State, []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.Path = filepath.Join(dir, "other")
	s, _ := start(t, cfg)
	if s.state.now != (negotiated{}) {
		t.Errorf("a torn state file was taken for %+v", s.state.now)
	}
}

// startLog does what QEMU does when a migration begins.
func (v *vmm) startLog() {
	v.t.Helper()
	pages := (highAt + highSize) / logPage
	v.log = newMemfd(v.t, pages/8)
	le := binary.LittleEndian
	v.ask(setLogBase, le.AppendUint64(le.AppendUint64(nil, uint64(pages/8)), 0), v.log.fd)
	v.must(setFeatures, u64(v.features|featureLogAll))
	for _, q := range v.queues {
		v.must(setVringAddr, q.addrBody(true))
	}
}

func (v *vmm) isDirty(guest uint64) bool {
	page := guest / logPage
	return v.log.data[page/8]>>(page%8)&1 != 0
}

// R9: every page that is written while LOG_ALL is on is marked, and no other.
func TestDirtyLog(t *testing.T) {
	d := newDisk(16 << 20)
	_, v := boot(t, d, 1)
	q := v.queues[0]
	q.do(blkIn, 0, nil, 4096)
	v.startLog()
	for i, b := range v.log.data {
		if b != 0 {
			t.Fatalf("log byte %d is %#x before anything was written", i, b)
		}
	}
	v.next = 0x200000
	low := q.request(blkIn, 0, nil, 12288+512)
	q.wait(low)
	v.next = highAt + 0x1000
	high := q.request(blkIn, 0, nil, 512)
	q.wait(high)
	v.next = highAt + 0x100000
	out := q.request(blkOut, 0, make([]byte, 512), 0)
	q.wait(out)
	want := map[uint64]bool{}
	for _, g := range []uint64{
		low.data, low.data + 4096, low.data + 8192, low.data + 12288, low.status,
		high.data, high.status, out.status, q.used, q.used + 4 + 8*ringSize,
	} {
		want[g/logPage] = true
	}
	for page := range uint64((highAt + highSize) / logPage) {
		if v.isDirty(page*logPage) != want[page] {
			t.Errorf("page %#x: dirty = %v, want %v", page, !want[page], want[page])
		}
	}
	clear(v.log.data)
	v.must(setFeatures, u64(v.features))
	v.must(setVringAddr, q.addrBody(false))
	q.do(blkIn, 0, nil, 512)
	for i, b := range v.log.data {
		if b != 0 {
			t.Fatalf("log byte %d is %#x after the log was turned off", i, b)
		}
	}
}

// R2, R7: memory comes and goes while requests are in flight, at once, whatever
// the device does; what was read for memory that is gone is an error.
func TestMemoryChangesUnderRequests(t *testing.T) {
	d := newDisk(1 << 20)
	valve := newValve(d, "read")
	_, v := boot(t, d, 1)
	q := v.queues[0]
	kept := q.request(blkIn, 0, nil, 512)
	v.next = highAt
	gone := q.chain([]segment{q.head(blkIn, 0)},
		[]segment{{v.alloc(512), 512}, {kept.status + 16, 1}}, false)
	gone.status = kept.status + 16
	q.publish(gone)
	<-valve.entered
	<-valve.entered
	v.setMemory(lowRegion, region{guest: 1 << 33, size: 1 << 20, user: 1 << 20})
	close(valve.open)
	q.wait(kept)
	q.wait(gone)
	if got := v.at(kept.status, 1)[0]; got != statusOK {
		t.Errorf("read to memory that stayed: status %d", got)
	}
	if got := v.at(gone.status, 1)[0]; got != statusIOError {
		t.Errorf("read to memory that is gone: status %d, want an error", got)
	}
	v.setMemory(highRegion, lowRegion)
	if st, _ := q.do(blkIn, 0, nil, 512); st != statusOK {
		t.Errorf("read to memory that came back: status %d", st)
	}
}

// A new size reaches QEMU over the back channel, at once or at the next start,
// and reads up to it work.
func TestResize(t *testing.T) {
	d := newDisk(2 << 20)
	d.size.Store(1 << 20)
	s, v := boot(t, d, 1)
	if st, _ := v.queues[0].do(blkIn, 1<<20/512, nil, 512); st != statusIOError {
		t.Errorf("read behind the end: status %d", st)
	}
	d.size.Store(2 << 20)
	s.Resize(2 << 20)
	v.told()
	if got := binary.LittleEndian.Uint64(v.config()); got != 2<<20/512 {
		t.Errorf("capacity %d", got)
	}
	if st, _ := v.queues[0].do(blkIn, 1<<20/512, nil, 512); st != statusOK {
		t.Errorf("read behind the old end: status %d", st)
	}
	v.stop(0)
	s.Resize(3 << 20)
	v.told()
	v.prepareRing(0)
	v.enable(0, true)
	v.told() // again: QEMU ignores it while the device is stopped
}

func (v *vmm) told() {
	v.t.Helper()
	b := make([]byte, headerSize)
	_ = v.back.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := v.back.Read(b); err != nil {
		v.t.Fatalf("QEMU was not told: %v", err)
	}
	if k, flags, size, err := decodeHeader(b); err != nil || k != configChanged || size != 0 ||
		flags&flagNeedReply != 0 {
		v.t.Errorf("QEMU was told %d, flags %#x, %d bytes, %v", k, flags, size, err)
	}
}

// The disk is taken at the first ENABLE, off the control goroutine, requests wait
// for it, failures are retried, and it is given back when the last ring stopped.
func TestAcquireAndRelease(t *testing.T) {
	d := newDisk(1 << 20)
	var mu sync.Mutex
	var calls []string
	note := func(s string) { mu.Lock(); calls = append(calls, s); mu.Unlock() }
	noted := func() int { mu.Lock(); defer mu.Unlock(); return len(calls) }
	let := make(chan error)
	cfg := d.config()
	cfg.Acquire = func(ctx context.Context) (Device, error) {
		note("acquire")
		select {
		case err := <-let:
			return d, err
		case <-ctx.Done():
			note("cancelled")
			return nil, ctx.Err()
		}
	}
	cfg.Release = func() { note("release") }
	s, stop := start(t, cfg, func(s *Server) { s.times.acquire = time.Millisecond })
	v := newVMM(t, cfg.Path, 2)
	v.path = s.cfg.Path
	v.dial()
	v.handshake()
	v.prepare()
	time.Sleep(settle)
	if noted() > 0 {
		t.Fatal("the disk was taken before ENABLE")
	}
	v.enable(0, true)
	v.enable(1, true)
	eventually(t, "the disk to be asked for", func() bool { return noted() == 1 })
	o := v.queues[0].request(blkOut, 0, random(1, 512), 0)
	v.ask(getFeatures, nil)
	let <- errors.New("held elsewhere")
	let <- nil
	v.queues[0].wait(o)
	v.stop(0)
	v.queues[1].do(blkFlush, 0, nil, 0)
	v.stop(1)
	eventually(t, "the disk to be given back", func() bool { return noted() == 3 })
	v.prepareRing(0)
	v.enable(0, true)
	eventually(t, "the disk to be asked for again", func() bool { return noted() == 4 })
	v.stop(0)
	eventually(t, "the attempt to be cancelled", func() bool { return noted() == 5 })
	stop()
	mu.Lock()
	defer mu.Unlock()
	want := []string{"acquire", "acquire", "release", "acquire", "cancelled"}
	for i := range want {
		if calls[i] != want[i] {
			t.Fatalf("calls %q, want %q", calls, want)
		}
	}
}

// Closing takes no more requests, answers those in flight, gives the disk back
// and removes the socket.
func TestCloseDrains(t *testing.T) {
	d := newDisk(1 << 20)
	valve := newValve(d, "write")
	var released atomic.Bool
	cfg := d.config()
	cfg.Release = func() { released.Store(true) }
	s, stop := start(t, cfg)
	v := newVMM(t, s.cfg.Path, 1)
	v.dial()
	v.handshake()
	v.run()
	q := v.queues[0]
	for i := range 5 {
		q.request(blkOut, uint64(i), make([]byte, 512), 0)
	}
	for range 5 {
		<-valve.entered
	}
	time.AfterFunc(settle, func() { close(valve.open) })
	stop()
	if q.collect(); q.completed != 5 || !released.Load() {
		t.Errorf("%d answers, released = %v; want 5 and true", q.completed, released.Load())
	}
	if _, err := os.Stat(s.cfg.Path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// Closing ends although the device hangs; the requests stay in the record and
// are carried out by the next process.
func TestCloseLeavesWhatHangs(t *testing.T) {
	d := newDisk(1 << 20)
	valve := newValve(d, "write")
	cfg := d.config()
	s, stop := start(t, cfg, func(s *Server) { s.times.drain = settle })
	cfg.Path = s.cfg.Path
	v := newVMM(t, cfg.Path, 1)
	v.dial()
	v.handshake()
	v.run()
	q := v.queues[0]
	data := random(3, 512)
	q.request(blkOut, 7, data, 0)
	<-valve.entered
	stop()
	if q.collect(); q.completed != 0 {
		t.Fatal("a request that was cancelled was answered")
	}
	d.hook = nil
	again, _ := start(t, cfg)
	v.dial()
	v.handshake()
	v.run()
	q.waitAll()
	if !d.holds(7*512, data) || again.Stats().Resubmitted != 1 {
		t.Errorf("other data, or %d resubmitted, want 1", again.Stats().Resubmitted)
	}
}

// R1: a QEMU that is in the middle of its handshake when we close is answered to
// the end of it.
func TestCloseWaitsForTheHandshake(t *testing.T) {
	s, stop := start(t, newDisk(1<<20).config())
	v := newVMM(t, s.cfg.Path, 1)
	v.dial()
	v.ask(getFeatures, nil)
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	eventually(t, "the socket to go", func() bool {
		_, err := os.Stat(s.cfg.Path)
		return err != nil
	})
	v.handshake()
	select {
	case <-stopped:
	case <-time.After(10 * time.Second):
		t.Fatal("Run goes on after the handshake")
	}
}

func TestListenRefusals(t *testing.T) {
	for _, tc := range []struct {
		name  string
		wrong func(*Config)
	}{
		{"no size", func(c *Config) { c.Size = 0 }},
		{"half a sector", func(c *Config) { c.Size = 700 }},
		{"a long serial", func(c *Config) { c.Serial = "123456789012345678901" }},
		{"too many queues", func(c *Config) { c.Queues = 257 }},
		{"no way to a disk", func(c *Config) { c.Acquire = nil }},
	} {
		cfg := newDisk(512).config()
		cfg.Path = filepath.Join(t.TempDir(), "s")
		tc.wrong(&cfg)
		if _, err := Listen(t.Context(), cfg); model.CodeOf(err) != model.Invalid {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}
