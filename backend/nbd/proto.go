package nbd

import (
	"encoding/binary"
	"errors"

	"drystone.example/drystone/backend/model"
)

// The numbers below are those of the NBD protocol description
// (github.com/NetworkBlockDevice/nbd, doc/proto.md). Integers are big-endian.

const (
	magicServer  = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption  = 0x49484156454F5054 // "IHAVEOPT"
	magicAnswer  = 0x3e889045565a9
	magicRequest = 0x25609513
	magicSimple  = 0x67446698
	magicChunk   = 0x668e33ef
)

// Handshake flags, the same numbers in both directions.
const (
	fixedNewstyle = 1 << 0
	noZeroes      = 1 << 1
)

type option uint32

const (
	optExportName     option = 1
	optAbort          option = 2
	optList           option = 3
	optInfo           option = 6
	optGo             option = 7
	optStructured     option = 8
	optListMeta       option = 9
	optSetMeta        option = 10
	optionMax                = 64 << 10 // bytes an option may carry
	nameMax                  = 4096     // bytes of an export's name
	contextsMax              = 16       // of one connection
	contextID                = 1        // of the first of them; the others follow
	contextNamespace         = "base:"
	contextAllocation        = "base:allocation"
)

type answer uint32

const (
	repAck     answer = 1
	repServer  answer = 2
	repInfo    answer = 3
	repMeta    answer = 4
	repError   answer = 1 << 31
	repUnsup          = repError + 1
	repInvalid        = repError + 3
	repUnknown        = repError + 6
	repTooBig         = repError + 9
)

const (
	infoExport    = 0
	infoName      = 1
	infoBlockSize = 3
)

// Transmission flags.
const (
	hasFlags     = 1 << 0
	readOnly     = 1 << 1
	sendFlush    = 1 << 2
	sendFUA      = 1 << 3
	sendTrim     = 1 << 5
	sendZeroes   = 1 << 6
	sendDF       = 1 << 7
	canMultiConn = 1 << 8
)

type command uint16

const (
	cmdRead        command = 0
	cmdWrite       command = 1
	cmdDisconnect  command = 2
	cmdFlush       command = 3
	cmdTrim        command = 4
	cmdWriteZeroes command = 6
	cmdBlockStatus command = 7
)

// Command flags.
const (
	flagFUA    = 1 << 0
	flagNoHole = 1 << 1
	flagDF     = 1 << 2
	flagReqOne = 1 << 3
)

// Chunks of a structured reply.
const (
	chunkDone       = 1 << 0 // flag: the last of its request
	chunkNone       = 0
	chunkData       = 1
	chunkStatus     = 5
	chunkError      = 1<<15 + 1
	chunkHeaderSize = 20
	simpleSize      = 16
	requestSize     = 28
)

// Parts of a block status.
const (
	statusHole = 1 << 0
	statusZero = 1 << 1
)

type errno uint32

const (
	errnoNone     errno = 0
	errnoPerm     errno = 1
	errnoIO       errno = 5
	errnoInvalid  errno = 22
	errnoNoSpace  errno = 28
	errnoShutdown errno = 108
)

// errnoOf is the number that tells a client what became of its request.
func errnoOf(err error) errno {
	if err == nil {
		return errnoNone
	}
	if errors.Is(err, errClosing) {
		return errnoShutdown
	}
	switch model.CodeOf(err) {
	case model.Invalid:
		return errnoInvalid
	case model.NoSpace:
		return errnoNoSpace
	case model.Denied:
		return errnoPerm
	case model.NotFound, model.Conflict, model.Unknown, model.Unavailable, model.Fenced,
		model.Corrupt, model.Internal:
		return errnoIO
	}
	return errnoIO
}

// A header is a request as it stands on the wire, without its payload.
type header struct {
	flags  uint16
	cmd    command
	cookie uint64
	off    uint64
	length uint32
}

// decodeHeader reports false if b, of requestSize bytes, is no request: the
// stream is then out of step and cannot be used further.
func decodeHeader(b []byte) (h header, ok bool) {
	be := binary.BigEndian
	return header{
		flags:  be.Uint16(b[4:]),
		cmd:    command(be.Uint16(b[6:])),
		cookie: be.Uint64(b[8:]),
		off:    be.Uint64(b[16:]),
		length: be.Uint32(b[24:]),
	}, be.Uint32(b) == magicRequest
}

func appendSimple(b []byte, cookie uint64, e errno) []byte {
	be := binary.BigEndian
	b = be.AppendUint32(b, magicSimple)
	b = be.AppendUint32(b, uint32(e))
	return be.AppendUint64(b, cookie)
}

// appendChunk appends the header of the last chunk of an answer.
func appendChunk(b []byte, cookie uint64, kind uint16, length int) []byte {
	be := binary.BigEndian
	b = be.AppendUint32(b, magicChunk)
	b = be.AppendUint16(b, chunkDone)
	b = be.AppendUint16(b, kind)
	b = be.AppendUint64(b, cookie)
	return be.AppendUint32(b, uint32(length))
}

// A goRequest is the body of optGo and optInfo.
type goRequest struct {
	name  string
	infos []uint16
}

func decodeGo(b []byte) (g goRequest, ok bool) {
	name, b, ok := cutString(b)
	if !ok || len(b) < 2 {
		return g, false
	}
	n := int(binary.BigEndian.Uint16(b))
	b = b[2:]
	if len(b) != 2*n {
		return g, false
	}
	g.name = name
	for ; len(b) > 0; b = b[2:] {
		g.infos = append(g.infos, binary.BigEndian.Uint16(b))
	}
	return g, true
}

// A metaRequest is the body of optSetMeta and optListMeta.
type metaRequest struct {
	name    string
	queries []string
}

func decodeMeta(b []byte) (m metaRequest, ok bool) {
	m.name, b, ok = cutString(b)
	if !ok || len(b) < 4 {
		return m, false
	}
	n := binary.BigEndian.Uint32(b)
	b = b[4:]
	if uint64(n)*4 > uint64(len(b)) {
		return m, false
	}
	for range n {
		var q string
		if q, b, ok = cutString(b); !ok {
			return m, false
		}
		m.queries = append(m.queries, q)
	}
	return m, len(b) == 0
}

// cutString takes a string with its length before it off b.
func cutString(b []byte) (s string, rest []byte, ok bool) {
	if len(b) < 4 {
		return "", nil, false
	}
	n := binary.BigEndian.Uint32(b)
	if n > nameMax || uint64(n) > uint64(len(b)-4) {
		return "", nil, false
	}
	return string(b[4 : 4+n]), b[4+n:], true
}
