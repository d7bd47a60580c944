package raftlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"

	"drystone.example/drystone/backend/model"
)

// The format, version 1. Keys:
//
//	'C'          commit index, uint64
//	'L' index    an entry, index uint64
//	'S' name     a stable value
//	'V'          the version of the format, one byte
//
// An entry is: version 1, type uint8, term uint64, appended at int64 (Unix ns),
// data and extensions each with a uint32 of length, CRC32C of all that, uint32.
// Integers are big-endian.
const (
	formatVersion = 1
	entryVersion  = 1

	logPrefix    = 'L'
	stablePrefix = 'S'
)

var (
	commitKey  = []byte{'C'}
	versionKey = []byte{'V'}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

func logKey(index uint64) []byte { return binary.BigEndian.AppendUint64([]byte{logPrefix}, index) }

func indexOf(key []byte) uint64 { return binary.BigEndian.Uint64(key[1:]) }

func stableKey(name []byte) []byte { return append([]byte{stablePrefix}, name...) }

func encodeEntry(l *raft.Log) []byte {
	p := make([]byte, 0, 2+8+8+4+len(l.Data)+4+len(l.Extensions)+4)
	p = append(p, entryVersion, byte(l.Type))
	p = binary.BigEndian.AppendUint64(p, l.Term)
	var at int64
	if !l.AppendedAt.IsZero() {
		at = l.AppendedAt.UnixNano()
	}
	p = binary.BigEndian.AppendUint64(p, uint64(at))
	for _, field := range [][]byte{l.Data, l.Extensions} {
		p = binary.BigEndian.AppendUint32(p, uint32(len(field)))
		p = append(p, field...)
	}
	return binary.BigEndian.AppendUint32(p, crc32.Checksum(p, castagnoli))
}

func corrupt(index uint64) error {
	return model.Errorf(model.Corrupt, "entry %d of raft's log does not match its checksum", index)
}

func decodeEntry(index uint64, p []byte, l *raft.Log) error {
	const head, tail = 2 + 8 + 8, 4
	if len(p) < head+4+4+tail {
		return corrupt(index)
	}
	body, sum := p[:len(p)-tail], binary.BigEndian.Uint32(p[len(p)-tail:])
	if crc32.Checksum(body, castagnoli) != sum {
		return corrupt(index)
	}
	if body[0] != entryVersion {
		return model.Errorf(model.Invalid, "entry %d of raft's log has version %d", index, body[0])
	}
	*l = raft.Log{Index: index, Type: raft.LogType(body[1]), Term: binary.BigEndian.Uint64(body[2:])}
	if at := int64(binary.BigEndian.Uint64(body[10:])); at != 0 {
		l.AppendedAt = time.Unix(0, at)
	}
	rest := body[head:]
	for _, into := range []*[]byte{&l.Data, &l.Extensions} {
		if len(rest) < 4 {
			return corrupt(index)
		}
		n := binary.BigEndian.Uint32(rest)
		if uint64(n) > uint64(len(rest)-4) {
			return corrupt(index)
		}
		if n > 0 {
			*into = bytes.Clone(rest[4 : 4+n])
		}
		rest = rest[4+n:]
	}
	if len(rest) > 0 {
		return corrupt(index)
	}
	return nil
}

// get returns a copy of a value, or nil if there is none.
func (s *Store) get(key []byte) ([]byte, error) {
	value, closer, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read raft's log: %w", err)
	}
	out := bytes.Clone(value)
	if err := closer.Close(); err != nil {
		return nil, fmt.Errorf("read raft's log: %w", err)
	}
	return out, nil
}

// FirstIndex implements raft.LogStore.
func (s *Store) FirstIndex() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.visible() == 0 {
		return 0, nil
	}
	return s.first, nil
}

// LastIndex implements raft.LogStore.
func (s *Store) LastIndex() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.visible(), nil
}

// GetLog implements raft.LogStore.
func (s *Store) GetLog(index uint64, l *raft.Log) error {
	s.mu.Lock()
	beyond := index < s.first || index > s.visible()
	s.mu.Unlock()
	if beyond {
		return raft.ErrLogNotFound
	}
	value, err := s.get(logKey(index))
	if err != nil {
		return err
	}
	if value == nil {
		return raft.ErrLogNotFound
	}
	return decodeEntry(index, value, l)
}

// StageCommitIndex implements raft.CommitTrackingLogStore.
func (s *Store) StageCommitIndex(index uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.staged = max(s.staged, index)
	return nil
}

// GetCommitIndex implements raft.CommitTrackingLogStore.
func (s *Store) GetCommitIndex() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return min(s.commit, s.visible()), nil
}

// Set implements raft.StableStore.
func (s *Store) Set(key, value []byte) error {
	o := &op{batch: s.db.NewBatch(), sync: true}
	if err := o.batch.Set(stableKey(key), value, nil); err != nil {
		return fmt.Errorf("write a stable value: %w", err)
	}
	err := s.Err()
	if err == nil {
		err = s.run(o, 0)
	}
	if err != nil && !errors.Is(err, errClosed) {
		<-s.closing // it has latched; raft must neither go on nor crash
	}
	if err != nil {
		return fmt.Errorf("write a stable value: %w", err)
	}
	return nil
}

// SetUint64 implements raft.StableStore. Raft crashes if it returns an error, so
// it does not: see Release.
func (s *Store) SetUint64(key []byte, value uint64) error {
	err := s.Set(key, binary.BigEndian.AppendUint64(nil, value))
	select {
	case <-s.closing:
		return nil
	default:
		return err
	}
}

// Get implements raft.StableStore: a key that is not there is empty.
func (s *Store) Get(key []byte) ([]byte, error) {
	return s.get(stableKey(key))
}

// GetUint64 implements raft.StableStore: a key that is not there is zero.
func (s *Store) GetUint64(key []byte) (uint64, error) {
	value, err := s.get(stableKey(key))
	if err != nil || value == nil {
		return 0, err
	}
	if len(value) != 8 {
		return 0, model.Errorf(model.Corrupt, "a stable value of raft has %d bytes", len(value))
	}
	return binary.BigEndian.Uint64(value), nil
}

// A logger keeps pebble quiet. What pebble calls fatal latches the store instead
// of ending the process.
type logger struct{ fatal func(error) }

func (*logger) Infof(string, ...any) {}

func (*logger) Errorf(format string, args ...any) {
	slog.Warn("raft log", "event", fmt.Sprintf(format, args...))
}

func (l *logger) Fatalf(format string, args ...any) { l.fatal(fmt.Errorf(format, args...)) }
