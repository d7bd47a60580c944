package disk

import (
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// oneCompaction lets pebble compact one thing at a time. Pebble's own scheduler does
// too, but looks around ten times a second whether it may do more; an idle disk
// shall not wake its processor.
type oneCompaction struct {
	db pebble.DBForCompaction // set before anything else is called

	granting sync.Mutex // held while db is asked; taken before mu

	mu      sync.Mutex
	running int
	ended   bool
}

func (s *oneCompaction) Register(_ int, db pebble.DBForCompaction) { s.db = db }

// Unregister returns when the database is not being asked any more.
func (s *oneCompaction) Unregister() {
	s.granting.Lock()
	defer s.granting.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
}

func (s *oneCompaction) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.running > 0 {
		return false, nil // Done will ask for what waits now
	}
	s.running++
	return true, s
}

// UpdateGetAllowedWithoutPermission has nothing to do: the limit never changes.
func (s *oneCompaction) UpdateGetAllowedWithoutPermission() {}

// Done ends a compaction and begins the next one, if one waits.
func (s *oneCompaction) Done() {
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

// Started, MeasureCPU and CumulativeStats report what nobody here needs.
func (s *oneCompaction) Started() {}

// MeasureCPU is not used.
func (s *oneCompaction) MeasureCPU(pebble.CompactionGoroutineKind) {}

// CumulativeStats is not used.
func (s *oneCompaction) CumulativeStats(pebble.CompactionGrantHandleStats) {}
