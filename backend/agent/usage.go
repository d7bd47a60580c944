package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/volume"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/metrics"
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
	Damage     []model.Damage                 `json:"damage,omitempty"` // the first of each disk
	Volumes    map[model.VolumeID]model.Bytes `json:"volumes"`          // see volumeBytes
	Holds      map[model.VolumeID]HoldStatus  `json:"holds"`
	Tasks      []Task                         `json:"tasks"`

	Leading model.Leading `json:"leading,omitzero"` // of the leader

	// Busy and Clock are seconds of processor time, since the node started: not idle, and
	// all. Guests is how much of it each guest took since it started.
	Busy   float64                      `json:"busy,omitempty"`
	Clock  float64                      `json:"clock,omitempty"`
	Guests map[model.VMID]time.Duration `json:"guests,omitempty"`
}

// A HoldStatus is how a volume is that a node holds.
type HoldStatus struct {
	Generation model.Generation `json:"generation"`
	Revision   model.Revision   `json:"revision"` // of the record as the holder knows it

	Serving bool        `json:"serving"`
	Reason  string      `json:"reason,omitempty"`
	Fill    volume.Fill `json:"fill,omitzero"`

	Tending volume.Tending `json:"tending,omitzero"`
	Slow    []volume.Slow  `json:"slow,omitempty"`
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
	said := u.all()
	records := view.Disks()
	out := make([]placement.Disk, 0, len(records))
	for _, d := range records {
		var used model.Bytes
		for _, o := range said[d.Node].Disks { // what another said is from before it moved
			if o.Disk == d.ID {
				used = o.Used
			}
		}
		out = append(out, placement.Disk{
			ID: d.ID, Node: d.Node, Size: d.Size, Free: max(0, d.Size-used),
			Up: d.State == model.DiskOnline && up(d.Node), Draining: d.Draining(),
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

// Situation is what moves are planned by, as this node knows it.
func (a *Agent) Situation(ctx context.Context, view *state.View) placement.Situation {
	up := func(n model.NodeID) bool { return n == a.cfg.Self || a.cfg.Up(n) }
	s := placement.Situation{Volumes: view.Volumes(), Used: map[model.VolumeID]model.Bytes{}}
	for _, u := range a.Usage(ctx) {
		for id, n := range u.Volumes {
			s.Used[id] += n
		}
	}
	s.Disks = a.usage.placementDisks(view, up)
	return s
}

// Ailments is what the nodes said last of disks that may be going bad; of what a holder
// said that is not up any more, nothing.
func (a *Agent) Ailments() map[model.DiskID]model.Ailment {
	out := map[model.DiskID]model.Ailment{}
	for node, u := range a.usage.all() {
		for _, d := range u.Disks {
			if d.ChecksumErrors > 0 {
				one := out[d.Disk]
				one.Errors = d.ChecksumErrors
				out[d.Disk] = one
			}
		}
		if node != a.cfg.Self && !a.cfg.Up(node) {
			continue
		}
		for _, h := range u.Holds {
			for _, s := range h.Slow {
				one := out[s.Disk]
				one.Slow = slower(one.Slow, s)
				out[s.Disk] = one
			}
		}
	}
	return out
}

// slower adds what one holder says of a disk to what others do.
func slower(all model.Slowness, s volume.Slow) model.Slowness {
	all.Volumes++
	all.Took, all.Times = max(all.Took, s.Took), max(all.Times, s.Times)
	if s.Until.After(all.Until) {
		all.Until = s.Until
	}
	return all
}

// Usage returns what every node said last. Nodes that are up are asked again if
// that is more than two seconds ago; one that does not answer within a second
// keeps what it said.
func (a *Agent) Usage(ctx context.Context) map[model.NodeID]Usage {
	a.usage.put(a.cfg.Self, a.own(ctx))
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

func (a *Agent) handleUsage(ctx context.Context, _ model.NodeID, _ json.RawMessage) (any, error) {
	return a.own(ctx), nil
}

// own is what this node says of itself now.
func (a *Agent) own(ctx context.Context) Usage {
	out := Usage{
		Version: model.Version, CPUs: a.cfg.CPUs, Memory: a.cfg.Memory,
		Hypervisor: a.guests != nil && a.guests.ready(), Tasks: a.Tasks.List(),
		Volumes: a.volumeBytes(ctx), Holds: map[model.VolumeID]HoldStatus{},
	}
	if busy, all, err := metrics.Processors(ctx); err == nil { // else they are not known
		out.Busy, out.Clock = busy, all
	}
	if a.guests != nil {
		out.Guests = a.guests.processors()
		out.Accel = string(a.guests.hypervisor.Accelerator())
	}
	if a.cfg.Leading != nil {
		out.Leading = a.cfg.Leading()
	}
	for id, d := range a.disks.all() {
		u := d.Usage()
		u.Hardware = a.wares.of(id)
		out.Disks = append(out.Disks, u)
		list, _ := d.Damage(damageReported)
		for i := range list {
			list[i].Disk = id
		}
		out.Damage = append(out.Damage, list...)
	}
	slices.SortFunc(out.Disks, func(a, b model.DiskUsage) int { return compareID(a.Disk, b.Disk) })
	for _, h := range a.holds.list() {
		status := HoldStatus{Reason: "it is being taken over"}
		if ready := a.holds.serving(h.id); ready != nil {
			s := ready.volume.Status()
			status = HoldStatus{
				Generation: s.Generation, Revision: s.Revision,
				Serving: s.Serving, Reason: s.Reason, Fill: s.Fill, Tending: s.Tending, Slow: s.Slow,
			}
		}
		out.Holds[h.id] = status
	}
	return out
}

// volumeBytes is this node's part of what each volume takes, one copy counted: a
// column is counted by the node of its first active member, of those that are up.
// What the nodes that are up say adds up to the volume.
func (a *Agent) volumeBytes(ctx context.Context) map[model.VolumeID]model.Bytes {
	view := a.cfg.Meta.Local()
	up := func(id model.DiskID) bool {
		rec, err := view.Disk(id)
		return err == nil && (rec.Node == a.cfg.Self || a.cfg.Up(rec.Node))
	}
	out := map[model.VolumeID]model.Bytes{}
	for _, d := range a.disks.all() {
		held, err := d.Held(ctx)
		if err != nil {
			continue // it has failed; others are active in its stead
		}
		slices.SortFunc(held, func(a, b disk.Held) int { return cmp.Compare(a.Volume, b.Volume) })
		var rec model.Volume
		for _, h := range held {
			if rec.ID != h.Volume {
				if rec, err = view.Volume(h.Volume); err != nil {
					continue // deleted
				}
			}
			if int(h.Column) < len(rec.Columns) && counts(rec.Columns[h.Column], d.ID(), up) {
				out[h.Volume] += h.Bytes
			}
		}
	}
	return out
}

// counts reports whether a disk is the one of its column that is counted.
func counts(c model.Column, id model.DiskID, up func(model.DiskID) bool) bool {
	i := slices.IndexFunc(c.Members, func(m model.Member) bool {
		return m.State == model.Active && up(m.Disk)
	})
	return i >= 0 && c.Members[i].Disk == id
}
