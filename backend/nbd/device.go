package nbd

import (
	"context"
	"errors"

	"drystone.example/drystone/backend/iobuf"
)

// ErrHangUp is what a Device returns for a request whose outcome nobody knows yet: it is
// not answered, and the connection ends. A client that connects again asks once more.
var ErrHangUp = errors.New("the client is to connect again")

// A Device is what a Server serves. All calls may come at once from many
// goroutines; offsets and lengths are multiples of 512 and lie within Size as it
// was when the request came. Each call blocks until it is done or ctx ends, and
// after it returns nothing of it may overtake a later call.
//
// WriteAt, Discard and WriteZeroes return when the change is durable, so that a
// request with FUA needs nothing more; Flush returns when everything that
// returned before it is durable.
type Device interface {
	// Size is the present size in bytes. It may grow at any time.
	Size() int64
	// ReadAt fills p.
	ReadAt(ctx context.Context, p []byte, off int64) error
	// WriteAt writes b.Bytes. The Server does not change them after the call
	// and releases its own reference when it returns.
	WriteAt(ctx context.Context, b *iobuf.Buffer, off int64) error
	// Discard forgets the range's content where that is cheap.
	Discard(ctx context.Context, off, n int64) error
	// WriteZeroes makes the range read as zeroes, as a hole if it can.
	WriteZeroes(ctx context.Context, off, n int64) error
	Flush(ctx context.Context) error
}

// Extents is what a Device has, beside, if it knows which of its parts are
// holes. Without it a Server reports everything as data.
type Extents interface {
	// Extents calls report for consecutive parts that together cover off to
	// off+n, in order, until report returns false. A part that is not data
	// reads as zeroes.
	Extents(ctx context.Context, off, n int64, report func(length int64, data bool) bool) error
}

// Contexts is what a Device has, beside, if it can say more of its parts than
// which are holes. The namespace of its contexts is not "base:".
type Contexts interface {
	// ListContexts returns the names of the contexts that a client's query means;
	// all of them for the empty query.
	ListContexts(query string) []string
	// OpenContext returns what one context says, or nil if there is none of that
	// name. What it returns is used until the connection ends.
	OpenContext(name string) Status
}

// A Status calls report for consecutive parts that together cover off to off+n, in
// order, with the flags its context gives them, until report returns false.
type Status func(ctx context.Context, off, n int64, report func(length int64, flags uint32) bool) error
