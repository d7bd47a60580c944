package device

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/model"
)

// A Device is a whole block device as the kernel presents it now.
type Device struct {
	Path string // by the kernel's name, which changes
	Size model.Bytes

	// Disk is the disk that was found on it, or zero.
	Disk disk.Identity

	sys    string // its folder in sysfs
	sector int64  // bytes of a logical block
}

// Is reports whether path names a block device, be it by a symbolic link.
func Is(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&(fs.ModeDevice|fs.ModeCharDevice) == fs.ModeDevice
}

// Look says which device a path leads to, and whether there is a disk on it. It
// refuses a partition: its neighbours would be another's.
func Look(path string) (Device, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); errors.Is(err, fs.ErrNotExist) {
		return Device{}, model.Errorf(model.NotFound, "there is no device %s", path)
	} else if err != nil {
		return Device{}, fmt.Errorf("look at device: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return Device{}, model.Errorf(model.Invalid, "%s is not a block device", path)
	}
	sys, err := filepath.EvalSymlinks(fmt.Sprintf("/sys/dev/block/%d:%d",
		unix.Major(st.Rdev), unix.Minor(st.Rdev)))
	if err != nil {
		return Device{}, fmt.Errorf("look at device: %w", err)
	}
	if _, err := os.Stat(filepath.Join(sys, "partition")); err == nil {
		return Device{}, model.Errorf(model.Invalid,
			"%s is a partition; a disk takes a whole device, %s", path, node(filepath.Dir(sys)))
	}
	return whole(sys)
}

// whole reads what sysfs says of a device.
func whole(sys string) (Device, error) {
	sectors, err := number(sys, "size")
	if err != nil {
		return Device{}, err
	}
	d := Device{Path: node(sys), Size: model.Bytes(sectors) * 512, sys: sys}
	if d.sector, err = number(sys, "queue/logical_block_size"); err != nil {
		return Device{}, err
	}
	if int64(d.Size) < 2*d.sector+tableBytes {
		return d, nil
	}
	if err := d.discover(); err != nil {
		return Device{}, err
	}
	if raw, ok := d.partition(rawPartition); ok {
		id, err := disk.Identify(raw)
		if err != nil && model.CodeOf(err) != model.NotFound && model.CodeOf(err) != model.Corrupt {
			return Device{}, err
		}
		d.Disk = id
	}
	return d, nil
}

// partition returns the device of a partition, if the kernel knows of it.
func (d Device) partition(n int64) (path string, ok bool) {
	for _, sys := range d.partitions() {
		if have, err := number(sys, "partition"); err == nil && have == n {
			return node(sys), true
		}
	}
	return "", false
}

// partitions lists the folders of all partitions in sysfs.
func (d Device) partitions() []string {
	marks, err := filepath.Glob(filepath.Join(d.sys, "*", "partition"))
	if err != nil {
		return nil // never: the pattern is well formed
	}
	for i, m := range marks {
		marks[i] = filepath.Dir(m)
	}
	return marks
}

// node is the device file of a folder in sysfs. A slash in a name is "!" there.
func node(sys string) string {
	return filepath.Join("/dev", strings.ReplaceAll(filepath.Base(sys), "!", "/"))
}

func text(sys, file string) string {
	b, err := os.ReadFile(filepath.Join(sys, file)) //nolint:gosec // in sysfs
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func number(sys, file string) (int64, error) {
	n, err := strconv.ParseInt(text(sys, file), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("look at device: %s in %s: %w", file, sys, err)
	}
	return n, nil
}
