package volume

import (
	"context"
	"sync"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/must"
)

// maxHeld bounds the requests in flight on one volume, reads and writes apart, because
// writes may wait for room on a disk for long; more of them wait.
const maxHeld = 1024

var (
	errClosed = model.Errorf(model.Unavailable, "the volume is closed on this node")
	// errLent is the answer to an inner span that a write which waits for room has locked.
	errLent = model.Errorf(model.Unavailable, "a write to it waits for room on a disk")
)

// A spanUse is what a span is locked for. Requests of guests are fair: nobody overtakes a
// waiter it conflicts with. The holder's own work locks one page at a time, by a few
// workers: it is not counted, and overtakes waiters, who may wait for a lent span.
type spanUse uint8

const (
	ofGuest spanUse = iota
	inner           // it does not wait for a lent span (errLent): what frees room must not wait for what waits for room
	filling         // it goes beside a lent span
)

// A span is a stretch of a volume that is locked or waits to be. Shared spans
// may overlap each other. Whoever holds one never asks for a second.
type span struct {
	lo, hi     int64 // bytes
	exclusive  bool
	use        spanUse
	lent       bool          // of a write that waits for room: nothing of it is in flight
	denied     bool          // what granted says then is errLent
	granted    chan struct{} // of capacity 1, made once
	prev, next *span
	list       *spanList // where it is; nil: nowhere
}

func (s *span) overlaps(o *span) bool { return s.lo < o.hi && o.lo < s.hi }

func (s *span) conflicts(o *span) bool {
	return s.overlaps(o) && (s.exclusive || o.exclusive) && (!o.lent || s.use != filling)
}

// A spanList is a doubly linked list in order of arrival.
type spanList struct {
	first, last *span
	count       int
	writing     int // exclusive ones of guests
	reading     int // shared ones
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
	l.tally(s, 1)
}

func (l *spanList) tally(s *span, n int) {
	l.count += n
	switch {
	case s.use != ofGuest:
	case s.exclusive:
		l.writing += n
	default:
		l.reading += n
	}
}

// full reports whether there are as many of the kind of s as there may be.
func (l *spanList) full(s *span) bool {
	return s.use == ofGuest && (s.exclusive && l.writing >= maxHeld || !s.exclusive && l.reading >= maxHeld)
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
	l.tally(s, -1)
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

// ranges is the interval lock of a volume. Few requests are in flight at a time, so lists do.
type ranges struct {
	mu      sync.Mutex // held for list work only
	held    spanList
	waiting spanList
	closed  bool
	drained chan struct{} // closed when closed and nothing is held or waits
}

// acquire waits until s is locked; an inner one does not wait for a lent one (errLent).
func (r *ranges) acquire(ctx context.Context, s *span) error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return errClosed
	}
	switch {
	case r.free(s, nil):
		r.held.push(s)
		r.mu.Unlock()
		return nil
	case r.deny(s):
		r.mu.Unlock()
		return errLent
	}
	if s.granted == nil {
		s.granted = make(chan struct{}, 1)
	}
	r.waiting.push(s)
	r.mu.Unlock()
	select {
	case <-s.granted:
		if s.denied {
			s.denied = false
			return errLent
		}
		return nil
	case <-ctx.Done():
	}
	r.mu.Lock()
	if s.list != &r.waiting {
		<-s.granted // it is there: both were done under r.mu
	}
	if s.denied = false; s.list != nil {
		s.list.remove(s)
		r.grant()
	}
	r.mu.Unlock()
	return ctx.Err()
}

// deny reports whether an inner span would wait for a lent one; r.mu is held.
func (r *ranges) deny(s *span) bool {
	if s.use != inner {
		return false
	}
	for o := r.held.first; o != nil; o = o.next {
		if o.lent && o.overlaps(s) {
			return true
		}
	}
	return false
}

// lend lets fillers in beside s, of which nothing is in flight, until it is reclaimed or
// released, and sends inner spans away that wait for it. s is locked.
func (r *ranges) lend(s *span) {
	r.mu.Lock()
	s.lent = true
	for w := r.waiting.first; w != nil; {
		next := w.next
		if r.deny(w) {
			r.waiting.remove(w)
			w.denied = true
			w.granted <- struct{}{}
		}
		w = next
	}
	r.grant()
	r.mu.Unlock()
}

// reclaim ends what lend began. It reports false if a filler is there yet.
func (r *ranges) reclaim(s *span) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for o := r.held.first; o != nil; o = o.next {
		if o.use == filling && o.overlaps(s) {
			return false
		}
	}
	s.lent = false
	return true
}

// release unlocks s and lets those in who waited for it.
func (r *ranges) release(s *span) {
	r.mu.Lock()
	r.held.remove(s)
	s.lent = false
	if r.waiting.count > 0 || r.closed {
		r.grant()
	}
	r.mu.Unlock()
}

// grant moves every waiter that may go; r.mu is held. The channel has room for
// the one message a span ever gets, so nothing blocks.
func (r *ranges) grant() {
	for s := r.waiting.first; s != nil; {
		next := s.next
		if r.free(s, s) {
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

// free reports whether a span may be locked, of which those before stop wait longer;
// r.mu is held.
func (r *ranges) free(s, stop *span) bool {
	return !r.held.full(s) && !r.held.blocked(s, nil) && (s.use != ofGuest || !r.waiting.blocked(s, stop))
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
