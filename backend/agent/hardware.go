package agent

import (
	"context"
	"sync"
	"time"

	"drystone.example/drystone/backend/block/device"
	"drystone.example/drystone/backend/model"
)

// How often the devices are asked how they are, and how soon one that is new is.
const (
	inspectEvery = time.Hour
	inspectNew   = 10 * time.Second
)

// hardware is what the devices of this node said of themselves last.
type hardware struct {
	mu  sync.Mutex // nothing blocks under it
	all map[model.DiskID]model.Hardware
}

func (h *hardware) of(id model.DiskID) model.Hardware {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.all[id]
}

func (h *hardware) put(id model.DiskID, what model.Hardware) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all[id] = what
}

// inspecting asks each device that a disk is on how it is: soon after it is opened, and
// every hour.
func (a *Agent) inspecting(ctx context.Context) {
	asked := map[model.DiskID]time.Time{}
	for {
		for id := range a.disks.all() {
			path := a.disks.pathOf(id)
			if at, ok := asked[id]; ok && time.Since(at) < inspectEvery {
				continue
			}
			asked[id] = time.Now()
			if device.Is(path) {
				a.inspect(ctx, id, path)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(inspectNew):
		}
	}
}

func (a *Agent) inspect(ctx context.Context, id model.DiskID, path string) {
	dev, err := device.Look(path)
	if err != nil || dev.Disk.Disk != id {
		return // it was pulled, and another has its name now
	}
	h := dev.Hardware(ctx)
	if h.Health == model.HealthFailing && a.wares.of(id).Health != model.HealthFailing {
		a.log.Warn("a device says that it is about to fail", "disk", id, "path", path, "model", h.Model, "serial", h.Serial)
	}
	a.wares.put(id, h)
}
