package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"drystone.example/drystone/backend/block/volume"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

const (
	callClone = "volume.clone"

	// cloneAgain is how often a clone is tried while the volume's holder comes or goes,
	// and cloneTime for how long.
	cloneAgain = 50 * time.Millisecond
	cloneTime  = 20 * time.Second

	// detachAgain is how often a clone that serves is tried to be detached.
	detachAgain = time.Second
)

// A cloneCall asks the holder of a volume for a clone.
type cloneCall struct {
	Actor    model.Actor      `json:"actor"`
	ID       model.VolumeID   `json:"id"`
	Name     string           `json:"name"`
	Use      model.VolumeKind `json:"use"`
	Volume   model.VolumeID   `json:"volume"`
	Snapshot model.SnapshotID `json:"snapshot,omitzero"`
}

// Clone makes a volume that begins as another one is now, or was when a snapshot was
// cut. Its holder makes it, and a volume that nobody holds is held for that: who has
// just taken a volume over knows that its members hold the same. After an error with
// the code unavailable it may have been made all the same.
func (a *Agent) Clone(ctx context.Context, by model.Actor, from model.VolumeID, at model.SnapshotID,
	name string, use model.VolumeKind,
) (model.Volume, error) {
	ctx, cancel := context.WithTimeout(ctx, cloneTime)
	defer cancel()
	call := cloneCall{
		Actor: by, ID: model.NewID[model.VolumeID](), Name: name, Use: use, Volume: from, Snapshot: at,
	}
	for {
		view, err := a.cfg.Meta.View(ctx)
		if err != nil {
			return model.Volume{}, err
		}
		rec, err := view.Volume(from)
		if err != nil {
			return model.Volume{}, err
		}
		clone, err := a.cloneFrom(ctx, call, rec)
		if err == nil {
			// It needs its origin no more once somebody has held it.
			a.work.Go(func() { a.maintain(clone.ID) })
			return clone, nil
		}
		if !a.cloneLater(ctx, err, rec, name) {
			return model.Volume{}, err
		}
		select {
		case <-time.After(cloneAgain):
		case <-ctx.Done():
			return model.Volume{}, err
		}
	}
}

// cloneFrom has the holder of a volume clone it.
func (a *Agent) cloneFrom(ctx context.Context, call cloneCall, rec model.Volume) (clone model.Volume, err error) {
	if rec.Holder != 0 && (rec.Holder == a.cfg.Self || a.cfg.Up(rec.Holder)) {
		if err := a.cfg.Wire.Call(ctx, rec.Holder, callClone, call, &clone); err != nil {
			return clone, fmt.Errorf("ask the holder of %s for a clone: %w", rec.Name, err)
		}
		return clone, nil
	}
	h, err := a.Acquire(ctx, rec.ID, model.ForMaintenance)
	if err != nil {
		if model.CodeOf(err) == model.Conflict { // somebody is about to hold it
			err = model.Errorf(model.Unavailable, "volume %s is being taken: %w", rec.Name, err)
		}
		return clone, err
	}
	defer a.Release(h)
	return a.cloneHeld(ctx, call, h)
}

// cloneLater reports whether a clone that was not made may be made a little later.
func (a *Agent) cloneLater(ctx context.Context, err error, was model.Volume, name string) bool {
	switch model.CodeOf(err) { //nolint:exhaustive // the others do not pass with time
	case model.Unavailable, model.Fenced:
		return ctx.Err() == nil
	case model.Conflict:
	default:
		return false
	}
	view, err := a.cfg.Meta.View(ctx)
	if err != nil {
		return false
	}
	if _, err := view.FindVolume(name); err == nil {
		return false
	}
	now, err := view.Volume(was.ID)
	return err == nil && now.Revision != was.Revision
}

func (a *Agent) handleClone(ctx context.Context, _ model.NodeID, body json.RawMessage) (any, error) {
	var call cloneCall
	if err := json.Unmarshal(body, &call); err != nil {
		return nil, model.Errorf(model.Invalid, "read request: %w", err)
	}
	h := a.holds.serving(call.Volume)
	if h == nil {
		return nil, model.Errorf(model.Unavailable, "the volume is being taken or let go on this node; try again")
	}
	return a.cloneHeld(ctx, call, h)
}

// cloneHeld clones a volume that this node serves. A snapshot has ended already, so
// writes go on meanwhile.
//
// Invariant: the epoch a clone begins as has ended, no write of it is in flight, and
// the columns taken over are those of a volume that serves. So all members of the clone
// hold the same of it.
func (a *Agent) cloneHeld(ctx context.Context, call cloneCall, h *Hold) (model.Volume, error) {
	if call.Snapshot != 0 {
		view, err := a.cfg.Meta.View(ctx)
		if err != nil {
			return model.Volume{}, err
		}
		rec, err := view.Volume(call.Volume)
		if err != nil {
			return model.Volume{}, err
		}
		if generation := h.volume.Status().Generation; rec.Generation != generation {
			return model.Volume{}, model.Errorf(model.Unavailable,
				"volume %s is at generation %d here and at %d in the record", rec.Name, generation, rec.Generation)
		}
		out, err := a.applyClone(ctx, call, rec)
		return out.Clone, err
	}
	var out model.Cloned
	err := volume.Cut(ctx, []*volume.Volume{h.volume},
		func(ctx context.Context, recs []model.Volume) ([]model.Volume, error) {
			var err error
			out, err = a.applyClone(ctx, call, recs[0])
			return []model.Volume{out.Volume}, err
		})
	return out.Clone, err
}

// applyClone is the compare-and-swap of a clone through raft. With a conflict comes the
// volume as it is.
func (a *Agent) applyClone(ctx context.Context, call cloneCall, rec model.Volume) (model.Cloned, error) {
	out, err := a.cfg.Meta.Apply(ctx, call.Actor, command.VolumeClone{
		ID: call.ID, Name: call.Name, Use: call.Use, Volume: rec.ID, Snapshot: call.Snapshot,
		Holder: a.cfg.Self, Generation: rec.Generation, Revision: rec.Revision,
	})
	cloned, _ := out.(model.Cloned) // it comes with a Conflict too
	return cloned, err
}

// detach takes a clone's origin out of the record, once it serves: then every disk that
// is a member has noted it, or is none any more.
func (a *Agent) detach(v *volume.Volume, rec model.Volume) {
	for {
		ctx, cancel := context.WithTimeout(a.ctx, cloneTime)
		out, err := a.cfg.Meta.Apply(ctx, model.System, command.VolumeDetach{Volume: rec.ID, Generation: rec.Generation})
		cancel()
		if now, ok := out.(model.Volume); ok && err == nil {
			err = v.Follow(now)
		}
		switch model.CodeOf(err) { //nolint:exhaustive // the others may pass
		case "", model.Fenced, model.NotFound, model.Conflict:
			return
		}
		select {
		case <-time.After(detachAgain):
		case <-v.Done():
			return
		case <-a.ctx.Done():
			return
		}
	}
}
