package vhost

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"drystone.example/drystone/backend/model"
)

// A queue is what QEMU has said about one virtqueue, and the ring that runs if
// it has said enough. It belongs to the control goroutine but for the
// interrupts, which any worker may send.
type queue struct {
	setup   ringSetup
	kick    *eventFD
	enabled bool
	paused  time.Time // when it was last disabled
	ring    *ring
	parked  int64

	call, fault atomic.Pointer[eventFD]
}

// startable reports whether QEMU has said all that a ring needs.
func (q *queue) startable() bool {
	return q.ring == nil && q.enabled && q.kick != nil && q.setup.num > 0 && q.setup.desc != 0
}

// start begins a life of the queue, if it can.
func (s *session) start(i int) error {
	q := s.queues[i]
	if q.ring != nil {
		q.ring.enable(q.enabled)
		return nil
	}
	if !q.startable() || s.closing {
		return nil
	}
	if s.agreed.features&featureProtocol == 0 {
		return model.Errorf(model.Invalid, "a front end that cannot enable rings one by one")
	}
	r := &ring{
		srv: s.srv, mem: &s.mem, queue: q, index: i, setup: q.setup, features: s.agreed.features,
		wait: s.srv.retired(), idle: make(chan struct{}), enabled: true,
	}
	r.kick.Store(q.kick)
	r.ctx, r.cancel = context.WithCancel(s.srv.ctx)
	if err := r.open(); err != nil {
		r.cancel()
		return err
	}
	q.ring = r
	s.park(q, 0)
	s.srv.holder.want(1, 1)
	s.srv.stats.running.Add(1)
	s.srv.rings.Go(r.run)
	q.call.Load().signal() // an earlier life may have answered and not said so
	s.tellSize()
	return nil
}

// park publishes how many requests q has left behind.
func (s *session) park(q *queue, n int64) {
	s.srv.stats.parked.Add(n - q.parked)
	q.parked = n
}

// leave ends the life of the queue's ring at once and returns where it stood.
func (s *session) leave(q *queue) (next uint16, left int) {
	r := q.ring
	if r == nil {
		return q.setup.base, 0
	}
	r.halt()
	next, left = r.detach()
	q.ring = nil
	s.srv.retire(r)
	return next, left
}

// setKick replaces the kick. A ring that runs goes on with the new one.
func (q *queue) setKick(e *eventFD) error {
	old := q.kick
	q.kick = e
	if q.ring != nil && e != nil {
		q.ring.kick.Store(e)
		e.signal() // whatever was kicked in between
	}
	return old.close()
}

// setCall replaces the interrupt. Until it has started a device QEMU gives us one that
// nobody hears, so what a running ring has said already is said again: with event
// indexes the guest hears of nothing more until it has taken what it was not told of.
func (q *queue) setCall(e *eventFD) error {
	old := q.call.Swap(e)
	if q.ring != nil {
		e.signal()
	}
	return old.close()
}

// close gives QEMU's files back.
func (q *queue) close() error {
	return errors.Join(q.setKick(nil), q.call.Swap(nil).close(), q.fault.Swap(nil).close())
}
