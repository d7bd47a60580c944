package main

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
)

// certainty says how well a sector's content is known.
type certainty uint8

const (
	exact     certainty = iota // it is what was remembered
	discarded                  // it is what was remembered, or zero
	unsure                     // a write to it failed: it is anything whole, or zero
)

// A memory knows what every sector of the area holds, by checksum, and which are
// in use by a request just now. What it says is checked against what the disk says.
type memory struct {
	guest uint64
	adopt bool

	mu   sync.Mutex // guards all below; nothing is waited for under it
	sums []uint32
	sure []certainty
	busy []bool
}

func newMemory(sectors int64, guest uint64, adopt bool) *memory {
	return &memory{
		guest: guest, adopt: adopt,
		sums: make([]uint32, sectors), sure: make([]certainty, sectors),
		busy: make([]bool, sectors),
	}
}

// take claims a range for one request, unless a part of it is in use.
func (m *memory) take(first, n int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := first; i < first+n; i++ {
		if m.busy[i] {
			return false
		}
	}
	for i := first; i < first+n; i++ {
		m.busy[i] = true
	}
	return true
}

func (m *memory) release(first, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := first; i < first+n; i++ {
		m.busy[i] = false
	}
}

// wrote remembers an acknowledged write of sectors with these checksums.
func (m *memory) wrote(first int64, sums []uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, sum := range sums {
		m.sums[first+int64(i)], m.sure[first+int64(i)] = sum, exact
	}
}

// doubt remembers that a range may hold something else.
func (m *memory) doubt(first, n int64, c certainty) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := first; i < first+n; i++ {
		if m.sure[i] < c {
			m.sure[i] = c
		}
	}
}

// check compares what was read of a claimed range with what is remembered, and
// returns one error for each sector that is wrong. What is wrong is remembered, so
// that it is told once.
func (m *memory) check(first int64, data []byte) []error {
	var errs []error
	for i := int64(0); i*sectorSize < int64(len(data)); i++ {
		sector := data[i*sectorSize:][:sectorSize]
		sum := sumOf(sector)
		m.mu.Lock()
		want, sure := m.sums[first+i], m.sure[first+i]
		m.sums[first+i], m.sure[first+i] = sum, exact
		m.mu.Unlock()
		if sum == want && sure != unsure || sure != exact && isZero(sector) {
			continue
		}
		err := m.whole(first+i, sector)
		if err == nil && sure == unsure {
			continue
		}
		if err == nil {
			s, _ := readStamp(sector)
			err = fmt.Errorf("not what was written last: it holds %v", s)
			if isZero(sector) {
				err = errors.New("what was written is gone: it is all zero")
			}
		}
		errs = append(errs, fmt.Errorf("sector %d: %w", first+i, err))
	}
	return errs
}

// learn takes what was read of an unknown disk for true, and returns one error
// for each sector that is neither zero nor whole and in its place.
func (m *memory) learn(first int64, data []byte) []error {
	m.doubt(first, int64(len(data))/sectorSize, unsure)
	return m.check(first, data)
}

// whole says what is wrong with a sector by itself.
func (m *memory) whole(n int64, sector []byte) error {
	if isZero(sector) {
		return nil
	}
	s, err := readStamp(sector)
	switch {
	case err != nil:
		return err
	case s.sector != uint64(n):
		return fmt.Errorf("misplaced: it holds %v", s)
	case s.guest != m.guest && !m.adopt:
		return fmt.Errorf("another guest's: it holds %v", s)
	default:
		return nil
	}
}

var zeros [sectorSize]byte

func isZero(sector []byte) bool { return bytes.Equal(sector, zeros[:]) }
