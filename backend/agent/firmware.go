package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"drystone.example/drystone/backend/block/volume"
	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/nbd"
	"drystone.example/drystone/backend/unixsock"
	"drystone.example/drystone/backend/virt"
)

// A flash is the back end of a machine's NVRAM: an NBD export, to which the flash of its
// QEMU writes through. The volume is taken when QEMU first asks for something.
//
// QEMU reads the flash once, when it starts, and from then on what the guest sees is
// memory of QEMU's, which moves with the guest; when the guest has arrived, all of it is
// written again. So a QEMU that waits for a guest needs nothing of the volume, which the
// other node has.
//
// The invariants: nothing is answered with success that is not durable in the volume; a
// write is answered in no other way, for QEMU would take a failure for a success. And the
// volume is asked for only while the guest is here by the record: not before it has
// arrived, and not from when it rests to leave until it is known that it stays.
type flash struct {
	agent *Agent
	id    model.VolumeID
	log   *slog.Logger

	ctx   context.Context // of what is done with the volume; ends with stop
	stop  context.CancelFunc
	ended chan struct{} // closed when the server has returned
	turn  chan struct{} // holds one token, for who uses the volume; QEMU asks one thing at a time

	hold *Hold // of who has the turn

	mu      sync.Mutex // guards what follows
	phase   flashPhase
	changed chan struct{} // closed when the phase changes
}

// A flashPhase says what the guest of a flash does.
type flashPhase int

const (
	flashServes flashPhase = iota
	flashWaits             // for a guest whose memory is on its way here: reads are of no use to anybody
	flashRests             // of a guest that may be about to leave
)

// flashAgain is how soon something is tried again that the volume did not do.
const flashAgain = 250 * time.Millisecond

// flashSocket is where the QEMU of a machine finds its NVRAM.
func (a *Agent) flashSocket(id model.VolumeID) string {
	return filepath.Join(a.cfg.Run, "flash-"+id.String()+".sock")
}

func (a *Agent) openFlash(ctx context.Context, id model.VolumeID, owner unixsock.Owner) (*flash, error) {
	f := &flash{
		agent: a, id: id, log: a.log.With("volume", id),
		ended: make(chan struct{}), turn: make(chan struct{}, 1), changed: make(chan struct{}),
	}
	s, err := nbd.Listen(ctx, nbd.Config{Path: a.flashSocket(id), Owner: owner, Device: f, Log: f.log})
	if err != nil {
		return nil, fmt.Errorf("serve NVRAM: %w", err)
	}
	f.ctx, f.stop = context.WithCancel(context.Background())
	f.turn <- struct{}{}
	a.work.Go(func() {
		defer close(f.ended)
		if err := s.Run(f.ctx); err != nil && !errors.Is(err, context.Canceled) {
			f.log.Error("NVRAM of a guest is not served any more", "err", err)
		}
	})
	return f, nil
}

// close ends what is under way, unanswered, and gives the volume up.
func (f *flash) close() {
	f.stop()
	<-f.ended
	<-f.turn
	f.letGo()
	f.turn <- struct{}{}
}

// letGo gives the volume up and waits until the record says so; the caller has the turn.
func (f *flash) letGo() {
	if h := f.hold; h != nil {
		f.hold = nil
		f.agent.releaseWait(h)
	}
}

func (f *flash) set(p flashPhase) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.phase = p
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *flash) now() (flashPhase, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.phase, f.changed
}

// rest waits until what is under way is answered, gives the volume up, and takes nothing
// more until the flash serves again.
func (f *flash) rest(ctx context.Context) error {
	f.set(flashRests)
	select {
	case <-f.turn:
	case <-ctx.Done():
		return waiting(ctx, "the NVRAM of the guest does not answer")
	}
	f.letGo()
	f.turn <- struct{}{}
	return nil
}

// do has something done with the volume, as often as it takes; once says that an error
// that does not pass is an answer too.
func (f *flash) do(ctx context.Context, once bool, op func(context.Context, *volume.Volume) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(f.ctx, cancel)()
	for said := false; ; {
		phase, changed := f.now()
		var err error
		if phase == flashServes {
			err = f.try(ctx, op)
			if err == nil || once && final(err) {
				return err
			}
			if !said && ctx.Err() == nil {
				said = true
				f.log.Warn("NVRAM of a guest waits for its volume", "err", err)
			}
		}
		again := time.NewTimer(flashAgain)
		if err == nil {
			again.Stop() // until the phase changes
		}
		select {
		case <-again.C:
		case <-changed:
		case <-ctx.Done():
			return nbd.ErrHangUp
		}
	}
}

// final reports whether an error is not one of those that pass.
func final(err error) bool {
	switch model.CodeOf(err) { //nolint:exhaustive // the others stay
	case model.Unavailable, model.Fenced, model.Conflict:
		return false
	}
	return !errors.Is(err, context.Canceled)
}

// try has something done once, unless the guest came to rest meanwhile.
func (f *flash) try(ctx context.Context, op func(context.Context, *volume.Volume) error) error {
	select {
	case <-f.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { f.turn <- struct{}{} }()
	if phase, _ := f.now(); phase != flashServes {
		return model.Errorf(model.Unavailable, "the guest rests")
	}
	if f.hold == nil {
		h, err := f.agent.Acquire(ctx, f.id, model.ForGuest)
		if err != nil {
			return err
		}
		f.hold = h
	}
	err := op(ctx, f.hold.volume)
	if err != nil {
		f.letGo()
	}
	return err
}

// Size implements nbd.Device, here and below.
func (f *flash) Size() int64 { return virt.FlashSize }

func (f *flash) ReadAt(ctx context.Context, p []byte, off int64) error {
	if phase, _ := f.now(); phase == flashWaits {
		clear(p)
		return nil
	}
	return f.do(ctx, true, func(ctx context.Context, v *volume.Volume) error { return v.ReadAt(ctx, p, off) })
}

func (f *flash) WriteAt(ctx context.Context, b *iobuf.Buffer, off int64) error {
	return f.do(ctx, false, func(ctx context.Context, v *volume.Volume) error { return v.WriteAt(ctx, b, off) })
}

func (f *flash) Discard(ctx context.Context, off, n int64) error {
	return f.do(ctx, false, func(ctx context.Context, v *volume.Volume) error { return v.Discard(ctx, off, n) })
}

func (f *flash) WriteZeroes(ctx context.Context, off, n int64) error { return f.Discard(ctx, off, n) }

// Flush has nothing to do: what was written is durable.
func (f *flash) Flush(context.Context) error { return nil }

// serveFlash serves a machine's NVRAM, if it has one. Of that there is one server: another
// one would have the volume in its place, and be asked in vain to give it up.
func (g *guests) serveFlash(ctx context.Context, m *guest, vm model.VM, owner unixsock.Owner) error {
	if m.servesFlash(vm) {
		return nil
	}
	g.closeFlash(m)
	if vm.NVRAM == 0 {
		return nil
	}
	f, err := g.agent.openFlash(ctx, vm.NVRAM, owner)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	m.flash = f
	return nil
}

// servesFlash reports whether a machine's NVRAM is served, if it has one.
func (m *guest) servesFlash(vm model.VM) bool {
	if m.flash == nil {
		return vm.NVRAM == 0
	}
	select {
	case <-m.flash.ended:
		return false
	default:
		return m.flash.id == vm.NVRAM
	}
}

func (g *guests) closeFlash(m *guest) {
	if m.flash == nil {
		return
	}
	m.flash.close()
	g.mu.Lock()
	defer g.mu.Unlock()
	m.flash = nil
}

// setFlash says what the guest does, to its NVRAM, if it has one.
func (m *guest) setFlash(p flashPhase) {
	if m.flash != nil {
		m.flash.set(p)
	}
}

// restFlash lets the NVRAM of a guest at rest go, so that the other node can have it as
// soon as the record says that the guest has moved.
func (m *guest) restFlash(ctx context.Context) error {
	if m.flash == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, releaseTime)
	defer cancel()
	return m.flash.rest(ctx)
}

// firmware is a machine's firmware as it is on this node.
func (a *Agent) firmware(vm model.VM) *virt.Firmware {
	if !vm.Firmware.UEFI() {
		return nil
	}
	return &virt.Firmware{Secure: vm.Firmware == model.FirmwareSecure, NVRAM: a.flashSocket(vm.NVRAM)}
}

// WriteNVRAM makes a volume that is nobody's yet the NVRAM of a new machine.
func (a *Agent) WriteNVRAM(ctx context.Context, id model.VolumeID, firmware model.Firmware) error {
	data, err := virt.NVRAMTemplate(firmware)
	if err != nil {
		return err
	}
	h, err := a.Acquire(ctx, id, model.ForExport)
	if err != nil {
		return err
	}
	defer a.releaseWait(h)
	b := iobuf.Get(len(data))
	defer b.Release()
	copy(b.Bytes, data)
	if err := h.volume.WriteAt(ctx, b, 0); err != nil {
		return fmt.Errorf("write NVRAM: %w", err)
	}
	return nil
}
