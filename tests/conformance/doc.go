// Package conformance has tools that others wrote judge a volume of a running
// cluster: fio, qemu-io and qemu-img, QEMU's blkverify driver, and libnbd's
// nbdinfo, nbdcopy and Python binding; a guest with fio, ext4 and xfs, e2fsck and
// xfs_repair. QEMU's blklogwrites is put under one disk. They bring their own idea of
// what a disk is, which this project's tests could share a mistake with.
//
// What a tool must find is asked of it too: a difference that is planted has to be
// reported, or its silence would prove nothing.
//
// It needs root, the packages of build/packages.txt and the binaries in bin/ (make
// build). The sizes here take less than a minute; -conformance.long, which `make
// conformance` sets, takes far larger ones and more seeds.
package conformance
