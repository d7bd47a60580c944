package vhost

import (
	"context"

	"drystone.example/drystone/backend/iobuf"
)

// A Device is what a guest's requests are carried out on. All calls may come at
// once from many goroutines; offsets and lengths are multiples of 512 and lie
// within Size as it was when the request came. Each call blocks until it is done
// or ctx ends, and after it returns nothing of it may overtake a later call.
//
// WriteAt, Discard and WriteZeroes return when the change is durable; Flush
// returns when everything that returned before it is durable. An error becomes
// an I/O error in the guest, which few guests take well: a Device that can only
// wait should wait.
type Device interface {
	// Size is the present size in bytes. It may grow at any time; Server.Resize
	// tells the guest.
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
