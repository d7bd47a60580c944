package api

import (
	"context"
	"time"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/model"
)

type snapshotInput struct {
	Ref  string `path:"ref" minLength:"1" maxLength:"63"`
	Body schema.SnapshotSpec
}

func (s *Server) createSnapshot(ctx context.Context, in *snapshotInput) (*out[schema.Snapshot], error) {
	if err := model.ValidateName("snapshot", in.Body.Name); err != nil {
		return nil, err
	}
	id, err := s.volumeID(ctx, in.Ref)
	if err != nil {
		return nil, err
	}
	snap, err := s.Service.CreateSnapshot(ctx, by(ctx), id, in.Body.Name)
	if err != nil {
		return nil, err
	}
	p, err := s.picture(ctx) // of this node's own record the snapshot may be news
	if err != nil {
		return nil, err
	}
	return answer(p.snapshot(snap), nil)
}

type snapshotsInput struct {
	Volume string `query:"volume" maxLength:"63" doc:"identifier or name; without it, of all volumes"`
}

func (s *Server) listSnapshots(ctx context.Context, in *snapshotsInput) (*out[schema.List[schema.Snapshot]], error) {
	p, err := s.picture(ctx)
	if err != nil {
		return nil, err
	}
	found := p.Snapshots()
	if in.Volume != "" {
		v, err := p.FindVolume(in.Volume)
		if err != nil {
			return nil, err
		}
		found = p.SnapshotsOf(v.ID)
	}
	snaps := make([]schema.Snapshot, 0, len(found))
	for _, snap := range found {
		snaps = append(snaps, p.snapshot(snap))
	}
	return answer(schema.ListOf(snaps), nil)
}

type bySnapshot struct {
	Ref string `path:"ref" minLength:"1" maxLength:"127" doc:"identifier, or VOLUME@NAME"`
}

func (s *Server) getSnapshot(ctx context.Context, in *bySnapshot) (*out[schema.Snapshot], error) {
	p, err := s.picture(ctx)
	if err != nil {
		return nil, err
	}
	snap, err := p.FindSnapshot(in.Ref)
	if err != nil {
		return nil, err
	}
	return answer(p.snapshot(snap), nil)
}

func (s *Server) deleteSnapshot(ctx context.Context, in *bySnapshot) (*done, error) {
	snap, err := s.findSnapshot(ctx, in.Ref)
	if err != nil {
		return nil, err
	}
	return finished(s.Service.DeleteSnapshot(ctx, by(ctx), snap.ID))
}

type revertInput struct {
	Ref  string `path:"ref" minLength:"1" maxLength:"127" doc:"identifier, or VOLUME@NAME"`
	Body schema.RevertSpec
}

func (s *Server) revertSnapshot(ctx context.Context, in *revertInput) (*out[schema.Volume], error) {
	snap, err := s.findSnapshot(ctx, in.Ref)
	if err != nil {
		return nil, err
	}
	keep := in.Body.Snapshot
	switch {
	case in.Body.NoSnapshot && keep != "":
		return nil, model.Errorf(model.Invalid, "a name is given for a snapshot that is not wanted")
	case !in.Body.NoSnapshot && keep == "":
		keep = "before-revert-" + time.Now().UTC().Format("20060102-150405")
	}
	v, err := s.Service.RevertSnapshot(ctx, by(ctx), snap, keep)
	if err != nil {
		return nil, err
	}
	p, err := s.picture(ctx)
	if err != nil {
		return nil, err
	}
	return answer(p.volume(v, false), nil)
}

func (s *Server) cancelRevert(ctx context.Context, in *byRef) (*done, error) {
	id, err := s.volumeID(ctx, in.Ref)
	if err != nil {
		return nil, err
	}
	_, err = s.Service.CancelRevert(ctx, by(ctx), id)
	return finished(err)
}

func (s *Server) findSnapshot(ctx context.Context, ref string) (model.Snapshot, error) {
	view, err := s.Record.View(ctx)
	if err != nil {
		return model.Snapshot{}, err
	}
	return view.FindSnapshot(ref)
}

func (p *picture) snapshot(s model.Snapshot) schema.Snapshot {
	name := ""
	if v, err := p.Volume(s.Volume); err == nil {
		name = v.Name
	}
	return schema.Snapshot{
		ID: s.ID, Name: s.Name, Volume: s.Volume, VolumeName: name,
		Epoch: s.Epoch, Size: s.Size, Created: s.Created, Group: s.Group,
	}
}
