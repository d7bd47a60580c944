package meta

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/meta/raftlog"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/must"
	"drystone.example/drystone/backend/wire"
)

// The bounds of waits, where the caller's context has none or a later one.
const (
	applyTimeout   = 30 * time.Second // of Apply
	viewTimeout    = 10 * time.Second // of View
	attemptTimeout = 3 * time.Second  // of one question to one leader
	retryPause     = 50 * time.Millisecond
	proposalsMost  = 256 // under way on the leader
)

// Config is what a Record needs. Dir, Self and Wire must be set.
type Config struct {
	Dir  string // a folder of its own, made if it is not there
	Self model.NodeID
	Wire *wire.Transport // not yet running: protocols are registered with it

	// Peers are the members as the joining node was told, until it has the
	// record. They are remembered in Dir.
	Peers []model.Node

	// Admit is asked on the leader before a command of a node is proposed, after
	// the rules of this package; an error refuses it. It must not block. May be nil.
	Admit func(v *state.View, from model.NodeID, c command.Command) error

	// Clock is what leases are measured on; nil: CLOCK_BOOTTIME, which goes on
	// while the machine sleeps. Tests in virtual time give their own.
	Clock func() time.Duration

	// LogFS is the file system of raft's log; nil: the machine's.
	LogFS raftlog.FS
}

// A Record is this node's part in the replicated record. Its methods are safe
// for concurrent use.
type Record struct {
	cfg    Config
	store  *state.Store
	log    *raftlog.Store
	raft   *raft.Raft
	trans  *transport
	stream *stream
	fsm    *fsm
	peers  *peers
	lead   *leadership
	grants *grants
	lease  *Lease
	reads  *rounds

	proposals chan struct{} // a place for each under way

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	close  sync.Once
	err    error // of the close

	mu     sync.Mutex // guards closed, and that wg grows
	closed bool
	wg     sync.WaitGroup // everything that was spawned
}

// Open opens this node's part, or makes an empty one that waits to be
// bootstrapped or to be added by a leader. It takes part at once; calls of other
// nodes are answered when the transport runs.
func Open(ctx context.Context, cfg Config) (*Record, error) {
	must.That(cfg.Dir != "" && cfg.Self != 0 && cfg.Wire != nil, "meta: incomplete config")
	if cfg.Clock == nil {
		cfg.Clock = bootTime
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the record's folder: %w", err)
	}
	m := &Record{cfg: cfg, proposals: make(chan struct{}, proposalsMost)}
	m.ctx, m.cancel = context.WithCancel(context.WithoutCancel(ctx))
	m.lease = newLease(cfg.Clock)
	m.grants = newGrants(cfg.Clock)
	m.lead = newLeadership()
	m.reads = newRounds(m)
	var err error
	if m.peers, err = loadPeers(cfg.Dir, cfg.Peers); err != nil {
		return nil, err
	}
	if m.store, err = state.Open(ctx, filepath.Join(cfg.Dir, "record.db")); err != nil {
		return nil, errors.Join(err, m.peers.dir.Close())
	}
	m.log, err = raftlog.Open(raftlog.Options{Dir: filepath.Join(cfg.Dir, "log"), FS: cfg.LogFS})
	if err != nil {
		return nil, errors.Join(err, m.store.Close(), m.peers.dir.Close())
	}
	if err := m.startRaft(); err != nil {
		return nil, errors.Join(err, m.log.Close(), m.store.Close(), m.peers.dir.Close())
	}
	m.handle()
	m.spawn(m.watchLeadership)
	m.spawn(m.watchLog)
	m.spawn(m.keepLease)
	m.spawn(m.rememberPeers)
	m.spawn(m.announce)
	return m, nil
}

// Close leaves the cluster for now and waits for everything it started. The
// transport is closed before or after, by its owner.
func (m *Record) Close() error {
	m.close.Do(func() {
		m.mu.Lock()
		m.closed = true
		m.mu.Unlock()
		m.cancel()
		down := m.raft.Shutdown()
		m.log.Release()
		m.err = errors.Join(m.stream.Close(), down.Error())
		m.err = errors.Join(m.err, m.trans.Close())
		m.wg.Wait()
		m.err = errors.Join(m.err, m.log.Close(), m.store.Close(), m.peers.dir.Close())
	})
	return m.err
}

// spawn runs f in a goroutine that Close waits for, or returns false if it is too
// late for that.
func (m *Record) spawn(f func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		m.wg.Go(f)
	}
	return !m.closed
}

// watchLog passes a failure of raft's log on: the node cannot take part any more.
func (m *Record) watchLog() {
	select {
	case <-m.log.Failed():
		m.fsm.fail(m.log.Err())
	case <-m.ctx.Done():
	}
}

// Failed is closed when this node cannot take part any more: it does not know a
// command in the log, or its disk has failed. The daemon must end; Err says why.
func (m *Record) Failed() <-chan struct{} { return m.fsm.failed }

// Err says why Failed is closed.
func (m *Record) Err() error { return m.fsm.err() }

// Local is the record as this node knows it, which may be old.
func (m *Record) Local() *state.View { return m.store.View() }

// Bootstrap begins a new cluster with this node as its only voter, and applies
// its first command. It is refused with model.Conflict if this node has been part
// of a cluster before.
func (m *Record) Bootstrap(ctx context.Context, by model.Actor, first command.ClusterCreate) (model.Cluster, error) {
	if first.Node.ID != m.cfg.Self {
		return model.Cluster{}, model.Errorf(model.Invalid, "the first node is this one, not %s", first.Node.ID)
	}
	id := serverID(m.cfg.Self)
	err := m.raft.BootstrapCluster(raft.Configuration{Servers: []raft.Server{
		{ID: raft.ServerID(id), Address: raft.ServerAddress(id), Suffrage: raft.Voter},
	}}).Error()
	if errors.Is(err, raft.ErrCantBootstrap) {
		return model.Cluster{}, model.Errorf(model.Conflict, "this node has been part of a cluster before")
	}
	if err != nil {
		return model.Cluster{}, fmt.Errorf("bootstrap raft: %w", err)
	}
	made, err := m.Apply(ctx, by, first)
	if err != nil {
		return model.Cluster{}, err
	}
	cluster, ok := made.(model.Cluster)
	must.That(ok, "ClusterCreate returned %T", made)
	return cluster, nil
}

// bounded gives a context a deadline if it has none or a later one.
func bounded(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d)
}

// awaitIndex waits until this node's view contains an entry.
func (m *Record) awaitIndex(ctx context.Context, index uint64) (*state.View, error) {
	for {
		v := m.store.View()
		if v.Index() >= index {
			return v, nil
		}
		select {
		case <-v.Next():
		case <-m.fsm.failed:
			return nil, m.stopped()
		case <-m.ctx.Done():
			return nil, m.stopped()
		case <-ctx.Done():
			return nil, model.Errorf(model.Unavailable, "this node is behind the cluster's record: %w", ctx.Err())
		}
	}
}

func (m *Record) stopped() error {
	if err := m.fsm.err(); err != nil {
		return model.Errorf(model.Unavailable, "this node's record has stopped: %w", err)
	}
	return model.Errorf(model.Unavailable, "this node is shutting down")
}
