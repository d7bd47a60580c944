package device

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/model"
)

// Options say how a device becomes a disk.
type Options struct {
	disk.Options        // of the disk when it is open; Cluster is needed
	Wipe         bool   // what the device holds may be destroyed
	Mounts       string // folder in which maps are mounted
}

// Create makes a disk of a whole device and opens it. It refuses a device that is in
// use, and one that holds anything unless it may be wiped. If it fails after it began
// to write, what it wrote is erased, so that the device is an empty one.
func Create(ctx context.Context, dev Device, o Options) (*disk.Disk, error) {
	p, err := layOut(dev.Size, dev.sector)
	if err != nil {
		return nil, err
	}
	// A device without room for partitions would be destroyed in vain.
	if text(dev.sys, "ext_range") == "1" {
		return nil, model.Errorf(model.Invalid, "%s cannot be partitioned", dev.Path)
	}
	if text(dev.sys, "ro") != "0" {
		return nil, model.Errorf(model.Invalid, "%s is read-only", dev.Path)
	}
	lock, err := lockDevice(dev.Path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = lock.Close() }() // nothing is written by it
	if dev, err = whole(dev.sys); err != nil {
		return nil, err
	}
	f, err := claim(dev.Path)
	if err != nil {
		return nil, err
	}
	if !o.Wipe {
		if err := vacant(ctx, dev, f); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	err = errors.Join(partition(ctx, dev, f, p), f.Close())
	var d *disk.Disk
	if err == nil {
		d, err = fill(ctx, dev, o)
	}
	if err != nil {
		return nil, errors.Join(err, erase(context.WithoutCancel(ctx), dev))
	}
	return d, nil
}

// Erase makes a device an empty one. It refuses one that is in use.
func Erase(ctx context.Context, dev Device) error {
	lock, err := lockDevice(dev.Path)
	if err != nil {
		return err
	}
	return errors.Join(erase(ctx, dev), lock.Close())
}

func erase(ctx context.Context, dev Device) error {
	f, err := claim(dev.Path)
	if err != nil {
		return err
	}
	p, err := layOut(dev.Size, dev.sector)
	if err == nil {
		err = clean(f, p)
	}
	if err == nil {
		err = dev.forget(ctx, f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("erase %s: %w", dev.Path, err)
	}
	return nil
}

// lockDevice takes the lock by which udev and partitioning tools keep their hands off
// a device: udev would read its table anew, and the partitions be gone for a moment.
func lockDevice(path string) (*os.File, error) {
	f, err := os.Open(path) //nolint:gosec // the operator names it
	if err != nil {
		return nil, fmt.Errorf("open device: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(
			model.Errorf(model.Conflict, "%s is in use by another program: %w", path, err), f.Close())
	}
	return f, nil
}

// claim opens a device for nobody else to use.
func claim(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_EXCL, 0) //nolint:gosec // the operator names it
	if errors.Is(err, unix.EBUSY) {
		return nil, model.Errorf(model.Conflict,
			"%s is in use: it is mounted, part of a RAID or LVM, or open as a disk: %w", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open device: %w", err)
	}
	return f, nil
}

// vacant refuses a device that holds something: a disk, partitions, a signature that
// wipefs knows, or anything but zeros at its start or end.
func vacant(ctx context.Context, dev Device, f *os.File) error {
	if dev.Disk.Disk != 0 {
		return model.Errorf(model.Conflict,
			"%s holds disk %s of cluster %s; it is taken only to be wiped", dev.Path, dev.Disk.Disk, dev.Disk.Cluster)
	}
	held := func(what string) error {
		return model.Errorf(model.Conflict, "%s holds data (%s); it is taken only to be wiped", dev.Path, what)
	}
	kinds, err := signatures(ctx, dev.Path)
	if err != nil {
		return err
	}
	if len(kinds) > 0 {
		return held(strings.Join(kinds, ", "))
	}
	if n := len(dev.partitions()); n > 0 {
		return held(fmt.Sprintf("%d partitions", n))
	}
	b := make([]byte, mib)
	for _, off := range []int64{0, int64(dev.Size) - mib} {
		if _, err := f.ReadAt(b, off); err != nil {
			return fmt.Errorf("read %s: %w", dev.Path, err)
		}
		if !zero(b) {
			return held("of unknown kind")
		}
	}
	return nil
}

func zero(b []byte) bool { return len(bytes.TrimLeft(b, "\x00")) == 0 }

// signatures asks wipefs, which knows some hundred file systems and other owners.
func signatures(ctx context.Context, path string) ([]string, error) {
	out, err := exec.CommandContext(ctx, "wipefs", "--no-act", "--json", path).Output() //nolint:gosec // a tool we name
	if err != nil {
		return nil, fmt.Errorf("look for data with wipefs: %w", err)
	}
	var found struct {
		Signatures []struct {
			Type string `json:"type"`
		} `json:"signatures"`
	}
	if err := json.Unmarshal(out, &found); err != nil {
		return nil, fmt.Errorf("read what wipefs said: %w", err)
	}
	var kinds []string
	seen := map[string]bool{}
	for _, s := range found.Signatures {
		if !seen[s.Type] {
			seen[s.Type] = true
			kinds = append(kinds, s.Type)
		}
	}
	return kinds, nil
}

// clean overwrites what makes a device, or a partition of the plan, look like it
// holds something.
func clean(f *os.File, p plan) error {
	zeros := make([]byte, mib)
	for _, off := range []int64{0, p.mapStart, p.mapEnd - mib, p.rawStart, p.rawEnd - mib, p.rawEnd, p.size - mib} {
		if _, err := f.WriteAt(zeros, off); err != nil {
			return fmt.Errorf("clean device: %w", err)
		}
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("clean device: %w", err)
	}
	return nil
}

// partition writes the partition table and has the kernel read it.
func partition(ctx context.Context, dev Device, f *os.File, p plan) error {
	if err := dev.forget(ctx, f); err != nil {
		return err
	}
	if err := clean(f, p); err != nil {
		return err
	}
	var ids [3]guid
	for i := range ids {
		_, _ = rand.Read(ids[i][:]) // never fails
		ids[i][6], ids[i][8] = ids[i][6]&0x0f|0x40, ids[i][8]&0x3f|0x80
	}
	head, tail := p.encode(ids[0], ids[1], ids[2])
	if _, err := f.WriteAt(tail, p.size-int64(len(tail))); err != nil {
		return fmt.Errorf("write partition table: %w", err)
	}
	if _, err := f.WriteAt(head, 0); err != nil {
		return fmt.Errorf("write partition table: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("write partition table: %w", err)
	}
	return announce(f, p)
}

// fill makes the map's file system and the disk, and opens it.
func fill(ctx context.Context, dev Device, o Options) (*disk.Disk, error) {
	mapDev, raw, err := await(ctx, dev)
	if err != nil {
		return nil, err
	}
	out, err := exec.CommandContext(ctx, //nolint:gosec // a tool we name, on a device we hold
		"mkfs.ext4", "-q", "-F", "-m", "0", "-L", "drystone-map", mapDev).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("make file system of the map: %w: %s", err, bytes.TrimSpace(out))
	}
	id := disk.Identity{Cluster: o.Cluster, Disk: model.NewID[model.DiskID]()}
	dir := filepath.Join(o.Mounts, id.Disk.String())
	if _, err := mount(mapDev, dir); err != nil {
		return nil, err
	}
	_, err = disk.Format(ctx, raw, disk.FormatOptions{
		Cluster: o.Cluster, Disk: id.Disk, Map: filepath.Join(dir, mapName),
	})
	if err = errors.Join(err, unmount(dir)); err != nil {
		return nil, err
	}
	dev.Disk = id
	return Open(ctx, dev, o.Mounts, o.Options)
}

// await waits until both partitions have their device files, which udev may be slow
// to give them.
func await(ctx context.Context, dev Device) (mapDev, raw string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		m, okMap := dev.partition(mapPartition)
		r, okRaw := dev.partition(rawPartition)
		if okMap && okRaw && Is(m) && Is(r) {
			return m, r, nil
		}
		select {
		case <-ctx.Done():
			return "", "", model.Errorf(model.Unavailable, "the partitions of %s did not appear", dev.Path)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
