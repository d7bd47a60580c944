package disk

import (
	"encoding/binary"
	"errors"
	"math"
	"math/bits"

	"drystone.example/drystone/backend/model"
)

// A place is the number of a 64 KiB page in the raw area.
type place uint32

const noPlace place = math.MaxUint32

// A version is what the map holds of one page in one epoch.
type version struct {
	epoch model.Epoch
	place place // noPlace if no block is present
	mask  uint16
	stamp model.Stamp
	sums  [model.BlocksPerPage]uint32
}

type pageKey struct {
	vol          model.VolumeID
	column, page uint32
}

// A recordKind says what a record in the journal does. Values are on disk:
// appended, never renumbered.
type recordKind uint8

const (
	recVersion recordKind = 1 // page has this version in this epoch
	recGone    recordKind = 2 // page has no version in this epoch
	recRow     recordKind = 3 // state of a volume's row
	recRowGone recordKind = 4 // the volume has no row, and no promise
	recRefs    recordKind = 5 // how many versions share a place; one or none: nobody
	recSettled recordKind = 6 // nothing of a column is uncertain: it was dropped

	recShared    recordKind = 12 // as recVersion, in a place that another version has too
	recOrigin    recordKind = 13 // a column begins as that of another volume, or no longer does
	recInherited recordKind = 14 // a leaf has all that its column's origin had there
)

// A record is absolute: it says how things are after it, so that applying it
// again does no harm.
type record struct {
	kind recordKind
	pageKey
	ver  version     // of recVersion; of recGone only epoch
	op   model.Stamp // generation and number of the op that made it; zero: none did
	row  rowState    // of recRow
	refs uint32      // of recRefs, with ver.place

	origin model.VolumeID // of recOrigin, with ver.epoch; zero: none any more

	// data are the blocks whose content is in this batch, in order, from block
	// first of the payload on.
	data  uint16
	first int

	// Of a version that is made here, not kept in the journal: the blocks that the op
	// brought, and whether it brought all of them, as a good copy.
	fresh uint16
	whole bool
	lost  uint16 // of those, blocks that are damaged
}

// A rowState is what a disk keeps of a volume for ever.
type rowState struct {
	generation model.Generation // promised
	last       uint64           // number applied last
	watermark  model.Stamp
	promises   uint64 // how often it promised
}

const (
	batchMagic     = 0x314e524a_545344 // "DSTJRN1"
	batchVersion   = 1
	batchHeader    = 48
	maxHeader      = 64 << 10 // bytes of header blocks of one batch
	maxPayload     = 256      // blocks
	maxBatch       = maxHeader + maxPayload*blockSize
	blockSize      = int(model.BlockSize)
	pageSize       = int(model.PageSize)
	versionRecSize = 64 // without sums
	maxRecordSize  = versionRecSize + 4*model.BlocksPerPage
	refsRecSize    = 12

	originRecSize    = 28
	inheritedRecSize = 20
)

// A header describes a batch in the journal.
type header struct {
	salt    uint64
	lsn     uint64
	headers int // blocks of header
	payload int // blocks of payload
	records int
	used    int // bytes of header
}

var errBadBatch = errors.New("not a batch")

// size is what the record takes in a header.
func (r *record) size() int {
	switch r.kind {
	case recVersion, recShared:
		return versionRecSize + 4*bits.OnesCount16(r.ver.mask)
	case recOrigin:
		return originRecSize
	case recInherited:
		return inheritedRecSize
	case recGone:
		return 40
	case recRow:
		return 52
	case recRowGone:
		return 12
	case recRefs:
		return refsRecSize
	case recSettled:
		return 16
	default:
		return 0
	}
}

// encode writes the record to b and returns what it took.
func (r *record) encode(b []byte) int {
	le := binary.LittleEndian
	b[0], b[1] = byte(r.kind), 0
	switch r.kind {
	case recVersion, recShared:
		v := &r.ver
		le.PutUint16(b[2:], r.data)
		le.PutUint32(b[4:], r.column)
		le.PutUint64(b[8:], uint64(r.vol))
		le.PutUint32(b[16:], r.page)
		le.PutUint32(b[20:], uint32(v.epoch))
		le.PutUint32(b[24:], uint32(v.place))
		le.PutUint16(b[28:], v.mask)
		le.PutUint16(b[30:], 0)
		putStamp(b[32:], v.stamp)
		putStamp(b[48:], r.op)
		putSums(b[versionRecSize:], v)
	case recGone:
		le.PutUint16(b[2:], 0)
		le.PutUint32(b[4:], r.column)
		le.PutUint64(b[8:], uint64(r.vol))
		le.PutUint32(b[16:], r.page)
		le.PutUint32(b[20:], uint32(r.ver.epoch))
		putStamp(b[24:], r.op)
	case recRow:
		le.PutUint16(b[2:], 0)
		le.PutUint64(b[4:], uint64(r.vol))
		putRow(b[12:], r.row)
	case recRowGone:
		le.PutUint16(b[2:], 0)
		le.PutUint64(b[4:], uint64(r.vol))
	case recRefs:
		le.PutUint16(b[2:], 0)
		le.PutUint32(b[4:], uint32(r.ver.place))
		le.PutUint32(b[8:], r.refs)
	case recSettled:
		le.PutUint16(b[2:], 0)
		le.PutUint32(b[4:], r.column)
		le.PutUint64(b[8:], uint64(r.vol))
	case recOrigin:
		le.PutUint16(b[2:], 0)
		le.PutUint32(b[4:], r.column)
		le.PutUint64(b[8:], uint64(r.vol))
		le.PutUint64(b[16:], uint64(r.origin))
		le.PutUint32(b[24:], uint32(r.ver.epoch))
	case recInherited:
		le.PutUint16(b[2:], 0)
		le.PutUint32(b[4:], r.column)
		le.PutUint64(b[8:], uint64(r.vol))
		le.PutUint32(b[16:], r.page)
	}
	return r.size()
}

// decodeRecord reads a record off the front of b.
func decodeRecord(b []byte) (r record, size int, err error) {
	if len(b) < 12 {
		return r, 0, errBadBatch
	}
	le := binary.LittleEndian
	r.kind = recordKind(b[0])
	switch r.kind {
	case recVersion, recShared:
		if len(b) < versionRecSize {
			return r, 0, errBadBatch
		}
		r.ver.mask = le.Uint16(b[28:])
	case recGone, recRow, recRowGone, recRefs, recSettled, recOrigin, recInherited:
	default:
		return r, 0, errBadBatch
	}
	if size = r.size(); len(b) < size {
		return r, 0, errBadBatch
	}
	switch r.kind {
	case recRow:
		r.row = getRow(b[12:])
		fallthrough
	case recRowGone:
		r.vol = model.VolumeID(le.Uint64(b[4:]))
		return r, size, nil
	case recRefs:
		r.ver.place, r.refs = place(le.Uint32(b[4:])), le.Uint32(b[8:])
		return r, size, nil
	case recVersion, recShared, recGone, recSettled, recOrigin, recInherited:
	}
	r.column = le.Uint32(b[4:])
	r.vol = model.VolumeID(le.Uint64(b[8:]))
	switch r.kind {
	case recSettled:
		return r, size, nil
	case recOrigin:
		r.origin, r.ver.epoch = model.VolumeID(le.Uint64(b[16:])), model.Epoch(le.Uint32(b[24:]))
		return r, size, nil
	case recVersion, recShared, recGone, recRow, recRowGone, recRefs, recInherited:
	}
	if r.page = le.Uint32(b[16:]); r.kind == recInherited {
		return r, size, nil
	}
	r.ver.epoch = model.Epoch(le.Uint32(b[20:]))
	if r.kind == recGone {
		r.op = getStamp(b[24:])
		return r, size, nil
	}
	r.data = le.Uint16(b[2:])
	r.ver.place = place(le.Uint32(b[24:]))
	r.ver.stamp = getStamp(b[32:])
	r.op = getStamp(b[48:])
	getSums(b[versionRecSize:], &r.ver)
	if r.data&^r.ver.mask != 0 || (r.ver.mask == 0) != (r.ver.place == noPlace) ||
		r.kind == recShared && (r.data != 0 || r.ver.mask == 0) {
		return r, 0, errBadBatch
	}
	return r, size, nil
}

// encodeBatch writes the header blocks of a batch to b, which is large enough,
// and returns how many bytes of whole blocks they are.
func encodeBatch(b []byte, h header, records []record) int {
	used := batchHeader
	for i := range records {
		used += records[i].encode(b[used:])
	}
	whole := (used + blockSize - 1) / blockSize * blockSize
	clear(b[used:whole])
	le := binary.LittleEndian
	le.PutUint64(b[0:], batchMagic)
	le.PutUint16(b[12:], batchVersion)
	le.PutUint16(b[14:], 0)
	le.PutUint64(b[16:], h.salt)
	le.PutUint64(b[24:], h.lsn)
	le.PutUint32(b[32:], uint32(whole/blockSize))
	le.PutUint32(b[36:], uint32(h.payload))
	le.PutUint32(b[40:], uint32(len(records)))
	le.PutUint32(b[44:], uint32(used))
	le.PutUint32(b[8:], sumOf(b[12:used]))
	return whole
}

// decodeHeader reads the fixed part of a header and checks its bounds.
func decodeHeader(b []byte) (h header, err error) {
	le := binary.LittleEndian
	if len(b) < batchHeader || le.Uint64(b) != batchMagic || le.Uint16(b[12:]) != batchVersion {
		return h, errBadBatch
	}
	h = header{
		salt: le.Uint64(b[16:]), lsn: le.Uint64(b[24:]),
		headers: int(le.Uint32(b[32:])), payload: int(le.Uint32(b[36:])),
		records: int(le.Uint32(b[40:])), used: int(le.Uint32(b[44:])),
	}
	if h.headers < 1 || h.headers > maxHeader/blockSize || h.payload < 0 || h.payload > maxPayload ||
		h.used < batchHeader || h.used > h.headers*blockSize {
		return h, errBadBatch
	}
	return h, nil
}

// goodHeader reports whether the header blocks match their sum.
func goodHeader(b []byte, h header) bool {
	return binary.LittleEndian.Uint32(b[8:]) == sumOf(b[12:h.used])
}

// decodeBatch reads a batch off the front of b and checks every checksum in it.
// The records' data begin at block first of what is returned as payload.
func decodeBatch(b []byte, salt uint64, records []record) (header, []record, []byte, error) {
	h, err := decodeHeader(b)
	if err != nil {
		return h, nil, nil, err
	}
	end := (h.headers + h.payload) * blockSize
	if h.salt != salt || len(b) < end || !goodHeader(b, h) {
		return h, nil, nil, errBadBatch
	}
	payload := b[h.headers*blockSize : end]
	at, block := batchHeader, 0
	for range h.records {
		r, n, err := decodeRecord(b[at:h.used])
		if err != nil {
			return h, nil, nil, err
		}
		at += n
		r.first = block
		for left := r.data; left != 0; left &= left - 1 {
			if block == h.payload {
				return h, nil, nil, errBadBatch
			}
			if sumOf(payload[block*blockSize:][:blockSize]) != r.ver.sums[bits.TrailingZeros16(left)] {
				return h, nil, nil, errBadBatch
			}
			block++
		}
		records = append(records, r)
	}
	if block != h.payload {
		return h, nil, nil, errBadBatch
	}
	return h, records, payload, nil
}

func putStamp(b []byte, s model.Stamp) {
	binary.LittleEndian.PutUint64(b, uint64(s.Generation))
	binary.LittleEndian.PutUint64(b[8:], s.Number)
}

func getStamp(b []byte) model.Stamp {
	return model.Stamp{
		Generation: model.Generation(binary.LittleEndian.Uint64(b)),
		Number:     binary.LittleEndian.Uint64(b[8:]),
	}
}

func putRow(b []byte, r rowState) {
	binary.LittleEndian.PutUint64(b, uint64(r.generation))
	binary.LittleEndian.PutUint64(b[8:], r.last)
	putStamp(b[16:], r.watermark)
	binary.LittleEndian.PutUint64(b[32:], r.promises)
}

func getRow(b []byte) rowState {
	return rowState{
		generation: model.Generation(binary.LittleEndian.Uint64(b)),
		last:       binary.LittleEndian.Uint64(b[8:]),
		watermark:  getStamp(b[16:]),
		promises:   binary.LittleEndian.Uint64(b[32:]),
	}
}

// putSums writes the sums of the present blocks, in order.
func putSums(b []byte, v *version) {
	for left := v.mask; left != 0; left &= left - 1 {
		binary.LittleEndian.PutUint32(b, v.sums[bits.TrailingZeros16(left)])
		b = b[4:]
	}
}

func getSums(b []byte, v *version) {
	for left := v.mask; left != 0; left &= left - 1 {
		v.sums[bits.TrailingZeros16(left)] = binary.LittleEndian.Uint32(b)
		b = b[4:]
	}
}
