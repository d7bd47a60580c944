package console

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"drystone.example/drystone/backend/model"
)

// What passes between a Line and its Desk are frames: a kind, a length of four bytes
// in the order of the network, and so many bytes.
const (
	frameHello  = byte('h') // a Hello as JSON, the first from a Line
	frameData   = byte('d') // bytes of the machine, or for it
	frameNotice = byte('n') // a Notice as JSON, to a Line
	frameEnd    = byte('e') // an ending as JSON, the last to a Line

	headSize = 5
	maxFrame = 32 << 10
)

func writeFrame(w io.Writer, kind byte, p []byte) error {
	b := make([]byte, headSize, headSize+len(p))
	b[0] = kind
	binary.BigEndian.PutUint32(b[1:], uint32(len(p))) // callers stay below maxFrame
	_, err := w.Write(append(b, p...))
	return err //nolint:wrapcheck // the connection's own
}

func writeJSON(w io.Writer, kind byte, v any) error {
	p, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode a frame: %w", err)
	}
	if len(p) > maxFrame {
		return model.Errorf(model.Internal, "a frame of a console has %d bytes", len(p))
	}
	return writeFrame(w, kind, p)
}

// readFrame reads one frame into buf, which has room for maxFrame.
func readFrame(r io.Reader, buf []byte) (kind byte, p []byte, err error) {
	var head [headSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err //nolint:wrapcheck // io.EOF is told apart
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxFrame {
		return 0, nil, model.Errorf(model.Invalid, "a frame of a console says that it has %d bytes", n)
	}
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		return 0, nil, fmt.Errorf("read a frame: %w", err)
	}
	return head[0], buf[:n], nil
}

// An ending says why a console ended. Without a code the machine ended it: it
// stopped, or went to another node.
type ending struct {
	Code model.Code `json:"code,omitempty"`
	Text string     `json:"text,omitempty"`
}

func endingOf(err error) ending {
	code := model.CodeOf(err)
	switch {
	case err == nil || err == io.EOF: //nolint:errorlint // ours, as it is
		return ending{}
	case errors.Is(err, context.Canceled):
		return ending{Code: model.Unavailable, Text: "the machine's node is stopping"}
	case code == model.Internal:
		return ending{Code: code, Text: "the console broke off"}
	}
	text := err.Error()
	return ending{Code: code, Text: text[:min(len(text), 500)]}
}

func (e ending) err() error {
	if e.Code == "" {
		return io.EOF
	}
	return model.Errorf(e.Code, "%s", e.Text)
}
