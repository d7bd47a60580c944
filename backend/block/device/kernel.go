package device

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// forget has the kernel forget the partitions of a device. It cannot while somebody,
// udev mostly, has one open for a moment.
func (d Device) forget(ctx context.Context, f *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for _, sys := range d.partitions() {
		n, err := number(sys, "partition")
		if err != nil {
			return err
		}
		for {
			err := tell(f, unix.BLKPG_DEL_PARTITION, &blkpgPartition{number: int32(n)})
			if err == nil || errors.Is(err, unix.ENXIO) { // it is gone by itself
				break
			}
			if !errors.Is(err, unix.EBUSY) || ctx.Err() != nil {
				return fmt.Errorf("have the kernel forget partition %d: %w", n, err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	return nil
}

// announce tells the kernel of the partitions of a plan: many read a table by
// themselves, but not at the moment it is written, and some know no such tables. Those
// it knows of are left as they are.
func announce(f *os.File, p plan) error {
	for _, part := range []struct {
		number     int32
		start, end int64
	}{{mapPartition, p.mapStart, p.mapEnd}, {rawPartition, p.rawStart, p.rawEnd}} {
		err := tell(f, unix.BLKPG_ADD_PARTITION, &blkpgPartition{
			start: part.start, length: part.end - part.start, number: part.number,
		})
		if err != nil && !errors.Is(err, unix.EBUSY) { // busy: it overlaps with what is known
			return fmt.Errorf("tell the kernel of partition %d: %w", part.number, err)
		}
	}
	return nil
}

// A blkpgPartition is struct blkpg_partition of linux/blkpg.h.
type blkpgPartition struct {
	start, length int64
	number        int32
	_             [128 + 4]byte // names that the kernel does not look at
}

func tell(f *os.File, op int32, p *blkpgPartition) error {
	arg := unix.BlkpgIoctlArg{
		Op: op, Datalen: int32(unsafe.Sizeof(*p)),
		Data: (*byte)(unsafe.Pointer(p)), //nolint:gosec // the kernel's interface
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKPG,
		uintptr(unsafe.Pointer(&arg))) //nolint:gosec // the kernel's interface
	if errno != 0 {
		return errno
	}
	return nil
}

// discover tells the kernel of the partitions of a device that has our table and
// none that the kernel knows of.
func (d Device) discover() error {
	if len(d.partitions()) > 0 || text(d.sys, "ext_range") == "1" {
		return nil
	}
	f, err := os.Open(d.Path)
	if err != nil {
		return fmt.Errorf("open device: %w", err)
	}
	defer func() { _ = f.Close() }() // nothing was written
	b := make([]byte, 2*d.sector+tableBytes)
	if _, err := f.ReadAt(b, 0); err != nil {
		return fmt.Errorf("read partition table of %s: %w", d.Path, err)
	}
	if p, ok := decodeTable(b, d.Size, d.sector); ok {
		return announce(f, p)
	}
	return nil
}
