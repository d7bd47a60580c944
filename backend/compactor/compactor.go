// Package compactor lets a pebble database compact one thing at a time, and be still
// when there is nothing to do. Pebble's own scheduler looks around ten times a second
// whether it may do more; an idle node shall not wake its processors.
package compactor

import (
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// A One is the scheduler of one database: set it as CompactionScheduler in the
// experimental options, with a CompactionConcurrencyRange of one.
type One struct {
	db pebble.DBForCompaction // set before anything else is called

	granting sync.Mutex // held while db is asked; taken before mu

	mu      sync.Mutex
	running int
	ended   bool
}

// Register is called with the database, before anything else.
func (s *One) Register(_ int, db pebble.DBForCompaction) { s.db = db }

// Unregister returns when the database is not being asked any more.
func (s *One) Unregister() {
	s.granting.Lock()
	defer s.granting.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
}

// TrySchedule lets a compaction begin unless one runs.
func (s *One) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.running > 0 {
		return false, nil // Done will ask for what waits now
	}
	s.running++
	return true, s
}

// UpdateGetAllowedWithoutPermission has nothing to do: the limit never changes.
func (s *One) UpdateGetAllowedWithoutPermission() {}

// Done ends a compaction and begins the next one, if one waits.
func (s *One) Done() {
	s.granting.Lock()
	defer s.granting.Unlock()
	s.mu.Lock()
	s.running--
	ask := !s.ended && s.running == 0
	s.mu.Unlock()
	if !ask {
		return
	}
	if waiting, _ := s.db.GetWaitingCompaction(); !waiting || !s.db.Schedule(s) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running++
}

// Started is not used.
func (s *One) Started() {}

// MeasureCPU is not used.
func (s *One) MeasureCPU(pebble.CompactionGoroutineKind) {}

// CumulativeStats is not used.
func (s *One) CumulativeStats(pebble.CompactionGrantHandleStats) {}
