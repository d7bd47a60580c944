package volume

import (
	"context"
	"sync"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/must"
)

// maxHeld bounds the requests in flight on one volume; more of them wait.
const maxHeld = 1024

var errClosed = model.Errorf(model.Unavailable, "the volume is closed on this node")

// A span is a stretch of a volume that is locked or waits to be. Shared spans
// may overlap each other. Whoever holds one never asks for a second.
type span struct {
	lo, hi     int64 // bytes
	exclusive  bool
	granted    chan struct{} // of capacity 1, made once
	prev, next *span
	list       *spanList // where it is; nil: nowhere
}

func (s *span) conflicts(o *span) bool {
	return s.lo < o.hi && o.lo < s.hi && (s.exclusive || o.exclusive)
}

// A spanList is a doubly linked list in order of arrival.
type spanList struct {
	first, last *span
	count       int
}

func (l *spanList) push(s *span) {
	must.That(s.list == nil, "span is in a list already")
	s.list, s.prev, s.next = l, l.last, nil
	if l.last != nil {
		l.last.next = s
	} else {
		l.first = s
	}
	l.last = s
	l.count++
}

func (l *spanList) remove(s *span) {
	must.That(s.list == l, "span is in another list")
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		l.first = s.next
	}
	if s.next != nil {
		s.next.prev = s.prev
	} else {
		l.last = s.prev
	}
	s.list, s.prev, s.next = nil, nil, nil
	l.count--
}

// blocked reports whether a span before stop conflicts with s.
func (l *spanList) blocked(s, stop *span) bool {
	for o := l.first; o != stop; o = o.next {
		if s.conflicts(o) {
			return true
		}
	}
	return false
}

// ranges is the interval lock of a volume. It is fair: nobody overtakes a
// waiter it conflicts with. Few requests are in flight at a time, so lists do.
type ranges struct {
	mu      sync.Mutex // held for list work only
	held    spanList
	waiting spanList
	closed  bool
	drained chan struct{} // closed when closed and nothing is held or waits
}

// acquire waits until s is locked.
func (r *ranges) acquire(ctx context.Context, s *span) error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return errClosed
	}
	if r.held.count < maxHeld && !r.held.blocked(s, nil) && !r.waiting.blocked(s, nil) {
		r.held.push(s)
		r.mu.Unlock()
		return nil
	}
	if s.granted == nil {
		s.granted = make(chan struct{}, 1)
	}
	r.waiting.push(s)
	r.mu.Unlock()
	select {
	case <-s.granted:
		return nil
	case <-ctx.Done():
	}
	r.mu.Lock()
	if s.list == &r.held {
		<-s.granted // it is there: both were done under r.mu
	}
	s.list.remove(s)
	r.grant()
	r.mu.Unlock()
	return ctx.Err()
}

// release unlocks s and lets those in who waited for it.
func (r *ranges) release(s *span) {
	r.mu.Lock()
	r.held.remove(s)
	if r.waiting.count > 0 || r.closed {
		r.grant()
	}
	r.mu.Unlock()
}

// grant moves every waiter that may go; r.mu is held. The channel has room for
// the one message a span ever gets, so nothing blocks.
func (r *ranges) grant() {
	for s := r.waiting.first; s != nil && r.held.count < maxHeld; {
		next := s.next
		if !r.held.blocked(s, nil) && !r.waiting.blocked(s, s) {
			r.waiting.remove(s)
			r.held.push(s)
			s.granted <- struct{}{} // last: who hears of it may release s without r.mu
		}
		s = next
	}
	if r.closed && r.held.count == 0 && r.waiting.count == 0 {
		select {
		case <-r.drained:
		default:
			close(r.drained)
		}
	}
}

// close refuses new spans and returns a channel that is closed when the last
// one is gone.
func (r *ranges) close() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.drained == nil {
		r.drained = make(chan struct{})
	}
	r.grant()
	return r.drained
}

// busy reports how many spans are held or wait.
func (r *ranges) busy() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held.count + r.waiting.count
}
