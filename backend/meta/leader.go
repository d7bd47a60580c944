package meta

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"drystone.example/drystone/backend/model"
)

// enthronePause is between two looks at whether a new leader's first entry is
// committed.
const enthronePause = 5 * time.Millisecond

// leadership is what this node knows of who leads.
type leadership struct {
	notify   chan bool             // raft: we lead, or no longer
	observed chan raft.Observation // raft: somebody leads

	mu      sync.Mutex // guards what follows
	turn    uint64     // counts the times we began or ended to lead
	reign   *reign     // nil: we do not lead, or not yet for sure
	changed chan struct{}
}

// A reign is one time of this node as leader, from when its view had everything
// that was committed before.
type reign struct {
	ctx    context.Context // ends with the reign
	cancel context.CancelFunc
	term   uint64
}

func newReign(parent context.Context, term uint64) *reign {
	ctx, cancel := context.WithCancel(parent)
	return &reign{ctx: ctx, cancel: cancel, term: term}
}

func newLeadership() *leadership {
	return &leadership{
		notify:   make(chan bool, 16),
		observed: make(chan raft.Observation, 16),
		changed:  make(chan struct{}),
	}
}

// set begins (with a reign, if the turn is still that one) or ends leading, and
// wakes who waits.
func (l *leadership) set(r *reign, turn uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r != nil && turn != l.turn {
		return false
	}
	if l.reign != nil {
		l.reign.cancel()
	}
	l.reign = r
	close(l.changed)
	l.changed = make(chan struct{})
	return true
}

// next counts a beginning or an end.
func (l *leadership) next() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turn++
	return l.turn
}

func (l *leadership) isTurn(turn uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.turn == turn
}

// now returns the present reign, or nil, and what is closed when that or the
// leader changes.
func (l *leadership) now() (*reign, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reign, l.changed
}

// wake tells who waits that somebody leads, or nobody.
func (l *leadership) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
	l.changed = make(chan struct{})
}

// watchLeadership follows raft's word about who leads.
func (m *Record) watchLeadership() {
	for {
		select {
		case leads := <-m.lead.notify:
			turn := m.lead.next()
			if leads {
				m.grants.begin()
				m.spawn(func() { m.enthrone(turn) })
			} else {
				m.lead.set(nil, turn)
			}
		case <-m.lead.observed:
			m.lead.wake()
		case <-m.ctx.Done():
			m.lead.set(nil, m.lead.next())
			return
		}
	}
}

// enthrone waits until an entry of this term is committed: then the commit index
// is at or above everything that predecessors committed, and this node may answer.
func (m *Record) enthrone(turn uint64) {
	for m.lead.isTurn(turn) {
		term := m.raft.CurrentTerm()
		var entry raft.Log
		if m.log.GetLog(m.raft.CommitIndex(), &entry) == nil && entry.Term == term {
			r := newReign(m.ctx, term)
			if !m.lead.set(r, turn) {
				r.cancel()
			}
			return
		}
		select {
		case <-time.After(enthronePause):
		case <-m.ctx.Done():
			return
		}
	}
}

// Leader returns who leads the cluster, if this node knows. It may be over by the
// time the caller reads it.
func (m *Record) Leader() (model.NodeID, bool) {
	_, id := m.raft.LeaderWithID()
	if id == "" {
		return 0, false
	}
	node, err := nodeID(id)
	return node, err == nil
}

// Lead waits until this node leads the cluster and its view has everything
// committed before, and returns a context that ends when it no longer does, or
// with ctx. What runs under it may still overlap with the next leader's for a
// moment: only what goes through Apply is decided once.
func (m *Record) Lead(ctx context.Context) (context.Context, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err //nolint:wrapcheck // the caller's own
		}
		r, changed := m.lead.now()
		if r != nil && r.ctx.Err() == nil {
			lead, cancel := context.WithCancel(ctx)
			unhook := context.AfterFunc(r.ctx, cancel)
			context.AfterFunc(lead, func() { unhook() })
			return lead, nil
		}
		select {
		case <-changed:
		case <-m.ctx.Done():
			return nil, m.stopped()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// IsLeader reports whether this node leads the cluster, as far as it knows.
func (m *Record) IsLeader() bool {
	r, _ := m.lead.now()
	return r != nil
}
