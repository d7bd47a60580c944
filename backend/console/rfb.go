package console

import (
	"encoding/binary"

	"drystone.example/drystone/backend/model"
)

// What a client of the RFB protocol (RFC 6143, and QEMU's and others' extensions of
// it) sends.
const (
	rfbVersion = "RFB 003.008\n"
	rfbNone    = 1 // the security type

	rfbSetPixelFormat = 0
	rfbSetEncodings   = 2
	rfbUpdateRequest  = 3
	rfbKey            = 4
	rfbPointer        = 5
	rfbCutText        = 6
	rfbContinuous     = 150
	rfbFence          = 248
	rfbPower          = 250
	rfbResize         = 251
	rfbQEMU           = 255

	// maxMessage bounds what is kept of a message that is not whole yet. Cut text may
	// be longer: it is dropped as it comes.
	maxMessage = 8 << 10
)

// A filter takes what a client of a screen sends, in pieces of any size, and gives
// what goes on to QEMU: whole messages, of the kinds the client may send. Cut text, a
// size, power and what QEMU does not offer are for nobody. An error ends the
// console. A filter is for one goroutine.
type filter struct {
	writes bool
	said   int // of the three steps of the handshake
	rest   []byte
	skip   int // bytes of a dropped message that are still to come
}

func (f *filter) feed(p []byte) (out []byte, err error) {
	for len(p) > 0 || len(f.rest) > 0 {
		if n := min(f.skip, len(p)); f.skip > 0 {
			p, f.skip = p[n:], f.skip-n
			if f.skip > 0 {
				return out, nil
			}
			continue
		}
		n := min(len(p), maxMessage-len(f.rest))
		f.rest, p = append(f.rest, p[:n]...), p[n:]
		size, pass, err := f.next(f.rest)
		if err != nil {
			return out, err
		}
		switch {
		case pass && size > maxMessage:
			return out, model.Errorf(model.Invalid, "a message to the screen is too long")
		case pass && size > 0 && size <= len(f.rest):
			out = append(out, f.rest[:size]...)
			f.rest = append(f.rest[:0], f.rest[size:]...)
		case !pass && size > 0:
			n := min(size, len(f.rest))
			f.skip = size - n
			f.rest = append(f.rest[:0], f.rest[n:]...)
		case len(p) == 0:
			return out, nil // more of it is to come
		}
	}
	return out, nil
}

// next looks at the beginning of what is not yet handled: how long its first message
// is, or 0 while that cannot be told, and whether it may pass.
func (f *filter) next(p []byte) (size int, pass bool, err error) {
	if len(p) == 0 {
		return 0, false, nil
	}
	switch f.said {
	case 0:
		if n := min(len(p), len(rfbVersion)); string(p[:n]) != rfbVersion[:n] {
			return 0, false, model.Errorf(model.Invalid, "a screen speaks version 3.8 of the RFB protocol")
		}
		return f.step(p, len(rfbVersion))
	case 1:
		if p[0] != rfbNone {
			return 0, false, model.Errorf(model.Invalid, "a screen has no security of its own")
		}
		return f.step(p, 1)
	case 2:
		p[0] = 1 // to be shared
		return f.step(p, 1)
	}
	return f.message(p)
}

func (f *filter) step(p []byte, size int) (int, bool, error) {
	if len(p) < size {
		return 0, true, nil
	}
	f.said++
	return size, true, nil
}

func (f *filter) message(p []byte) (size int, pass bool, err error) {
	at := func(i int) int { // the number at p[i] of two bytes, if it has come
		if len(p) < i+2 {
			return -1
		}
		return int(binary.BigEndian.Uint16(p[i:]))
	}
	switch p[0] {
	case rfbSetPixelFormat:
		return 20, true, nil
	case rfbSetEncodings:
		if n := at(2); n >= 0 {
			return 4 + 4*n, true, nil
		}
		return 0, true, nil
	case rfbUpdateRequest:
		return 10, true, nil
	case rfbContinuous:
		return 10, false, nil
	case rfbKey:
		return 8, f.writes, nil
	case rfbPointer:
		return 6, f.writes, nil
	case rfbCutText:
		if len(p) < 8 {
			return 0, false, nil
		}
		n := int64(int32(binary.BigEndian.Uint32(p[4:]))) // less than zero in an extension
		return int(8 + max(n, -n)), false, nil
	case rfbFence:
		if len(p) < 9 {
			return 0, false, nil
		}
		return 9 + int(p[8]), false, nil
	case rfbPower:
		return 4, false, nil
	case rfbResize:
		if len(p) < 7 {
			return 0, false, nil
		}
		return 8 + 16*int(p[6]), false, nil
	case rfbQEMU:
		return f.extended(p, at(2))
	}
	return 0, false, model.Errorf(model.Invalid, "a screen was sent a message of the unknown kind %d", p[0])
}

// extended is message for QEMU's own, of which keys are the first kind and sound the
// second.
func (f *filter) extended(p []byte, operation int) (size int, pass bool, err error) {
	switch {
	case len(p) < 2:
		return 0, false, nil
	case p[1] == 0:
		return 12, f.writes, nil
	case p[1] != 1:
		return 0, false, model.Errorf(model.Invalid, "a screen was sent a message of an unknown kind of QEMU's")
	case operation < 0:
		return 0, false, nil
	case operation == 2:
		return 10, false, nil
	}
	return 4, false, nil
}
