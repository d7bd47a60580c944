package console

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"time"

	"drystone.example/drystone/backend/model"
)

// A Line is a console that is open, at the node to which a person came. Next and
// Write may go on at the same time, each in one goroutine; Close ends both.
type Line struct {
	conn   net.Conn
	in     *bufio.Reader
	buf    []byte
	notice *Notice // that came first and was not taken
	writes bool
}

// Open opens a console over a connection to the machine's node, which it closes if
// it cannot.
func Open(ctx context.Context, conn net.Conn, h Hello) (*Line, error) {
	l := &Line{conn: conn, in: bufio.NewReaderSize(conn, headSize+maxFrame), buf: make([]byte, maxFrame)}
	stop := context.AfterFunc(ctx, l.Close)
	err := writeJSON(conn, frameHello, h)
	if err == nil {
		l.notice, _, err = l.Next()
	}
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err == io.EOF { //nolint:errorlint // of Next, as it is
		err = model.Errorf(model.Conflict, "the machine is not running")
	}
	if err == nil && l.notice == nil {
		err = model.Errorf(model.Internal, "a console begins with a notice")
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("open console: %w", err)
	}
	l.writes = l.notice.Writes
	return l, nil
}

// Writes reports whether the console may write.
func (l *Line) Writes() bool { return l.writes }

// Next returns a notice, or else bytes of the machine, which are good until the next
// Next. The error is io.EOF when the machine ended the console: it stopped, or went to
// another node. It has the code Conflict when somebody took over.
func (l *Line) Next() (*Notice, []byte, error) {
	if n := l.notice; n != nil {
		l.notice = nil
		return n, nil, nil
	}
	kind, p, err := readFrame(l.in, l.buf)
	if err != nil {
		return nil, nil, fmt.Errorf("the console broke off: %w",
			&model.Error{Code: model.Unavailable, Text: "the machine's node does not answer", Err: err})
	}
	switch kind {
	case frameData:
		return nil, p, nil
	case frameNotice:
		n := &Notice{}
		if err := json.Unmarshal(p, n); err != nil {
			return nil, nil, fmt.Errorf("read a notice: %w", err)
		}
		return n, nil, nil
	case frameEnd:
		var e ending
		if err := json.Unmarshal(p, &e); err != nil {
			return nil, nil, fmt.Errorf("read an ending: %w", err)
		}
		return nil, nil, e.err()
	}
	return nil, nil, model.Errorf(model.Internal, "a console sent a frame of the unknown kind %q", kind)
}

// Write sends what is typed. What a console that only watches sends is dropped.
func (l *Line) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), maxFrame)
		if err := l.conn.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
			return len(p) - len(rest), err //nolint:wrapcheck // the connection is gone
		}
		if err := writeFrame(l.conn, frameData, rest[:n]); err != nil {
			return len(p) - len(rest), err
		}
		rest = rest[n:]
	}
	return len(p), nil
}

// Close ends the console.
func (l *Line) Close() { _ = l.conn.Close() }

func readHello(r io.Reader) (h Hello, err error) {
	kind, p, err := readFrame(r, make([]byte, maxFrame))
	if err != nil {
		return h, err
	}
	if kind != frameHello {
		return h, model.Errorf(model.Invalid, "a console begins with a ticket")
	}
	if err := json.Unmarshal(p, &h); err != nil {
		return h, model.Errorf(model.Invalid, "read a hello: %w", err)
	}
	return h, nil
}
