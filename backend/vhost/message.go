package vhost

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"drystone.example/drystone/backend/model"
)

// A kind is a message of the vhost-user protocol. The numbers are its.
type kind uint32

// The messages that QEMU sends.
const (
	getFeatures         kind = 1
	setFeatures         kind = 2
	setOwner            kind = 3
	resetOwner          kind = 4
	setMemTable         kind = 5
	setLogBase          kind = 6
	setLogFD            kind = 7
	setVringNum         kind = 8
	setVringAddr        kind = 9
	setVringBase        kind = 10
	getVringBase        kind = 11
	setVringKick        kind = 12
	setVringCall        kind = 13
	setVringErr         kind = 14
	getProtocolFeatures kind = 15
	setProtocolFeatures kind = 16
	getQueueNum         kind = 17
	setVringEnable      kind = 18
	setBackendReqFD     kind = 21
	getConfig           kind = 24
	setConfig           kind = 25
	getInflightFD       kind = 31
	setInflightFD       kind = 32
)

// configChanged is the one message that we send of our own accord.
const configChanged kind = 2

// Header flags.
const (
	flagVersion   = 1
	flagReply     = 1 << 2
	flagNeedReply = 1 << 3
)

const (
	headerSize  = 12
	bodyMax     = 4096 // bytes; the longest message has some 300
	filesMax    = 16
	noFile      = 1 << 8 // in place of a file, in SET_VRING_KICK and its kin
	tableMax    = 8      // regions of SET_MEM_TABLE
	regionSize  = 32
	configMeta  = 12 // u32 offset, u32 size, u32 flags before a piece of configuration
	inflightLen = 24
)

// A message is one of QEMU's, with the files that came along. They are bare
// descriptors because their open files are QEMU's too, and an os.File may change
// how those behave.
type message struct {
	kind  kind
	flags uint32
	body  []byte
	files []int
}

// close closes the files that nobody has taken.
func (m *message) close() {
	for _, fd := range m.files {
		_ = unix.Close(fd) // nothing was written
	}
	m.files = nil
}

// take gives the only file away.
func (m *message) take() (fd int, err error) {
	if len(m.files) != 1 {
		return 0, model.Errorf(model.Invalid, "message %d with %d files", m.kind, len(m.files))
	}
	fd, m.files = m.files[0], nil
	return fd, nil
}

// receive reads one message. An error means that the stream is of no more use.
func receive(nc *net.UnixConn) (*message, error) {
	var head [headerSize]byte
	oob := make([]byte, unix.CmsgSpace(4*filesMax))
	n, oobn, flags, _, err := nc.ReadMsgUnix(head[:], oob)
	if n == 0 && err == nil {
		err = io.EOF
	}
	m := &message{}
	if oobn > 0 {
		var e error
		m.files, e = parseFiles(oob[:oobn])
		err = errors.Join(err, e)
	}
	if err == nil && flags&unix.MSG_CTRUNC != 0 {
		err = model.Errorf(model.Invalid, "a message with more than %d files", filesMax)
	}
	if err == nil && n < headerSize {
		_, err = io.ReadFull(nc, head[n:])
	}
	if err == nil {
		var size uint32
		if m.kind, m.flags, size, err = decodeHeader(head[:]); err == nil {
			m.body = make([]byte, size)
			_, err = io.ReadFull(nc, m.body)
		}
	}
	if err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

func parseFiles(oob []byte) ([]int, error) {
	control, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("parse control message: %w", err)
	}
	var files []int
	for i := range control {
		fds, err := syscall.ParseUnixRights(&control[i])
		if err != nil {
			continue // no files in it
		}
		files = append(files, fds...)
	}
	return files, nil
}

// decodeHeader takes b, of headerSize bytes, apart.
func decodeHeader(b []byte) (k kind, flags, size uint32, err error) {
	le := binary.LittleEndian
	k, flags, size = kind(le.Uint32(b)), le.Uint32(b[4:]), le.Uint32(b[8:])
	if flags&3 != flagVersion || size > bodyMax {
		return 0, 0, 0, model.Errorf(model.Invalid,
			"message %d with flags %#x and %d bytes", k, flags, size)
	}
	return k, flags, size, nil
}

// reply answers a message, with a file if f is not nil.
func reply(nc *net.UnixConn, k kind, body []byte, f *os.File) error {
	le := binary.LittleEndian
	b := le.AppendUint32(make([]byte, 0, headerSize+len(body)), uint32(k))
	b = le.AppendUint32(b, flagVersion|flagReply)
	b = le.AppendUint32(b, uint32(len(body)))
	b = append(b, body...)
	var oob []byte
	if f != nil {
		oob = syscall.UnixRights(int(f.Fd()))
	}
	n, _, err := nc.WriteMsgUnix(b, oob, nil)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	return err
}

var errBody = model.Errorf(model.Invalid, "a message of the wrong length")

func decodeU64(b []byte) (uint64, error) {
	if len(b) != 8 {
		return 0, errBody
	}
	return binary.LittleEndian.Uint64(b), nil
}

// decodeVring reads a queue's index and a number.
func decodeVring(b []byte) (index, n uint32, err error) {
	if len(b) != 8 {
		return 0, 0, errBody
	}
	return binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), nil
}

// decodeVringAddr reads where a ring is: index, flags, then the descriptors, the
// used and the available ring, and the used ring's guest address.
func decodeVringAddr(b []byte) (index uint32, s ringSetup, err error) {
	if len(b) != 40 {
		return 0, s, errBody
	}
	le := binary.LittleEndian
	return le.Uint32(b), ringSetup{
		log:  le.Uint32(b[4:])&1 != 0,
		desc: le.Uint64(b[8:]), used: le.Uint64(b[16:]), avail: le.Uint64(b[24:]),
		usedGuest: le.Uint64(b[32:]),
	}, nil
}

func decodeRegion(b []byte) region {
	le := binary.LittleEndian
	return region{
		guest: le.Uint64(b), size: le.Uint64(b[8:]), user: le.Uint64(b[16:]),
		offset: le.Uint64(b[24:]),
	}
}

// decodeTable reads the regions of SET_MEM_TABLE.
func decodeTable(b []byte) ([]region, error) {
	if len(b) < 8 {
		return nil, errBody
	}
	n := binary.LittleEndian.Uint32(b)
	if b = b[8:]; n > tableMax || len(b) != int(n)*regionSize {
		return nil, errBody
	}
	regions := make([]region, n)
	for i := range regions {
		regions[i] = decodeRegion(b[i*regionSize:])
	}
	return regions, nil
}

// decodeLog reads the size of the dirty log and where it is in its file.
func decodeLog(b []byte) (size, offset uint64, err error) {
	if len(b) != 16 {
		return 0, 0, errBody
	}
	return binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:]), nil
}

// decodeConfig reads which part of the configuration is meant, and its content.
func decodeConfig(b []byte) (offset, size uint32, content []byte, err error) {
	if len(b) < configMeta {
		return 0, 0, nil, errBody
	}
	le := binary.LittleEndian
	offset, size, content = le.Uint32(b), le.Uint32(b[4:]), b[configMeta:]
	if offset > configSize || size > configSize-offset || len(content) != int(size) {
		return 0, 0, nil, errBody
	}
	return offset, size, content, nil
}

// decodeInflight reads what QEMU says of the record of requests in flight.
func decodeInflight(b []byte) (size, offset uint64, shape inflightShape, err error) {
	if len(b) != inflightLen && len(b) != inflightLen-4 { // padded, or packed
		return 0, 0, shape, errBody
	}
	le := binary.LittleEndian
	return le.Uint64(b), le.Uint64(b[8:]),
		inflightShape{queues: le.Uint16(b[16:]), size: le.Uint16(b[18:])}, nil
}

func encodeInflight(size uint64, shape inflightShape, length int) []byte {
	le := binary.LittleEndian
	b := le.AppendUint64(nil, size)
	b = le.AppendUint64(b, 0) // the offset in the file
	b = le.AppendUint16(b, shape.queues)
	b = le.AppendUint16(b, shape.size)
	return append(b, make([]byte, length-len(b))...)
}
