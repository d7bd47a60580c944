package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"drystone.example/drystone/backend/block/volume"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/nbd"
	"drystone.example/drystone/backend/unixsock"
)

// maxSocketPath is the most bytes the path of a UNIX socket has on Linux.
const maxSocketPath = 107

// A Front names the protocol a volume is served by.
type Front string

// The fronts, complete.
const (
	NBD   Front = "nbd"
	Vhost Front = "vhost"
)

// SocketPath is where a volume is served on this node, unless told otherwise.
func (a *Agent) SocketPath(front Front, id model.VolumeID) string {
	return filepath.Join(a.cfg.Run, string(front)+"-"+id.String()+".sock")
}

// Export holds a volume and serves it at a socket until ctx ends; then it lets
// the volume go cleanly and returns nil. ready is called once, when clients can
// connect.
func (a *Agent) Export(ctx context.Context, front Front, id model.VolumeID, path string, ready func(path string)) error {
	if path == "" {
		path = a.SocketPath(front, id)
	}
	if err := checkSocket(path); err != nil {
		return err
	}
	h, err := a.Acquire(ctx, id, model.ForExport)
	if err != nil {
		return err
	}
	defer a.releaseWait(h)
	serve, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // ends with serve
		select {
		case <-h.volume.Done():
			cancel()
		case <-serve.Done():
		}
	}()
	switch front {
	case NBD:
		err = a.serveNBD(serve, h, path, ready)
	case Vhost:
		err = a.serveVhost(serve, h, path, ready)
	default:
		return model.Errorf(model.Invalid, "a volume is served by nbd or vhost, not %q", front)
	}
	if gone := h.volume.Err(); gone != nil {
		return fmt.Errorf("volume stopped serving: %w", gone)
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("serve volume: %w", err)
	}
	return nil
}

// checkSocket says what is wrong with the path of a socket, or nil.
func checkSocket(path string) error {
	if !filepath.IsAbs(path) {
		return model.Errorf(model.Invalid, "the path of a socket is absolute, %q is not", path)
	}
	if len(path) > maxSocketPath {
		return model.Errorf(model.Invalid, "the path of a UNIX socket has at most %d bytes; %q has %d",
			maxSocketPath, path, len(path))
	}
	return nil
}

// releaseWait gives a Hold up and, if nobody else uses it, waits until the record
// says so.
func (a *Agent) releaseWait(h *Hold) {
	if a.Release(h) {
		<-h.gone
	}
}

// serveVhost serves a volume to one QEMU that somebody else starts. The volume is
// held all the time, so that its rings find it.
func (a *Agent) serveVhost(ctx context.Context, h *Hold, path string, ready func(string)) error {
	view, err := a.cfg.Meta.View(ctx)
	if err != nil {
		return err
	}
	rec, err := view.Volume(h.id)
	if err != nil {
		return err
	}
	f, err := a.openFront(ctx, rec, path, unixsock.Owner{}, model.ForExport, model.IOLimits{})
	if err != nil {
		return err
	}
	defer f.close()
	ready(path)
	select {
	case <-ctx.Done():
	case <-f.ended:
	}
	return nil
}

func (a *Agent) serveNBD(ctx context.Context, h *Hold, path string, ready func(string)) error {
	s, err := nbd.Listen(ctx, nbd.Config{
		Path: path, Owner: unixsock.Owner{}, Name: h.id.String(), Device: a.exportDevice(h), Log: a.log,
	})
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	ready(path)
	return s.Run(ctx)
}

// A frontDevice is a held volume as the front ends want it.
type frontDevice struct{ *volume.Volume }

// Extents reports the runs of a range, for NBD's block status.
func (d frontDevice) Extents(ctx context.Context, off, n int64, report func(length int64, data bool) bool) error {
	for n > 0 {
		runs, err := d.Volume.Extents(ctx, off, n)
		if err != nil {
			return err
		}
		for _, r := range runs {
			if !report(int64(r.Length), !r.Zero) {
				return nil
			}
			off, n = off+int64(r.Length), n-int64(r.Length)
		}
	}
	return nil
}
