package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/nbd"
	"drystone.example/drystone/backend/unixsock"
)

// ExportSnapshot serves a snapshot by NBD at a socket of this node, for reading,
// until ctx ends; then it returns nil. It does so wherever the volume is held, by
// whoever and however often that changes, and keeps nobody from using the volume:
// while nobody does, this node holds it, and gives way. If the snapshot or its volume
// is deleted the export ends with model.NotFound. ready is called once, when clients
// can connect.
func (a *Agent) ExportSnapshot(ctx context.Context, id model.SnapshotID, path string, ready func(path string)) error {
	if path == "" {
		path = filepath.Join(a.cfg.Run, string(NBD)+"-"+id.String()+".sock")
	}
	if err := checkSocket(path); err != nil {
		return err
	}
	view, err := a.cfg.Meta.View(ctx)
	if err != nil {
		return err
	}
	s, err := view.Snapshot(id)
	if err != nil {
		return err
	}
	d := snapshotDevice{
		reader: a.read(s.Volume, s.ID), size: int64(s.Size),
		changes: changes{record: a.cfg.Meta.Local, volume: s.Volume, before: s.Epoch},
	}
	defer d.close()
	d.ask = d.parts
	if _, err := d.parts(ctx, 0, 0, int64(model.SectorSize)); err != nil {
		return fmt.Errorf("begin to read the snapshot: %w", err)
	}
	serve, cancel := context.WithCancel(ctx)
	defer cancel()
	d.work.Go(func() { // ends with serve, or ends it
		defer cancel()
		for view := a.cfg.Meta.Local(); d.there(0) == nil; view = a.cfg.Meta.Local() {
			if !a.sleepUntilChange(serve, view, state.Volumes, 0, time.Minute) {
				return
			}
		}
	})
	server, err := nbd.Listen(serve, nbd.Config{
		Path: path, Owner: unixsock.Owner{}, Name: id.String(), Device: d, ReadOnly: true, Log: a.log,
	})
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	ready(path)
	err = server.Run(serve)
	cancel()
	if gone := d.there(0); gone != nil && ctx.Err() == nil {
		return fmt.Errorf("the snapshot %q is served no more: %w", s.Name, gone)
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("serve snapshot: %w", err)
	}
	return nil
}

// A snapshotDevice is a snapshot as the NBD server wants it.
type snapshotDevice struct {
	*reader
	changes
	size int64
}

// Size implements nbd.Device, as what follows does.
func (d snapshotDevice) Size() int64 { return d.size }

// ReadAt reads where the volume is held.
func (d snapshotDevice) ReadAt(ctx context.Context, p []byte, off int64) error {
	return d.readAt(ctx, p, off)
}

var errReadOnly = model.Errorf(model.Denied, "a snapshot does not change")

// WriteAt is refused, as everything is that would change a snapshot.
func (snapshotDevice) WriteAt(context.Context, *iobuf.Buffer, int64) error { return errReadOnly }

// Discard is refused.
func (snapshotDevice) Discard(context.Context, int64, int64) error { return errReadOnly }

// WriteZeroes is refused.
func (snapshotDevice) WriteZeroes(context.Context, int64, int64) error { return errReadOnly }

// Flush has nothing to do.
func (snapshotDevice) Flush(context.Context) error { return nil }

// Extents implements nbd.Extents.
func (d snapshotDevice) Extents(ctx context.Context, off, n int64, report func(length int64, data bool) bool) error {
	return d.each(ctx, 0, off, n, report)
}

// changes are the contexts that say what was changed since each of the older
// snapshots: drystone:dirty-since-NAME, where a part that was has the flag 1.
type changes struct {
	record func() *state.View
	volume model.VolumeID
	before model.Epoch // of what is served; zero: the present one
	ask    func(ctx context.Context, since model.SnapshotID, off, n int64) ([]part, error)
}

const (
	contextNamespace = "drystone:"
	contextDirty     = contextNamespace + "dirty-since-"
	statusDirty      = 1 << 0
)

// older are the snapshots that there is a context of.
func (c changes) older() (out []model.Snapshot) {
	for _, s := range c.record().SnapshotsOf(c.volume) {
		if c.before == 0 || s.Epoch < c.before {
			out = append(out, s)
		}
	}
	return out
}

// ListContexts implements nbd.Contexts. The namespace and the name without its end
// are wildcards.
func (c changes) ListContexts(query string) (names []string) {
	all := query == "" || query == contextNamespace || query == contextDirty
	for _, s := range c.older() {
		if name := contextDirty + s.Name; all || strings.EqualFold(name, query) {
			names = append(names, name)
		}
	}
	return names
}

// OpenContext implements nbd.Contexts. A snapshot is named by its name or identifier;
// the context stays that of this snapshot, also if the name is used again.
func (c changes) OpenContext(name string) nbd.Status {
	ref, ok := strings.CutPrefix(name, contextDirty)
	if !ok {
		return nil
	}
	for _, s := range c.older() {
		if !strings.EqualFold(s.Name, ref) && s.ID.String() != ref {
			continue
		}
		return func(ctx context.Context, off, n int64, report func(length int64, flags uint32) bool) error {
			return c.each(ctx, s.ID, off, n, func(length int64, dirty bool) bool {
				if dirty {
					return report(length, statusDirty)
				}
				return report(length, 0)
			})
		}
	}
	return nil
}

// each reports the parts of a range until report has enough.
func (c changes) each(ctx context.Context, since model.SnapshotID, off, n int64,
	report func(length int64, is bool) bool,
) error {
	for n > 0 {
		found, err := c.ask(ctx, since, off, n)
		if err != nil {
			return err
		}
		for _, p := range found {
			if !report(int64(p.Length), p.Is) {
				return nil
			}
			off, n = off+int64(p.Length), n-int64(p.Length)
		}
	}
	return nil
}

// An exportDevice is a held volume as the NBD server wants it.
type exportDevice struct {
	frontDevice
	changes
}

func (a *Agent) exportDevice(h *Hold) exportDevice {
	return exportDevice{frontDevice{h.volume}, changes{
		record: a.cfg.Meta.Local, volume: h.id,
		ask: func(ctx context.Context, since model.SnapshotID, off, n int64) ([]part, error) {
			return a.partsHere(ctx, partsCall{Volume: h.id, Since: since, Offset: off, Length: n})
		},
	}}
}
