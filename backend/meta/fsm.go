package meta

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"

	"github.com/hashicorp/raft"

	"drystone.example/drystone/backend/meta/state"
)

// An fsm hands what raft has committed to the store, and tells who waits.
type fsm struct {
	store  *state.Store
	failed chan struct{} // closed with cause set

	mu      sync.Mutex // guards what follows
	cause   error
	waiters map[string][]chan state.Outcome // by request
	servers []raft.Server                   // the last configuration applied here; nil: none was yet
}

func newFSM(s *state.Store) *fsm {
	return &fsm{store: s, failed: make(chan struct{}), waiters: map[string][]chan state.Outcome{}}
}

// fail latches: raft goes on calling, and nothing is applied any more.
func (f *fsm) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cause == nil {
		f.cause = err
		close(f.failed)
		slog.Error("record stopped", "err", err)
	}
}

func (f *fsm) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cause
}

// expect returns where the outcome of a request arrives when it is applied here.
// Whoever expects must forget.
func (f *fsm) expect(request string) chan state.Outcome {
	ch := make(chan state.Outcome, 1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiters[request] = append(f.waiters[request], ch)
	return ch
}

func (f *fsm) forget(request string, ch chan state.Outcome) {
	f.mu.Lock()
	defer f.mu.Unlock()
	left := slices.DeleteFunc(f.waiters[request], func(c chan state.Outcome) bool { return c == ch })
	if len(left) == 0 {
		delete(f.waiters, request)
		return
	}
	f.waiters[request] = left
}

func (f *fsm) tell(out state.Outcome) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, ch := range f.waiters[out.Request] {
		select {
		case ch <- out:
		default: // it was told already: the request came twice
		}
	}
}

// configured returns raft's servers as of the last configuration applied here.
func (f *fsm) configured() []raft.Server {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.servers
}

// ApplyBatch implements raft.BatchingFSM. A response is a state.Outcome, or an
// error if this node has stopped.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	entries := make([]state.Entry, len(logs))
	for i, l := range logs {
		entries[i].Index = l.Index
		if l.Type == raft.LogCommand {
			entries[i].Data = l.Data
		}
		if l.Type == raft.LogConfiguration {
			// Before the view that tells of it: who waits looks when that comes.
			f.configure(raft.DecodeConfiguration(l.Data).Servers)
		}
	}
	responses := make([]any, len(logs))
	outcomes, err := f.store.ApplyBatch(entries)
	if err != nil {
		f.fail(err)
		for i := range responses {
			responses[i] = err
		}
		return responses
	}
	for i, out := range outcomes {
		responses[i] = out
		if out.Request != "" { // a command's
			f.tell(out)
		}
	}
	return responses
}

func (f *fsm) configure(servers []raft.Server) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.servers = servers
}

// Apply implements raft.FSM.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// Snapshot implements raft.FSM.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	s, err := f.store.Snapshot(context.Background())
	if err != nil {
		return nil, err
	}
	return snapshot{s}, nil
}

// Restore implements raft.FSM.
func (f *fsm) Restore(r io.ReadCloser) error {
	if err := f.store.Restore(context.Background(), r); err != nil {
		return err
	}
	return r.Close()
}

type snapshot struct{ *state.Snapshot }

// Persist implements raft.FSMSnapshot.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.Encode(context.Background(), sink); err != nil {
		if cancel := sink.Cancel(); cancel != nil {
			return fmt.Errorf("%w (and cancel: %w)", err, cancel)
		}
		return err
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (s snapshot) Release() {
	if err := s.Snapshot.Release(); err != nil {
		slog.Warn("release a snapshot of the record", "err", err)
	}
}
