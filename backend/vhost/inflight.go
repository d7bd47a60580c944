package vhost

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"drystone.example/drystone/backend/model"
)

// The record of requests in flight is memory that QEMU keeps for us while we are
// away. Its layout is the vhost-user protocol's for split rings; all integers
// are little-endian. Per queue, at a multiple of 64 bytes:
//
//	u64 features, u16 version, u16 desc_num, u16 last_batch_head, u16 used_idx
//	then per descriptor: u8 inflight, u8 padding[5], u16 next, u64 counter
//
// The second word of the header and the first of each descriptor are written
// whole, so that being killed between two accesses leaves a state that recover
// understands.
const (
	inflightVersion = 1
	inflightHeader  = 16
	inflightDesc    = 16
	inflightAlign   = 64
	ringMax         = 32768 // descriptors of a split ring
)

// An inflightShape is for how many queues of how many descriptors a region is.
type inflightShape struct {
	queues, size uint16
}

func (s inflightShape) queueBytes() uint64 {
	n := uint64(inflightHeader) + uint64(s.size)*inflightDesc
	return (n + inflightAlign - 1) &^ (inflightAlign - 1)
}

func (s inflightShape) bytes() uint64 { return uint64(s.queues) * s.queueBytes() }

func (s inflightShape) check(queues int) error {
	if s.queues == 0 || int(s.queues) > queues || s.size == 0 || s.size > ringMax {
		return model.Errorf(model.Invalid, "a record of %d queues of %d", s.queues, s.size)
	}
	return nil
}

// An inflightRegion is that memory, mapped.
type inflightRegion struct {
	shape inflightShape
	data  []byte
}

// newInflight makes the memory. QEMU gets it and gives it back after every
// restart of ours.
func newInflight(shape inflightShape) (*os.File, error) {
	fd, err := unix.MemfdCreate("drystone-inflight", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("make the in-flight region: %w", err)
	}
	f := os.NewFile(uintptr(fd), "drystone-inflight")
	if err := f.Truncate(int64(shape.bytes())); err != nil {
		return nil, errors.Join(fmt.Errorf("make the in-flight region: %w", err), f.Close())
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS,
		unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		return nil, errors.Join(fmt.Errorf("seal the in-flight region: %w", err), f.Close())
	}
	return f, nil
}

// setInflight replaces the region; data nil takes it away.
func (m *memory) setInflight(data []byte, shape inflightShape) error {
	m.mu.Lock()
	old := m.inflight.data
	m.inflight = inflightRegion{shape: shape, data: data}
	m.mu.Unlock()
	if old == nil {
		return nil
	}
	return unix.Munmap(old)
}

// An inflightQueue is one queue's part of the region, or nothing if QEMU keeps
// no region for us.
type inflightQueue []byte

// queue returns the part of queue i with num descriptors.
func (r *inflightRegion) queue(i int, num uint16) (inflightQueue, error) {
	if r.data == nil {
		return nil, nil
	}
	if i >= int(r.shape.queues) || num > r.shape.size {
		return nil, model.Errorf(model.Invalid, "queue %d of %d descriptors is not in the record",
			i, num)
	}
	n := r.shape.queueBytes()
	return r.data[uint64(i)*n:][:n:n], nil
}

// An inflightState is the second word of the header.
type inflightState struct {
	version, num, batch, used uint16
}

func (q inflightQueue) state() inflightState {
	w := load64(q, 8)
	return inflightState{uint16(w), uint16(w >> 16), uint16(w >> 32), uint16(w >> 48)}
}

func (q inflightQueue) setState(s inflightState) {
	store64(q, 8, uint64(s.version)|uint64(s.num)<<16|uint64(s.batch)<<32|uint64(s.used)<<48)
}

func (q inflightQueue) desc(i uint16) uint64 { return inflightHeader + uint64(i)*inflightDesc }

// set writes whether descriptor i is in flight, and the one completed before it.
func (q inflightQueue) set(i uint16, inflight bool, next uint16) {
	w := uint64(next) << 48
	if inflight {
		w |= 1
	}
	store64(q, q.desc(i), w)
}

func (q inflightQueue) get(i uint16) (inflight bool, next uint16) {
	w := load64(q, q.desc(i))
	return w&0xff != 0, uint16(w >> 48)
}

// begin records that the chain at head was taken from the ring.
func (q inflightQueue) begin(head uint16, counter uint64) {
	if q == nil {
		return
	}
	store64(q, q.desc(head)+8, counter)
	q.set(head, true, 0)
}

// ending records that head is about to appear in the used ring.
func (q inflightQueue) ending(head uint16) {
	if q == nil {
		return
	}
	s := q.state()
	q.set(head, true, s.batch)
	s.batch = head
	q.setState(s)
}

// ended records that head appeared there, as the one before used.
func (q inflightQueue) ended(head, used uint16) {
	if q == nil {
		return
	}
	_, next := q.get(head)
	q.set(head, false, next)
	s := q.state()
	s.used = used
	q.setState(s)
}

// recover brings the record in line with the used ring and returns the chains
// that were taken and not answered, in the order they were taken, and the next
// counter. Nothing in the record is believed without a check: what makes no
// sense is taken for a ring that was reset.
func (q inflightQueue) recover(num, used uint16) (heads []uint16, counter uint64) {
	if q == nil {
		return nil, 1
	}
	s := q.state()
	batch := used - s.used // answered without being marked so
	if s.version != inflightVersion || s.num != num || batch > num {
		for i := range num {
			store64(q, q.desc(i)+8, 0)
			q.set(i, false, 0)
		}
		q.setState(inflightState{version: inflightVersion, num: num, used: used})
		return nil, 1
	}
	for i := s.batch; batch > 0 && i < num; batch-- {
		_, next := q.get(i)
		q.set(i, false, next)
		i = next
	}
	s.used = used
	q.setState(s)
	type taken struct {
		head    uint16
		counter uint64
	}
	var all []taken
	for i := range num {
		if inflight, _ := q.get(i); inflight {
			all = append(all, taken{i, load64(q, q.desc(i)+8)})
		}
	}
	slices.SortFunc(all, func(a, b taken) int { return cmp.Compare(a.counter, b.counter) })
	counter = 1
	for _, t := range all {
		heads = append(heads, t.head)
		counter = max(counter, t.counter+1)
	}
	return heads, counter
}
