package api

import (
	"context"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/model"
)

type cloneInput struct {
	Ref  string `path:"ref" minLength:"1" maxLength:"63"`
	Body schema.CloneSpec
}

func (s *Server) cloneVolume(ctx context.Context, in *cloneInput) (*out[schema.Volume], error) {
	if err := model.ValidateName("volume", in.Body.Name); err != nil {
		return nil, err
	}
	view, err := s.Record.View(ctx)
	if err != nil {
		return nil, err
	}
	v, err := view.FindVolume(in.Ref)
	if err != nil {
		return nil, err
	}
	var at model.Snapshot
	if in.Body.Snapshot != "" {
		if at, err = view.FindSnapshot(v.ID.String() + "@" + in.Body.Snapshot); err != nil {
			return nil, err
		}
	}
	clone, err := s.Service.CloneVolume(ctx, by(ctx), v.ID, at.ID, in.Body.Name)
	return s.volumeOf(ctx, clone, err)
}
