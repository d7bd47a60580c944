package vhost

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"

	"drystone.example/drystone/backend/iobuf"
)

// A disk is a real Device in memory. A test may look at or hold each call.
type disk struct {
	mu    sync.RWMutex // guards bytes
	bytes []byte

	size    atomic.Int64
	flushes atomic.Int64
	hook    func(ctx context.Context, op string, off, n int64) error // or nil
}

func newDisk(size int64) *disk {
	d := &disk{bytes: make([]byte, size)}
	d.size.Store(size)
	return d
}

// config serves d without ceremony.
func (d *disk) config() Config {
	return Config{
		Size: d.Size(), Serial: "serial-0123456789",
		Acquire: func(context.Context) (Device, error) { return d, nil },
		Release: func() {},
	}
}

func (d *disk) call(ctx context.Context, op string, off, n int64) error {
	if d.hook == nil {
		return nil
	}
	return d.hook(ctx, op, off, n)
}

func (d *disk) Size() int64 { return d.size.Load() }

func (d *disk) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := d.call(ctx, "read", off, int64(len(p))); err != nil {
		return err
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	copy(p, d.bytes[off:])
	return nil
}

func (d *disk) WriteAt(ctx context.Context, b *iobuf.Buffer, off int64) error {
	if err := d.call(ctx, "write", off, int64(len(b.Bytes))); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(d.bytes[off:], b.Bytes)
	return nil
}

func (d *disk) Discard(ctx context.Context, off, n int64) error {
	if err := d.call(ctx, "discard", off, n); err != nil {
		return err
	}
	return d.WriteZeroes(ctx, off, n)
}

func (d *disk) WriteZeroes(ctx context.Context, off, n int64) error {
	if err := d.call(ctx, "zero", off, n); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.bytes[off : off+n])
	return nil
}

func (d *disk) Flush(context.Context) error {
	d.flushes.Add(1)
	return nil
}

func (d *disk) holds(off int64, want []byte) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return bytes.Equal(d.bytes[off:off+int64(len(want))], want)
}
