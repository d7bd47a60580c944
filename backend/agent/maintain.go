package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"drystone.example/drystone/backend/model"
)

// A volume that nobody uses and whose columns are not whole, or that is reverted, or
// of which snapshots were deleted, is held for maintenance by a node the leader
// chooses, until that is done or somebody wants to use the volume.

// The calls between agents.
const (
	callYield    = "volume.yield"
	callMaintain = "volume.maintain"
)

// A volumeCall names a volume.
type volumeCall struct {
	Volume model.VolumeID `json:"volume"`
}

// maintainAgain is how often a maintenance holder looks whether it is done.
const maintainAgain = time.Second

// Maintain orders a node to hold a volume until its columns are whole. It returns
// when the order is accepted.
func (a *Agent) Maintain(ctx context.Context, node model.NodeID, id model.VolumeID) error {
	if err := a.cfg.Wire.Call(ctx, node, callMaintain, volumeCall{id}, nil); err != nil {
		return fmt.Errorf("order maintenance of %s: %w", id, err)
	}
	return nil
}

func (a *Agent) handleMaintain(_ context.Context, _ model.NodeID, body json.RawMessage) (any, error) {
	var call volumeCall
	if err := json.Unmarshal(body, &call); err != nil {
		return nil, model.Errorf(model.Invalid, "read order: %w", err)
	}
	if a.holds.serving(call.Volume) == nil {
		a.work.Go(func() { a.maintain(call.Volume) })
	}
	return struct{}{}, nil
}

// maintain holds a volume while it needs work and nobody else wants it.
func (a *Agent) maintain(id model.VolumeID) {
	h, err := a.Acquire(a.ctx, id, model.ForMaintenance)
	if err != nil {
		switch model.CodeOf(err) { //nolint:exhaustive // the rest is worth a line
		case model.Conflict, model.NotFound, model.Unavailable:
		default:
			a.log.Warn("volume could not be taken for maintenance", "volume", id, "err", err)
		}
		return
	}
	defer a.Release(h)
	tick := time.NewTicker(maintainAgain)
	defer tick.Stop()
	for {
		select {
		case <-a.ctx.Done():
			return
		case <-h.wanted:
			return
		case <-h.volume.Done():
			return
		case <-tick.C:
		}
		if rec, err := a.cfg.Meta.Local().Volume(id); err != nil || !NeedsWork(rec) {
			return
		}
	}
}

// NeedsWork reports whether a volume has columns with too few active members, or
// with members that are not active or shall leave, or something to free or to revert, or
// is a clone that still needs its origin.
func NeedsWork(rec model.Volume) bool {
	due := rec.Trim.Due() || rec.Revert.Due() || rec.Origin.Volume != 0
	return due || slices.ContainsFunc(rec.Columns, func(c model.Column) bool {
		return c.Staying() < rec.Copies || c.Staying() < len(c.Members)
	})
}

// askYield asks the holder of a volume to let it go if it holds it only for
// maintenance. Its answer is not needed: the record tells.
func (a *Agent) askYield(ctx context.Context, rec model.Volume) {
	if rec.Purpose != model.ForMaintenance {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := a.cfg.Wire.Call(ctx, rec.Holder, callYield, volumeCall{rec.ID}, nil); err != nil {
		a.log.Debug("holder was not asked to let go", "volume", rec.ID, "err", err)
	}
}

func (a *Agent) handleYield(ctx context.Context, _ model.NodeID, body json.RawMessage) (any, error) {
	var call volumeCall
	if err := json.Unmarshal(body, &call); err != nil {
		return nil, model.Errorf(model.Invalid, "read request: %w", err)
	}
	return struct{}{}, a.yield(ctx, call.Volume)
}

// yield ends a maintenance hold of this node, or one that is closing, and waits
// until it is gone.
func (a *Agent) yield(ctx context.Context, id model.VolumeID) error {
	a.holds.mu.Lock()
	h := a.holds.all[id]
	inUse := h != nil && h.users > 0 && h.purpose != model.ForMaintenance
	a.holds.mu.Unlock()
	switch {
	case h == nil:
		return nil
	case inUse:
		return model.Errorf(model.Conflict, "the volume is in use here: %s", h.purpose)
	}
	h.wantedOnce.Do(func() { close(h.wanted) })
	select {
	case <-h.gone:
		return nil
	case <-ctx.Done():
		return waiting(ctx, "volume %s is being let go", id)
	}
}
