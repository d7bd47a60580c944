package device

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/model"
)

// mapName is the directory of the map in its file system.
const mapName = "map"

// Find lists the devices of the machine that hold a disk, of whatever cluster,
// ordered by path. One that cannot be read is as if it were not there.
func Find() ([]Device, error) {
	all, err := filepath.Glob("/sys/class/block/*")
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	var wait sync.WaitGroup
	var mu sync.Mutex
	var found []Device
	for _, link := range all {
		sys, err := filepath.EvalSymlinks(link)
		if err != nil || text(sys, "partition") != "" || text(sys, "size") == "0" {
			continue // gone by now, or no whole device, or a drive without a disc
		}
		wait.Go(func() { // a dying one takes half a minute to say so
			d, err := whole(sys)
			if err != nil || d.Disk.Disk == 0 {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			found = append(found, d)
		})
	}
	wait.Wait()
	slices.SortFunc(found, func(a, b Device) int { return cmp.Compare(a.Path, b.Path) })
	return found, nil
}

// Open opens the disk on a device that Find or Look found one on. Its map is mounted
// in a folder of mounts until it is closed.
func Open(ctx context.Context, dev Device, mounts string, o disk.Options) (*disk.Disk, error) {
	if dev.Disk.Cluster != o.Cluster {
		return nil, model.Errorf(model.Conflict, "the disk on %s belongs to cluster %s, not %s",
			dev.Path, dev.Disk.Cluster, o.Cluster)
	}
	mapDev, raw, err := await(ctx, dev)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(mounts, dev.Disk.Disk.String())
	fresh, err := mount(mapDev, dir)
	if err != nil {
		return nil, err
	}
	o.Map = filepath.Join(dir, mapName)
	o.Release = func() error { return unmount(dir) }
	d, err := disk.Open(ctx, raw, o)
	if err != nil && fresh { // else whoever has the disk open needs the mount
		err = errors.Join(err, unmount(dir))
	}
	return d, err
}

// mount mounts a map. What a process that was killed left mounted is taken over; what
// it left of a device that has another number now is in the way and is put aside.
// It says whether the mount is a new one.
func mount(dev, dir string) (fresh bool, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return false, fmt.Errorf("make folder of map: %w", err)
	}
	var want, have, above unix.Stat_t
	err = errors.Join(unix.Stat(dev, &want), unix.Stat(dir, &have), unix.Stat(filepath.Dir(dir), &above))
	if err != nil {
		return false, fmt.Errorf("mount map: %w", err)
	}
	switch have.Dev {
	case want.Rdev:
		return false, nil
	case above.Dev:
	default:
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			return false, fmt.Errorf("unmount an old map: %w", err)
		}
	}
	err = unix.Mount(dev, dir, "ext4", unix.MS_NOATIME|unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC, "errors=remount-ro")
	if err != nil {
		return false, fmt.Errorf("mount map of %s: %w", dev, err)
	}
	return true, nil
}

// unmount is the opposite of mount. A failed device is let go of as soon as nobody
// uses it.
func unmount(dir string) error {
	err := unix.Unmount(dir, 0)
	if errors.Is(err, unix.EBUSY) {
		err = unix.Unmount(dir, unix.MNT_DETACH)
	}
	if err != nil {
		return fmt.Errorf("unmount map: %w", err)
	}
	if err := os.Remove(dir); err != nil {
		return fmt.Errorf("unmount map: %w", err)
	}
	return nil
}
