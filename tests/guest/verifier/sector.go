package main

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// sectorSize is the smallest write there is, so each sector describes itself.
const sectorSize = 512

// magic starts each sector ever written.
const magic = 0x316966_72657664_64 // "ddverfi1", little-endian

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sumOf is what a sector is remembered by. It is not the polynomial of the checksum
// inside: over its own checksum a polynomial sums everything up to the same number.
func sumOf(sector []byte) uint32 { return crc32.ChecksumIEEE(sector[:sectorSize]) }

// A stamp is what a sector says of itself.
type stamp struct {
	guest    uint64 // whose disk it is
	sector   uint64 // where on the disk
	writer   uint64 // which run of the verifier wrote it
	sequence uint64 // of the write in that run
}

func (s stamp) String() string {
	return fmt.Sprintf("guest %016x sector %d writer %016x sequence %d",
		s.guest, s.sector, s.writer, s.sequence)
}

// The sector: magic, stamp, filler, checksum of all before it.
const (
	stampEnd = 8 + 4*8
	sumAt    = sectorSize - 4
)

// write fills a sector and returns what it is remembered by.
func (s stamp) write(b []byte) uint32 {
	le := binary.LittleEndian
	le.PutUint64(b, magic)
	le.PutUint64(b[8:], s.guest)
	le.PutUint64(b[16:], s.sector)
	le.PutUint64(b[24:], s.writer)
	le.PutUint64(b[32:], s.sequence)
	// The filler differs from write to write and from sector to sector, so that
	// parts of two writes never make a whole.
	x := s.sequence*0x9e3779b97f4a7c15 ^ s.sector*0xbf58476d1ce4e5b9 ^ s.writer | 1
	for i := stampEnd; i+8 <= sumAt; i += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		le.PutUint64(b[i:], x)
	}
	le.PutUint32(b[sumAt-4:], uint32(x))
	le.PutUint32(b[sumAt:], crc32.Checksum(b[:sumAt], castagnoli))
	return sumOf(b)
}

// readStamp reads a sector that is not all zero. It says what is wrong with one
// that does not hold together.
func readStamp(b []byte) (stamp, error) {
	le := binary.LittleEndian
	if m := le.Uint64(b); m != magic {
		return stamp{}, fmt.Errorf("no block of ours: starts with %x", b[:16])
	}
	s := stamp{
		guest:    le.Uint64(b[8:]),
		sector:   le.Uint64(b[16:]),
		writer:   le.Uint64(b[24:]),
		sequence: le.Uint64(b[32:]),
	}
	if got, want := le.Uint32(b[sumAt:]), crc32.Checksum(b[:sumAt], castagnoli); got != want {
		return s, fmt.Errorf("torn or damaged: it claims %v, its checksum is %08x, not %08x",
			s, want, got)
	}
	return s, nil
}
