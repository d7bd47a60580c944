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

// An Image is an image file that was looked at and may become a volume.
type Image struct {
	Size model.Bytes // of the disk in it

	path   string
	format string
	own    bool // the file was made for this
}

// Close removes what was made to read the image.
func (i *Image) Close() error {
	if !i.own {
		return nil
	}
	return os.Remove(i.path)
}

// OpenImage looks at an image file and refuses, with model.Invalid, one that cannot be
// what it says. Without a format it is found by what is in the file. The caller closes
// the Image.
func (a *Agent) OpenImage(ctx context.Context, path, format string) (_ *Image, err error) {
	if format == "" {
		if format, err = findFormat(path); err != nil {
			return nil, err
		}
	}
	image := &Image{path: path, format: format}
	defer func() {
		if err != nil {
			err = errors.Join(err, image.Close())
		}
	}()
	if format == formatOVA {
		if image.path, err = a.receive(func(f *os.File) error { return unpackOVA(ctx, path, f) }); err != nil {
			return nil, err
		}
		image.own, image.format = true, formatVMDK
	}
	if image.Size, err = inspectImage(ctx, image.path, image.format); err != nil {
		return nil, err
	}
	return image, nil
}

// Receive keeps what is sent in a file of the node's scratch folder, which the caller
// removes.
func (a *Agent) Receive(ctx context.Context, body io.Reader, progress func(done model.Bytes)) (path string, err error) {
	return a.receive(func(f *os.File) error {
		_, err := io.Copy(&counting{ctx: ctx, to: f, progress: progress}, body)
		return err
	})
}

// scratchFiles is what receive calls its files.
const scratchFiles = "image-*"

func (a *Agent) receive(write func(*os.File) error) (path string, err error) {
	if err := os.MkdirAll(a.cfg.Scratch, 0o700); err != nil {
		return "", fmt.Errorf("make scratch folder: %w", err)
	}
	f, err := os.CreateTemp(a.cfg.Scratch, scratchFiles)
	if err != nil {
		return "", fmt.Errorf("make scratch file: %w", err)
	}
	if err := errors.Join(write(f), f.Close()); err != nil {
		return "", errors.Join(fmt.Errorf("receive image: %w", err), os.Remove(f.Name()))
	}
	return f.Name(), nil
}

// sweepScratch removes what an import left that ended with the daemon.
func (a *Agent) sweepScratch() {
	left, err := filepath.Glob(filepath.Join(a.cfg.Scratch, scratchFiles))
	for _, path := range left {
		err = errors.Join(err, os.Remove(path))
	}
	if err != nil {
		a.log.Warn("what was left of an import was not removed", "err", err)
	}
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

// Fill writes an image into a new volume.
func (a *Agent) Fill(ctx context.Context, id model.VolumeID, i *Image, progress func(share float64)) error {
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
	err := convertImage(ctx, i.path, i.format, socket, progress)
	select {
	case gone := <-ended: // so it is not the image's fault
		if ctx.Err() != nil {
			return errors.Join(err, gone)
		}
		return model.Errorf(model.Unavailable, "the volume was lost while the image was written to it: %w", errors.Join(gone, err))
	default:
	}
	cancel()
	return errors.Join(err, <-ended)
}
