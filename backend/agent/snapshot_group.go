package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"drystone.example/drystone/backend/block/volume"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
)

// The volumes of a machine are cut together by the one node that holds those that are
// in use: it holds the writes of all of them until the one command that cuts them is
// decided. A volume that nobody holds is not written to; the command is refused if
// that has changed.

const callCutAll = "volume.cutall"

// A cutAllCall asks for a snapshot of each of several volumes at one moment.
type cutAllCall struct {
	Actor   model.Actor        `json:"actor"`
	Name    string             `json:"name"`
	Volumes []model.VolumeID   `json:"volumes"`
	IDs     []model.SnapshotID `json:"ids"` // one for each
}

// SnapshotVM cuts all volumes of a machine at one moment, all or none. As with
// Snapshot, after an error with the code unavailable it may have been done all the
// same, or be done a little later.
func (a *Agent) SnapshotVM(ctx context.Context, by model.Actor, id model.VMID, name string) ([]model.Snapshot, error) {
	view, err := a.cfg.Meta.View(ctx)
	if err != nil {
		return nil, err
	}
	vm, err := view.VM(id)
	if err != nil {
		return nil, err
	}
	call := cutAllCall{Actor: by, Name: name}
	call.Volumes = vm.Volumes()
	for range call.Volumes {
		call.IDs = append(call.IDs, model.NewID[model.SnapshotID]())
	}
	if n := len(call.Volumes); n == 0 || n > model.MaxCut {
		return nil, model.Errorf(model.Conflict, "the vm %q has %d volumes; 1 to %d are cut together", vm.Name, n, model.MaxCut)
	}
	for try := 1; ; try++ {
		snaps, err := a.cutAll(ctx, view, vm, call)
		if err == nil || try == cutTries {
			return snaps, err
		}
		now, viewed := a.cfg.Meta.View(ctx)
		if viewed != nil || !moved(view, now, call.Volumes) {
			return nil, err
		}
		view = now
	}
}

// moved reports whether the record of a volume is another one by now.
func moved(was, now *state.View, ids []model.VolumeID) bool {
	return slices.ContainsFunc(ids, func(id model.VolumeID) bool {
		before, err := was.Volume(id)
		after, gone := now.Volume(id)
		return err == nil && gone == nil && after.Revision != before.Revision
	})
}

// cutAll has the node that holds those that are in use cut all.
func (a *Agent) cutAll(ctx context.Context, view *state.View, vm model.VM, call cutAllCall) ([]model.Snapshot, error) {
	var holder model.NodeID
	var away []model.Volume // held for maintenance
	for _, id := range call.Volumes {
		rec, err := view.Volume(id)
		switch {
		case err != nil:
			return nil, err
		case rec.Holder == 0:
		case rec.Purpose == model.ForMaintenance:
			away = append(away, rec)
		case holder != 0 && rec.Holder != holder:
			return nil, model.Errorf(model.Conflict,
				"the disks of the vm %q are in use on different nodes; they cannot be cut at one moment", vm.Name)
		default:
			holder = rec.Holder
		}
	}
	if holder == 0 {
		holder = a.cfg.Self
	}
	for _, rec := range away {
		if rec.Holder != holder {
			a.askYield(ctx, rec)
		}
	}
	var snaps []model.Snapshot
	if err := a.cfg.Wire.Call(ctx, holder, callCutAll, call, &snaps); err != nil {
		return nil, fmt.Errorf("ask for snapshots of the vm %s: %w", vm.Name, err)
	}
	return snaps, nil
}

func (a *Agent) handleCutAll(ctx context.Context, _ model.NodeID, body json.RawMessage) (any, error) {
	var call cutAllCall
	if err := json.Unmarshal(body, &call); err != nil {
		return nil, model.Errorf(model.Invalid, "read request: %w", err)
	}
	if len(call.IDs) != len(call.Volumes) {
		return nil, model.Errorf(model.Invalid, "%d identifiers for %d snapshots", len(call.IDs), len(call.Volumes))
	}
	view, err := a.cfg.Meta.View(ctx)
	if err != nil {
		return nil, err
	}
	cmd := command.SnapshotCreate{Name: call.Name}
	var held []*volume.Volume
	for i, id := range call.Volumes {
		rec, err := view.Volume(id)
		if err != nil {
			return nil, err
		}
		cut := command.SnapshotCut{ID: call.IDs[i], Volume: id, Generation: rec.Generation, Revision: rec.Revision}
		if rec.Holder != 0 {
			h := a.holds.serving(id)
			if rec.Holder != a.cfg.Self || h == nil {
				return nil, model.Errorf(model.Unavailable, "the volume %q is being taken or let go; try again", rec.Name)
			}
			cut.Holder = a.cfg.Self
			held = append(held, h.volume)
		}
		cmd.Cuts = append(cmd.Cuts, cut)
	}
	return a.cutHeld(ctx, call.Actor, cmd, held)
}

// cutHeld cuts volumes of which this node holds some and nobody the others.
func (a *Agent) cutHeld(ctx context.Context, by model.Actor, cmd command.SnapshotCreate, held []*volume.Volume,
) ([]model.Snapshot, error) {
	var cut model.Cut
	commit := func(ctx context.Context, recs []model.Volume) ([]model.Volume, error) {
		for _, rec := range recs { // what the holder knows is newer than the view was
			i := slices.IndexFunc(cmd.Cuts, func(c command.SnapshotCut) bool { return c.Volume == rec.ID })
			cmd.Cuts[i].Generation, cmd.Cuts[i].Revision = rec.Generation, rec.Revision
		}
		out, err := a.cfg.Meta.Apply(ctx, by, cmd)
		cut, _ = out.(model.Cut) // it comes with a Conflict too
		return cut.Volumes, err
	}
	var err error
	if len(held) == 0 {
		_, err = commit(ctx, nil)
	} else {
		err = volume.Cut(ctx, held, commit)
	}
	if err != nil {
		return nil, err
	}
	return cut.Snapshots, nil
}
