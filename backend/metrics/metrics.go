package metrics

import (
	"cmp"
	"context"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"time"

	"drystone.example/drystone/backend/model"
)

const (
	interval = time.Second

	// kept is how many samples of each node are kept: ten minutes.
	kept = 600

	// perAnswer bounds the numbers in one answer to a peer, so that ten
	// minutes of a busy node cross the wire in several small answers.
	perAnswer = 20_000

	// offset is how long after the sampling the others are asked, so that all
	// of them, their clocks a little off, have sampled too.
	offset = 150 * time.Millisecond

	// pollTimeout bounds one peer's answer, and settle how long a frame
	// waits for the peers of its second.
	pollTimeout = 3 * time.Second
	settle      = 300 * time.Millisecond

	// linger is how long peers are still polled after the last watcher left,
	// so that turning a page does not start anew.
	linger = 15 * time.Second
)

// Config is what a Metrics needs.
type Config struct {
	Cluster model.ClusterID // the one row of the topic of that name
	Self    model.NodeID
	Source  Source
	Peers   Peers
	Log     *slog.Logger

	Dir string // where what machines did is kept; it is made

	// Known asks the record which machines are in it now; an error: nobody knows.
	Known func(context.Context) (func(model.VMID) bool, error)
}

// Metrics samples this node and, while watched, knows the others.
type Metrics struct {
	Config

	past *past

	// mu guards the fields below; nothing blocks under it.
	mu       sync.Mutex
	nodes    map[model.NodeID]*series
	watchers map[*Watch]struct{}
	left     time.Time // when the last watcher left
}

// series is one node's samples, oldest first.
type series struct {
	samples []Sample
	polled  bool      // whether it was asked since somebody watches; always true for self
	busy    bool      // a poll is under way
	heard   time.Time // by our clock, when the newest sample came
}

// New makes a Metrics that does nothing until Run.
func New(c Config) *Metrics {
	m := &Metrics{Config: c, past: newPast(c), nodes: map[model.NodeID]*series{}, watchers: map[*Watch]struct{}{}}
	m.nodes[c.Self] = &series{polled: true}
	return m
}

// Run samples until ctx ends. It returns after everything it started has.
func (m *Metrics) Run(ctx context.Context) error {
	var polls sync.WaitGroup
	defer polls.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	polls.Go(func() { m.past.run(ctx) })

	tick := time.NewTimer(untilNext())
	defer tick.Stop()
	s := sampler{source: m.Source}
	var failed bool
	for {
		sample, ok, err := s.next(ctx)
		if err != nil && !failed && ctx.Err() == nil {
			m.Log.Warn("host cannot be sampled", "err", err)
		}
		failed = err != nil
		if ok {
			m.add(m.Self, []Sample{sample})
			m.past.offer(sample)
		}
		if m.watched() {
			pause(ctx, offset)
			m.poll(ctx, &polls)
			m.notify()
		}
		select {
		case <-tick.C:
			tick.Reset(untilNext())
		case <-ctx.Done():
			return nil
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// untilNext is the time until the middle of the next second, by which all nodes
// sample at nearly the same time, and far from where one second ends.
func untilNext() time.Duration {
	now := time.Now()
	next := now.Truncate(interval).Add(interval / 2)
	if !next.After(now) {
		next = next.Add(interval)
	}
	return next.Sub(now)
}

// poll asks every other node for what is new, all at once, and gives them a moment.
func (m *Metrics) poll(ctx context.Context, polls *sync.WaitGroup) {
	others := m.Peers.Others()
	m.forget(others)
	done := make(chan struct{}, len(others))
	started := 0
	for _, node := range others {
		after, ok := m.begin(node)
		if !ok {
			continue
		}
		started++
		polls.Go(func() {
			m.fetch(ctx, node, after)
			done <- struct{}{}
		})
	}
	enough := time.NewTimer(settle)
	defer enough.Stop()
	for range started {
		select {
		case <-done:
		case <-enough.C:
			return
		}
	}
}

// fetch asks one node until it has nothing new. A node that does not answer is
// simply old; its age says so.
func (m *Metrics) fetch(ctx context.Context, node model.NodeID, after int64) {
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	defer m.end(node)
	for ctx.Err() == nil {
		samples, err := m.Peers.Samples(ctx, node, after)
		if err != nil || len(samples) == 0 {
			return
		}
		m.add(node, samples)
		last := samples[len(samples)-1].At
		if last <= after {
			return // it does not move on: not to be asked for ever
		}
		after = last
		if len(samples) == 1 {
			return // the usual case: the one of this second
		}
	}
}

// begin marks a node as being asked and returns what is the newest known of it.
func (m *Metrics) begin(node model.NodeID) (after int64, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.nodes[node]
	if s == nil {
		s = &series{}
		m.nodes[node] = s
	}
	if s.busy {
		return 0, false
	}
	s.busy = true
	if n := len(s.samples); n > 0 {
		after = s.samples[n-1].At
	}
	return after, true
}

func (m *Metrics) end(node model.NodeID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.nodes[node]; s != nil {
		s.busy, s.polled = false, true
	}
}

// add keeps samples of a node that are newer than what is known of it.
func (m *Metrics) add(node model.NodeID, samples []Sample) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.nodes[node]
	if s == nil {
		return // removed meanwhile
	}
	for _, sample := range samples {
		if n := len(s.samples); n > 0 && sample.At <= s.samples[n-1].At {
			continue
		}
		s.samples = append(s.samples, sample)
		s.heard = time.Now()
	}
	if len(s.samples) > 2*kept {
		s.samples = append([]Sample(nil), s.samples[len(s.samples)-kept:]...)
	}
}

// forget drops nodes that are no longer members.
func (m *Metrics) forget(others []model.NodeID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for node := range m.nodes {
		if node != m.Self && !slices.Contains(others, node) {
			delete(m.nodes, node)
		}
	}
}

// Samples returns this node's own samples after a moment (Unix milliseconds),
// oldest first, at most ten minutes of them and at most as many as make a small
// answer: whoever wants more asks again after the last one.
func (m *Metrics) Samples(after int64) []Sample {
	m.mu.Lock()
	defer m.mu.Unlock()
	own := m.nodes[m.Self].recent(kept)
	i, _ := slices.BinarySearchFunc(own, after+1, func(s Sample, at int64) int {
		return cmp.Compare(s.At, at)
	})
	own = own[i:]
	n, values := 0, 0
	for n < len(own) && (n == 0 || values < perAnswer) {
		values += own[n].values()
		n++
	}
	return slices.Clone(own[:n])
}

// recent returns the newest n samples at most.
func (s *series) recent(n int) []Sample {
	return s.samples[max(0, len(s.samples)-n):]
}

// A Watch keeps the other nodes' samples coming and says when there are new ones.
type Watch struct {
	m *Metrics
	c chan struct{}
}

// Watch begins to watch. The caller closes it.
func (m *Metrics) Watch() *Watch {
	w := &Watch{m: m, c: make(chan struct{}, 1)}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.watchedLocked() { // the others' samples have gaps: Caught waits until they are asked again
		for node, s := range m.nodes {
			s.polled = node == m.Self
		}
	}
	m.watchers[w] = struct{}{}
	return w
}

// C has a value after each second's samples are in. A watcher that is slow gets
// one value for all that it missed.
func (w *Watch) C() <-chan struct{} { return w.c }

// Close ends the watch.
func (w *Watch) Close() {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	delete(w.m.watchers, w)
	w.m.left = time.Now()
}

func (m *Metrics) watched() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.watchedLocked()
}

func (m *Metrics) watchedLocked() bool {
	return len(m.watchers) > 0 || !m.left.IsZero() && time.Since(m.left) < linger
}

func (m *Metrics) notify() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for w := range m.watchers {
		select {
		case w.c <- struct{}{}:
		default:
		}
	}
}

// sampler makes samples of counts.
type sampler struct {
	source Source
	at     time.Time
	host   hostCount
	disks  map[model.DiskID]IOCount
	guests map[model.VMID]guestCPU
}

type guestCPU struct {
	io  IOCount
	cpu time.Duration
}

// next counts, and makes a sample of the change since the last count. It has none
// the first time. What was not there last time has rates of zero.
func (s *sampler) next(ctx context.Context) (Sample, bool, error) {
	now := time.Now()
	host, count, err := countHost(ctx)
	if err != nil {
		return Sample{}, false, err
	}
	first, took := s.at.IsZero(), now.Sub(s.at)
	host.CPUs = runtime.NumCPU()
	host.rates(s.host, count, took)
	sample := Sample{At: now.UnixMilli(), Host: host}

	disks := map[model.DiskID]IOCount{}
	for _, d := range s.source.CountDisks() {
		disks[d.ID] = d.IO
		out := Disk{ID: d.ID, Used: d.Used, Size: d.Size}
		if before, known := s.disks[d.ID]; known {
			out.Rate = rate(before, d.IO, took)
		}
		sample.Disks = append(sample.Disks, out)
	}
	guests := map[model.VMID]guestCPU{}
	for _, g := range s.source.CountGuests() {
		guests[g.ID] = guestCPU{io: g.IO, cpu: g.CPU}
		out := Guest{ID: g.ID, Used: g.Memory}
		if before, known := s.guests[g.ID]; known {
			out.Rate = rate(before.io, g.IO, took)
			if took > 0 && g.CPUs > 0 {
				share := (g.CPU - before.cpu).Seconds() / took.Seconds() / float64(g.CPUs)
				out.CPU = float32(min(max(share, 0), 1))
			}
		}
		sample.Guests = append(sample.Guests, out)
	}
	s.at, s.host, s.disks, s.guests = now, count, disks, guests
	return sample, !first, nil
}
