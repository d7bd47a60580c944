package wire

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"drystone.example/drystone/backend/model"
)

// A frame is one message of the rpc protocol:
//
//	"DR" | version 1 | kind | name length u16 | 0 u16 | body length u32 | timeout ms u32 | name | body
//
// in little endian. The name of a request is the method, that of an answer the
// error's code, empty if there is none; the body is JSON, or the error's text.
type frame struct {
	kind    byte
	name    string
	body    []byte
	timeout time.Duration // of a request
}

const (
	frameHeader  = 16
	frameVersion = 1

	frameRequest = 1
	frameAnswer  = 2

	nameMost = 64
)

func writeFrame(conn net.Conn, f frame) error {
	if err := conn.SetWriteDeadline(time.Now().Add(timeFor(len(f.body)))); err != nil {
		return err
	}
	b := make([]byte, frameHeader, frameHeader+len(f.name)+len(f.body))
	b[0], b[1], b[2], b[3] = 'D', 'R', frameVersion, f.kind
	binary.LittleEndian.PutUint16(b[4:], uint16(len(f.name)))
	binary.LittleEndian.PutUint32(b[8:], uint32(len(f.body)))
	binary.LittleEndian.PutUint32(b[12:], uint32(max(1, f.timeout.Milliseconds())))
	b = append(b, f.name...)
	b = append(b, f.body...)
	if _, err := conn.Write(b); err != nil {
		return fmt.Errorf("write message: %w", err)
	}
	return nil
}

// readFrame reads one message of the given kind whose body is not longer than
// limit says for its name. The wait for its first byte is the caller's to bound.
func readFrame(conn net.Conn, kind byte, limit func(name string) int) (frame, error) {
	var h [frameHeader]byte
	if _, err := io.ReadFull(conn, h[:]); err != nil {
		return frame{}, fmt.Errorf("read message: %w", err)
	}
	if h[0] != 'D' || h[1] != 'R' || h[2] != frameVersion || h[3] != kind || h[6] != 0 || h[7] != 0 {
		return frame{}, model.Errorf(model.Invalid, "what came is not a message of ours")
	}
	nameLen := int(binary.LittleEndian.Uint16(h[4:]))
	bodyLen := int(binary.LittleEndian.Uint32(h[8:]))
	if nameLen > nameMost {
		return frame{}, model.Errorf(model.Invalid, "the message's name has %d bytes", nameLen)
	}
	if err := conn.SetReadDeadline(time.Now().Add(timeFor(bodyLen))); err != nil {
		return frame{}, err
	}
	name := make([]byte, nameLen)
	if _, err := io.ReadFull(conn, name); err != nil {
		return frame{}, fmt.Errorf("read message: %w", err)
	}
	f := frame{kind: kind, name: string(name)}
	if most := limit(f.name); bodyLen > most {
		return frame{}, model.Errorf(model.Invalid, "the message has %d bytes; the most is %d", bodyLen, most)
	}
	f.body = make([]byte, bodyLen)
	if _, err := io.ReadFull(conn, f.body); err != nil {
		return frame{}, fmt.Errorf("read message: %w", err)
	}
	f.timeout = min(time.Duration(binary.LittleEndian.Uint32(h[12:]))*time.Millisecond, callTimeoutMost)
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return frame{}, err
	}
	return f, nil
}

// timeFor is how long one message may take.
func timeFor(bytes int) time.Duration {
	return transferTime + time.Duration(bytes>>20)*time.Second
}
