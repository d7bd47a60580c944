// Package device makes whole block devices into disks, and finds them again.
//
// A device gets a partition table with two partitions: the first holds an ext4 file
// system with the disk's page map, the second is the disk itself, with its superblock
// (docs/FORMATS.md). Both travel together, and which device it is under today's name
// is read from the superblock, never from the name.
//
// A device that holds anything is not written to unless the caller says that it may
// be wiped, and one that is in use is not written to at all: the kernel is asked
// for it exclusively first, and gives it to nobody while it is mounted, or part of a
// RAID, or open as a disk.
//
// What a disk does once it is open is package disk's; whether a disk is part of the
// pool is its caller's to know.
package device
