package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"drystone.example/drystone/backend/compactor"
	"drystone.example/drystone/backend/model"
)

// FS is the file system a store lies on. Tests give one that crashes or hangs.
type FS = vfs.FS

const (
	// Deadline is how long an append may take.
	Deadline = 2 * time.Second

	// closeWait is how long Close waits for a write that hangs.
	closeWait = 5 * time.Second
)

// ErrHung is returned for an append that took longer than Deadline, and at once
// for every append until the disk has answered.
var ErrHung = model.Errorf(model.Unavailable, "the disk of raft's log does not answer")

var errClosed = errors.New("raft's log is closed")

// Options say where a store lies.
type Options struct {
	Dir string
	FS  FS // nil: the machine's
}

// A Store is raft's log and stable store.
type Store struct {
	db    *pebble.DB
	cache *pebble.Cache
	log   *logger
	ops   chan *op // to the writer, the only goroutine that writes

	closing  chan struct{} // closed by Release: waits end
	writer   sync.WaitGroup
	failed   chan struct{} // closed by the first failure
	stopping sync.Once

	mu       sync.Mutex // guards what follows; nothing blocks under it
	first    uint64     // of the log; zero: it is empty
	last     uint64
	cut      uint64 // not zero: what is on disk from here on has been truncated
	staged   uint64 // commit index to go with the next append
	commit   uint64 // commit index on disk
	hung     bool   // an append passed its deadline and has not returned
	lastHung time.Time
	err      error // the first failure
}

// An op is one batch for the writer.
type op struct {
	batch *pebble.Batch
	sync  bool
	done  chan struct{} // closed when err is known

	// guarded by Store.mu:
	err       error
	finished  bool
	abandoned bool   // nobody waits any more: take it back
	from, to  uint64 // the entries it appends, if it does
	truncates bool
}

// Open opens the store in a directory, or makes it.
func Open(o Options) (*Store, error) {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	s := &Store{ops: make(chan *op), closing: make(chan struct{}), failed: make(chan struct{})}
	s.log = &logger{fatal: s.latch}
	s.cache = pebble.NewCache(1 << 20)
	opts := &pebble.Options{
		FS:                          o.FS,
		Cache:                       s.cache,
		FormatMajorVersion:          pebble.FormatNewest,
		MemTableSize:                4 << 20,
		MemTableStopWritesThreshold: 4,
		MaxOpenFiles:                64,
		Logger:                      s.log,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 1 },
	}
	opts.Experimental.CompactionScheduler = &compactor.One{}
	db, err := pebble.Open(o.Dir, opts)
	if err != nil {
		s.cache.Unref()
		return nil, fmt.Errorf("open raft's log: %w", err)
	}
	s.db = db
	if err := s.load(); err != nil {
		return nil, errors.Join(err, s.closeDB())
	}
	s.writer.Go(s.write)
	return s, nil
}

// load finds the ends of the log.
func (s *Store) load() error {
	if err := s.checkVersion(); err != nil {
		return err
	}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{logPrefix}, UpperBound: []byte{logPrefix + 1}})
	if err != nil {
		return fmt.Errorf("read raft's log: %w", err)
	}
	if it.First() {
		s.first = indexOf(it.Key())
	}
	if it.Last() {
		s.last = indexOf(it.Key())
	}
	if err := it.Close(); err != nil {
		return fmt.Errorf("read raft's log: %w", err)
	}
	value, err := s.get(commitKey)
	if err != nil {
		return err
	}
	if len(value) == 8 {
		s.commit = binary.BigEndian.Uint64(value)
	}
	return nil
}

func (s *Store) checkVersion() error {
	value, err := s.get(versionKey)
	switch {
	case err != nil:
		return err
	case value == nil:
		if err := s.db.Set(versionKey, []byte{formatVersion}, pebble.Sync); err != nil {
			return fmt.Errorf("write the version of raft's log: %w", err)
		}
	case len(value) != 1 || value[0] != formatVersion:
		return model.Errorf(model.Invalid, "raft's log has version %d; this daemon reads version %d", value, formatVersion)
	}
	return nil
}

// Failed is closed when the store has latched; Err says why.
func (s *Store) Failed() <-chan struct{} { return s.failed }

// Err is the failure that latched the store, or nil.
func (s *Store) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// LastHung is when an append last passed its deadline; zero if none did.
func (s *Store) LastHung() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lastHung
}

// Release ends every wait for a disk that hangs or a store that has latched, now
// and later. It comes before raft is shut down. A SetUint64 that was waiting
// returns nil though it is not durable, because raft would crash otherwise; the
// votes that would make it count (Set) return an error.
func (s *Store) Release() { s.stopping.Do(func() { close(s.closing) }) }

// Close closes the store. If the disk hangs it gives up after a few seconds and
// says so; the goroutine that waits for the disk then stays behind.
func (s *Store) Close() error {
	s.Release()
	done := make(chan error, 1)
	go func() {
		s.writer.Wait()
		done <- s.closeDB()
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(closeWait):
		return ErrHung
	}
}

func (s *Store) closeDB() error {
	defer s.cache.Unref()
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("close raft's log: %w", err)
	}
	return nil
}

// latch records the first failure.
func (s *Store) latch(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = fmt.Errorf("raft's log has failed: %w", err)
		close(s.failed)
	}
}

// write runs the ops one after the other.
func (s *Store) write() {
	for {
		select {
		case o := <-s.ops:
			s.finish(o, s.commitBatch(o.batch, o.sync))
		case <-s.closing:
			return
		}
	}
}

// commitBatch returns only if the batch is durable, or the store has latched.
func (s *Store) commitBatch(b *pebble.Batch, sync bool) error {
	if err := s.Err(); err != nil {
		return err
	}
	mode := pebble.NoSync
	if sync {
		mode = pebble.Sync
	}
	if err := s.db.Apply(b, mode); err != nil {
		s.latch(err)
	}
	return s.Err() // pebble may only have told the logger
}

// finish tells whoever waits for an op, or takes back what nobody waited for.
func (s *Store) finish(o *op, err error) {
	s.mu.Lock()
	o.err, o.finished = err, true
	abandoned := o.abandoned
	s.mu.Unlock()
	close(o.done)
	if !abandoned {
		return
	}
	if err == nil {
		s.takeBack(o)
	}
	s.mu.Lock()
	s.hung = false
	s.mu.Unlock()
}

// takeBack removes entries whose append was reported as failed.
func (s *Store) takeBack(o *op) {
	if o.truncates {
		// What was truncated is gone, and raft still counts on it.
		s.latch(errors.New("a truncation of the log hung and happened later"))
		return
	}
	if o.from == 0 {
		return
	}
	b := s.db.NewBatch()
	if err := b.DeleteRange(logKey(o.from), logKey(o.to+1), nil); err != nil {
		s.latch(err)
		return
	}
	// A failure is latched, so that nothing is written after it.
	_ = s.commitBatch(b, true)
}

// run gives an op to the writer. With a deadline it returns ErrHung when that
// has passed; without one it waits until the disk has answered or Release.
func (s *Store) run(o *op, deadline time.Duration) error {
	o.done = make(chan struct{})
	var late <-chan time.Time
	if deadline > 0 {
		if s.isHung() {
			return ErrHung
		}
		timer := time.NewTimer(deadline)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case s.ops <- o:
	case <-late:
		s.mu.Lock()
		s.lastHung = time.Now()
		s.mu.Unlock()
		return ErrHung
	case <-s.closing:
		return errClosed
	}
	select {
	case <-o.done:
	case <-late:
		return s.abandon(o)
	case <-s.closing:
		return errClosed
	}
	return o.err
}

// abandon stops waiting for an op, unless it has just finished.
func (s *Store) abandon(o *op) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o.finished {
		return o.err
	}
	o.abandoned, s.hung, s.lastHung = true, true, time.Now()
	return ErrHung
}

func (s *Store) isHung() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hung
}

// StoreLog implements raft.LogStore.
func (s *Store) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore: the entries are durable, with the
// truncation that came before them and the commit index staged, or none of it.
func (s *Store) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	if err := s.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	cut, staged, last := s.cut, s.staged, s.visible()
	s.mu.Unlock()
	o := &op{batch: s.db.NewBatch(), sync: true, from: logs[0].Index, to: logs[len(logs)-1].Index}
	// What overwrites or truncates cannot be taken back.
	o.truncates = cut > 0 || o.from <= last
	if err := fill(o.batch, logs, cut, staged); err != nil {
		return err
	}
	err := s.run(o, Deadline)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut = 0
	if err != nil {
		return fmt.Errorf("append to raft's log: %w", err)
	}
	if s.first == 0 || cut > 0 && cut <= s.first {
		s.first = o.from
	}
	if cut > 0 {
		s.last = o.to
	}
	s.last = max(s.last, o.to)
	s.commit = max(s.commit, staged)
	return nil
}

// fill makes the batch of an append.
func fill(b *pebble.Batch, logs []*raft.Log, cut, staged uint64) error {
	var errs []error
	if cut > 0 {
		errs = append(errs, b.DeleteRange(logKey(cut), []byte{logPrefix + 1}, nil))
	}
	for _, l := range logs {
		errs = append(errs, b.Set(logKey(l.Index), encodeEntry(l), nil))
	}
	if staged > 0 {
		errs = append(errs, b.Set(commitKey, binary.BigEndian.AppendUint64(nil, staged), nil))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("append to raft's log: %w", err)
	}
	return nil
}

// visible is the last entry raft sees, or zero. The caller has the mutex.
func (s *Store) visible() uint64 {
	switch {
	case s.cut == 0:
		return s.last
	case s.cut <= s.first:
		return 0
	default:
		return s.cut - 1
	}
}

// DeleteRange implements raft.LogStore. A truncation of the log's end is held
// back until the next append and becomes durable together with it: an append
// that fails leaves the log as it was, as raft expects then.
func (s *Store) DeleteRange(from, to uint64) error {
	s.mu.Lock()
	last := s.visible()
	if from <= last && to >= last {
		s.cut = from
	}
	s.mu.Unlock()
	if from > last || to >= last {
		return nil
	}
	o := &op{batch: s.db.NewBatch()} // compaction may be lost: then it is done again
	if err := o.batch.DeleteRange(logKey(from), logKey(to+1), nil); err != nil {
		return fmt.Errorf("delete from raft's log: %w", err)
	}
	if err := s.run(o, Deadline); err != nil {
		return fmt.Errorf("delete from raft's log: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if from <= s.first {
		s.first = to + 1
	}
	return nil
}
