package dev

import (
	"context"

	"drystone.example/drystone/backend/guard"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/node"
)

// stopGuard ends the guard of a node, if one runs.
func stopGuard(ctx context.Context, dir node.Dir) error {
	client := guard.NewClient(dir.Guard())
	defer func() { _ = client.Close() }()
	status, err := client.Status(ctx)
	if model.CodeOf(err) == model.Unavailable {
		return nil
	}
	if err != nil {
		return err
	}
	return stop(ctx, status.Process)
}
