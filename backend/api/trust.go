package api

import (
	"context"

	"drystone.example/drystone/backend/api/schema"
)

func (s *Server) rotateKey(ctx context.Context, _ *none) (*out[schema.GossipKey], error) {
	return answer(s.Service.RotateKey(ctx, by(ctx)))
}

func (s *Server) getKey(ctx context.Context, _ *none) (*out[schema.GossipKey], error) {
	return answer(s.Service.GossipKey(ctx))
}

func (s *Server) rotateCA(ctx context.Context, _ *none) (*out[schema.CA], error) {
	return answer(s.Service.RotateCA(ctx, by(ctx)))
}

func (s *Server) finishCA(ctx context.Context, _ *none) (*out[schema.CA], error) {
	return answer(s.Service.FinishCA(ctx, by(ctx)))
}

func (s *Server) getCA(ctx context.Context, _ *none) (*out[schema.CA], error) {
	return answer(s.Service.CA(ctx))
}
