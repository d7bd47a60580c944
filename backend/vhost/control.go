package vhost

import (
	"encoding/binary"
	"fmt"
	"time"

	"drystone.example/drystone/backend/model"
)

// setMemory says what the guest's memory is, now and until it is said again.
func (s *session) setMemory(m *message) error {
	regions, err := decodeTable(m.body)
	if err != nil {
		return err
	}
	if len(m.files) != len(regions) {
		return model.Errorf(model.Invalid, "%d files for %d regions", len(m.files), len(regions))
	}
	return s.mem.replace(regions, m.files) // the mappings outlive the files
}

// setLogBase takes the dirty log over. QEMU waits for the answer.
func (s *session) setLogBase(m *message) ([]byte, error) {
	size, offset, err := decodeLog(m.body)
	if err != nil {
		return nil, err
	}
	if len(m.files) != 1 {
		return nil, model.Errorf(model.Invalid, "%d files for the dirty log", len(m.files))
	}
	data, err := mapFile(m.files[0], offset, size)
	if err != nil {
		return nil, fmt.Errorf("map the dirty log: %w", err)
	}
	return u64(0), s.mem.setLog(data)
}

// getInflight makes the record of requests in flight and gives it to QEMU to
// keep.
func (s *session) getInflight(m *message) error {
	_, _, shape, err := decodeInflight(m.body)
	if err != nil {
		return err
	}
	if err := shape.check(s.srv.cfg.Queues); err != nil {
		return err
	}
	f, err := newInflight(shape)
	if err != nil {
		return err
	}
	err = reply(s.nc, m.kind, encodeInflight(shape.bytes(), shape, len(m.body)), f)
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

// setInflight takes the record back.
func (s *session) setInflight(m *message) error {
	size, offset, shape, err := decodeInflight(m.body)
	if err != nil {
		return err
	}
	if err := shape.check(s.srv.cfg.Queues); err != nil {
		return err
	}
	if len(m.files) != 1 || size < shape.bytes() {
		return model.Errorf(model.Invalid, "%d files, %d bytes for a record of %d",
			len(m.files), size, shape.bytes())
	}
	for i, q := range s.queues {
		if q.ring != nil {
			return model.Errorf(model.Conflict, "queue %d is running", i)
		}
	}
	data, err := mapFile(m.files[0], offset, shape.bytes())
	if err != nil {
		return fmt.Errorf("map the in-flight region: %w", err)
	}
	return s.mem.setInflight(data, shape)
}

func (s *session) queueAt(index uint32) (*queue, error) {
	if index >= uint32(len(s.queues)) {
		return nil, model.Errorf(model.Invalid, "queue %d of %d", index, len(s.queues))
	}
	return s.queues[index], nil
}

// setVring takes what a ring needs before it starts, and starts or pauses it.
func (s *session) setVring(m *message) error {
	if m.kind == setVringAddr {
		return s.setVringAddr(m.body)
	}
	index, n, err := decodeVring(m.body)
	if err != nil {
		return err
	}
	q, err := s.queueAt(index)
	if err != nil {
		return err
	}
	if m.kind == setVringEnable {
		if n > 1 {
			return model.Errorf(model.Invalid, "queue %d enabled %d times", index, n)
		}
		q.enabled = n == 1
		if !q.enabled {
			q.paused = time.Now()
		}
		s.configured = true
		return s.start(int(index))
	}
	if q.ring != nil {
		return model.Errorf(model.Conflict, "queue %d is running", index)
	}
	if m.kind == setVringBase {
		if n > 0xffff {
			return model.Errorf(model.Invalid, "queue %d stands at %d", index, n)
		}
		q.setup.base = uint16(n)
		return nil
	}
	if n == 0 || n > ringMax || n&(n-1) != 0 {
		return model.Errorf(model.Invalid, "a ring of %d descriptors", n)
	}
	q.setup.num = uint16(n)
	return nil
}

// setVringAddr says where a ring is. While the ring runs only its log may change,
// which is how a migration begins and ends.
func (s *session) setVringAddr(b []byte) error {
	index, to, err := decodeVringAddr(b)
	if err != nil {
		return err
	}
	q, err := s.queueAt(index)
	if err != nil {
		return err
	}
	to.num, to.base = q.setup.num, q.setup.base
	if q.ring != nil {
		now := q.setup
		now.log, now.usedGuest = to.log, to.usedGuest
		if now != to {
			return model.Errorf(model.Conflict, "queue %d is running", index)
		}
		q.ring.setLog(to.log, to.usedGuest)
	}
	q.setup = to
	return nil
}

// setVringFile takes a file for kicks, interrupts or errors.
func (s *session) setVringFile(m *message) error {
	n, err := decodeU64(m.body)
	if err != nil {
		return err
	}
	q, err := s.queueAt(uint32(n & 0xff))
	if err != nil {
		return err
	}
	var e *eventFD
	if n&noFile == 0 {
		fd, err := m.take()
		if err != nil {
			return err
		}
		if e, err = newEventFD(fd); err != nil {
			return err
		}
	}
	switch m.kind { //nolint:exhaustive // handle sends only these
	case setVringCall:
		return q.setCall(e)
	case setVringErr:
		return q.fault.Swap(e).close()
	default:
		if e == nil {
			return model.Errorf(model.Invalid, "rings that are polled are not offered")
		}
		if err := q.setKick(e); err != nil {
			return err
		}
		return s.start(int(n & 0xff))
	}
}

// stop ends a ring for GET_VRING_BASE and answers where it stood. It waits for
// what is in flight; if the Device is stalled it parks it after a while, so that
// QEMU is not stalled too, unless the guest is being migrated: the requests
// would not come along. The while begins when the ring was disabled, which QEMU
// does to all before it stops the first, so that it is spent once.
func (s *session) stop(b []byte) ([]byte, error) {
	index, _, err := decodeVring(b)
	if err != nil {
		return nil, err
	}
	q, err := s.queueAt(index)
	if err != nil {
		return nil, err
	}
	if q.ring != nil {
		q.ring.halt()
		var late <-chan time.Time
		if !s.mem.isLogging() {
			if q.enabled {
				q.paused = time.Now()
			}
			timer := time.NewTimer(time.Until(q.paused.Add(s.srv.times.park)))
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-q.ring.idle:
		case <-s.gone:
		case <-late:
		}
	}
	next, left := s.leave(q)
	if left > 0 {
		s.srv.log.Warn("vhost requests parked: the disk is stalled", "queue", index, "requests", left)
	}
	s.park(q, int64(left))
	q.setup.base = next
	q.enabled = false
	if err := q.setKick(nil); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	return le.AppendUint32(le.AppendUint32(nil, index), uint32(next)), nil
}
