package vhost

import (
	"context"
	"sync"
	"time"
)

// A holder has the Device while somebody needs it. Rings wait for it; the
// control goroutine never does.
type holder struct {
	srv     *Server
	changed chan struct{} // wanted or users

	mu     sync.Mutex // guards what follows
	wanted int        // rings that run
	users  int        // rings that have requests in the Device, or may send some
	ready  chan struct{}
	dev    Device
}

func newHolder(s *Server) *holder {
	return &holder{srv: s, changed: make(chan struct{}, 1), ready: make(chan struct{})}
}

// want adds to the rings that run, and to those that use the Device.
func (h *holder) want(wanted, users int) {
	h.mu.Lock()
	h.wanted += wanted
	h.users += users
	h.mu.Unlock()
	select {
	case h.changed <- struct{}{}:
	default:
	}
}

// device waits for the Device. It stays until the ring that asks gives its place
// among the users up.
func (h *holder) device(ctx context.Context) (Device, error) {
	for {
		h.mu.Lock()
		dev, ready := h.dev, h.ready
		h.mu.Unlock()
		if dev != nil {
			return dev, nil
		}
		select {
		case <-ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (h *holder) counts() (wanted, users int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.wanted, h.users
}

// run acquires and releases until ctx ends, and releases last.
func (h *holder) run(ctx context.Context) {
	for {
		if !h.await(ctx, func(wanted, _ int) bool { return wanted > 0 }) {
			return
		}
		dev := h.acquire(ctx)
		if dev == nil {
			continue
		}
		h.srv.Resize(dev.Size())
		h.mu.Lock()
		h.dev = dev
		close(h.ready)
		h.mu.Unlock()
		h.await(ctx, func(wanted, users int) bool { return wanted+users == 0 })
		h.mu.Lock()
		h.dev, h.ready = nil, make(chan struct{})
		h.mu.Unlock()
		h.srv.cfg.Release()
	}
}

// await reports false if ctx ended before the counts were as ok wants them.
func (h *holder) await(ctx context.Context, ok func(wanted, users int) bool) bool {
	for !ok(h.counts()) {
		select {
		case <-h.changed:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// acquire tries until it succeeds or nobody wants the Device any more.
func (h *holder) acquire(ctx context.Context) Device {
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	watch.Go(func() {
		h.await(ctx, func(wanted, _ int) bool { return wanted == 0 })
		cancel()
	})
	for first := true; ; first = false {
		dev, err := h.srv.cfg.Acquire(ctx)
		if err == nil {
			return dev
		}
		if ctx.Err() != nil {
			return nil
		}
		if first {
			h.srv.log.Warn("disk not acquired; the guest waits", "err", err)
		}
		select {
		case <-time.After(h.srv.times.acquire):
		case <-ctx.Done():
			return nil
		}
	}
}
