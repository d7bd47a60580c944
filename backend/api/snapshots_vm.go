package api

import (
	"context"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/model"
)

// createVMSnapshots cuts all volumes of a machine at one moment.
func (s *Server) createVMSnapshots(ctx context.Context, in *snapshotInput) (*out[schema.List[schema.Snapshot]], error) {
	if err := model.ValidateName("snapshot", in.Body.Name); err != nil {
		return nil, err
	}
	id, err := s.vmID(ctx, in.Ref)
	if err != nil {
		return nil, err
	}
	made, err := s.Service.CreateVMSnapshots(ctx, by(ctx), id, in.Body.Name)
	if err != nil {
		return nil, err
	}
	p, err := s.picture(ctx) // of this node's own record the snapshots may be news
	if err != nil {
		return nil, err
	}
	snaps := make([]schema.Snapshot, 0, len(made))
	for _, snap := range made {
		snaps = append(snaps, p.snapshot(snap))
	}
	return answer(schema.ListOf(snaps), nil)
}
