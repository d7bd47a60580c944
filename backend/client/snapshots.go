package client

import (
	"context"
	"net/url"

	"drystone.example/drystone/backend/api/schema"
)

// CreateSnapshot cuts a snapshot of a volume.
func (c *Client) CreateSnapshot(ctx context.Context, volume string, spec schema.SnapshotSpec) (schema.Snapshot, error) {
	return post[schema.Snapshot](ctx, c, at("volumes", volume, "snapshots"), spec)
}

// Snapshots lists the snapshots of a volume, or of all where none is given.
func (c *Client) Snapshots(ctx context.Context, volume string) (schema.List[schema.Snapshot], error) {
	path := "/snapshots"
	if volume != "" {
		path += "?volume=" + url.QueryEscape(volume)
	}
	return get[schema.List[schema.Snapshot]](ctx, c, path)
}

// Snapshot is one snapshot, by its identifier or as VOLUME@NAME.
func (c *Client) Snapshot(ctx context.Context, ref string) (schema.Snapshot, error) {
	return get[schema.Snapshot](ctx, c, at("snapshots", ref))
}
