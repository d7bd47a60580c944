package agent

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"drystone.example/drystone/backend/model"
)

// An answer is taken as what it is: bytes, an error that the other side tells, or an
// error of the connection, after which it is of no more use.
func TestAsk(t *testing.T) {
	for _, tc := range []struct {
		name   string
		answer []byte
		told   model.Code
		broken bool
	}{
		{"bytes", append(make([]byte, 4), bytes.Repeat([]byte{7}, 512)...), "", false},
		{"fewer bytes", append(make([]byte, 4), bytes.Repeat([]byte{7}, 100)...), "", true},
		{"an error", errorAnswer(`{"code":"not_found","text":"there is no such snapshot"}`), model.NotFound, false},
		{"an error without a code", errorAnswer(`{}`), model.Internal, false},
		{"an error that is none", errorAnswer(`[1]`), "", true},
		{"an error that is too long", []byte{0, 0, 1, 0}, "", true},
		{"nothing", nil, "", true},
	} {
		ours, theirs := net.Pipe()
		go func() { // ends with the answer, or with ours closed
			defer theirs.Close()
			if _, err := io.ReadFull(theirs, make([]byte, readRequest)); err == nil {
				_, _ = theirs.Write(tc.answer)
			}
		}()
		p := make([]byte, 512)
		told, err := ask(ours, 1, p, 0)
		ours.Close()
		if tc.broken != (err != nil) || err == nil && model.CodeOf(told) != tc.told {
			t.Errorf("%s: ask = %v, %v", tc.name, told, err)
		}
		if told == nil && err == nil && !bytes.Equal(p, tc.answer[4:]) {
			t.Errorf("%s: other bytes", tc.name)
		}
	}
}

func errorAnswer(text string) []byte { return append([]byte{byte(len(text)), 0, 0, 0}, text...) }

// An error crosses with its code and its text, without its cause; what is none of ours
// does not cross.
func TestReadErrorOf(t *testing.T) {
	cause := errors.New("/dev/sda is on fire")
	if got := readErrorOf(model.Errorf(model.Corrupt, "no good copy")); got != (readError{model.Corrupt, "no good copy"}) {
		t.Errorf("of a coded error: %+v", got)
	}
	if got := readErrorOf(cause); got.Code != model.Unavailable || got.Text == cause.Error() {
		t.Errorf("of another error: %+v", got)
	}
}

// Idle connections are used again by those to the same node, the newest first; they
// are few, and none is used after it was idle for long.
func TestIdleConnections(t *testing.T) {
	r := newReads()
	closed := 0
	conn := func(node model.NodeID) peerConn { return peerConn{Conn: &countedConn{closed: &closed}, node: node} }
	for range readsIdle {
		r.keep(conn(1))
	}
	r.keep(conn(2))
	if len(r.idle) != readsIdle || closed != 1 {
		t.Errorf("%d are kept and %d were closed", len(r.idle), closed)
	}
	if _, found := r.take(2, ""); !found {
		t.Error("the newest is not there")
	}
	if _, found := r.take(2, ""); found {
		t.Error("one is there twice")
	}
	for i := range r.idle {
		r.idle[i].used = time.Now().Add(-readIdleMost)
	}
	if _, found := r.take(1, ""); found {
		t.Error("one that was idle for long is used")
	}
}

type countedConn struct {
	net.Conn
	closed *int
}

func (c *countedConn) Close() error {
	*c.closed++
	return nil
}
