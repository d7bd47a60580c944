package disk

import (
	"encoding/binary"
	"hash/crc32"

	"drystone.example/drystone/backend/model"
)

// Formats of the disk, as docs/FORMATS.md has them. Numbers are little endian in
// the area and big endian in the keys of the map.
const (
	superMagic   = 0x314b53494454_5344 // "DSTDISK1"
	superVersion = 1
	superSize    = int(model.BlockSize)

	journalStart = model.Bytes(1 << 20)
	minJournal   = model.Bytes(8 << 20)
	minPages     = 64
)

// The two copies of the superblock.
var superOffsets = [2]int64{0, 64 << 10}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sumOf is the checksum of a block, and of everything else the formats protect.
func sumOf(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// zeroSum is the sum of a block that is absent, and so reads as zeros.
var zeroSum = sumOf(make([]byte, model.BlockSize))

// A superblock says what a disk is and where its journal begins.
type superblock struct {
	cluster model.ClusterID
	disk    model.DiskID
	salt    uint64 // in each batch's header: no guest can make one up
	size    model.Bytes
	journal model.Bytes // size of the ring
	pages   uint32

	sequence uint64 // the higher of two valid copies is the present one
	tail     position
}

// A position is a place in the journal's ring and the number of the batch there.
type position struct {
	lsn    uint64
	offset int64 // in the ring
}

// pagesStart is where the raw area begins.
func (s *superblock) pagesStart() int64 { return int64(journalStart + s.journal) }

// geometry lays a disk of the given size out.
func geometry(size, journal model.Bytes) (superblock, error) {
	if journal == 0 {
		journal = min(max(size/64, 64<<20), 1<<30)
		journal = min(journal, max(size/8, minJournal))
	}
	journal = journal / (1 << 20) * (1 << 20)
	pages := (size - journalStart - journal) / model.PageSize
	switch {
	case journal < minJournal:
		return superblock{}, model.Errorf(model.Invalid,
			"a journal of %d bytes is too small; the least is %d", journal, minJournal)
	case pages < minPages:
		return superblock{}, model.Errorf(model.Invalid, "a disk of %d bytes is too small", size)
	case pages >= model.Bytes(noPlace):
		return superblock{}, model.Errorf(model.Invalid, "a disk of %d bytes is too large", size)
	}
	return superblock{size: size, journal: journal, pages: uint32(pages)}, nil
}

func (s *superblock) encode(b []byte) {
	clear(b[:superSize])
	le := binary.LittleEndian
	le.PutUint64(b[0:], superMagic)
	le.PutUint32(b[8:], superVersion)
	le.PutUint64(b[16:], uint64(s.cluster))
	le.PutUint64(b[24:], uint64(s.disk))
	le.PutUint64(b[32:], s.salt)
	le.PutUint64(b[40:], uint64(s.size))
	le.PutUint64(b[48:], uint64(s.journal))
	le.PutUint32(b[56:], s.pages)
	le.PutUint64(b[64:], s.sequence)
	le.PutUint64(b[72:], s.tail.lsn)
	le.PutUint64(b[80:], uint64(s.tail.offset))
	le.PutUint32(b[superSize-4:], sumOf(b[:superSize-4]))
}

// decodeSuperblock reads what encode wrote. It is model.NotFound where there never
// was one, model.Corrupt where there was.
func decodeSuperblock(b []byte) (superblock, error) {
	le := binary.LittleEndian
	if len(b) != superSize || le.Uint64(b) != superMagic {
		return superblock{}, model.Errorf(model.NotFound, "there is no disk of this kind here")
	}
	if le.Uint32(b[superSize-4:]) != sumOf(b[:superSize-4]) {
		return superblock{}, model.Errorf(model.Corrupt, "the superblock does not match its checksum")
	}
	if v := le.Uint32(b[8:]); v != superVersion {
		return superblock{}, model.Errorf(model.Invalid,
			"the disk has format version %d; this program knows version %d", v, superVersion)
	}
	s, err := geometry(model.Bytes(le.Uint64(b[40:])), model.Bytes(le.Uint64(b[48:])))
	if err != nil {
		return superblock{}, err
	}
	if s.pages != le.Uint32(b[56:]) {
		return superblock{}, model.Errorf(model.Corrupt, "the superblock contradicts itself")
	}
	s.cluster = model.ClusterID(le.Uint64(b[16:]))
	s.disk = model.DiskID(le.Uint64(b[24:]))
	s.salt = le.Uint64(b[32:])
	s.sequence = le.Uint64(b[64:])
	s.tail = position{lsn: le.Uint64(b[72:]), offset: int64(le.Uint64(b[80:]))}
	if s.tail.offset < 0 || s.tail.offset >= int64(s.journal) ||
		s.tail.offset%int64(model.BlockSize) != 0 {
		return superblock{}, model.Errorf(model.Corrupt, "the superblock contradicts itself")
	}
	return s, nil
}
