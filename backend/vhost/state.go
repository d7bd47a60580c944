package vhost

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"

	"drystone.example/drystone/backend/model"
)

// The state file keeps what QEMU says once per connection, for the connection on
// which it does not: QEMU 7.2 that reconnects while its device is stopped begins,
// when it starts it, in the middle. Integers are little-endian.
//
//	8 bytes magic, u32 version, u32 length of the file, u64 virtio features,
//	u64 protocol features, u32 CRC-32C of all before
//
// It is written in place by one write and not synced: it outlives this process,
// which is all it is for. QEMU does not outlive the machine.
const (
	stateMagic   = "DRYVHOST"
	stateVersion = 1
	stateSize    = 36
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// negotiated is what QEMU and we agreed on.
type negotiated struct {
	features, protocol uint64
}

func (n negotiated) encode() []byte {
	le := binary.LittleEndian
	b := append(make([]byte, 0, stateSize), stateMagic...)
	b = le.AppendUint32(b, stateVersion)
	b = le.AppendUint32(b, stateSize)
	b = le.AppendUint64(b, n.features)
	b = le.AppendUint64(b, n.protocol)
	return le.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodeNegotiated reports false for a file that was not written by encode.
func decodeNegotiated(b []byte) (n negotiated, ok bool) {
	le := binary.LittleEndian
	if len(b) != stateSize || string(b[:8]) != stateMagic || le.Uint32(b[8:]) != stateVersion ||
		le.Uint32(b[12:]) != stateSize ||
		le.Uint32(b[32:]) != crc32.Checksum(b[:32], castagnoli) {
		return n, false
	}
	return negotiated{features: le.Uint64(b[16:]), protocol: le.Uint64(b[24:])}, true
}

// A stateFile is that file, or nothing if there is none to keep.
type stateFile struct {
	f   *os.File
	now negotiated
}

// openState reads what an earlier process left, if it is whole.
func openState(path string) (*stateFile, error) {
	if path == "" {
		return &stateFile{}, nil
	}
	//nolint:gosec // the path is the node's own
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the vhost state: %w", err)
	}
	s := &stateFile{f: f}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(model.Errorf(model.Invalid, "%s is not a file", path), err,
			f.Close())
	}
	b := make([]byte, stateSize+1)
	n, _ := f.ReadAt(b, 0) // an error leaves fewer bytes, which decode refuses
	s.now, _ = decodeNegotiated(b[:n])
	return s, nil
}

// save remembers n if it is new.
func (s *stateFile) save(n negotiated) error {
	if s.now == n {
		return nil
	}
	s.now = n
	if s.f == nil {
		return nil
	}
	if _, err := s.f.WriteAt(n.encode(), 0); err != nil {
		return fmt.Errorf("save the vhost state: %w", err)
	}
	return nil
}

func (s *stateFile) close() error {
	if s.f == nil {
		return nil
	}
	return s.f.Close()
}
