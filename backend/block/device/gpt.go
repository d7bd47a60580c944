package device

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"unicode/utf16"

	"drystone.example/drystone/backend/model"
)

// A guid is a GUID in the order in which it is written for people.
type guid [16]byte

// The kinds of our partitions. Being kinds of our own, no desktop mounts them by
// itself and no installer takes them for its own.
var (
	mapKind = guid{0x5c, 0x0a, 0x6d, 0x3e, 0x2b, 0x1f, 0x4e, 0x8a, 0x9d, 0x47, 0x64, 0x72, 0x79, 0x6d, 0x61, 0x70}
	rawKind = guid{0x5c, 0x0a, 0x6d, 0x3e, 0x2b, 0x1f, 0x4e, 0x8a, 0x9d, 0x47, 0x64, 0x72, 0x79, 0x72, 0x61, 0x77}
)

// Numbers of the partitions.
const (
	mapPartition = 1
	rawPartition = 2
)

const (
	mib         = 1 << 20
	minMap      = 128 * mib
	mapShare    = 128 // the map has this part of the device, or minMap
	gptEntries  = 128
	gptEntry    = 128
	gptHeader   = 92
	tableBytes  = gptEntries * gptEntry
	smallestRaw = 128 * mib
)

// A plan says where the partitions of a device begin and end, in bytes.
type plan struct {
	size, sector     int64
	mapStart, mapEnd int64
	rawStart, rawEnd int64
}

// layOut plans a device: 1 MiB for the table, the map, the raw area, and 1 MiB for
// the table's copy. All of it begins and ends at whole MiB.
func layOut(size model.Bytes, sector int64) (plan, error) {
	total := int64(size)
	p := plan{size: total / sector * sector, sector: sector, mapStart: mib}
	p.mapEnd = p.mapStart + max(total/mapShare/mib*mib, minMap)
	p.rawStart, p.rawEnd = p.mapEnd, total/mib*mib-mib
	if p.rawEnd-p.rawStart < smallestRaw {
		return plan{}, model.Errorf(model.Invalid, "a device of %d bytes is too small", size)
	}
	return p, nil
}

// encode makes both copies of the partition table: head belongs at the start of the
// device and tail at its end.
func (p plan) encode(device, mapID, rawID guid) (head, tail []byte) {
	table := make([]byte, tableBytes)
	p.entry(table, mapKind, mapID, p.mapStart, p.mapEnd, "drystone map")
	p.entry(table[gptEntry:], rawKind, rawID, p.rawStart, p.rawEnd, "drystone disk")

	tableSectors := (tableBytes + p.sector - 1) / p.sector
	last := p.size/p.sector - 1
	head = make([]byte, (2+tableSectors)*p.sector)
	p.protect(head)
	p.header(head[p.sector:], device, table, 1, last, 2)
	copy(head[2*p.sector:], table)
	tail = make([]byte, (1+tableSectors)*p.sector)
	copy(tail, table)
	p.header(tail[tableSectors*p.sector:], device, table, last, 1, last-tableSectors)
	return head, tail
}

// protect writes the table of old that tells programs of old that nothing is free.
func (p plan) protect(b []byte) {
	le := binary.LittleEndian
	e := b[446:]
	e[2], e[4] = 2, 0xee
	e[5], e[6], e[7] = 0xff, 0xff, 0xff
	le.PutUint32(e[8:], 1)
	le.PutUint32(e[12:], uint32(min(p.size/p.sector-1, 0xffffffff)))
	b[510], b[511] = 0x55, 0xaa
}

func (p plan) entry(b []byte, kind, id guid, start, end int64, name string) {
	le := binary.LittleEndian
	kind.encode(b)
	id.encode(b[16:])
	le.PutUint64(b[32:], uint64(start/p.sector))
	le.PutUint64(b[40:], uint64(end/p.sector-1))
	for i, u := range utf16.Encode([]rune(name)) {
		le.PutUint16(b[56+2*i:], u)
	}
}

func (p plan) header(b []byte, device guid, table []byte, self, other, entries int64) {
	le := binary.LittleEndian
	tableSectors := (tableBytes + p.sector - 1) / p.sector
	copy(b, "EFI PART")
	le.PutUint32(b[8:], 0x00010000)
	le.PutUint32(b[12:], gptHeader)
	le.PutUint64(b[24:], uint64(self))
	le.PutUint64(b[32:], uint64(other))
	le.PutUint64(b[40:], uint64(2+tableSectors))                 // first usable
	le.PutUint64(b[48:], uint64(p.size/p.sector-2-tableSectors)) // last usable
	device.encode(b[56:])
	le.PutUint64(b[72:], uint64(entries))
	le.PutUint32(b[80:], gptEntries)
	le.PutUint32(b[84:], gptEntry)
	le.PutUint32(b[88:], crc32.ChecksumIEEE(table))
	le.PutUint32(b[16:], crc32.ChecksumIEEE(b[:gptHeader]))
}

// decodeTable reads the table that encode made, from the first bytes of a device.
// It reports false for any other table, and for a damaged one.
func decodeTable(b []byte, size model.Bytes, sector int64) (plan, bool) {
	le := binary.LittleEndian
	if int64(len(b)) < 2*sector+tableBytes {
		return plan{}, false
	}
	h, table := bytes.Clone(b[sector:sector+gptHeader]), b[2*sector:2*sector+tableBytes]
	sum := le.Uint32(h[16:])
	clear(h[16:20])
	if !bytes.HasPrefix(h, []byte("EFI PART")) || sum != crc32.ChecksumIEEE(h) ||
		le.Uint32(h[88:]) != crc32.ChecksumIEEE(table) {
		return plan{}, false
	}
	p := plan{size: int64(size) / sector * sector, sector: sector}
	for i, part := range []struct {
		kind       guid
		start, end *int64
	}{{mapKind, &p.mapStart, &p.mapEnd}, {rawKind, &p.rawStart, &p.rawEnd}} {
		e := table[i*gptEntry:]
		var kind [16]byte
		part.kind.encode(kind[:])
		if !bytes.HasPrefix(e, kind[:]) {
			return plan{}, false
		}
		*part.start, *part.end = int64(le.Uint64(e[32:]))*sector, int64(le.Uint64(e[40:])+1)*sector
	}
	ok := 0 < p.mapStart && p.mapStart < p.mapEnd && p.mapEnd <= p.rawStart &&
		p.rawStart < p.rawEnd && p.rawEnd <= p.size
	return p, ok
}

// encode writes a GUID as GPT has it: its first three numbers little endian.
func (g guid) encode(b []byte) {
	be, le := binary.BigEndian, binary.LittleEndian
	le.PutUint32(b, be.Uint32(g[:]))
	le.PutUint16(b[4:], be.Uint16(g[4:]))
	le.PutUint16(b[6:], be.Uint16(g[6:]))
	copy(b[8:16], g[8:])
}
