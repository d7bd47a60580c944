package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"drystone.example/drystone/backend/model"
)

// Upload receives an image file into the node's scratch folder and says how large
// a disk is in it. The caller removes the file.
func (a *Agent) Upload(ctx context.Context, format string, body io.Reader, progress func(done model.Bytes),
) (path string, size model.Bytes, err error) {
	if err := os.MkdirAll(a.cfg.Scratch, 0o700); err != nil {
		return "", 0, fmt.Errorf("make scratch folder: %w", err)
	}
	f, err := os.CreateTemp(a.cfg.Scratch, "image-*")
	if err != nil {
		return "", 0, fmt.Errorf("make scratch file: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = io.Copy(&counting{ctx: ctx, to: f, progress: progress}, body)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", 0, fmt.Errorf("receive image: %w", err)
	}
	size, err = inspectImage(ctx, f.Name(), format)
	return f.Name(), size, err
}

// counting writes on, tells how far it is, and stops when ctx ends.
type counting struct {
	ctx      context.Context
	to       io.Writer
	done     model.Bytes
	progress func(model.Bytes)
}

func (c *counting) Write(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.to.Write(p)
	c.done += model.Bytes(n)
	c.progress(c.done)
	return n, err
}

// Fill writes an image file into a new volume.
func (a *Agent) Fill(ctx context.Context, id model.VolumeID, path, format string, progress func(share float64)) error {
	serve, cancel := context.WithCancel(ctx)
	defer cancel()
	socket := filepath.Join(a.cfg.Run, "img-"+id.String()+".sock")
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { // ends with serve
		ended <- a.Export(serve, NBD, id, socket, func(string) { close(ready) })
	}()
	select {
	case err := <-ended:
		return err
	case <-ready:
	}
	err := convertImage(ctx, path, format, socket, progress)
	cancel()
	return errors.Join(err, <-ended)
}
