package vhost

import (
	"context"
	"encoding/binary"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Where the guest's memory is: two regions with a hole between them, and the
// addresses QEMU is said to have them at.
const (
	lowSize  = 8 << 20
	highAt   = 1 << 32
	highSize = 8 << 20
	userAt   = 0x7f0000000000
	ringSize = 256
)

// A vmm plays QEMU and the guest in it.
type vmm struct {
	t    testing.TB
	path string
	nc   *net.UnixConn
	back *net.UnixConn // our end of the back channel

	memory   *memfd // low, then high
	inflight *memfd
	log      *memfd
	shape    inflightShape
	features uint64
	queues   []*vring
	next     uint64 // free guest memory
}

// A memfd is shared memory, mapped.
type memfd struct {
	fd   int
	data []byte
}

func newMemfd(tb testing.TB, size int) *memfd {
	tb.Helper()
	fd, err := unix.MemfdCreate("vmm", unix.MFD_CLOEXEC)
	if err != nil {
		tb.Fatal(err)
	}
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		tb.Fatal(err)
	}
	data, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		tb.Fatal(err)
	}
	m := &memfd{fd, data}
	tb.Cleanup(func() {
		_ = unix.Munmap(m.data)
		_ = unix.Close(m.fd)
	})
	return m
}

// start serves cfg for the length of a test; stop ends it sooner and waits.
func start(t *testing.T, cfg Config, adjust ...func(*Server)) (s *Server, stop func()) {
	t.Helper()
	if cfg.Path == "" {
		cfg.Path = filepath.Join(t.TempDir(), "vhost.sock")
	}
	s, err := Listen(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Listen: %v", err)
	}
	for _, f := range adjust {
		f(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	stop = func() {
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

const defaultFeatures = featureSegMax | featureBlkSize | featureFlush | featureTopology |
	featureConfigWCE | featureMQ | featureDiscard | featureWriteZeroes | featureIndirect |
	featureEventIdx | featureProtocol | featureVersion1

// newVMM makes a machine with a number of queues; nothing is connected yet.
func newVMM(tb testing.TB, path string, queues int) *vmm {
	tb.Helper()
	v := &vmm{
		t: tb, path: path, features: defaultFeatures,
		memory: newMemfd(tb, lowSize+highSize),
		shape:  inflightShape{queues: uint16(queues), size: ringSize},
		next:   0x1000,
	}
	for i := range queues {
		v.queues = append(v.queues, v.newRing(i))
	}
	return v
}

// dial connects without saying a word.
func (v *vmm) dial() {
	v.t.Helper()
	var nc net.Conn
	eventually(v.t, "a connection to the back end", func() (ok bool) {
		var err error
		nc, err = net.Dial("unix", v.path)
		return err == nil
	})
	v.nc = nc.(*net.UnixConn) //nolint:errcheck // it was dialled as one
	v.t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(30 * time.Second))
}

// handshake is what QEMU says first on a connection.
func (v *vmm) handshake() {
	v.t.Helper()
	v.ask(getFeatures, nil)
	if got := binary.LittleEndian.Uint64(v.ask(getProtocolFeatures, nil)); got != protocolOffered {
		v.t.Fatalf("protocol features %#x, want %#x", got, protocolOffered)
	}
	v.send(setProtocolFeatures, u64(protocolOffered))
	v.ask(getQueueNum, nil)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		v.t.Fatal(err)
	}
	v.back = unixConn(v.t, pair[0])
	v.must(setBackendReqFD, nil, pair[1])
	_ = unix.Close(pair[1])
	v.send(setOwner, nil)
	v.ask(getFeatures, nil)
	for i, q := range v.queues {
		v.send(setVringCall, u64(uint64(i)), q.call)
		v.send(setVringErr, u64(uint64(i)), q.fault)
	}
	v.config()
}

func (v *vmm) config() []byte {
	v.t.Helper()
	le := binary.LittleEndian
	b := le.AppendUint32(le.AppendUint32(le.AppendUint32(nil, 0), 57), 0)
	b = v.ask(getConfig, append(b, make([]byte, 57)...))
	return b[configMeta:]
}

// run starts the device the way QEMU does, from SET_FEATURES to ENABLE.
func (v *vmm) run() {
	v.t.Helper()
	v.prepare()
	for i := range v.queues {
		v.enable(i, true)
	}
}

// prepare is run without ENABLE.
func (v *vmm) prepare() {
	v.t.Helper()
	v.must(setFeatures, u64(v.features))
	if v.inflight == nil {
		v.getInflight()
	}
	v.must(setInflightFD, v.inflightBody(), v.inflight.fd)
	v.setMemory(lowRegion, highRegion)
	for i := range v.queues {
		v.prepareRing(i)
	}
}

func (v *vmm) inflightBody() []byte {
	return encodeInflight(v.shape.bytes(), v.shape, inflightLen)
}

func (v *vmm) getInflight() {
	v.t.Helper()
	v.send(getInflightFD, encodeInflight(0, v.shape, inflightLen))
	m, err := receive(v.nc)
	if err != nil || len(m.files) != 1 {
		v.t.Fatalf("GET_INFLIGHT_FD: %v, %d files", err, len(m.files))
	}
	size, _, shape, err := decodeInflight(m.body)
	if err != nil || size != v.shape.bytes() || shape != v.shape {
		v.t.Fatalf("GET_INFLIGHT_FD: %v, %d bytes for %+v", err, size, shape)
	}
	data, err := unix.Mmap(m.files[0], 0, int(size), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_SHARED)
	if err != nil {
		v.t.Fatal(err)
	}
	v.inflight = &memfd{m.files[0], data}
	v.t.Cleanup(func() { _ = unix.Munmap(data); _ = unix.Close(v.inflight.fd) })
}

// The guest's two regions.
var (
	lowRegion  = region{guest: 0, size: lowSize, user: userAt}
	highRegion = region{guest: highAt, size: highSize, user: userAt + lowSize, offset: lowSize}
)

// table is the body of SET_MEM_TABLE.
func table(regions ...region) []byte {
	le := binary.LittleEndian
	b := le.AppendUint64(nil, uint64(len(regions)))
	for _, r := range regions {
		for _, n := range []uint64{r.guest, r.size, r.user, r.offset} {
			b = le.AppendUint64(b, n)
		}
	}
	return b
}

func (v *vmm) setMemory(regions ...region) {
	v.t.Helper()
	var files []int
	for range regions {
		files = append(files, v.memory.fd)
	}
	v.must(setMemTable, table(regions...), files...)
}

// prepareRing says where queue i is, with the base QEMU falls back to.
func (v *vmm) prepareRing(i int) {
	v.t.Helper()
	q := v.queues[i]
	v.vring(setVringNum, i, ringSize)
	v.vring(setVringBase, i, uint32(q.usedIndex()))
	v.must(setVringAddr, q.addrBody(false))
	v.send(setVringKick, u64(uint64(i)), q.kick)
	v.send(setVringCall, u64(uint64(i)), q.call)
}

func (v *vmm) vring(k kind, i int, n uint32) {
	v.t.Helper()
	le := binary.LittleEndian
	v.must(k, le.AppendUint32(le.AppendUint32(nil, uint32(i)), n))
}

func (v *vmm) enable(i int, on bool) {
	v.t.Helper()
	n := uint32(0)
	if on {
		n = 1
	}
	v.vring(setVringEnable, i, n)
}

// stop is how QEMU stops a queue; it returns what GET_VRING_BASE says.
func (v *vmm) stop(i int) uint32 {
	v.t.Helper()
	v.enable(i, false)
	le := binary.LittleEndian
	b := v.ask(getVringBase, le.AppendUint32(le.AppendUint32(nil, uint32(i)), 0))
	return le.Uint32(b[4:])
}

// reconnect hangs up and does all that QEMU does on a new connection.
func (v *vmm) reconnect() {
	v.t.Helper()
	_ = v.nc.Close()
	v.dial()
	v.handshake()
	v.run()
}

// send sends a message without asking for an acknowledgement.
func (v *vmm) send(k kind, body []byte, files ...int) { v.t.Helper(); v.put(k, 0, body, files) }

func (v *vmm) put(k kind, flags uint32, body []byte, files []int) {
	v.t.Helper()
	le := binary.LittleEndian
	b := le.AppendUint32(nil, uint32(k))
	b = le.AppendUint32(b, flagVersion|flags)
	b = append(le.AppendUint32(b, uint32(len(body))), body...)
	var oob []byte
	if len(files) > 0 {
		oob = syscall.UnixRights(files...)
	}
	if _, _, err := v.nc.WriteMsgUnix(b, oob, nil); err != nil {
		v.t.Fatalf("message %d: %v", k, err)
	}
}

// ask sends a message and returns its answer.
func (v *vmm) ask(k kind, body []byte, files ...int) []byte {
	v.t.Helper()
	v.put(k, 0, body, files)
	return v.answer(k)
}

func (v *vmm) answer(k kind) []byte {
	v.t.Helper()
	m, err := receive(v.nc)
	if err != nil || m.kind != k || m.flags&flagReply == 0 {
		v.t.Fatalf("message %d was answered by %+v, %v", k, m, err)
	}
	return m.body
}

// try sends a message that is to be acknowledged and reports whether it was.
func (v *vmm) try(k kind, body []byte, files ...int) bool {
	v.t.Helper()
	v.put(k, flagNeedReply, body, files)
	return binary.LittleEndian.Uint64(v.answer(k)) == 0
}

func (v *vmm) must(k kind, body []byte, files ...int) {
	v.t.Helper()
	if !v.try(k, body, files...) {
		v.t.Fatalf("message %d was refused", k)
	}
}

// alloc returns the address of n bytes of guest memory, which are then used up.
func (v *vmm) alloc(n uint64) uint64 {
	v.t.Helper()
	at := v.next
	v.next += (n + 15) &^ 15
	if at < lowSize && v.next > lowSize { // go on in the other region
		at = highAt
		v.next = at + (n+15)&^15
	}
	if v.next > highAt+highSize {
		v.t.Fatal("the guest is out of memory")
	}
	return at
}

// at returns n bytes at a guest address.
func (v *vmm) at(guest, n uint64) []byte {
	if guest >= highAt {
		guest = guest - highAt + lowSize
	}
	return v.memory.data[guest:][:n:n]
}

func unixConn(tb testing.TB, fd int) *net.UnixConn {
	tb.Helper()
	m := &message{files: []int{fd}}
	defer m.close()
	c, err := net.FileConn(fileOf(tb, fd))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	return c.(*net.UnixConn) //nolint:errcheck // it was made as one
}

func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(15 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("waited 15 s for %s", what)
		}
	}
}
