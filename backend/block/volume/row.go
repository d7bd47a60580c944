package volume

import (
	"errors"
	"syscall"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/must"
)

// The pace of a row whose connection broke.
const (
	resendFirst = 20 * time.Millisecond
	resendMax   = 250 * time.Millisecond
	// refusedFor is how long there may be no process behind a disk before its
	// members are dropped, without waiting for the rest of the timeout.
	refusedFor = time.Second
	// corruptLimit is how often in a row a disk may find what it was sent damaged.
	corruptLimit = 3
)

// A rowState says whether a row may be sent.
type rowState uint8

const (
	live   rowState = iota
	broken          // an answer was an error: what is unanswered is sent again
	dead            // no member is left on the disk; nothing is sent any more
)

// A row is everything sent to one disk for the volume, in the order of its
// numbers. Its fields are guarded by Volume.mu.
type row struct {
	v     *Volume
	id    model.DiskID
	disk  Disk
	local bool

	state   rowState
	last    uint64   // number of the last message in the row
	first   *message // unanswered ones, in order
	final   *message
	unsent  *message // the first that was not handed over since the row was live
	flying  int      // handed over and not answered
	sending bool     // somebody is in Apply, or about to be

	retryAt  time.Time // of a broken row
	backoff  time.Duration
	probed   bool      // the committer waits for an answer
	refused  time.Time // since when connections are refused; zero: they are not
	corrupts int
	heard    time.Time // when the newest message was queued that has been answered
	failure  error     // why its members shall be dropped; nil: they shall not

	gauges    [gaugeKinds]gauge
	slow      *gauge    // why the proposal being made drops it, beside failure; nil: it does not
	fullUntil time.Time // it refused a write, and is asked again then; zero: it has room

	reading int       // reads under way
	shunned time.Time // reads prefer another member until then
}

// A message is one op in one row. It is used again when the row has its answer.
type message struct {
	op         disk.Op
	row        *row
	group      *group // what waits for it; nil: nothing does any more
	job        *job   // keeps Sums alive
	prev, next *message
	queued     time.Time
	flying     bool
	full       error       // the disk has no room for it and did not apply it
	torn       bool        // it broke off before: the disk may have some of it
	done       func(error) // m.answered, bound once
}

// A group is one number and the messages that carry it, one for each member.
type group struct {
	number     uint64 // it is open under
	sent       uint64 // the number it was sent with last
	column     int
	job        *job
	part       int
	left       int       // members that have not got it
	refusing   []*row    // of those, who has no room for it
	without    []*member // active ones that have nothing of it, once it was held
	asks       *row      // whom it was sent to again to see whether there is room
	held       bool      // it waits for room
	asked      bool      // it was held before
	torn       bool      // who refused it may have some of it
	prev, next *group
}

// push appends a message to the row; v.mu is held.
func (r *row) push(m *message, number uint64, now time.Time) {
	if number <= r.last { // tested first, because the arguments cost allocations
		must.That(false, "number %d after %d in the row of disk %s", number, r.last, r.id)
	}
	m.row, m.queued = r, now
	m.op.Number, m.op.Prev = number, r.last
	r.last = number
	m.prev, m.next = r.final, nil
	if r.final != nil {
		r.final.next = m
	} else {
		r.first = m
	}
	r.final = m
	if r.unsent == nil {
		r.unsent = m
	}
}

// unlink takes an answered message out; v.mu is held.
func (r *row) unlink(m *message) {
	if m.prev != nil {
		m.prev.next = m.next
	} else {
		r.first = m.next
	}
	if m.next != nil {
		m.next.prev = m.prev
	} else {
		r.final = m.prev
	}
	if r.unsent == m {
		r.unsent = m.next
	}
	m.prev, m.next = nil, nil
}

// withdraw takes out a message that the disk refused and did not apply, so that
// the next one follows the one before it; v.mu is held and nothing is flying.
func (r *row) withdraw(m *message) {
	if m.next != nil {
		m.next.op.Prev = m.op.Prev
	} else {
		r.last = m.op.Prev
	}
	r.unlink(m)
}

// take returns the next message to hand over, or nil; v.mu is held.
func (r *row) take() *message {
	if r.state != live || r.sending || r.unsent == nil {
		return nil
	}
	m := r.unsent
	r.unsent = m.next
	r.sending, m.flying = true, true
	r.flying++
	m.op.Watermark = r.v.watermark()
	return m
}

// quiet reports whether all that was handed over has been answered.
func (r *row) quiet() bool { return r.flying == 0 && !r.sending }

// A handover is a message on its way into Apply. The message may be used again
// as soon as Apply was called, so the row stands beside it.
type handover struct {
	row  *row
	disk Disk
	m    *message
}

// pump hands over what rows have to send. It is called with v.mu held and
// releases it. Whoever finds a row being sent leaves its message to the one who
// sends: so a row has one sender at a time without a goroutine of its own.
func (v *Volume) pump(rows []*row) {
	var room [6]handover
	batch := room[:0]
	for _, r := range rows {
		if m := r.take(); m != nil {
			batch = append(batch, handover{r, r.disk, m})
		}
	}
	for len(batch) > 0 {
		v.unlock()
		for _, h := range batch {
			h.disk.Apply(&h.m.op, h.m.done)
		}
		v.mu.Lock()
		kept := batch[:0]
		for _, h := range batch {
			h.row.sending = false
			if m := h.row.take(); m != nil {
				kept = append(kept, handover{h.row, h.row.disk, m})
			} else if h.row.state == broken {
				v.wake = true // it may be quiet now
			}
		}
		batch = kept
	}
	v.unlock()
}

// answered is what a disk calls when the op is durable or refused.
func (m *message) answered(err error) {
	r := m.row
	v := r.v
	v.mu.Lock()
	if !m.flying {
		must.That(false, "message %d of disk %s was answered twice", m.op.Number, r.id)
	}
	m.flying = false
	r.flying--
	switch {
	case r.state == dead:
		v.recycle(m)
	case err == nil:
		r.backoff, r.refused, r.corrupts = 0, time.Time{}, 0
		r.answeredIn(m.op.Kind, time.Since(m.queued))
		if m.queued.After(r.heard) {
			r.heard = m.queued
		}
		if r.probed {
			r.probed, v.change = false, true
		}
		r.unlink(m)
		if r.failure != nil && (r.first == nil || time.Since(r.first.queued) < v.cfg.Timeout) {
			r.failure = nil // it answered after all, before anything was decided
		}
		if m.group != nil {
			v.hasRoom(r, m.group)
			v.arrived(m.group)
		}
		v.recycle(m)
	default:
		v.rowError(r, m, err)
	}
	if r.state == broken && r.quiet() {
		v.wake = true
	}
	v.unlock()
}

// rowError decides what an error means for a row; v.mu is held.
func (v *Volume) rowError(r *row, m *message, err error) {
	code := model.CodeOf(err)
	if code == model.Fenced {
		v.end(err)
		return
	}
	now := time.Now()
	if r.state == live {
		r.state = broken
		r.backoff = min(max(2*r.backoff, resendFirst), resendMax)
		r.retryAt = now.Add(r.backoff)
	}
	v.wake = true
	m.torn = m.torn || code != model.NoSpace && !errors.Is(err, disk.ErrGap)
	switch {
	case errors.Is(err, disk.ErrGap) || code == model.Conflict:
	case code == model.NoSpace: // an answer: what is behind it goes on at once
		m.full = err
		r.backoff, r.retryAt = 0, now
	case errors.Is(err, syscall.ECONNREFUSED):
		if r.refused.IsZero() {
			r.refused = now
		}
		if now.Sub(r.refused) >= refusedFor {
			r.fail(err)
		}
	case code == model.Unavailable:
	case code == model.Corrupt:
		if r.corrupts++; r.corrupts >= corruptLimit {
			r.fail(err)
		}
	default:
		r.fail(err)
	}
}

// fail wishes the disk's members dropped; v.mu is held. The first reason stays.
func (r *row) fail(err error) {
	if r.failure == nil {
		r.failure = err
		r.v.change = true
	}
}

// resume sends a broken row again from its first unanswered message. It runs in
// a goroutine of its own, because Disk.Apply may wait for room.
func (v *Volume) resume(r *row) {
	d, local, err := v.cfg.Disks.Disk(r.id)
	gone := err != nil && v.cfg.Disks.Reach(r.id) == Failed
	v.mu.Lock()
	if r.state != broken || !r.quiet() {
		v.unlock()
		return
	}
	if err != nil {
		r.backoff = min(max(2*r.backoff, resendFirst), resendMax)
		r.retryAt = time.Now().Add(r.backoff)
		if gone {
			r.fail(err)
		}
		v.unlock()
		return
	}
	v.refusals(r)
	r.disk, r.local, r.state, r.unsent = d, local, live, r.first
	v.pump([]*row{r})
}
