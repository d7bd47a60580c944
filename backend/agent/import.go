package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"drystone.example/drystone/backend/block/volume"
	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
)

// copyChunk is how much of a volume is copied at a time; it is one stripe unit,
// so that each chunk is one write to one column.
const copyChunk = int64(model.StripeUnit)

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

// Copy makes a new volume equal to another one of at most its size. What is a
// hole in the source stays one.
func (a *Agent) Copy(ctx context.Context, from, to model.VolumeID, progress func(done, total model.Bytes)) error {
	src, err := a.Acquire(ctx, from, model.ForExport)
	if err != nil {
		return fmt.Errorf("open image: %w", err)
	}
	defer a.releaseWait(src)
	dst, err := a.Acquire(ctx, to, model.ForExport)
	if err != nil {
		return fmt.Errorf("open new volume: %w", err)
	}
	defer a.releaseWait(dst)
	size := src.volume.Size()
	for off := int64(0); off < size; {
		runs, err := src.volume.Extents(ctx, off, min(size-off, 1<<30))
		if err != nil {
			return fmt.Errorf("read map of image: %w", err)
		}
		for _, r := range runs {
			if !r.Zero {
				if err := copyRun(ctx, src.volume, dst.volume, off, int64(r.Length), size, progress); err != nil {
					return err
				}
			}
			off += int64(r.Length)
			progress(model.Bytes(min(off, size)), model.Bytes(size))
		}
	}
	return nil
}

func copyRun(ctx context.Context, src, dst *volume.Volume, off, n, size int64, progress func(done, total model.Bytes)) error {
	for end := min(off+n, size); off < end; {
		part := min(copyChunk-off%copyChunk, end-off)
		b := iobuf.Get(int(part))
		err := src.ReadAt(ctx, b.Bytes, off)
		if err == nil {
			err = dst.WriteAt(ctx, b, off)
		}
		b.Release()
		if err != nil {
			return fmt.Errorf("copy image at %d: %w", off, err)
		}
		off += part
		progress(model.Bytes(off), model.Bytes(size))
	}
	return nil
}
