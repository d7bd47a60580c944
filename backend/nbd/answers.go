package nbd

import (
	"net"
	"runtime"
	"sync"

	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/sock"
)

// answers sends what is finished. There is no goroutine for it: the first who
// adds an answer sends until none is left, and those who come meanwhile leave
// theirs with it, so that answers that come together share a system call.
type answers struct {
	c *conn

	mu      sync.Mutex // guards what follows; never held while sending
	queued  []*request
	sending bool

	// The sender's own.
	batch []*request
	heads []byte
	parts net.Buffers
	whole net.Buffers // parts, before the writing consumed it
	err   error       // the first of a write; later answers are dropped
}

// add sends the answer of r, now or with others, and recycles r.
func (a *answers) add(r *request) {
	a.mu.Lock()
	a.queued = append(a.queued, r)
	if a.sending {
		a.mu.Unlock()
		return
	}
	a.sending = true
	a.mu.Unlock()
	if a.c.srv.stats.inFlight.Load() > 1 {
		runtime.Gosched() // let those who finished at the same time join
	}
	for a.next() {
		a.send()
	}
}

// next takes the queued answers, or gives the sending up if there are none.
func (a *answers) next() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.batch, a.queued = a.queued, a.batch[:0]
	a.sending = len(a.batch) > 0
	return a.sending
}

// headMax is the most an answer has before its payload.
const headMax = chunkHeaderSize + 8

func (a *answers) send() {
	if need := len(a.batch) * headMax; cap(a.heads) < need {
		a.heads = make([]byte, 0, need) // whole, for parts point into it
	}
	a.heads, a.parts = a.heads[:0], a.whole[:0]
	begin := 0 // of the head bytes that are not in parts yet
	for _, r := range a.batch {
		a.heads = appendHead(a.heads, r, a.c.opts.structured)
		payload := r.err == nil && r.cmd == cmdRead
		if !payload && len(r.sends) == 0 {
			continue
		}
		if begin < len(a.heads) {
			a.parts = append(a.parts, a.heads[begin:])
			begin = len(a.heads)
		}
		if len(r.sends) > 0 {
			a.parts = append(a.parts, r.sends)
		}
		a.parts = appendPayload(a.parts, r.bufs)
	}
	if begin < len(a.heads) {
		a.parts = append(a.parts, a.heads[begin:])
	}
	a.whole = a.parts
	if a.err == nil {
		a.err = sock.WriteBuffers(a.c.nc, &a.parts)
		if a.err != nil {
			// The stream is torn: nothing more can be said on it, and the
			// reader must learn that too.
			_ = a.c.nc.Close()
		}
	}
	clear(a.whole)
	for i, r := range a.batch {
		if r.err != nil {
			a.c.srv.stats.errors.Add(1)
		}
		a.batch[i] = nil
		a.c.recycle(r)
	}
}

func appendPayload(parts net.Buffers, bufs []*iobuf.Buffer) net.Buffers {
	for _, b := range bufs {
		parts = append(parts, b.Bytes)
	}
	return parts
}

// appendHead appends the answer of r without what is in its bufs and its sends. Reads and block status
// have chunks if that was settled; everything else a simple reply, which the
// protocol allows and which is the shorter.
func appendHead(b []byte, r *request, structured bool) []byte {
	chunked := structured && (r.cmd == cmdRead || r.cmd == cmdBlockStatus)
	if !chunked {
		return appendSimple(b, r.cookie, errnoOf(r.err))
	}
	if r.err != nil {
		r.sends = r.sends[:0]
		b = appendChunk(b, r.cookie, chunkError, 6)
		b = append(b, 0, 0, 0, byte(errnoOf(r.err)))
		return append(b, 0, 0) // no text
	}
	if r.cmd == cmdBlockStatus {
		return b // it is in sends, heads and all
	}
	if r.length == 0 {
		return appendChunk(b, r.cookie, chunkNone, 0)
	}
	b = appendChunk(b, r.cookie, chunkData, 8+int(r.length))
	for shift := 56; shift >= 0; shift -= 8 {
		b = append(b, byte(r.off>>shift))
	}
	return b
}
