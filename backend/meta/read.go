package meta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/wire"
)

// The methods of the wire this package answers.
const (
	methodApply = "meta.apply"
	methodRead  = "meta.read"
)

// handle registers what this node answers to others.
func (m *Record) handle() {
	m.cfg.Wire.Handle(methodApply, func(ctx context.Context, peer model.NodeID, body json.RawMessage) (any, error) {
		var q question
		if err := json.Unmarshal(body, &q); err != nil {
			return nil, model.Errorf(model.Invalid, "a command that cannot be read: %w", err)
		}
		return m.propose(ctx, peer, q)
	}, wire.Limit(2*command.MaxSize))
	m.cfg.Wire.Handle(methodRead, func(ctx context.Context, _ model.NodeID, _ json.RawMessage) (any, error) {
		index, err := m.reads.join(ctx)
		return readAnswer{Index: index}, err
	})
	m.cfg.Wire.Serve(leaseProto, m.serveLeases)
}

// A readAnswer says which entry a view must contain.
type readAnswer struct {
	Index uint64 `json:"index"`
}

// View returns the record as it is now: with everything that was acknowledged to
// anybody before the call. Without a leader it fails with model.Unavailable, at
// the latest after ten seconds.
func (m *Record) View(ctx context.Context) (*state.View, error) {
	ctx, cancel := bounded(ctx, viewTimeout)
	defer cancel()
	var index uint64
	err := m.atLeader(ctx, func(ctx context.Context, leader model.NodeID) (done bool, err error) {
		index, err = m.readIndex(ctx, leader)
		return err == nil, err
	})
	if err != nil {
		return nil, err
	}
	return m.awaitIndex(ctx, index)
}

func (m *Record) readIndex(ctx context.Context, leader model.NodeID) (uint64, error) {
	if leader == m.cfg.Self {
		return m.reads.join(ctx)
	}
	var answer readAnswer
	err := m.cfg.Wire.Call(ctx, leader, methodRead, struct{}{}, &answer)
	return answer.Index, err
}

// rounds answers "which entry is everything up to now" for many at once: who
// comes while a round is under way is answered by the next one.
type rounds struct {
	m *Record

	mu      sync.Mutex // guards what follows
	running bool
	next    *round
}

type round struct {
	done  chan struct{}
	index uint64
	err   error
}

func newRounds(m *Record) *rounds { return &rounds{m: m} }

// join waits for a round that begins after the call.
func (r *rounds) join(ctx context.Context) (uint64, error) {
	r.mu.Lock()
	if r.next == nil {
		r.next = &round{done: make(chan struct{})}
	}
	mine := r.next
	if !r.running {
		r.running = r.m.spawn(r.run)
	}
	running := r.running
	r.mu.Unlock()
	if !running {
		return 0, r.m.stopped()
	}
	select {
	case <-mine.done:
		return mine.index, mine.err
	case <-ctx.Done():
		return 0, model.Errorf(model.Unavailable, "the leader did not hear from a majority in time: %w", ctx.Err())
	}
}

// run does rounds until nobody waits.
func (r *rounds) run() {
	for {
		r.mu.Lock()
		now := r.next
		r.next = nil
		if now == nil {
			r.running = false
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		ctx, cancel := context.WithTimeout(r.m.ctx, attemptTimeout)
		now.index, now.err = r.m.confirm(ctx)
		cancel()
		close(now.done)
	}
}

// errNotLeader is the answer of a node that does not lead; the asker looks for
// who does.
var errNotLeader = model.Errorf(model.Unavailable, "this node does not lead the cluster")

// confirm returns an entry such that a view with it has everything acknowledged
// before the call. It is right only if a majority says, after the call began,
// that we lead. Raft's own check may count an answer to an earlier question, so
// raft is only made to ask, and the transport's notes are what counts.
func (m *Record) confirm(ctx context.Context) (uint64, error) {
	r, _ := m.lead.now()
	if r == nil {
		return 0, errNotLeader
	}
	began := m.trans.moment()
	commit := m.raft.CommitIndex()
	for asked := false; ; asked = true {
		heard := m.trans.heard()
		if m.majority(r.term, began) {
			return m.caughtUp(ctx, commit)
		}
		if !asked {
			m.raft.VerifyLeader()
		}
		select {
		case <-heard:
		case <-r.ctx.Done():
			return 0, errNotLeader
		case <-ctx.Done():
			return 0, model.Errorf(model.Unavailable, "the leader did not hear from a majority in time")
		}
	}
}

// majority reports whether more than half of the voters were in a term after a
// moment.
func (m *Record) majority(term, after uint64) bool {
	future := m.raft.GetConfiguration()
	if future.Error() != nil {
		return false
	}
	voters, agree := 0, 0
	self := raft.ServerID(serverID(m.cfg.Self))
	for _, s := range future.Configuration().Servers {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		if s.ID == self || m.trans.agreed(s.ID, term, after) {
			agree++
		}
	}
	return 2*agree > voters
}

// caughtUp waits until this node's view has what is committed, and returns the
// entry by which another node's view has it too.
func (m *Record) caughtUp(ctx context.Context, commit uint64) (uint64, error) {
	index, err := m.lastSeen(commit)
	if err != nil {
		return 0, err
	}
	_, err = m.awaitIndex(ctx, index)
	return index, err
}

// lastSeen returns the last entry at or below an index that moves the index of a
// view. Raft keeps some to itself: a new leader's first.
func (m *Record) lastSeen(index uint64) (uint64, error) {
	for ; index > 0; index-- {
		var entry raft.Log
		err := m.log.GetLog(index, &entry)
		if errors.Is(err, raft.ErrLogNotFound) {
			return 0, nil // it is in a snapshot, and so in every view since then
		}
		if err != nil {
			return 0, fmt.Errorf("read entry %d: %w", index, err)
		}
		if entry.Type == raft.LogCommand || entry.Type == raft.LogConfiguration {
			return index, nil
		}
	}
	return 0, nil
}
