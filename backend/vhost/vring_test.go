package vhost

import (
	"encoding/binary"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A vring is the driver's side of a queue.
type vring struct {
	v                 *vmm
	index             int
	desc, avail, used uint64 // guest addresses
	kick, call, fault int

	free      []uint16
	seen      uint16 // used entries taken
	next      uint16 // available index
	waiting   map[uint16]*op
	completed int
}

// An op is one request of the guest's.
type op struct {
	q       *vring
	head    uint16
	descs   []uint16
	data    uint64 // where its data is
	size    uint64
	status  uint64
	done    bool
	written uint32
}

func (v *vmm) newRing(i int) *vring {
	v.t.Helper()
	v.next = (v.next + 4095) &^ 4095
	q := &vring{v: v, index: i, waiting: map[uint16]*op{}}
	q.desc = v.alloc(ringSize * descSize)
	q.avail = v.alloc(6 + 2*ringSize)
	q.used = v.alloc(6 + 8*ringSize)
	for j := range ringSize {
		q.free = append(q.free, uint16(j))
	}
	for _, fd := range []*int{&q.kick, &q.call, &q.fault} {
		*fd = newEvent(v.t)
	}
	return q
}

func newEvent(tb testing.TB) int {
	tb.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// user is the address QEMU has for a guest address.
func user(guest uint64) uint64 {
	if guest >= highAt {
		return userAt + lowSize + guest - highAt
	}
	return userAt + guest
}

func (q *vring) addrBody(log bool) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, uint32(q.index))
	if log {
		b = le.AppendUint32(b, 1)
	} else {
		b = le.AppendUint32(b, 0)
	}
	for _, n := range []uint64{user(q.desc), user(q.used), user(q.avail), q.used} {
		b = le.AppendUint64(b, n)
	}
	return b
}

func (q *vring) usedIndex() uint16 { return load16(q.v.at(q.used, 4), ringIndex) }

// reset makes the ring as new, as a driver that starts does.
func (q *vring) reset() {
	clear(q.v.at(q.desc, ringSize*descSize))
	clear(q.v.at(q.avail, 6+2*ringSize))
	clear(q.v.at(q.used, 6+8*ringSize))
	q.free, q.seen, q.next = nil, 0, 0
	for j := range ringSize {
		q.free = append(q.free, uint16(j))
	}
	clear(q.waiting)
}

// putDesc writes a descriptor.
func (q *vring) putDesc(i uint16, d descriptor) {
	putDesc(q.v.at(q.desc+uint64(i)*descSize, descSize), d)
}

func putDesc(b []byte, d descriptor) {
	le := binary.LittleEndian
	le.PutUint64(b, d.guest)
	le.PutUint32(b[8:], d.size)
	le.PutUint16(b[12:], d.flags)
	le.PutUint16(b[14:], d.next)
}

// chain writes a chain, directly or through an indirect table.
func (q *vring) chain(out, in []segment, indirect bool) *op {
	q.v.t.Helper()
	var list []descriptor
	for _, s := range out {
		list = append(list, descriptor{guest: s.guest, size: s.size})
	}
	for _, s := range in {
		list = append(list, descriptor{guest: s.guest, size: s.size, flags: descWrite})
	}
	o := &op{q: q}
	if indirect {
		table := q.v.alloc(uint64(len(list)) * descSize)
		for i, d := range list {
			if i < len(list)-1 {
				d.flags |= descNext
				d.next = uint16(i + 1)
			}
			putDesc(q.v.at(table+uint64(i)*descSize, descSize), d)
		}
		list = []descriptor{{
			guest: table, size: uint32(len(list)) * descSize, flags: descIndirect,
		}}
	}
	if len(q.free) < len(list) {
		q.v.t.Fatalf("%d descriptors are free, %d needed", len(q.free), len(list))
	}
	o.descs, q.free = q.free[:len(list):len(list)], q.free[len(list):]
	for i, d := range list {
		if i < len(list)-1 {
			d.flags |= descNext
			d.next = o.descs[i+1]
		}
		q.putDesc(o.descs[i], d)
	}
	o.head = o.descs[0]
	return o
}

// publish makes a chain available and kicks if the device wants it.
func (q *vring) publish(o *op) *op {
	q.waiting[o.head] = o
	q.offer(o.head)
	return o
}

// offer puts a head into the available ring and kicks.
func (q *vring) offer(head uint16) {
	avail := q.v.at(q.avail, 6+2*ringSize)
	store16(avail, ringEntries+2*uint64(q.next%ringSize), head)
	old := q.next
	q.next++
	store16(avail, ringIndex, q.next)
	used := q.v.at(q.used, 6+8*ringSize)
	fence()
	if q.v.features&featureEventIdx != 0 {
		event := load16(used, ringEntries+8*ringSize)
		if q.next-event-1 >= q.next-old {
			return
		}
	} else if load16(used, ringFlags)&usedNoNotify != 0 {
		return
	}
	q.poke()
}

func (q *vring) poke() { _, _ = unix.Write(q.kick, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

// fence orders what was written before it before what is read after it.
func fence() { var b [8]byte; store32(b[:], 0, 1) }

// collect takes what is in the used ring. It fails the test if a request is
// answered twice, or one that nobody made.
func (q *vring) collect() {
	used := q.v.at(q.used, 6+8*ringSize)
	for q.seen != load16(used, ringIndex) {
		at := ringEntries + 8*uint64(q.seen%ringSize)
		head := uint16(binary.LittleEndian.Uint32(used[at:]))
		o := q.waiting[head]
		if o == nil {
			q.v.t.Helper()
			q.v.t.Fatalf("used entry %d: chain %d is answered and was not waiting", q.seen, head)
		}
		delete(q.waiting, head)
		o.done, o.written = true, binary.LittleEndian.Uint32(used[at+4:])
		q.free = append(q.free, o.descs...)
		q.completed++
		q.seen++
		store16(q.v.at(q.avail, 6+2*ringSize), ringEntries+2*ringSize, q.seen) // used_event
		fence()
	}
}

// wait sleeps until an interrupt tells that o is done.
func (q *vring) wait(o *op) {
	for q.collect(); !o.done; q.collect() {
		if !readable(q.call, 15000) {
			q.v.t.Helper()
			q.v.t.Fatalf("no interrupt for chain %d in 15 s; %d waiting, used %d, seen %d",
				o.head, len(q.waiting), q.usedIndex(), q.seen)
		}
		drainEvent(q.call)
	}
}

func (q *vring) waitAll() {
	for q.collect(); len(q.waiting) > 0; q.collect() {
		for _, o := range q.waiting {
			q.wait(o)
			break
		}
	}
}

// readable waits for an eventfd, in milliseconds.
func readable(fd, timeout int) bool {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, timeout)
		if err != unix.EINTR {
			return n == 1
		}
	}
}

func drainEvent(fd int) { var b [8]byte; _, _ = unix.Read(fd, b[:]) }

func fileOf(tb testing.TB, fd int) *os.File {
	tb.Helper()
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		tb.Fatal(err)
	}
	f := os.NewFile(uintptr(own), "dup")
	tb.Cleanup(func() { _ = f.Close() })
	return f
}

// head writes a request header and returns its segment.
func (q *vring) head(kind uint32, sector uint64) segment {
	at := q.v.alloc(blkHeader)
	b := q.v.at(at, blkHeader)
	binary.LittleEndian.PutUint32(b, kind)
	binary.LittleEndian.PutUint32(b[4:], 0)
	binary.LittleEndian.PutUint64(b[8:], sector)
	return segment{at, blkHeader}
}

// request makes and publishes a request; data is what the guest sends, and size
// what it wants.
func (q *vring) request(kind uint32, sector uint64, data []byte, size uint64) *op {
	q.v.t.Helper()
	out := []segment{q.head(kind, sector)}
	var in []segment
	var at uint64
	if len(data) > 0 {
		at = q.v.alloc(uint64(len(data)))
		copy(q.v.at(at, uint64(len(data))), data)
		out = append(out, segment{at, uint32(len(data))})
	}
	if size > 0 {
		at = q.v.alloc(size)
		in = append(in, segment{at, uint32(size)})
	}
	status := q.v.alloc(1)
	q.v.at(status, 1)[0] = 0xff
	o := q.chain(out, append(in, segment{status, 1}), false)
	o.data, o.size, o.status = at, size, status
	return q.publish(o)
}

// do makes a request and waits; it returns the status and what came.
func (q *vring) do(kind uint32, sector uint64, data []byte, size uint64) (byte, []byte) {
	q.v.t.Helper()
	o := q.request(kind, sector, data, size)
	q.wait(o)
	return q.v.at(o.status, 1)[0], q.v.at(o.data, o.size)
}
