package node

import (
	"context"

	"drystone.example/drystone/backend/agent"
	"drystone.example/drystone/backend/control"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/placement"
)

// hostReserve is the memory of a node that is never promised to machines.
const hostReserve = model.Bytes(1 << 30)

// hosts is what the nodes have to spare for machines.
func (n *node) hosts(ctx context.Context) []placement.Host {
	view := n.meta.Local()
	usage := n.agent.Usage(ctx)
	var out []placement.Host
	for _, node := range view.Nodes() {
		u, known := usage[node.ID]
		h := placement.Host{
			Node: node.ID, Name: node.Name, Memory: u.Memory - hostReserve, Free: u.Memory - hostReserve, CPUs: u.CPUs,
			Up: known && u.Hypervisor && n.up(node.ID), Maintenance: node.InMaintenance(),
		}
		for _, vm := range view.VMs() {
			here := vm.Node == node.ID || vm.Migration != nil && vm.Migration.To == node.ID
			if here && (vm.Power == model.PowerOn || vm.Status.State != model.VMStopped) {
				h.Take(vm)
			}
		}
		out = append(out, h)
	}
	return out
}

// loads is how much processor time the nodes have taken, as they said last.
func (n *node) loads(ctx context.Context) map[model.NodeID]control.Load {
	out := map[model.NodeID]control.Load{}
	for id, u := range n.agent.Usage(ctx) {
		if u.Clock == 0 || !n.up(id) {
			continue
		}
		l := control.Load{Busy: u.Busy, Clock: u.Clock, Guests: map[model.VMID]float64{}}
		for vm, took := range u.Guests {
			l.Guests[vm] = took.Seconds()
		}
		out[id] = l
	}
	return out
}

// migrate begins a move that the leader wishes.
func (n *node) migrate(ctx context.Context, vm model.VM, to model.NodeID, why model.MoveReason) (model.TaskID, error) {
	t, err := n.agent.Migrate(ctx, vm, to, agent.MigrateLimit, why)
	return t.ID, err
}

// outcome is what a node says of a task that failed.
func (n *node) outcome(ctx context.Context, node model.NodeID, task model.TaskID) string {
	for _, t := range n.agent.Usage(ctx)[node].Tasks {
		if t.ID == task {
			return t.Error
		}
	}
	return ""
}
