package vhost

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// Limits bound how much is taken from a guest: over any time t, at most
//
//	rate * (t + Burst)
//
// and one request more of each queue, of all queues together. Reads, writes, discards and requests to
// write zeroes count as requests, the data of reads and writes as bytes; flushes count
// as nothing. Zero is no limit.
type Limits struct {
	Requests int64         // per second
	Bytes    int64         // per second
	Burst    time.Duration // how much of what was left unused may be made up for at once
}

// burstMin is the Burst that there always is, so that a guest need not be even from
// millisecond to millisecond.
const burstMin = 100 * time.Millisecond

// A limiter is the two buckets of a Server. Rings ask it before they take a chain, so
// that what has to wait waits in the guest's own ring: it holds no buffer and no
// goroutine, is not in flight when a ring is stopped, and is found there by whoever
// serves the guest next.
//
// A bucket gives while there is anything in it, and a request may take more than that:
// the debt is paid before the next one.
type limiter struct {
	on atomic.Bool // whether there is a limit; without one nothing else is touched

	mu              sync.Mutex // guards what follows; nothing blocks under it
	requests, bytes bucket
	changed         chan struct{} // closed when the limits were changed
}

// A bucket fills with time, up to what it holds.
type bucket struct {
	rate  float64 // per second; zero: no limit
	holds float64
	has   float64
	at    time.Time
}

// Limit changes what is taken from the guest from now on. It may be called at any time.
// The buckets begin full, and when limits change they keep what they have or owe, as far
// as the new ones hold as much.
func (s *Server) Limit(l Limits) { s.limit.set(l) }

func (l *limiter) set(to Limits) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, burst := time.Now(), max(to.Burst, burstMin).Seconds()
	l.requests.set(float64(to.Requests), burst, now)
	l.bytes.set(float64(to.Bytes), burst, now)
	l.on.Store(to.Requests > 0 || to.Bytes > 0)
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

func (b *bucket) set(rate, burst float64, now time.Time) {
	holds := max(rate*burst, 1)
	if rate <= 0 {
		*b = bucket{}
		return
	}
	if rate == b.rate && holds == b.holds {
		return
	}
	has := holds
	if b.rate > 0 {
		b.fill(now)
		has = b.has
		if has < 0 { // what is owed takes no longer to pay than it would have
			has *= min(1, rate/b.rate)
		}
	}
	*b = bucket{rate: rate, holds: holds, has: min(has, holds), at: now}
}

func (b *bucket) fill(now time.Time) {
	if d := now.Sub(b.at); d > 0 {
		b.has = min(b.holds, b.has+b.rate*d.Seconds())
		b.at = now
	}
}

// left is how long the bucket gives nothing.
func (b *bucket) left(now time.Time) time.Duration {
	if b.rate <= 0 {
		return 0
	}
	b.fill(now)
	if b.has > 0 {
		return 0
	}
	return time.Duration(min((1-b.has)/b.rate, math.MaxInt32) * float64(time.Second))
}

// open reports whether a chain may be taken now.
func (l *limiter) open() bool {
	if !l.on.Load() {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	return max(l.requests.left(now), l.bytes.left(now)) == 0
}

// charge notes that a request was taken.
func (l *limiter) charge(q *request) {
	if !l.on.Load() {
		return
	}
	n := q.inSize - 1
	switch q.kind {
	case blkIn:
	case blkOut:
		n = q.outSize - blkHeader
	case blkDiscard, blkWriteZeroes:
		n = 0
	default:
		return
	}
	l.take(1, float64(min(n, requestMax)))
}

func (l *limiter) take(requests, bytes float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.requests.take(requests, now)
	l.bytes.take(bytes, now)
}

func (b *bucket) take(n float64, now time.Time) {
	if b.rate > 0 {
		b.fill(now)
		b.has -= n
	}
}

// wait returns when a chain may be taken, or false when ctx ends.
func (l *limiter) wait(ctx context.Context) bool {
	for {
		d, changed := l.next()
		if d == 0 {
			return ctx.Err() == nil
		}
		t := time.NewTimer(d)
		select {
		case <-t.C:
		case <-changed:
		case <-ctx.Done():
		}
		t.Stop()
		if ctx.Err() != nil {
			return false
		}
	}
}

// next is how long no chain may be taken, and what tells that this has changed.
func (l *limiter) next() (time.Duration, <-chan struct{}) {
	if !l.on.Load() {
		return 0, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	d := max(l.requests.left(now), l.bytes.left(now))
	if d > 0 && l.changed == nil {
		l.changed = make(chan struct{})
	}
	return d, l.changed
}
