// Package disk is one disk of the block engine: a journal with group commit, a
// page map with the epoch in its key, a raw area of 64 KiB pages, and a
// checksum for every 4 KiB.
//
// A caller may rely on this. What was answered is durable, and found again
// after a loss of power at any moment. A block is returned as it was written or
// not at all: every read is checked against the sums in the map. A promise is
// kept for ever. The messages of one volume are applied in the order of Apply,
// each number once, and refused from any other generation than the one
// promised; that is judged when they are applied. A full disk refuses before it
// touches anything, and refuses new data of guests at model.FullCritical percent, so
// that there is room to repair, fill and empty it. The first failed write or sync is the last: the disk latches
// and refuses everything after it.
//
// The package knows nothing of other disks, of copies, or of who holds a volume.
// docs/FORMATS.md describes what it writes.
package disk
