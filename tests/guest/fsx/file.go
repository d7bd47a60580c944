package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A diskFile is a file of the machine's.
type diskFile struct{ *os.File }

func open(path string) (diskFile, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600) //nolint:gosec // where we are told to work
	if err != nil {
		return diskFile{}, fmt.Errorf("make file: %w", err)
	}
	return diskFile{f}, nil
}

func (f diskFile) close() error { return f.Close() }

func (f diskFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f diskFile) fallocate(mode uint32, off, n int64) error {
	return os.NewSyscallError("fallocate", unix.Fallocate(int(f.Fd()), mode, off, n))
}

func (f diskFile) Punch(off, n int64) error {
	return f.fallocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func (f diskFile) Zero(off, n int64) error {
	return f.fallocate(unix.FALLOC_FL_ZERO_RANGE, off, n)
}

func (f diskFile) Forget() error {
	return os.NewSyscallError("fadvise", unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
}
