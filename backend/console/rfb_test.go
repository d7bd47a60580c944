package console

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"drystone.example/drystone/backend/model"
)

const greeting = rfbVersion + "\x01\x00" // the client's half of the handshake

// What a client may send beside keys and pointers.
var (
	looking = strings.Join([]string{
		"\x00\x00\x00\x00" + strings.Repeat("p", 16), // a pixel format
		"\x02\x00\x00\x02\x00\x00\x00\x00\xff\xff\xff\x21",
		"\x03\x01\x00\x00\x00\x00\x02\xd0\x01\x90",
	}, "")
	typing = "\x04\x01\x00\x00\x00\x00\x00A" + "\x05\x01\x00\x02\x00\x03" + "\xff\x00\x00\x01\x00\x00\x00A\x00\x00\x00\x1e"
	others = "\x06\x00\x00\x00\x00\x00\x00\x05hello" + // cut text
		"\x06\x00\x00\x00\xff\xff\xff\xfbhello" + // and with a length below zero
		"\xfa\x00\x01\x02" + // power off
		"\xfb\x00\x02\x80\x01\xe0\x01\x00" + strings.Repeat("s", 16) + // another size
		"\xf8\x00\x00\x00\x00\x00\x00\x00\x03abc" + // a fence
		"\x96\x01\x00\x00\x00\x00\x02\xd0\x01\x90" + // updates without end
		"\xff\x01\x00\x00" + "\xff\x01\x00\x02\x00\x02\x00\x00\xac\x44" // sound
)

// Whatever the pieces it comes in: who only watches moves nothing, and nobody sends
// what is for nobody. The greeting says that the screen is to be shared.
func TestFilter(t *testing.T) {
	sent := greeting + looking + typing + others + looking + typing
	shared := greeting[:len(greeting)-1] + "\x01"
	for _, tt := range []struct {
		writes bool
		want   string
	}{
		{true, shared + looking + typing + looking + typing},
		{false, shared + looking + looking},
	} {
		for piece := 1; piece <= len(sent); piece++ {
			f := filter{writes: tt.writes}
			var got []byte
			for rest := []byte(sent); len(rest) > 0; {
				n := min(piece, len(rest))
				out, err := f.feed(rest[:n])
				if err != nil {
					t.Fatalf("writes %v, in pieces of %d: %v", tt.writes, piece, err)
				}
				got, rest = append(got, out...), rest[n:]
			}
			if string(got) != tt.want {
				t.Fatalf("writes %v, in pieces of %d: QEMU gets\n%q, want\n%q", tt.writes, piece, got, tt.want)
			}
		}
	}
}

// Much text that was cut is dropped as it comes; what cannot be understood ends the
// console.
func TestFilterHostile(t *testing.T) {
	long := make([]byte, 3<<20)
	copy(long, "\x06\x00\x00\x00")
	binary.BigEndian.PutUint32(long[4:], uint32(len(long)-8))
	f := filter{writes: true, said: 3}
	out, err := f.feed(append(long, typing...))
	if err != nil || string(out) != typing || cap(f.rest) > 2*maxMessage {
		t.Errorf("after 3 MiB of text QEMU gets %q, %v; %d bytes are kept", out, err, cap(f.rest))
	}
	for name, p := range map[string]string{
		"another protocol":    "GET / HTTP/1.1\r\n",
		"another version":     "RFB 003.003\n",
		"a password":          rfbVersion + "\x02",
		"an unknown kind":     greeting + "\x07",
		"one of QEMU's":       greeting + "\xff\x02\x00\x00",
		"too many encodings":  greeting + "\x02\x00\xff\xff",
		"a key after garbage": greeting + "\x01" + typing,
	} {
		f := filter{writes: true}
		out, err := f.feed([]byte(p))
		if model.CodeOf(err) != model.Invalid || bytes.Contains(out, []byte(typing)) {
			t.Errorf("%s: %q goes on, %v", name, out, err)
		}
	}
}

// A filter of who watches lets nothing through that is not about looking, and ends.
func FuzzFilter(f *testing.F) {
	f.Add([]byte(looking+typing+others), 3)
	f.Add([]byte("\x06\x00\x00\x00\x80\x00\x00\x00"), 1)
	f.Fuzz(func(t *testing.T, sent []byte, piece int) {
		w := filter{said: 3}
		var got []byte
		for rest := sent; len(rest) > 0; {
			n := max(1, min(piece, len(rest)))
			out, err := w.feed(rest[:n])
			got, rest = append(got, out...), rest[n:]
			if err != nil {
				break
			}
		}
		for len(got) > 0 {
			size := map[byte]int{0: 20, 3: 10}[got[0]]
			if got[0] == rfbSetEncodings {
				size = 4 + 4*int(binary.BigEndian.Uint16(got[2:]))
			}
			if size == 0 || size > len(got) {
				t.Fatalf("QEMU gets %q", got)
			}
			got = got[size:]
		}
	})
}
