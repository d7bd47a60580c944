package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// maxComplaints is how many errors are told in full; all are counted.
const maxComplaints = 100

// A verifier writes to a disk, reads back, and says so each second.
type verifier struct {
	o      options
	dev    device
	area   int64 // sectors
	mem    *memory
	writer uint64
	seed   uint64

	outMu sync.Mutex // one line at a time
	out   io.Writer

	sequence atomic.Uint64
	verified atomic.Uint64 // sectors read and found right
	writes   atomic.Uint64 // requests acknowledged
	reads    atomic.Uint64 // requests read and checked
	errors   atomic.Uint64
	longest  atomic.Int64   // nanoseconds of the longest request that ended
	began    []atomic.Int64 // of each worker's request in flight; zero: none
	start    time.Time
	pace     pace
}

//nolint:gosec // what is written need not be hard to guess
func newVerifier(o options, dev device, out io.Writer) (*verifier, error) {
	area := dev.Size() / sectorSize
	if o.area != 0 {
		area = min(area, o.area/sectorSize)
	}
	if area*sectorSize < int64(o.largest) {
		return nil, fmt.Errorf("an area of %d bytes is smaller than a request", area*sectorSize)
	}
	v := &verifier{
		o: o, dev: dev, area: area, out: out, writer: rand.Uint64(), seed: o.seed,
		mem:   newMemory(area, o.guest, o.adopt),
		began: make([]atomic.Int64, o.workers),
		start: time.Now(),
	}
	if v.seed == 0 {
		v.seed = rand.Uint64()
	}
	v.pace = pace{rate: o.rate, wave: o.wave, start: v.start, next: v.start}
	return v, nil
}

func (v *verifier) say(format string, args ...any) {
	v.outMu.Lock()
	defer v.outMu.Unlock()
	_, _ = fmt.Fprintf(v.out, format+"\n", args...)
}

func (v *verifier) complain(what string, errs ...error) {
	for _, err := range errs {
		if v.errors.Add(1) <= maxComplaints {
			v.say("VERIFY ERROR %s: %v", what, err)
		}
	}
}

// run scans the area, then works until ctx ends. It fails if there was any error.
func (v *verifier) run(ctx context.Context) error {
	v.say("verifier guest %016x writer %016x seed %d area %d bytes",
		v.o.guest, v.writer, v.seed, v.area*sectorSize)
	if err := v.scan(ctx); err != nil {
		return err
	}
	var working sync.WaitGroup
	for i := range v.o.workers {
		working.Go(func() { v.work(ctx, i) })
	}
	v.report(ctx)
	working.Wait()
	v.say("%s", v.progress())
	if n := v.errors.Load(); n > 0 {
		return fmt.Errorf("%d errors", n)
	}
	return nil
}

// scan learns what an earlier run left: every sector is all zero, or whole and
// in its place.
func (v *verifier) scan(ctx context.Context) error {
	buf, err := alignedBuffer(1 << 20)
	if err != nil {
		return err
	}
	began := time.Now()
	for first := int64(0); first < v.area; {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // asked to end, which run sees too
		}
		b := buf[:min(int64(len(buf)), (v.area-first)*sectorSize)]
		if _, err := v.dev.ReadAt(b, first*sectorSize); err != nil {
			return fmt.Errorf("scan at sector %d: %w", first, err)
		}
		v.complain("scan", v.mem.learn(first, b)...)
		first += int64(len(b)) / sectorSize
	}
	v.say("scanned %d sectors errors %d in %.1f s",
		v.area, v.errors.Load(), time.Since(began).Seconds())
	return nil
}

// report prints a line each second until ctx ends.
func (v *verifier) report(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			v.say("%s", v.progress())
		}
	}
}

func (v *verifier) progress() string {
	stall := v.longest.Load()
	for i := range v.began {
		if began := v.began[i].Load(); began != 0 {
			stall = max(stall, int64(time.Since(v.start))-began)
		}
	}
	return fmt.Sprintf("verified %d writes %d reads %d errors %d longest_stall %.3f",
		v.verified.Load(), v.writes.Load(), v.reads.Load(), v.errors.Load(),
		time.Duration(stall).Seconds())
}

// A span is a range of sectors.
type span struct{ first, n int64 }

// recentSpans is how many of its last writes a worker likes to read back.
const recentSpans = 1024

// work sends one request after the other.
func (v *verifier) work(ctx context.Context, worker int) {
	buf, err := alignedBuffer(v.o.largest)
	if err != nil {
		v.complain("worker", err)
		return
	}
	rng := rand.New(rand.NewPCG(v.seed, uint64(worker))) //nolint:gosec // a test's choice
	var recent []span
	for v.pace.wait(ctx) {
		s := v.choose(rng, recent)
		if !v.mem.take(s.first, s.n) {
			continue
		}
		kind := rng.IntN(100)
		switch {
		case kind < v.o.reads:
			v.timed(worker, func() { v.read(s, buf) })
		case kind%20 == 0:
			v.timed(worker, func() { v.discard(s) })
		case kind%20 == 10:
			v.timed(worker, func() { v.zero(s) })
		default:
			v.timed(worker, func() { v.write(s, buf) })
			if len(recent) == recentSpans {
				recent = recent[:recentSpans/2]
			}
			recent = append(recent, s)
		}
		v.mem.release(s.first, s.n)
		if rng.IntN(32) == 0 {
			v.timed(worker, v.flush)
		}
	}
}

// choose picks where: often a whole number of 4 KiB, often where it wrote.
func (v *verifier) choose(rng *rand.Rand, recent []span) span {
	if len(recent) > 0 && rng.IntN(2) == 0 {
		return recent[rng.IntN(len(recent))]
	}
	n := 1 + rng.Int64N(int64(v.o.largest)/sectorSize)
	if rng.IntN(2) == 0 {
		n = min(8<<rng.IntN(5), int64(v.o.largest)/sectorSize)
	}
	first := rng.Int64N(v.area - n + 1)
	if n%8 == 0 {
		first -= first % 8
	}
	return span{first, n}
}

// timed notes how long a request takes, also while it does.
func (v *verifier) timed(worker int, f func()) {
	began := int64(time.Since(v.start))
	v.began[worker].Store(max(1, began))
	f()
	v.began[worker].Store(0)
	took := int64(time.Since(v.start)) - began
	for old := v.longest.Load(); took > old; old = v.longest.Load() {
		if v.longest.CompareAndSwap(old, took) {
			return
		}
	}
}

func (v *verifier) read(s span, buf []byte) {
	b := buf[:s.n*sectorSize]
	if _, err := v.dev.ReadAt(b, s.first*sectorSize); err != nil {
		v.complain("read", fmt.Errorf("%d sectors at %d: %w", s.n, s.first, err))
		return
	}
	errs := v.mem.check(s.first, b)
	v.complain("read", errs...)
	v.verified.Add(uint64(s.n) - uint64(len(errs)))
	v.reads.Add(1)
}

func (v *verifier) write(s span, buf []byte) {
	b := buf[:s.n*sectorSize]
	sums := make([]uint32, s.n)
	sequence := v.sequence.Add(1)
	for i := range s.n {
		st := stamp{
			guest: v.o.guest, sector: uint64(s.first + i), writer: v.writer, sequence: sequence,
		}
		sums[i] = st.write(b[i*sectorSize:])
	}
	if _, err := v.dev.WriteAt(b, s.first*sectorSize); err != nil {
		v.mem.doubt(s.first, s.n, unsure)
		v.complain("write", fmt.Errorf("%d sectors at %d: %w", s.n, s.first, err))
		return
	}
	v.mem.wrote(s.first, sums)
	v.writes.Add(1)
}

func (v *verifier) discard(s span) {
	v.mem.doubt(s.first, s.n, discarded)
	if err := v.dev.Discard(s.first*sectorSize, s.n*sectorSize); err != nil {
		v.complain("discard", fmt.Errorf("%d sectors at %d: %w", s.n, s.first, err))
	}
}

func (v *verifier) zero(s span) {
	err := v.dev.Zero(s.first*sectorSize, s.n*sectorSize)
	switch {
	case err == nil:
		sums := make([]uint32, s.n)
		for i := range sums {
			sums[i] = sumOf(zeros[:])
		}
		v.mem.wrote(s.first, sums)
		v.writes.Add(1)
	case errors.Is(err, errors.ErrUnsupported):
	default:
		v.mem.doubt(s.first, s.n, unsure)
		v.complain("zero", fmt.Errorf("%d sectors at %d: %w", s.n, s.first, err))
	}
}

func (v *verifier) flush() {
	if err := v.dev.Flush(); err != nil {
		v.complain("flush", err)
	}
}

// A pace lets requests through at a rate that swells and ebbs.
type pace struct {
	rate  float64
	wave  time.Duration
	start time.Time

	mu   sync.Mutex // guards next
	next time.Time
}

// wait returns true when the next request is due, false when ctx ends.
func (p *pace) wait(ctx context.Context) bool {
	if p.rate == 0 {
		return ctx.Err() == nil
	}
	now := time.Now()
	p.mu.Lock()
	if now.Sub(p.next) > time.Second { // what a stall has missed is not made up for
		p.next = now
	}
	due := p.next
	p.next = p.next.Add(time.Duration(float64(time.Second) / (p.rate * p.swell(due))))
	p.mu.Unlock()
	select {
	case <-ctx.Done():
		return false
	case <-time.After(time.Until(due)):
		return true
	}
}

// swell is between 0.2 and 1.8, and 1 on average.
func (p *pace) swell(at time.Time) float64 {
	if p.wave == 0 {
		return 1
	}
	return 1 + 0.8*math.Sin(2*math.Pi*at.Sub(p.start).Seconds()/p.wave.Seconds())
}
