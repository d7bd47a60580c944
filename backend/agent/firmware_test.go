package agent

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/nbd"
)

// A flash of a guest that is not here asks nobody for the volume (there is nobody to ask in
// this test): a write waits, and when the wait ends it is not answered, for QEMU would take
// an error for a success. A read of a QEMU that waits for its guest is answered at once.
func TestFlashOfAGuestElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &flash{turn: make(chan struct{}, 1), changed: make(chan struct{})}
		f.ctx, f.stop = context.WithCancel(t.Context())
		f.turn <- struct{}{}
		f.set(flashWaits)
		p := []byte{1, 2, 3}
		if err := f.ReadAt(t.Context(), p, 0); err != nil || p[0] != 0 {
			t.Errorf("a read before the guest came gave %v, %v", p, err)
		}
		b := iobuf.Get(512)
		defer b.Release()
		answer := make(chan error, 2)
		go func() { answer <- f.WriteAt(t.Context(), b, 0) }()
		time.Sleep(time.Hour)
		if err := f.rest(t.Context()); err != nil {
			t.Errorf("rest: %v", err)
		}
		go func() { answer <- f.ReadAt(t.Context(), p, 0) }()
		time.Sleep(time.Hour)
		select {
		case err := <-answer:
			t.Errorf("it was answered with %v while the guest was elsewhere", err)
		default:
		}
		f.stop()
		for range 2 {
			if err := <-answer; !errors.Is(err, nbd.ErrHangUp) {
				t.Errorf("it ended with %v, want no answer", err)
			}
		}
	})
}
