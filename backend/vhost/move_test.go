package vhost

import (
	"testing"
)

// What a back end answered and did not tell the guest, since it was killed or QEMU took
// the interrupt away first, the next one tells it: a guest waits for it, and with event
// indexes it hears of nothing later either.
func TestInterruptOwed(t *testing.T) {
	d := newDisk(1 << 20)
	s, v := boot(t, d, 1)
	q := v.queues[0]
	q.do(blkOut, 0, make([]byte, 512), 0)
	o := q.request(blkOut, 1, random(1, 512), 0)
	eventually(t, "the answer", func() bool { return q.usedIndex() == 2 })
	v.stop(0)
	drainEvent(q.call)

	t.Log("the same QEMU and record")
	v.prepareRing(0)
	v.enable(0, true)
	q.hears(o)

	t.Log("another QEMU and back end")
	o = q.request(blkOut, 2, random(2, 512), 0)
	eventually(t, "the answer", func() bool { return q.usedIndex() == 3 })
	s2, _ := start(t, d.config())
	v.moveTo(s2)
	q.hears(o)
	if got := s.Stats().Parked; got != 0 {
		t.Errorf("%d requests stayed behind", got)
	}
}

// QEMU starts a device with an interrupt that nobody hears and replaces it when the ring
// runs already. What was answered in between reaches the guest.
func TestInterruptReplaced(t *testing.T) {
	d := newDisk(1 << 20)
	_, v := boot(t, d, 1)
	q := v.queues[0]
	q.do(blkOut, 0, make([]byte, 512), 0)
	v.stop(0)
	o := q.request(blkOut, 1, random(1, 512), 0)
	call, deaf := q.call, newEvent(t)
	q.call = deaf
	v.prepareRing(0)
	v.enable(0, true)
	eventually(t, "the answer", func() bool { return q.usedIndex() == 2 })
	q.call = call
	drainEvent(q.call)
	v.must(setVringCall, u64(0), q.call)
	q.hears(o)
}

// Rings that move from one back end to another and back under requests lose none and
// repeat none: what was taken is answered before the ring is given away, and what was
// not is taken at the other side without a kick.
func TestRingsMove(t *testing.T) {
	const rounds, each = 200, 24
	d := newDisk(1 << 20)
	here, v := boot(t, d, 2)
	there, _ := start(t, d.config())
	top := v.next
	asked := 0
	for round := range rounds {
		v.next = top
		for i := range each {
			q := v.queues[i%2]
			q.request(blkOut, uint64(i), random(byte(round), 512), 0)
			asked++
		}
		here, there = there, here
		v.moveTo(here)
		for i := range each / 4 {
			q := v.queues[i%2]
			q.request(blkOut, uint64(each+i), random(byte(round), 512), 0)
			asked++
		}
		for _, q := range v.queues {
			for len(q.waiting) > 0 {
				q.hear()
				q.collect()
			}
		}
		for i := range each + each/4 {
			if !d.holds(int64(i)*512, random(byte(round), 512)) {
				t.Fatalf("round %d: sector %d was answered and is not written", round, i)
			}
		}
	}
	if got := v.queues[0].completed + v.queues[1].completed; got != asked {
		t.Errorf("%d requests were answered, want %d", got, asked)
	}
	if n := there.Stats().Resubmitted + here.Stats().Resubmitted; n != 0 {
		t.Errorf("%d requests were carried out again", n)
	}
}

// moveTo stops the device and starts it at another back end, as a migration does: the
// record of requests does not come along, nor a kick or an interrupt under way.
func (v *vmm) moveTo(s *Server) {
	v.t.Helper()
	bases := make([]uint32, len(v.queues))
	for i := range v.queues {
		v.enable(i, false)
	}
	for i := range v.queues {
		bases[i] = v.stop(i)
	}
	_ = v.nc.Close()
	for i, q := range v.queues {
		if bases[i] != uint32(q.usedIndex()) {
			v.t.Errorf("queue %d stands at %d, and %d are answered", i, bases[i], q.usedIndex())
		}
		drainEvent(q.call)
		drainEvent(q.kick)
	}
	v.path, v.inflight = s.cfg.Path, nil
	v.dial()
	v.handshake()
	v.run()
}

// hear waits for an interrupt.
func (q *vring) hear() {
	q.v.t.Helper()
	if !readable(q.call, 15000) {
		q.v.t.Fatalf("queue %d: no interrupt in 15 s; %d waiting, used %d, seen %d",
			q.index, len(q.waiting), q.usedIndex(), q.seen)
	}
	drainEvent(q.call)
}

// hears waits for an interrupt that tells that o is done.
func (q *vring) hears(o *op) {
	q.v.t.Helper()
	q.hear()
	if q.collect(); !o.done {
		q.v.t.Fatal("an interrupt, and the request is not answered")
	}
}
