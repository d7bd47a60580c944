package meta

import (
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"drystone.example/drystone/backend/meta/raftlog"
	"drystone.example/drystone/backend/model"
)

// Raft's timers. A dead leader is missed after one to two heartbeat timeouts and
// replaced some milliseconds later. They are longer than raft's own defaults,
// because the nodes share their processors with guests: a scheduling delay of
// half a second must not cost a leader. Nothing relies on them for safety.
const (
	heartbeatTimeout = 1200 * time.Millisecond
	electionTimeout  = 1200 * time.Millisecond
	leaderLease      = time.Second
	// commitTimeout is how soon a follower is told again what is committed. It hears
	// of it by announce; this is for what was lost, and costs an idle leader a message
	// to each follower.
	commitTimeout = 250 * time.Millisecond
	rpcTimeout    = 3 * time.Second

	appendMost        = 256 // entries in one message and one transaction
	snapshotThreshold = 4096
	snapshotInterval  = 30 * time.Second
	trailingLogs      = 2048
	snapshotsKept     = 2

	// replayMost bounds the entries that are applied before raft runs: they must
	// fit into a queue nobody reads yet, of 128 batches.
	replayMost = 100 * appendMost
)

func serverID(id model.NodeID) string { return id.String() }

func nodeID(id raft.ServerID) (model.NodeID, error) { return model.ParseID[model.NodeID](string(id)) }

func (m *Record) raftConfig(notify chan<- bool, log *logger) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(serverID(m.cfg.Self))
	c.HeartbeatTimeout = heartbeatTimeout
	c.ElectionTimeout = electionTimeout
	c.LeaderLeaseTimeout = leaderLease
	c.CommitTimeout = commitTimeout
	c.MaxAppendEntries = appendMost
	c.ShutdownOnRemove = false
	c.SnapshotThreshold = snapshotThreshold
	c.SnapshotInterval = snapshotInterval
	c.TrailingLogs = trailingLogs
	c.NotifyCh = notify
	c.NoLegacyTelemetry = true
	// raft v1.8.0 forgets its own configuration when it restores committed logs:
	// it does not look for configuration entries among those it has applied. The
	// members' addresses are remembered in peers.json until the record is there.
	c.RestoreCommittedLogs = false
	c.Logger = log
	return c
}

func (m *Record) startRaft() error {
	log := newLogger()
	snaps, err := raft.NewFileSnapshotStoreWithLogger(filepath.Join(m.cfg.Dir, "snapshots"), snapshotsKept, log)
	if err != nil {
		return fmt.Errorf("open raft's snapshots: %w", err)
	}
	logs := &replayLimit{Store: m.log}
	if list, err := snaps.List(); err != nil {
		return fmt.Errorf("list raft's snapshots: %w", err)
	} else if len(list) > 0 {
		logs.from = list[0].Index
	}
	m.fsm = newFSM(m.store)
	m.stream = newStream(m.cfg.Self, m.cfg.Wire)
	m.trans = newTransport(m.stream, m.log, log)
	var r atomic.Pointer[raft.Raft]
	m.trans.leads = func(term uint64) bool {
		now := r.Load()
		return now != nil && now.State() == raft.Leader && now.CurrentTerm() == term
	}
	m.trans.stored = func(peer raft.Server, commit uint64) {
		if r.Load() != nil {
			m.announceLate(peer, commit)
		}
	}
	m.raft, err = raft.NewRaft(m.raftConfig(m.lead.notify, log), m.fsm, logs, m.log, snaps, m.trans)
	if err != nil {
		return fmt.Errorf("start raft: %w (and %w)", err, m.trans.Close())
	}
	r.Store(m.raft)
	m.raft.RegisterObserver(raft.NewObserver(m.lead.observed, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	}))
	return nil
}

// replayLimit tells raft of fewer committed entries than there are where it
// could not apply them all at its start; the leader tells it of the others.
type replayLimit struct {
	*raftlog.Store
	from uint64 // the newest snapshot
}

// GetCommitIndex implements raft.CommitTrackingLogStore.
func (l *replayLimit) GetCommitIndex() (uint64, error) {
	index, err := l.Store.GetCommitIndex()
	return min(index, l.from+replayMost), err
}
