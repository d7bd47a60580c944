package node

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"drystone.example/drystone/backend/metrics"
	"drystone.example/drystone/backend/model"
)

// machine is how many processors and how much memory this node has.
func machine() (cpus int, memory model.Bytes, err error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, 0, fmt.Errorf("measure machine: %w", err)
	}
	return runtime.NumCPU(), model.Bytes(info.Totalram) * model.Bytes(info.Unit), nil
}

// callSamples asks a node for its newest samples, callPast for what a machine did there.
const (
	callSamples = "metrics.samples"
	callPast    = "metrics.past"
)

// peers reaches the other nodes' samples.
type peers struct{ n *node }

// Others is the members that seem to be up, without this node.
func (p peers) Others() (out []model.NodeID) {
	return slices.DeleteFunc(p.Members(), func(id model.NodeID) bool { return !p.n.up(id) })
}

// Members is all members, without this node.
func (p peers) Members() (out []model.NodeID) {
	for _, rec := range p.n.meta.Local().Nodes() {
		if rec.ID != p.n.cfg.Node {
			out = append(out, rec.ID)
		}
	}
	return out
}

func (p peers) Samples(ctx context.Context, node model.NodeID, after int64) (out []metrics.Sample, err error) {
	err = p.n.wire.Call(ctx, node, callSamples, after, &out)
	return out, err
}

func (p peers) Past(ctx context.Context, node model.NodeID, ask metrics.PastAsk) (out []metrics.Point, err error) {
	err = p.n.wire.Call(ctx, node, callPast, ask, &out)
	return out, err
}

// machines asks the record, as it is now and not as this node has it, which machines there are.
func (n *node) machines(ctx context.Context) (func(model.VMID) bool, error) {
	view, err := n.meta.View(ctx)
	if err != nil {
		return nil, err
	}
	return func(id model.VMID) bool { _, err := view.VM(id); return err == nil }, nil
}

func (n *node) handleMetrics() {
	n.wire.Handle(callPast, func(ctx context.Context, _ model.NodeID, body json.RawMessage) (any, error) {
		var ask metrics.PastAsk
		if err := json.Unmarshal(body, &ask); err != nil {
			return nil, model.Errorf(model.Invalid, "read request: %w", err)
		}
		return n.metrics.OwnPast(ctx, ask)
	})
	n.wire.Handle(callSamples, func(_ context.Context, _ model.NodeID, body json.RawMessage) (any, error) {
		var after int64
		if err := json.Unmarshal(body, &after); err != nil {
			return nil, model.Errorf(model.Invalid, "read request: %w", err)
		}
		return n.metrics.Samples(after), nil
	})
}
