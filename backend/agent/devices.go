package agent

import (
	"context"
	"errors"
	"fmt"

	"drystone.example/drystone/backend/block/device"
	"drystone.example/drystone/backend/model"
)

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
