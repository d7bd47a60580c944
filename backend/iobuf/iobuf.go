// Package iobuf hands out the buffers that data travels in between a front end
// and the disks: aligned for O_DIRECT, counted, and reused.
package iobuf

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"unsafe"

	"drystone.example/drystone/backend/must"
)

// Align is the alignment of every buffer's first byte, in bytes.
const Align = 4096

// minShift and maxShift bound the size classes: 4 KiB to 8 MiB.
const (
	minShift = 12
	maxShift = 23
)

// A Buffer is aligned memory with a count of its users. Whoever keeps a Buffer
// after the call that brought it retains it, and releases it when done; nobody
// changes Bytes while another may read it. The count is safe for concurrent use.
type Buffer struct {
	Bytes []byte

	whole []byte // at full capacity of its class
	class int
	refs  atomic.Int32
}

var pools [maxShift + 1]sync.Pool

// Get returns a Buffer of n bytes with one user, the caller. Its content is
// undefined. n is between 1 byte and 8 MiB.
func Get(n int) *Buffer {
	if n <= 0 || n > 1<<maxShift { // asked first: the arguments would be allocated
		must.That(false, "buffer of %d bytes", n)
	}
	class := max(minShift, bits.Len(uint(n-1)))
	b, _ := pools[class].Get().(*Buffer)
	if b == nil {
		b = &Buffer{whole: Aligned(1 << class), class: class}
	}
	b.Bytes = b.whole[:n]
	b.refs.Store(1)
	return b
}

// Retain adds a user.
func (b *Buffer) Retain() {
	must.That(b.refs.Add(1) > 1, "retained a buffer nobody had")
}

// Release removes a user; after the last one the memory is used again.
func (b *Buffer) Release() {
	n := b.refs.Add(-1)
	must.That(n >= 0, "released a buffer once too often")
	if n == 0 {
		b.Bytes = nil
		pools[b.class].Put(b)
	}
}

// Aligned allocates n bytes of garbage-collected memory whose first byte is
// aligned to Align.
func Aligned(n int) []byte {
	raw := make([]byte, n+Align)
	skip := 0
	over := int(uintptr(unsafe.Pointer(&raw[0])) & (Align - 1)) //nolint:gosec // only to look at the address
	if over != 0 {
		skip = Align - over
	}
	return raw[skip : skip+n : skip+n]
}

// IsAligned reports whether b can be handed to O_DIRECT as it is.
func IsAligned(b []byte) bool {
	return len(b) > 0 && uintptr(unsafe.Pointer(&b[0]))&(Align-1) == 0 //nolint:gosec // only to look at the address
}
