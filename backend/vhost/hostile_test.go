package vhost

import (
	"bytes"
	"context"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"
)

// gone is an address that is nobody's.
const gone = 1 << 40

// hostile are the ways to break a ring.
var hostile = []struct {
	name string
	do   func(q *vring)
}{
	{"a chain that loops", func(q *vring) {
		h := q.head(blkOut, 0)
		q.putDesc(0, descriptor{guest: h.guest, size: 16, flags: descNext, next: 1})
		q.putDesc(1, descriptor{guest: h.guest, size: 16, flags: descNext, next: 0})
		q.offer(0)
	}},
	{"a chain that leads out of the table", func(q *vring) {
		h := q.head(blkOut, 0)
		q.putDesc(0, descriptor{guest: h.guest, size: 16, flags: descNext, next: ringSize})
		q.offer(0)
	}},
	{"a head outside of the table", func(q *vring) { q.offer(ringSize) }},
	{"more chains than the ring has", func(q *vring) {
		store16(q.v.at(q.avail, 4), ringIndex, q.next+ringSize+1)
		q.poke()
	}},
	{"no status", func(q *vring) {
		q.publish(q.chain([]segment{q.head(blkFlush, 0)}, nil, false))
	}},
	{"a short header", func(q *vring) {
		h := q.head(blkFlush, 0)
		q.publish(q.chain([]segment{{h.guest, 15}}, []segment{{h.guest, 1}}, false))
	}},
	{"a header that is nowhere", func(q *vring) {
		q.publish(q.chain([]segment{{gone, 16}}, []segment{{q.v.alloc(1), 1}}, false))
	}},
	{"a status that is nowhere", func(q *vring) {
		q.publish(q.chain([]segment{q.head(blkFlush, 0)}, []segment{{gone, 1}}, false))
	}},
	{"a descriptor around the address space", func(q *vring) {
		q.publish(q.chain([]segment{q.head(blkOut, 0), {1<<64 - 100, 512}},
			[]segment{{q.v.alloc(1), 1}}, false))
	}},
	{"something to read behind something to write", func(q *vring) {
		h := q.head(blkOut, 0)
		q.putDesc(0, descriptor{guest: h.guest, size: 1, flags: descWrite | descNext, next: 1})
		q.putDesc(1, descriptor{guest: h.guest, size: 16})
		q.offer(0)
	}},
	{"an indirect table of odd size", func(q *vring) {
		q.putDesc(0, descriptor{guest: q.v.alloc(64), size: 63, flags: descIndirect})
		q.offer(0)
	}},
	{"an indirect table of nothing", func(q *vring) {
		q.putDesc(0, descriptor{guest: q.v.alloc(64), flags: descIndirect})
		q.offer(0)
	}},
	{"an indirect table that is nowhere", func(q *vring) {
		q.putDesc(0, descriptor{guest: gone, size: 64, flags: descIndirect})
		q.offer(0)
	}},
	{"an indirect table with a next", func(q *vring) {
		q.putDesc(0, descriptor{guest: q.v.alloc(64), size: 64, flags: descIndirect | descNext})
		q.offer(0)
	}},
	{"an indirect table in an indirect table", func(q *vring) {
		at := q.v.alloc(16)
		putDesc(q.v.at(at, 16), descriptor{guest: at, size: 16, flags: descIndirect})
		q.putDesc(0, descriptor{guest: at, size: 16, flags: descIndirect})
		q.offer(0)
	}},
	{"an indirect chain that loops", func(q *vring) {
		at := q.v.alloc(16)
		putDesc(q.v.at(at, 16), descriptor{guest: at, size: 16, flags: descNext})
		q.putDesc(0, descriptor{guest: at, size: 16, flags: descIndirect})
		q.offer(0)
	}},
	{"a chain one too long", func(q *vring) {
		q.putDesc(0, descriptor{
			guest: q.v.alloc((chainMax + 1) * 16), size: (chainMax + 1) * 16, flags: descIndirect,
		})
		q.offer(0)
	}},
}

// A guest that breaks the rules of the ring loses its queue: it is told so, no
// other queue is touched, and a reset gives it a new one.
func TestHostileRings(t *testing.T) {
	for _, tc := range hostile {
		t.Run(tc.name, func(t *testing.T) {
			d := newDisk(1 << 20)
			s, v := boot(t, d, 2)
			q := v.queues[0]
			tc.do(q)
			eventually(t, "the queue to fail", func() bool { return s.Stats().Failed == 1 })
			if !readable(q.fault, 5000) {
				t.Error("QEMU was not told")
			}
			if q.usedIndex() != 0 {
				t.Error("the chain was answered")
			}
			if st, _ := v.queues[1].do(blkIn, 0, nil, 512); st != statusOK {
				t.Errorf("the other queue: status %d", st)
			}
			v.stop(0)
			q.reset()
			v.stop(1)
			v.queues[1].reset()
			v.inflight = nil // as QEMU does at a reset
			v.getInflight()
			v.must(setInflightFD, v.inflightBody(), v.inflight.fd)
			for i := range v.queues {
				v.prepareRing(i)
				v.enable(i, true)
			}
			if st, _ := q.do(blkIn, 0, nil, 512); st != statusOK || s.Stats().Failed != 0 {
				t.Errorf("after the reset: status %d, stats %+v", st, s.Stats())
			}
		})
	}
}

// Data outside of the guest's memory costs that request and nothing else.
func TestDataThatIsNowhere(t *testing.T) {
	d := newDisk(1 << 20)
	_, v := boot(t, d, 1)
	q := v.queues[0]
	status := v.alloc(1)
	for _, s := range []segment{
		{1 << 40, 512},              // nobody's
		{lowSize - 256, 512},        // ends in the hole
		{highAt + highSize, 512},    // behind the end
		{1<<64 - 4096, 512},         // the last page
		{highAt + highSize - 1, 12}, // one byte of it is there
	} {
		for _, write := range []bool{false, true} {
			kind, out, in := uint32(blkIn), []segment{}, []segment{s}
			if write {
				kind, out, in = blkOut, in, out
			}
			size := uint32(512 - int(s.size)) // fill up to a sector
			if pad := (segment{v.alloc(512), size}); size > 0 {
				out, in = grow(out, pad, write), grow(in, pad, !write)
			}
			v.at(status, 1)[0] = 0xff
			o := q.chain(append([]segment{q.head(kind, 0)}, out...),
				append(in, segment{status, 1}), true)
			q.wait(q.publish(o))
			if got := v.at(status, 1)[0]; got != statusIOError {
				t.Errorf("%+v, write %v: status %d, want an error", s, write, got)
			}
		}
	}
	if !d.holds(0, make([]byte, 1<<20)) {
		t.Error("something was written")
	}
	if st, _ := q.do(blkIn, 0, nil, 512); st != statusOK {
		t.Errorf("afterwards: status %d", st)
	}
}

func grow(segs []segment, s segment, yes bool) []segment {
	if yes {
		return append(segs, s)
	}
	return segs
}

// R8: whatever the guest makes of descriptors and header while we look at them,
// a write goes to one of the places that it named, and every request is answered.
func TestChangedUnderUs(t *testing.T) {
	const safe = 512 << 10 // no place that is named lies behind it
	d := newDisk(1 << 20)
	canary := random(5, safe)
	copy(d.bytes[safe:], canary)
	s, v := boot(t, d, 1)
	q := v.queues[0]
	h := q.head(blkOut, 0)
	data, status := v.alloc(8192), v.alloc(1)
	o := q.chain([]segment{h, {data, 4096}}, []segment{{status, 1}}, false)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		desc := v.at(q.desc+uint64(o.descs[1])*descSize, descSize)
		head := v.at(h.guest, blkHeader)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			store64(desc, 0, []uint64{data, 1 << 50, data + 512}[i%3])
			store32(desc, 8, []uint32{4096, 1 << 31, 512, 100}[i%4])
			store64(head, 8, []uint64{0, 1 << 60, safe/512 - 8, 4}[i%4])
			store32(head, 0, []uint32{blkOut, blkIn, blkDiscard, 77, blkOut}[i%5])
		}
	}()
	for until := time.Now().Add(300 * time.Millisecond); time.Now().Before(until); {
		o.done = false
		q.wait(q.publish(o))
		q.free = q.free[:len(q.free)-len(o.descs)] // they stay in use
	}
	close(stop)
	<-stopped
	if !d.holds(safe, canary) {
		t.Error("the disk changed where no request was")
	}
	if got := s.Stats(); got.Failed != 0 || got.Writes == 0 {
		t.Errorf("stats %+v", got)
	}
}

// R7: memory that is taken away under us costs this guest its disk, and the
// process nothing: the next guest works.
func TestTruncatedMemory(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   func(v *vmm, q *vring)
	}{
		{"the rings", func(v *vmm, q *vring) {
			q.offer(0)
			_ = unix.Ftruncate(v.memory.fd, 0)
			q.poke()
		}},
		{"the data of a read", func(v *vmm, q *vring) {
			v.next = highAt
			o := q.chain([]segment{{q.desc + 0x4000, 16}},
				[]segment{{v.alloc(512), 512}, {q.desc + 0x4100, 1}}, false)
			_ = unix.Ftruncate(v.memory.fd, lowSize)
			q.publish(o)
		}},
		{"the data of a write", func(v *vmm, q *vring) {
			v.next = highAt
			v.at(q.desc+0x4000, 1)[0] = blkOut
			o := q.chain([]segment{{q.desc + 0x4000, 16}, {v.alloc(512), 512}},
				[]segment{{q.desc + 0x4100, 1}}, false)
			_ = unix.Ftruncate(v.memory.fd, lowSize)
			q.publish(o)
		}},
		{"the record of requests", func(v *vmm, q *vring) {
			v.inflight = newMemfd(v.t, int(v.shape.bytes()))
			v.must(setFeatures, u64(v.features))
			for i := range v.queues {
				v.stop(i)
			}
			v.must(setInflightFD, v.inflightBody(), v.inflight.fd)
			for i := range v.queues {
				v.prepareRing(i)
				v.enable(i, true)
			}
			_ = unix.Ftruncate(v.inflight.fd, 0)
			q.request(blkFlush, 0, nil, 0)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, _ := start(t, newDisk(1<<20).config())
			v := newVMM(t, s.cfg.Path, 1)
			v.dial()
			v.handshake()
			v.run()
			tc.do(v, v.queues[0])
			eventually(t, "the queue to fail", func() bool { return s.Stats().Failed == 1 })
			_ = v.nc.Close()
			next := newVMM(t, s.cfg.Path, 1)
			next.dial()
			next.handshake()
			next.run()
			if st, _ := next.queues[0].do(blkIn, 0, nil, 512); st != statusOK {
				t.Errorf("the next guest: status %d", st)
			}
		})
	}
}

// The dirty log is shared memory too.
func TestTruncatedLog(t *testing.T) {
	s, v := boot(t, newDisk(1<<20), 1)
	v.startLog()
	if err := unix.Ftruncate(v.log.fd, 0); err != nil {
		t.Fatal(err)
	}
	v.queues[0].request(blkIn, 0, nil, 512)
	eventually(t, "the queue to fail", func() bool { return s.Stats().Failed == 1 })
}

// What is said before the handshake, or instead of it, ends the connection at
// worst.
func TestNoise(t *testing.T) {
	s, _ := start(t, newDisk(1<<20).config())
	for _, b := range [][]byte{
		bytes.Repeat([]byte{0xff}, 12), bytes.Repeat([]byte{0}, 64),
		{1, 0, 0, 0},
		{1, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f},
	} {
		v := newVMM(t, s.cfg.Path, 1)
		v.dial()
		if _, err := v.nc.Write(b); err != nil {
			t.Fatal(err)
		}
		_ = v.nc.Close()
	}
	v := newVMM(t, s.cfg.Path, 1)
	v.dial()
	v.handshake()
	v.run()
	if st, _ := v.queues[0].do(blkIn, 0, nil, 512); st != statusOK {
		t.Errorf("status %d", st)
	}
}

// Requests beyond a queue's depth wait in the ring until one comes back.
func TestDepth(t *testing.T) {
	d := newDisk(1 << 20)
	valve := newValve(d, "read")
	s, v := boot(t, d, 1)
	q := v.queues[0]
	const n = depthMax + 40
	at, status := v.alloc(512), v.alloc(n)
	for i := range uint64(n) {
		q.publish(q.chain([]segment{q.head(blkIn, 0)},
			[]segment{{at, 512}, {status + i, 1}}, true))
	}
	for range depthMax {
		<-valve.entered
	}
	time.Sleep(settle)
	if got := s.Stats().InFlight; got != depthMax || len(valve.entered) > 0 {
		t.Errorf("%d requests in flight, want %d", got, depthMax)
	}
	close(valve.open)
	q.waitAll()
	if q.completed != n {
		t.Errorf("%d answers, want %d", q.completed, n)
	}
}

// The bytes of all buffers for reads are bounded: who finds none left waits.
func TestHeldBytes(t *testing.T) {
	d := newDisk(4 << 20)
	var inside, most atomic.Int64
	d.hook = func(context.Context, string, int64, int64) error {
		if n := inside.Add(1); n > most.Load() {
			most.Store(n)
		}
		time.Sleep(time.Millisecond)
		inside.Add(-1)
		return nil
	}
	s, _ := start(t, d.config(), func(s *Server) { s.reads = semaphore.NewWeighted(pieceMax) })
	v := newVMM(t, s.cfg.Path, 1)
	v.dial()
	v.handshake()
	v.run()
	q := v.queues[0]
	at, status := v.alloc(3<<20), v.alloc(8)
	for i := range uint64(8) {
		q.publish(q.chain([]segment{q.head(blkIn, 0)},
			[]segment{{at, 3 << 20}, {status + i, 1}}, true))
	}
	q.waitAll()
	for i := range uint64(8) {
		if got := v.at(status+i, 1)[0]; got != statusOK {
			t.Errorf("read %d: status %d", i, got)
		}
	}
	if most.Load() != 1 && most.Load() != 2 { // 2 MiB, or two times the 1 MiB that follows
		t.Errorf("%d reads at once where buffers for 2 MiB are", most.Load())
	}
	o := q.chain([]segment{q.head(blkIn, 0)}, []segment{{at, 1 << 31}, {status, 1}}, false)
	q.wait(q.publish(o))
	if got := v.at(status, 1)[0]; got != statusIOError {
		t.Errorf("a read of 2 GiB: status %d", got)
	}
}
