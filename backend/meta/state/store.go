package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"sync/atomic"

	_ "modernc.org/sqlite" // the driver

	"drystone.example/drystone/backend/meta/command"
)

// A Store is the record on one node. ApplyBatch, Snapshot and Restore are called
// by one goroutine at a time, as raft does; everything else by any.
type Store struct {
	write *sql.DB // one connection
	read  *sql.DB // audit queries and snapshots, each of one moment

	view   atomic.Pointer[View]
	recent []string // requests remembered, oldest first
	audits auditTail
	failed error // set once: this node cannot go on
}

// Open makes an empty record whose SQLite file is at path. A file that is there
// is removed: what it held comes back from raft's snapshot and log.
func Open(ctx context.Context, path string) (*Store, error) {
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("remove the old record: %w", err)
		}
	}
	s := &Store{}
	var err error
	if s.write, err = openDB(path, 1); err != nil {
		return nil, err
	}
	if s.read, err = openDB(path, 4); err != nil {
		return nil, errors.Join(err, s.write.Close())
	}
	if err := s.createTables(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.publish(newTables(), 0, map[Noun]uint64{})
	return s, nil
}

// openDB opens the file for a number of connections. It need not survive a
// crash, only be consistent while it is open.
func openDB(path string, conns int) (*sql.DB, error) {
	q := url.Values{"_pragma": {
		"journal_mode(WAL)", "synchronous(OFF)", "busy_timeout(10000)",
		"cache_size(-1024)", "temp_store(MEMORY)",
	}, "_txlock": {"deferred"}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: url.PathEscape(path), RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("open the record's database: %w", err)
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(1)
	return db, nil
}

// Close closes the file. No view may be asked for its audit log after that.
func (s *Store) Close() error { return errors.Join(s.read.Close(), s.write.Close()) }

// View returns the record as it is now.
func (s *Store) View() *View { return s.view.Load() }

// publish makes a new view the present one.
func (s *Store) publish(t tables, index uint64, changed map[Noun]uint64) {
	v := &View{tables: t, index: index, changed: changed, next: make(chan struct{}), store: s}
	if old := s.view.Swap(v); old != nil {
		close(old.next)
	}
}

// ApplyBatch applies entries of the log, in one transaction of SQLite, and makes
// them visible together. It returns one outcome for each entry, empty for those
// without data. An error means that this node cannot go on: it does not know a
// command, or could not write. Nothing of the batch is then visible, and every
// later call returns the same error, so that a record never skips an entry.
func (s *Store) ApplyBatch(entries []Entry) ([]Outcome, error) {
	if s.failed != nil {
		return nil, s.failed
	}
	out, err := s.applyBatch(context.Background(), entries)
	if err != nil {
		s.failed = fmt.Errorf("the record stops at entry %d: %w", s.View().Index(), err)
		return nil, s.failed
	}
	return out, nil
}

func (s *Store) applyBatch(ctx context.Context, entries []Entry) ([]Outcome, error) {
	v := s.View()
	b := &batch{x: newTx(v.tables), changed: maps.Clone(v.changed), recent: s.recent, audits: s.audits}
	out := make([]Outcome, len(entries))
	index := v.index
	for i, e := range entries {
		if e.Index <= v.index {
			continue // in the snapshot this record was restored from
		}
		index = e.Index
		if e.Data == nil {
			continue
		}
		env, err := command.Decode(e.Data)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", e.Index, err)
		}
		if out[i], err = b.apply(e.Index, env); err != nil {
			return nil, err
		}
	}
	if err := s.commit(ctx, b.writes); err != nil {
		return nil, err
	}
	s.recent, s.audits = b.recent, b.audits
	s.publish(b.x.tables, index, b.changed)
	return out, nil
}

// A batch collects what the commands of one transaction write.
type batch struct {
	x       *tx
	writes  []write
	changed map[Noun]uint64
	recent  []string
	audits  auditTail
}

func (b *batch) apply(index uint64, env command.Envelope) (Outcome, error) {
	out, err := b.x.run(index, env)
	if err != nil {
		return Outcome{}, err
	}
	if out.Index != index { // it came again
		return out, nil
	}
	changes := len(b.x.writes) > 0 || b.x.fact
	for _, n := range b.x.nouns {
		b.changed[n] = index
	}
	if b.recent, err = b.x.remember(env.Command.Kind(), out, b.recent); err != nil {
		return Outcome{}, err
	}
	b.writes = append(b.writes, b.x.writes...)
	// A user's refused request is a fact worth keeping; that the cluster's own
	// loops lost a race is not, and neither is what changed nothing.
	if changes || out.Err != nil && env.Actor.Role != "" {
		rows, err := b.audits.add(index, env, b.x.object, out.Err)
		if err != nil {
			return Outcome{}, err
		}
		b.writes = append(b.writes, rows...)
	}
	return out, nil
}

// Check says what an envelope would come to if it were applied to a view now.
// It changes nothing. The second result is false if it would be refused, or was
// applied already: then there is nothing to propose.
func Check(v *View, e command.Envelope) (Outcome, bool, error) {
	if out, again := v.Outcome(e.Request); again {
		return out, false, nil
	}
	out, err := newTx(v.tables).run(v.index+1, e)
	return out, err == nil && out.Err == nil, err
}
