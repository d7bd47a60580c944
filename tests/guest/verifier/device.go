package main

import (
	"errors"
	"fmt"
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
	Size() int64
}

// A disk is a block device or a file, without the page cache where that works.
type disk struct {
	*os.File
	size  int64
	block bool
}

func openDisk(path string) (*disk, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EINVAL) { // a file system without direct I/O
		f, err = os.OpenFile(path, os.O_RDWR, 0)
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
		if err := d.ioctl(unix.BLKGETSIZE64, unsafe.Pointer(&d.size)); err != nil {
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
	var err error
	if d.block {
		err = d.ioctl(unix.BLKDISCARD, unsafe.Pointer(&[2]int64{off, n}))
	} else {
		err = unix.Fallocate(int(d.Fd()),
			unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

func (d *disk) ioctl(request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, d.Fd(), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
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
