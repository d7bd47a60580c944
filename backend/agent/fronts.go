package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"drystone.example/drystone/backend/metrics"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/unixsock"
	"drystone.example/drystone/backend/vhost"
)

// queuesMax bounds the queues of one disk of a guest.
const queuesMax = 4

func frontQueues(vm model.VM) int { return min(vm.CPUs, queuesMax) }

// A front is the back end of one disk of a guest: a socket that QEMU connects to.
// The volume is held while the guest's rings run, not longer.
type front struct {
	agent  *Agent
	id     model.VolumeID
	path   string
	server *vhost.Server
	stop   context.CancelFunc
	ended  chan struct{} // closed when the server has returned

	mu   sync.Mutex // guards hold
	hold *Hold
}

// openFront listens for the QEMU of a guest's disk, which is limited before it is answered.
func (a *Agent) openFront(ctx context.Context, rec model.Volume, path string, owner unixsock.Owner, purpose model.Purpose,
	limits model.IOLimits,
) (*front, error) {
	f := &front{agent: a, id: rec.ID, path: path, ended: make(chan struct{})}
	s, err := vhost.Listen(ctx, vhost.Config{
		Path: path, Owner: owner, State: filepath.Join(a.cfg.State, "vhost-"+rec.ID.String()+".state"),
		Serial: rec.ID.String(), Size: int64(rec.Size), Log: a.log.With("volume", rec.ID),
		Acquire: func(ctx context.Context) (vhost.Device, error) { return f.acquire(ctx, purpose) },
		Release: f.release,
	})
	if err != nil {
		return nil, fmt.Errorf("serve disk: %w", err)
	}
	f.server = s
	f.limit(limits)
	serve, stop := context.WithCancel(context.Background())
	f.stop = stop
	a.work.Go(func() {
		defer close(f.ended)
		if err := s.Run(serve); err != nil && !errors.Is(err, context.Canceled) {
			a.log.Error("disk of a guest is not served any more", "volume", rec.ID, "err", err)
		}
	})
	return f, nil
}

func (f *front) acquire(ctx context.Context, purpose model.Purpose) (vhost.Device, error) {
	h, err := f.agent.Acquire(ctx, f.id, purpose)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hold = h
	return frontDevice{h.volume}, nil
}

// release gives the volume up and waits until the record says so, so that who
// takes it next, in a live migration, need not wait for our lease.
func (f *front) release() {
	f.mu.Lock()
	h := f.hold
	f.hold = nil
	f.mu.Unlock()
	if h != nil {
		f.agent.releaseWait(h)
	}
}

// close stops listening, lets requests in flight finish and gives the volume up.
func (f *front) close() {
	f.stop()
	<-f.ended
}

// hasEnded reports whether the server has returned.
func (f *front) hasEnded() bool {
	select {
	case <-f.ended:
		return true
	default:
		return false
	}
}

// openFronts serves the disks of a machine, those that are not served yet, and no others.
// Those of a running guest stay served while others come and go.
func (g *guests) openFronts(ctx context.Context, m *guest, vm model.VM) error {
	if err := g.openDrives(ctx, m, vm); err != nil {
		return err
	}
	if g.serving(m, vm) {
		for _, f := range m.fronts {
			f.limit(vm.Limits)
		}
		return nil
	}
	owner, err := qemuOwner()
	if err != nil {
		return err
	}
	var keep []*front
	for _, f := range m.fronts {
		if vm.HasDisk(f.id) && !f.hasEnded() {
			keep = append(keep, f)
		} else {
			f.close()
		}
	}
	g.setFronts(m, keep)
	for _, d := range vm.OnBus(model.BusVirtio) {
		if slices.ContainsFunc(m.fronts, func(f *front) bool { return f.id == d.Volume }) {
			continue
		}
		rec, err := g.agent.cfg.Meta.Local().Volume(d.Volume)
		if err != nil {
			return err
		}
		f, err := g.agent.openFront(ctx, rec, g.agent.SocketPath(Vhost, rec.ID), owner, model.ForGuest, vm.Limits)
		if err != nil {
			return err
		}
		g.setFronts(m, append(m.fronts, f))
	}
	return g.serveFlash(ctx, m, vm, owner)
}

// limit bounds what the guest does with the disk, from now on.
func (f *front) limit(l model.IOLimits) {
	f.server.Limit(vhost.Limits{
		Requests: l.IOPS, Bytes: int64(l.Bytes), Burst: time.Duration(l.Burst) * time.Second,
	})
}

// serving reports whether every disk on virtio of a machine is served, and its NVRAM.
func (g *guests) serving(m *guest, vm model.VM) bool {
	disks := vm.OnBus(model.BusVirtio)
	if len(m.fronts) != len(disks) || !m.servesFlash(vm) {
		return false
	}
	return !slices.ContainsFunc(m.fronts, func(f *front) bool { return f.hasEnded() || !vm.HasDisk(f.id) })
}

func (g *guests) closeFronts(m *guest) {
	g.closeFlash(m)
	g.closeDisks(m)
	g.closeDrives(m, anyDrive)
}

// closeDisks stops serving the disks on virtio.
func (g *guests) closeDisks(m *guest) {
	for _, f := range m.fronts {
		f.close()
	}
	g.setFronts(m, nil)
}

// setFronts is what others than the guest's own goroutine see of its fronts.
func (g *guests) setFronts(m *guest, fronts []*front) {
	m.fronts = fronts
	g.mu.Lock()
	defer g.mu.Unlock()
	m.seen = append([]*front(nil), fronts...)
}

// closeAll stops serving every guest's disks: QEMU waits for the next daemon.
// The guests' goroutines have ended, or end with the agent's context.
func (g *guests) closeAll() {
	g.mu.Lock()
	var all []*front
	var drives []*drive
	var wait sync.WaitGroup
	for _, m := range g.all {
		all = append(all, m.seen...)
		drives = append(drives, m.seenDrives...)
		if m.flash != nil {
			wait.Go(m.flash.close)
		}
	}
	g.mu.Unlock()
	for _, d := range drives {
		wait.Go(d.close)
	}
	for _, f := range all {
		wait.Go(f.close)
	}
	wait.Wait()
}

// resized tells the guest of a volume that its disk has grown.
func (a *Agent) resized(id model.VolumeID) {
	if a.guests == nil {
		return
	}
	hold := a.holds.serving(id)
	a.guests.mu.Lock()
	defer a.guests.mu.Unlock()
	for _, m := range a.guests.all {
		for _, f := range m.seen {
			if f.id == id && hold != nil {
				f.server.Resize(hold.volume.Size())
			}
		}
	}
}

// io adds up what the disks of a guest did since they are served.
func (m *guest) io() (sum metrics.IOCount) {
	for _, f := range m.seen {
		s := f.server.Stats()
		sum.Reads += s.Reads
		sum.Writes += s.Writes
		sum.ReadBytes += s.ReadBytes
		sum.WriteBytes += s.WriteBytes
		sum.ReadTime += s.ReadTime
		sum.WriteTime += s.WriteTime
	}
	for _, d := range m.seenDrives {
		s := d.server.Stats()
		sum.Reads += s.Reads
		sum.Writes += s.Writes
		sum.ReadBytes += s.ReadBytes
		sum.WriteBytes += s.WriteBytes
		sum.ReadTime += s.ReadTime
		sum.WriteTime += s.WriteTime
	}
	return sum
}
