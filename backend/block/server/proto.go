package server

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"time"

	"drystone.example/drystone/backend/model"
)

// Proto is the name of the protocol on the wire.
const Proto = "block"

// A kind says what a frame is; an answer has the kind of its request with
// answerBit set. Appended, never renumbered.
type kind uint8

const (
	kindApply       kind = 1
	kindPrepare     kind = 2
	kindRead        kind = 3
	kindList        kind = 4
	kindReadVersion kind = 5
	// kindBusy is sent by the server while it has nothing to answer but is at it.
	kindBusy kind = 6

	kindDigest kind = 12

	answerBit kind = 0x80
)

// The limits of version 1 of the protocol. Both sides hold them: the client
// waits, the server cuts a peer that does not.
const (
	maxMeta     = 32 << 10
	maxData     = 8 << 20
	maxListData = 16 << 20 // of an answer that is a list
	maxBlocks   = maxData / int(model.BlockSize)
	maxListed   = 1 << 16 // versions asked for in one List

	windowOps       = 1024     // of Apply, per disk and connection
	windowBytes     = 16 << 20 // of their data
	windowReads     = 256      // of all other requests, per disk and connection
	windowReadBytes = 16 << 20 // of the data they ask for
	volumeShare     = 2        // one volume has at most 1/volumeShare of a disk's window
)

// The pace of a connection.
const (
	dialTimeout  = 3 * time.Second
	helloTimeout = 3 * time.Second
	writeTimeout = 10 * time.Second
	busyEvery    = 500 * time.Millisecond // while something is under way
	stallAfter   = 2 * time.Second        // without a byte while something is under way
	retryFirst   = 50 * time.Millisecond
	retryMost    = time.Second
)

// A header begins every frame: 32 bytes, little endian.
//
//	meta length u32 | data length u32 | id u64 | disk u64 | kind u8 | status u8 | 0 u16 | CRC32C u32
//
// The CRC covers the 28 bytes before it and the meta. Blocks in data have sums of
// their own; lists in data have a CRC32C at their end.
type header struct {
	meta, data int
	id         uint64
	disk       model.DiskID
	kind       kind
	status     status
}

const headerSize = 32

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var le = binary.LittleEndian

// begin appends room for a header; finish fills it once the meta is there.
func begin(b []byte) []byte { return append(b, make([]byte, headerSize)...) }

// finish fills the header at b[at:], after which the meta has been appended.
func finish(b []byte, at int, h header) {
	f := b[at:]
	le.PutUint32(f[0:], uint32(len(f)-headerSize))
	le.PutUint32(f[4:], uint32(h.data))
	le.PutUint64(f[8:], h.id)
	le.PutUint64(f[16:], uint64(h.disk))
	f[24], f[25], f[26], f[27] = byte(h.kind), byte(h.status), 0, 0
	sum := crc32.Update(crc32.Checksum(f[:28], castagnoli), castagnoli, f[headerSize:])
	le.PutUint32(f[28:], sum)
}

var (
	errFrame = model.Errorf(model.Invalid, "what came is not a frame of the block protocol")
	errCRC   = model.Errorf(model.Corrupt, "a frame's checksum is wrong")
)

// parseHeader reads a header and holds its lengths against the limits. The
// checksum needs the meta: see checkFrame.
func parseHeader(b []byte) (header, error) {
	h := header{
		meta:   int(le.Uint32(b[0:])),
		data:   int(le.Uint32(b[4:])),
		id:     le.Uint64(b[8:]),
		disk:   model.DiskID(le.Uint64(b[16:])),
		kind:   kind(b[24]),
		status: status(b[25]),
	}
	if h.meta > maxMeta || h.data > maxListData || b[26] != 0 || b[27] != 0 {
		return header{}, errFrame
	}
	return h, nil
}

// checkFrame holds the checksum of a header and its meta, which lie in one piece.
func checkFrame(b []byte) error {
	sum := crc32.Update(crc32.Checksum(b[:28], castagnoli), castagnoli, b[headerSize:])
	if sum != le.Uint32(b[28:]) {
		return errCRC
	}
	return nil
}

// The hello is the first thing each side says:
//
//	"DRYB" | lowest version u16 | highest version u16 | instance u64 | CRC32C u32
//
// The server answers with the version it has chosen in both places; 0 says that
// there is none in common. Instance tells the connections of one client, of
// which only the newest counts, from those of another.
type hello struct {
	low, high uint16
	instance  uint64
}

const (
	helloSize      = 20
	versionLowest  = 1
	versionHighest = 1
)

func (h hello) encode() []byte {
	b := make([]byte, helloSize)
	copy(b, "DRYB")
	le.PutUint16(b[4:], h.low)
	le.PutUint16(b[6:], h.high)
	le.PutUint64(b[8:], h.instance)
	le.PutUint32(b[16:], crc32.Checksum(b[:16], castagnoli))
	return b
}

func readHello(r io.Reader) (hello, error) {
	var b [helloSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return hello{}, err
	}
	if string(b[:4]) != "DRYB" || le.Uint32(b[16:]) != crc32.Checksum(b[:16], castagnoli) {
		return hello{}, errFrame
	}
	return hello{low: le.Uint16(b[4:]), high: le.Uint16(b[6:]), instance: le.Uint64(b[8:])}, nil
}

// choose returns the highest version both sides speak, or 0.
func (h hello) choose() uint16 {
	v := min(h.high, versionHighest)
	if v < max(h.low, versionLowest) {
		return 0
	}
	return v
}
