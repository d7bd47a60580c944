package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"drystone.example/drystone/backend/block/device"
	"drystone.example/drystone/backend/model"
)

// openDevices looks on all block devices of the machine for the disks that the node
// was given, wherever they are plugged in now, and opens them. One that is not found,
// or on two devices, is left out and reported; the others serve.
func (a *Agent) openDevices(ctx context.Context) {
	if len(a.cfg.Devices) == 0 {
		return
	}
	found, err := device.Find()
	if err != nil {
		a.log.Error("devices were not searched for disks", "err", err)
		return
	}
	at := map[model.DiskID][]device.Device{}
	for _, d := range found {
		id := d.Disk.Disk
		at[id] = append(at[id], d)
		if d.Disk.Cluster == a.cfg.Cluster && !slices.Contains(a.cfg.Devices, id) {
			a.log.Warn("a disk of this cluster that is not this node's is left alone", "disk", id, "path", d.Path)
		}
	}
	var wait sync.WaitGroup
	for _, id := range a.cfg.Devices {
		switch where := at[id]; len(where) {
		case 0:
			a.log.Error("disk was not found on any device", "disk", id)
		case 1:
			wait.Go(func() { a.openDevice(ctx, where[0]) })
		default:
			a.log.Error("disk was found twice and is not opened: one is a copy",
				"disk", id, "path", where[0].Path, "other_path", where[1].Path)
		}
	}
	wait.Wait()
}

func (a *Agent) openDevice(ctx context.Context, dev device.Device) {
	d, err := device.Open(ctx, dev, a.cfg.Mounts, a.diskOptions())
	if err != nil {
		a.log.Error("disk was not opened", "path", dev.Path, "disk", dev.Disk.Disk, "err", err)
		return
	}
	a.serveDisk(d, dev.Path)
}

// addDevice makes a disk of a whole block device and puts it into the pool.
func (a *Agent) addDevice(ctx context.Context, by model.Actor, n NewDisk) (model.Disk, error) {
	if n.Size > 0 || n.Sparse {
		return model.Disk{}, model.Errorf(model.Invalid, "a block device has the size it has; leave the size out")
	}
	dev, err := device.Look(n.Path)
	if err != nil {
		return model.Disk{}, err
	}
	// What the pool names is never wiped, be it in service or not: it may be a last copy.
	// This node may not have heard of it, so the others are asked.
	view, err := a.cfg.Meta.View(ctx)
	if err != nil {
		return model.Disk{}, err
	}
	if rec, err := view.Disk(dev.Disk.Disk); err == nil && dev.Disk.Cluster == a.cfg.Cluster {
		return model.Disk{}, model.Errorf(model.Conflict, "%s holds disk %s, which is in the pool already", dev.Path, rec.ID)
	}
	d, err := device.Create(ctx, dev, device.Options{
		Options: a.diskOptions(), Mounts: a.cfg.Mounts, Wipe: n.Wipe,
	})
	if err != nil {
		return model.Disk{}, fmt.Errorf("make disk: %w", err)
	}
	rec, kept, err := a.adopt(ctx, by, d, dev.Path, true)
	if !kept {
		err = errors.Join(err, device.Erase(context.WithoutCancel(ctx), dev))
	}
	return rec, err
}
