package vhost

import (
	"sync/atomic"
	"unsafe"
)

// The functions below are how rings and the record of requests in flight are
// read and written: each access is one machine access, whatever the other side
// does meanwhile. They are not inlined where the compiler could otherwise merge
// two accesses into one or read a value twice. Slicing checks the bounds; what is
// unsafe is only to take the bytes for an integer.

// load16 reads an integer whose address is even.
func load16(b []byte, off uint64) uint16 {
	p := unsafe.Pointer(&b[off : off+2][0]) //nolint:gosec // audited
	shift := (uintptr(p) & 2) * 8
	// The word lies in the same page, so it is mapped if the integer is.
	word := (*uint32)(unsafe.Pointer(uintptr(p) &^ 3)) //nolint:gosec // audited
	return uint16(atomic.LoadUint32(word) >> shift)
}

// store16 writes an integer whose address is even and leaves its neighbours
// alone.
//
//go:noinline
func store16(b []byte, off uint64, v uint16) {
	*(*uint16)(unsafe.Pointer(&b[off : off+2][0])) = v //nolint:gosec // audited
}

// store32 writes an integer whose address is a multiple of 4. What follows it in
// the program comes after it for the other side too, reads included.
func store32(b []byte, off uint64, v uint32) {
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&b[off : off+4][0])), v) //nolint:gosec // audited
}

// load64 reads an integer whose address is a multiple of 8.
func load64(b []byte, off uint64) uint64 {
	return atomic.LoadUint64((*uint64)(unsafe.Pointer(&b[off : off+8][0]))) //nolint:gosec // audited
}

// store64 is store32 for eight bytes.
func store64(b []byte, off uint64, v uint64) {
	atomic.StoreUint64((*uint64)(unsafe.Pointer(&b[off : off+8][0])), v) //nolint:gosec // audited
}
