package server

import (
	"net"
	"runtime"
	"sync"
	"time"
)

// An outgoing is a frame to be written: what it says is asked for only when its
// turn comes.
type outgoing interface {
	// frame appends the header and the meta and returns the data, which is read
	// until sent is called.
	frame(b []byte) (out, data []byte)
	// sent is called once the frame has been copied or written, before the peer
	// can have acted on all of it.
	sent()
}

// An outbox writes the frames of one connection. Whatever comes together while
// the last write is under way goes out with the next one, so that under load many
// frames share a system call. It is bounded by the windows of those who put.
type outbox struct {
	mu     sync.Mutex
	queue  []outgoing
	asleep bool
	closed bool

	wake chan struct{} // cap 1
	more func() bool   // whether other frames may be on their way here
}

func newOutbox(more func() bool) *outbox {
	return &outbox{wake: make(chan struct{}, 1), more: more}
}

// put adds a frame; it reports false, and keeps nothing, once the box is closed.
func (o *outbox) put(f outgoing) bool {
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return false
	}
	o.queue = append(o.queue, f)
	wake := o.asleep
	o.asleep = false
	o.mu.Unlock()
	if wake {
		o.wake <- struct{}{}
	}
	return true
}

// close ends run; what was not written is dropped.
func (o *outbox) close() {
	o.mu.Lock()
	o.queue, o.closed = nil, true
	wake := o.asleep
	o.asleep = false
	o.mu.Unlock()
	if wake {
		o.wake <- struct{}{}
	}
}

// take waits for frames and swaps its empty slice for theirs; nil: closed.
func (o *outbox) take(empty []outgoing) []outgoing {
	for {
		o.mu.Lock()
		if o.closed {
			o.mu.Unlock()
			return nil
		}
		if len(o.queue) > 0 {
			full := o.queue
			o.queue = empty
			o.mu.Unlock()
			return full
		}
		o.asleep = true
		o.mu.Unlock()
		<-o.wake
		// Whoever woke us may be in the midst of a series, as a disk is that
		// answers a batch: let it finish, and send all in one write.
		if o.more() {
			runtime.Gosched()
		}
	}
}

// Sizes of writes. Data up to copyMost is copied next to its header; longer data
// is handed to TLS as it lies.
const (
	connBuffer = 128 << 10 // what one system call takes at most
	staging    = 64 << 10
	copyMost   = 16 << 10
)

// A flusher holds writes back until Flush; *wire.Conn is one.
type flusher interface {
	Buffer(n int)
	Flush() error
}

// run writes until the box is closed or a write fails.
func (o *outbox) run(conn net.Conn) error {
	flush := func() error { return nil }
	if f, ok := conn.(flusher); ok {
		flush = f.Flush
	}
	room := make([]byte, 0, staging+headerSize+maxMeta+copyMost)
	var batch []outgoing
	for {
		clear(batch)
		if batch = o.take(batch[:0]); batch == nil {
			return nil
		}
		if err := conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
			return err
		}
		var err error
		for _, f := range batch {
			if room, err = writeOne(conn, room, f); err != nil {
				return err
			}
		}
		if _, err := conn.Write(room); err != nil {
			return err
		}
		room = room[:0]
		if err := flush(); err != nil {
			return err
		}
	}
}

// writeOne adds a frame to room, and writes what has come together if that is
// much.
func writeOne(conn net.Conn, room []byte, f outgoing) ([]byte, error) {
	room, data := f.frame(room)
	if len(data) <= copyMost {
		room = append(room, data...)
		f.sent()
	}
	if len(room) < staging && len(data) <= copyMost {
		return room, nil
	}
	if _, err := conn.Write(room); err != nil {
		return room, err
	}
	room = room[:0]
	if len(data) <= copyMost {
		return room, nil
	}
	if _, err := conn.Write(data); err != nil {
		return room, err
	}
	f.sent()
	return room, nil
}
