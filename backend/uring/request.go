// Package uring does I/O on one file through one submission ring of the kernel:
// requests are submitted in batches by one goroutine, and completions wake one
// goroutine through Go's poller, so that a thousand waiting requests cost no
// threads. Where the kernel has no io_uring, or forbids it, a bounded set of goroutines
// makes plain calls instead.
//
// A request is done whole or fails; the package goes on with short transfers and
// interrupted calls, and repeats nothing else.
package uring

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Kind is what a Request does.
type Kind uint8

// The kinds, complete.
const (
	Read  Kind = iota + 1 // fills Bufs from Off
	Write                 // writes Bufs at Off
	Sync                  // fdatasync: makes finished writes durable
)

// A Request is one transfer. It and its memory belong to the ring from Start or
// Do until it is done; then it may be used again.
type Request struct {
	Kind    Kind
	Durable bool // of a Write: durable when done (RWF_DSYNC)
	Off     int64
	// Bufs are read into or written from in order, as one transfer; none of them
	// is empty, and a Sync has none.
	Bufs [][]byte
	// Done is called once after Start, with nil or the error. It must not block.
	Done func(error)

	iov    []unix.Iovec // what is left to transfer
	iovOne [1]unix.Iovec
	left   int   // bytes left
	at     int64 // where they go
	wait   chan error
}

// prepare makes the request's vectors. They lie in the Request, which the ring
// holds until the kernel is done with them.
func (q *Request) prepare() {
	q.at, q.left = q.Off, 0
	q.iov = q.iovOne[:0]
	for _, b := range q.Bufs {
		v := unix.Iovec{Base: &b[0]}
		v.SetLen(len(b))
		q.iov = append(q.iov, v)
		q.left += len(b)
	}
}

// advance notes that n bytes were transferred and reports whether none is left.
func (q *Request) advance(n int) bool {
	q.left -= n
	q.at += int64(n)
	for n > 0 {
		v := &q.iov[0]
		if uint64(n) >= v.Len {
			n -= int(v.Len)
			q.iov = q.iov[1:]
			continue
		}
		rest := unsafe.Slice(v.Base, v.Len)[n:] //nolint:gosec // it is that long
		v.Base = &rest[0]
		v.Len -= uint64(n)
		n = 0
	}
	return q.left <= 0
}

// finish hands the outcome to whoever waits for it.
func (q *Request) finish(err error) {
	if q.wait != nil {
		q.wait <- err
		return
	}
	q.Done(err)
}
