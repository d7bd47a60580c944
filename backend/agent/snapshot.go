package agent

import (
	"context"
	"encoding/json"
	"fmt"

	"drystone.example/drystone/backend/block/volume"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

const (
	callCut = "volume.cut"

	// cutTries is how often a cut is begun anew because the volume's holder changed
	// meanwhile.
	cutTries = 5
)

// A cutCall asks the holder of a volume for a snapshot.
type cutCall struct {
	Actor  model.Actor      `json:"actor"`
	ID     model.SnapshotID `json:"id"`
	Volume model.VolumeID   `json:"volume"`
	Name   string           `json:"name"`
}

// Snapshot cuts a snapshot of a volume, wherever it is held. Whatever was
// acknowledged before the call is in it. After an error with the code unavailable
// it may have been made all the same, or be made a little later.
func (a *Agent) Snapshot(ctx context.Context, by model.Actor, id model.VolumeID, name string) (model.Snapshot, error) {
	call := cutCall{Actor: by, ID: model.NewID[model.SnapshotID](), Volume: id, Name: name}
	var err error
	for range cutTries {
		view, viewed := a.cfg.Meta.View(ctx)
		if viewed != nil {
			return model.Snapshot{}, viewed
		}
		rec, found := view.Volume(id)
		if found != nil {
			return model.Snapshot{}, found
		}
		var s model.Snapshot
		if rec.Holder == 0 {
			s, err = a.cutUnheld(ctx, call, rec)
		} else if err = a.cfg.Wire.Call(ctx, rec.Holder, callCut, call, &s); err != nil {
			err = fmt.Errorf("ask the holder of %s for a snapshot: %w", rec.Name, err)
		}
		if err == nil {
			return s, nil
		}
		now, looked := a.cfg.Meta.View(ctx)
		if looked != nil {
			return model.Snapshot{}, err
		}
		if after, gone := now.Volume(id); gone != nil || after.Generation == rec.Generation && after.Holder == rec.Holder {
			return model.Snapshot{}, err
		}
	}
	return model.Snapshot{}, err
}

// cutUnheld cuts a volume that nobody holds. Nobody writes to it then, and what
// its last holder left unsettled is settled by the next one before anything of it
// is read.
func (a *Agent) cutUnheld(ctx context.Context, call cutCall, rec model.Volume) (model.Snapshot, error) {
	cut, err := a.applyCut(ctx, call, 0, rec)
	if err != nil {
		return model.Snapshot{}, err
	}
	return cut.Snapshots[0], nil
}

// applyCut is the compare-and-swap of a cut through raft. With a conflict comes the
// volume as it is.
func (a *Agent) applyCut(ctx context.Context, call cutCall, holder model.NodeID, rec model.Volume) (model.Cut, error) {
	out, err := a.cfg.Meta.Apply(ctx, call.Actor, command.SnapshotCreate{
		Name: call.Name,
		Cuts: []command.SnapshotCut{{
			ID: call.ID, Volume: rec.ID, Holder: holder, Generation: rec.Generation, Revision: rec.Revision,
		}},
	})
	cut, _ := out.(model.Cut) // it comes with a Conflict too
	return cut, err
}

func (a *Agent) handleCut(ctx context.Context, _ model.NodeID, body json.RawMessage) (any, error) {
	var call cutCall
	if err := json.Unmarshal(body, &call); err != nil {
		return nil, model.Errorf(model.Invalid, "read request: %w", err)
	}
	h := a.holds.serving(call.Volume)
	if h == nil {
		return nil, model.Errorf(model.Unavailable, "the volume is being taken or let go on this node; try again")
	}
	var cut model.Cut
	err := volume.Cut(ctx, []*volume.Volume{h.volume},
		func(ctx context.Context, recs []model.Volume) ([]model.Volume, error) {
			var err error
			cut, err = a.applyCut(ctx, call, a.cfg.Self, recs[0])
			return cut.Volumes, err
		})
	if err != nil {
		return nil, err
	}
	return cut.Snapshots[0], nil
}
