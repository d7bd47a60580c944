package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/model"
)

// CreateSnapshot cuts a snapshot of a volume.
func (c *Client) CreateSnapshot(ctx context.Context, volume string, spec schema.SnapshotSpec) (schema.Snapshot, error) {
	return post[schema.Snapshot](ctx, c, at("volumes", volume, "snapshots"), spec)
}

// CreateVMSnapshots cuts all volumes of a machine at one moment.
func (c *Client) CreateVMSnapshots(ctx context.Context, vm string, spec schema.SnapshotSpec) (schema.List[schema.Snapshot], error) {
	return post[schema.List[schema.Snapshot]](ctx, c, at("vms", vm, "snapshots"), spec)
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

// DiffSnapshot tells what was changed since a snapshot, up to another one of the
// volume or, where none is given, up to now. It calls each for every line: the first
// says what is compared; together the others have all ranges, or it fails.
func (c *Client) DiffSnapshot(ctx context.Context, ref, until string, each func(schema.SnapshotDiff) error) error {
	path := at("snapshots", ref, "diff")
	if until != "" {
		path += "?until=" + url.QueryEscape(until)
	}
	req, err := c.request(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	whole := false
	err = c.lines(req, func(line []byte) error {
		var d schema.SnapshotDiff
		if err := json.Unmarshal(line, &d); err != nil {
			return err //nolint:wrapcheck // lines says where
		}
		if d.Error != nil {
			return &model.Error{Code: d.Error.Code, Text: d.Error.Detail}
		}
		whole = d.Done == d.Size
		return each(d)
	})
	if err == nil && !whole {
		err = model.Errorf(model.Unavailable, "the node at %s broke off; not all changes were told", c.where)
	}
	return err
}

// DeleteSnapshot forgets a snapshot.
func (c *Client) DeleteSnapshot(ctx context.Context, ref string) error {
	return c.remove(ctx, at("snapshots", ref))
}

// RevertSnapshot begins to make a volume what it was when the snapshot was cut.
func (c *Client) RevertSnapshot(ctx context.Context, ref string, spec schema.RevertSpec) (schema.Volume, error) {
	return post[schema.Volume](ctx, c, at("snapshots", ref, "revert"), spec)
}

// CancelRevert ends a revert that has not changed anything yet.
func (c *Client) CancelRevert(ctx context.Context, volume string) error {
	return c.remove(ctx, at("volumes", volume, "revert"))
}

// CloneVolume makes a volume that begins as another one.
func (c *Client) CloneVolume(ctx context.Context, volume string, spec schema.CloneSpec) (schema.Volume, error) {
	return post[schema.Volume](ctx, c, at("volumes", volume, "clones"), spec)
}
