package node

import (
	"context"

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
			Node: node.ID, Free: u.Memory - hostReserve, Up: known && u.Hypervisor && n.up(node.ID),
		}
		for _, vm := range view.VMs() {
			here := vm.Node == node.ID || vm.Migration != nil && vm.Migration.To == node.ID
			if here && (vm.Power == model.PowerOn || vm.Status.State != model.VMStopped) {
				h.Free -= vm.Memory
				h.Guests++
			}
		}
		out = append(out, h)
	}
	return out
}
