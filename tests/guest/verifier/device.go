package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A device is the disk under test. Buffers come from alignedBuffer.
type device interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	Flush() error
	Discard(off, n int64) error // what was there is the old or zero afterwards
	Zero(off, n int64) error    // all zero afterwards; errors.ErrUnsupported if it cannot
	Size() int64
}

// A disk is a block device or a file, without the page cache where that works.
type disk struct {
	*os.File
	size  int64
	block bool
}

func openDisk(path string) (*disk, error) {
	//nolint:gosec // the disk it is told to test
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EINVAL) { // a file system without direct I/O
		f, err = os.OpenFile(path, os.O_RDWR, 0) //nolint:gosec // as above
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	d := &disk{File: f, size: info.Size(), block: info.Mode()&os.ModeDevice != 0}
	if d.block {
		if d.size, err = f.Seek(0, io.SeekEnd); err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("size of %s: %w", path, err)
		}
	}
	return d, nil
}

func (d *disk) Size() int64 { return d.size }

func (d *disk) Flush() error { return d.Sync() }

// Discard tells the disk that a range is not needed any more. A disk that does
// not care keeps it, which is no error.
func (d *disk) Discard(off, n int64) error {
	if !d.block {
		err := d.Zero(off, n)
		if errors.Is(err, errors.ErrUnsupported) {
			return nil
		}
		return err
	}
	span := [2]int64{off, n}
	//nolint:gosec // the kernel reads the two numbers during the call
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, d.Fd(), unix.BLKDISCARD,
		uintptr(unsafe.Pointer(&span)))
	if errno != 0 && !errors.Is(errno, unix.EOPNOTSUPP) {
		return errno
	}
	return nil
}

// Zero makes a range zero without sending the zeros.
func (d *disk) Zero(off, n int64) error {
	return unix.Fallocate(int(d.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

// alignedBuffer is fit for direct I/O. It is never given back.
func alignedBuffer(n int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("buffer of %d bytes: %w", n, err)
	}
	return b, nil
}
