package meta

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"drystone.example/drystone/backend/model"
)

// The times of leases. A node counts its lease from the moment it asked, the
// leader from the moment it granted, which is later; so that, with clocks that
// drift apart by less than one in a hundred, the leader waits longer than the
// node serves and longer than the node's guests live after that.
const (
	LeaseTime  = 6 * time.Second // a node may serve for this long after it asked
	LeaseRenew = 2 * time.Second // a node asks again this often
	LeaseKill  = 3 * time.Second // after the lease the node's guests are killed within this

	// A node that has had no lease for this long has closed its disks: another may
	// have them by and by. It is long, because a closed disk is missed by all who
	// write to it, and most networks are back before.
	LeaseDisks = 5 * time.Minute

	diskWait = leaseWait + (LeaseDisks+time.Minute)*101/100 // a minute for closing them

	leaseSlack = time.Second // for killing and for coarse clocks
	leaseWait  = (LeaseTime + LeaseKill + leaseSlack) * 101 / 100
	leaseRetry = 250 * time.Millisecond
)

// bootTime is CLOCK_BOOTTIME. Go's own monotonic clock stands still while the
// machine sleeps, and a lease would seem valid after that.
//
// It is asked twice for each request, by a call that the scheduler is not told
// of: it does not wait, and being told wakes a thread of the runtime each time.
func bootTime() time.Duration {
	var t unix.Timespec
	_, _, errno := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_BOOTTIME,
		uintptr(unsafe.Pointer(&t)), 0) //nolint:gosec // as clock_gettime(2) wants it
	if errno != 0 {
		return math.MaxInt64 // never on Linux since 2.6.39; every lease is then over
	}
	return time.Duration(t.Nano())
}

// A Lease is this node's right to serve. It holds while the leader's word for it
// is fresh, and when it holds, Local contains every takeover of a volume that was
// decided before the leader gave that word: a holder whose lease had lapsed looks
// there before it goes on. Term tells it that the lease had.
type Lease struct {
	clock    func() time.Duration
	deadline atomic.Int64 // on the clock
	term     atomic.Uint64

	mu      sync.Mutex // guards renewed
	renewed chan struct{}
}

func newLease(clock func() time.Duration) *Lease {
	return &Lease{clock: clock, renewed: make(chan struct{})}
}

// Lease returns this node's lease. It is the same for the life of the Record.
func (m *Record) Lease() *Lease { return m.lease }

// Valid reports whether the node may serve at this moment. It is cheap enough to
// ask for every request of a guest.
func (l *Lease) Valid() bool { return l.clock() < l.Deadline() }

// Deadline is when the lease runs out unless it is renewed, on Config.Clock,
// which is CLOCK_BOOTTIME.
func (l *Lease) Deadline() time.Duration { return time.Duration(l.deadline.Load()) }

// Term counts how often the lease began, after it had run out or for the first
// time. What was taken over from this node was taken between two terms: who finds
// that the lease holds, and only then that the term is the one it knows, still has
// what it had.
func (l *Lease) Term() uint64 { return l.term.Load() }

// Renewed is closed when the lease is next renewed.
func (l *Lease) Renewed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.renewed
}

// Over is how long the lease has been over: zero while it holds, and for a node that
// never had one since the clock began.
func (l *Lease) Over() time.Duration { return max(0, l.clock()-l.Deadline()) }

// Wait returns nil when the lease holds, or the error of ctx.
func (l *Lease) Wait(ctx context.Context) error {
	for {
		renewed := l.Renewed()
		if l.Valid() {
			return nil
		}
		select {
		case <-renewed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Lost returns nil when the lease does not hold, or the error of ctx.
func (l *Lease) Lost(ctx context.Context) error {
	for {
		left := l.Deadline() - l.clock()
		if left <= 0 {
			return nil
		}
		select {
		case <-time.After(left):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// extend makes the lease last until a moment, if it does not last longer.
func (l *Lease) extend(until time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if was := l.deadline.Load(); int64(until) > was {
		if l.clock() >= time.Duration(was) {
			l.term.Add(1) // before the lease holds again
		}
		l.deadline.Store(int64(until))
	}
	close(l.renewed)
	l.renewed = make(chan struct{})
}

// keepLease asks for this node's lease again and again.
func (m *Record) keepLease() {
	asker := &leaseAsker{m: m}
	defer asker.close()
	for m.ctx.Err() == nil {
		pause := leaseRetry
		asked := m.cfg.Clock()
		if m.renew(asker) == nil {
			m.lease.extend(asked + LeaseTime)
			pause = LeaseRenew
		}
		select {
		case <-time.After(pause):
		case <-m.ctx.Done():
		}
	}
}

// renew asks once, and waits until this node's view is as new as the grant.
func (m *Record) renew(asker *leaseAsker) error {
	ctx, cancel := context.WithTimeout(m.ctx, LeaseRenew)
	defer cancel()
	leader, known := m.Leader()
	if !known {
		return errNotLeader
	}
	index, err := asker.ask(ctx, leader)
	if err != nil {
		return err
	}
	_, err = m.awaitIndex(ctx, index)
	return err
}

// grants is what the leader knows of the leases it gave.
type grants struct {
	clock func() time.Duration

	mu        sync.Mutex // guards what follows
	since     time.Duration
	given     map[model.NodeID]time.Duration
	takeovers map[model.NodeID]int // proposals under way that rest on a lease having run out
}

func newGrants(clock func() time.Duration) *grants {
	return &grants{clock: clock, given: map[model.NodeID]time.Duration{}, takeovers: map[model.NodeID]int{}}
}

// begin forgets the grants of an earlier reign. What a predecessor granted is not
// known, so every node counts as granted now.
func (g *grants) begin() {
	now := g.clock()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.since = now
	clear(g.given)
}

// left is how much is left of a time that began with the last grant to a node. The
// caller has the mutex.
func (g *grants) left(node model.NodeID, wait time.Duration) time.Duration {
	last := max(g.since, g.given[node])
	return max(0, last+wait-g.clock())
}

// give notes a grant, unless somebody is about to take what the node had.
func (g *grants) give(node model.NodeID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.takeovers[node] > 0 {
		return false
	}
	g.given[node] = g.clock()
	return true
}

// takeover begins a proposal that rests on a node having no lease, for so long that
// wait has passed since it was given the last. Until done is called the node is given
// none. If that is not so yet, takeover returns when it will be.
func (g *grants) takeover(node model.NodeID, wait time.Duration) (done func(), left time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if left := g.left(node, wait); left > 0 {
		return nil, left
	}
	g.takeovers[node]++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.takeovers[node]--; g.takeovers[node] == 0 {
			delete(g.takeovers, node)
		}
	}, 0
}

// grant is the leader's side of a lease. A majority must say, after the node
// asked, that we lead.
func (m *Record) grant(ctx context.Context, node model.NodeID) (uint64, error) {
	r, _ := m.lead.now()
	if r == nil {
		return 0, errNotLeader
	}
	if _, err := m.reads.join(ctx); err != nil {
		return 0, err
	}
	if _, err := m.store.View().Node(node); err != nil {
		return 0, model.Errorf(model.Denied, "node %s is not a member of the cluster", node)
	}
	if r.ctx.Err() != nil {
		return 0, errNotLeader
	}
	if !m.grants.give(node) {
		return 0, model.Errorf(model.Unavailable, "the volumes of node %s are being taken over", node)
	}
	// Every takeover before this grant is applied here.
	return m.store.View().Index(), nil
}

// A LeaseState is what the leader can say of a node's lease.
type LeaseState struct {
	Expired bool          // the node serves nothing and its guests are dead
	Left    time.Duration // at most until then, if the node does not come back
}

// LeaseState says whether a node's lease has run out, if this node leads the
// cluster; otherwise it fails with model.Unavailable. A new leader counts from
// when it became one.
func (m *Record) LeaseState(node model.NodeID) (LeaseState, error) {
	r, _ := m.lead.now()
	if r == nil {
		return LeaseState{}, errNotLeader
	}
	m.grants.mu.Lock()
	defer m.grants.mu.Unlock()
	left := m.grants.left(node, leaseWait)
	return LeaseState{Expired: left == 0, Left: left}, nil
}
