package node

import (
	"context"
	"slices"

	"drystone.example/drystone/backend/agent"
	"drystone.example/drystone/backend/api"
	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/block/volume"
	"drystone.example/drystone/backend/model"
)

func (s service) Nodes(ctx context.Context) map[model.NodeID]api.NodeReport {
	usage := s.n.agent.Usage(ctx)
	out := map[model.NodeID]api.NodeReport{}
	for _, rec := range s.n.meta.Local().Nodes() {
		u := usage[rec.ID]
		up, since := s.n.alive.state(rec.ID)
		if rec.ID == s.n.cfg.Node {
			up, since = true, s.n.started
		}
		out[rec.ID] = api.NodeReport{
			Up: up, Since: since, Version: u.Version, CPUs: u.CPUs, Memory: u.Memory,
			Hypervisor: up && u.Hypervisor, Accel: u.Accel,
		}
	}
	return out
}

func (s service) Disks(ctx context.Context) map[model.DiskID]model.DiskUsage {
	out := map[model.DiskID]model.DiskUsage{}
	view := s.n.meta.Local()
	for node, u := range s.n.agent.Usage(ctx) {
		for _, d := range u.Disks {
			if rec, err := view.Disk(d.Disk); err == nil && rec.Node == node { // else from before it moved
				out[d.Disk] = d
			}
		}
	}
	return out
}

func (s service) Volumes(ctx context.Context) map[model.VolumeID]api.VolumeReport {
	out := map[model.VolumeID]api.VolumeReport{}
	for node, u := range s.n.agent.Usage(ctx) {
		if node != s.n.cfg.Node && !s.n.up(node) {
			continue // what a lost node said last is not how it is
		}
		for id, n := range u.Volumes {
			r := out[id]
			r.Used += n
			out[id] = r
		}
		for id, h := range u.Holds {
			r := out[id]
			r.Waits = h.Reason
			if h.Fill != (volume.Fill{}) {
				r.Fill = &schema.Fill{Done: h.Fill.Done, Total: h.Fill.Total}
			}
			if t := h.Tending; t != (volume.Tending{}) {
				r.Tending = &schema.Tending{Kind: schema.Freeing, Done: t.Done, Total: t.Total, Error: t.Error}
				if t.Reverts {
					r.Tending.Kind = schema.Reverting
				}
			}
			out[id] = r
		}
	}
	for id, ranges := range s.n.agent.Lost() {
		r := out[id]
		r.Lost = ranges
		out[id] = r
	}
	return out
}

func (s service) Leader() (model.NodeID, bool) { return s.n.meta.Leader() }

func (s service) Leading(ctx context.Context) model.Leading {
	leader, _ := s.n.meta.Leader()
	return s.n.agent.Usage(ctx)[leader].Leading
}

func (s service) Tasks(ctx context.Context) ([]schema.Task, error) {
	var out []schema.Task
	for node, u := range s.n.agent.Usage(ctx) {
		if node != s.n.cfg.Node && !s.n.up(node) {
			continue // its tasks ended with it, or nobody knows
		}
		for _, t := range u.Tasks {
			out = append(out, taskOf(t))
		}
	}
	slices.SortFunc(out, func(a, b schema.Task) int { return b.Started.Compare(a.Started) })
	return out, nil
}

func taskOf(t agent.Task) schema.Task {
	return schema.Task{
		ID: t.ID, Kind: t.Kind, Object: t.Object, State: taskState(t), Done: t.Done, Total: t.Total,
		Error: t.Error, Started: t.Started, Ended: t.Ended,
	}
}

func taskState(t agent.Task) schema.TaskState {
	switch {
	case t.Running:
		return schema.TaskRunning
	case t.Cancelled:
		return schema.TaskCancelled
	case t.Error != "":
		return schema.TaskFailed
	}
	return schema.TaskDone
}

func (s service) CancelTask(ctx context.Context, _ model.Actor, id model.TaskID) error {
	return s.n.agent.CancelTask(ctx, s.n.meta.Local(), id)
}
