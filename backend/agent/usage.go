package agent

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"time"

	"drystone.example/drystone/backend/block/volume"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/placement"
)

// callUsage asks a node how full its disks are, what its volumes do, and what it
// is.
const callUsage = "node.usage"

// usageAge is how old what is known of the other nodes may be when somebody asks.
const usageAge = 2 * time.Second

// A Usage is what one node says of itself.
type Usage struct {
	Version    string                         `json:"version"`
	CPUs       int                            `json:"cpus"`
	Memory     model.Bytes                    `json:"memory_bytes"`
	Hypervisor bool                           `json:"hypervisor"`
	Accel      string                         `json:"accel,omitempty"`
	Disks      []model.DiskUsage              `json:"disks"`
	Volumes    map[model.VolumeID]model.Bytes `json:"volumes"` // on this node's disks
	Holds      map[model.VolumeID]HoldStatus  `json:"holds"`
	Tasks      []Task                         `json:"tasks"`
}

// A HoldStatus is how a volume is that a node holds.
type HoldStatus struct {
	Serving bool        `json:"serving"`
	Reason  string      `json:"reason,omitempty"`
	Fill    volume.Fill `json:"fill,omitzero"`
}

// usage remembers what the nodes said last.
type usage struct {
	mu    sync.Mutex // guards both; nothing blocks under it
	nodes map[model.NodeID]Usage
	asked time.Time
}

func (u *usage) put(id model.NodeID, what Usage) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.nodes[id] = what
}

func (u *usage) all() map[model.NodeID]Usage {
	u.mu.Lock()
	defer u.mu.Unlock()
	return maps.Clone(u.nodes)
}

// due reports whether it is time to ask again, and takes note that somebody does.
func (u *usage) due(now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if now.Sub(u.asked) < usageAge {
		return false
	}
	u.asked = now
	return true
}

// placementDisks is the pool as placement wants to know it.
func (u *usage) placementDisks(view *state.View, up func(model.NodeID) bool) []placement.Disk {
	used := map[model.DiskID]model.Bytes{}
	for _, n := range u.all() {
		for _, d := range n.Disks {
			used[d.Disk] = d.Used
		}
	}
	records := view.Disks()
	out := make([]placement.Disk, 0, len(records))
	for _, d := range records {
		out = append(out, placement.Disk{
			ID: d.ID, Node: d.Node, Size: d.Size, Free: max(0, d.Size-used[d.ID]),
			Up: d.State == model.DiskOnline && up(d.Node),
		})
	}
	return out
}

// PlacementDisks is the pool as this node knows it.
func (a *Agent) PlacementDisks(ctx context.Context) []placement.Disk {
	a.Usage(ctx)
	up := func(n model.NodeID) bool { return n == a.cfg.Self || a.cfg.Up(n) }
	return a.usage.placementDisks(a.cfg.Meta.Local(), up)
}

// Usage returns what every node said last. Nodes that are up are asked again if
// that is more than two seconds ago; one that does not answer within a second
// keeps what it said.
func (a *Agent) Usage(ctx context.Context) map[model.NodeID]Usage {
	a.usage.put(a.cfg.Self, a.own())
	if a.usage.due(time.Now()) {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		var wait sync.WaitGroup
		for _, n := range a.cfg.Meta.Local().Nodes() {
			if n.ID == a.cfg.Self || !a.cfg.Up(n.ID) {
				continue
			}
			wait.Go(func() {
				var got Usage
				if err := a.cfg.Wire.Call(ctx, n.ID, callUsage, struct{}{}, &got); err == nil {
					a.usage.put(n.ID, got)
				}
			})
		}
		wait.Wait()
	}
	return a.usage.all()
}

func (a *Agent) handleUsage(context.Context, model.NodeID, json.RawMessage) (any, error) {
	return a.own(), nil
}

// own is what this node says of itself now.
func (a *Agent) own() Usage {
	out := Usage{
		Version: model.Version, CPUs: a.cfg.CPUs, Memory: a.cfg.Memory,
		Hypervisor: a.guests != nil && a.guests.ready(), Tasks: a.Tasks.List(),
		Volumes: map[model.VolumeID]model.Bytes{}, Holds: map[model.VolumeID]HoldStatus{},
	}
	if a.guests != nil {
		out.Accel = string(a.guests.hypervisor.Accelerator())
	}
	for _, d := range a.disks.all() {
		out.Disks = append(out.Disks, d.Usage())
	}
	slices.SortFunc(out.Disks, func(a, b model.DiskUsage) int { return compareID(a.Disk, b.Disk) })
	for _, h := range a.holds.list() {
		status := HoldStatus{Reason: "it is being taken over"}
		if ready := a.holds.serving(h.id); ready != nil {
			s := ready.volume.Status()
			status = HoldStatus{Serving: s.Serving, Reason: s.Reason, Fill: s.Fill}
		}
		out.Holds[h.id] = status
	}
	return out
}
