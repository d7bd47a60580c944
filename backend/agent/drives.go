package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"drystone.example/drystone/backend/cidata"
	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/nbd"
	"drystone.example/drystone/backend/proc"
	"drystone.example/drystone/backend/unixsock"
	"drystone.example/drystone/backend/virt"
)

// A guest's disks on SATA and the CDs in its drives are served by NBD.
//
// The invariants: a disk's volume is taken at the guest's first request to it, and the
// record lets only the node take it that the machine is placed on; in a migration that
// changes when the guest has moved, and the node it left gives the volume up before it
// tells the other to let the guest run. Until then a QEMU that waits for the guest's
// memory may connect, and a request of its would wait. A request is answered once it is
// carried out or has failed for good, never because the server ends: QEMU asks the next
// server again. What is served at a path is the same for as long as a QEMU may connect to
// it: the path names the image, or the state of the seed.

// A drive is the NBD server of one disk on SATA, or of one CD in a drive, of a guest.
type drive struct {
	path   string
	server *nbd.Server
	stop   context.CancelFunc
	ended  chan struct{} // closed when the server has returned and nothing is held
	disk   bool          // a disk, not a CD
}

// A media is what was last done about what is in the CD-ROM drives of one QEMU.
type media struct {
	of    proc.ID
	want  []virt.CDROM
	err   error     // why it is not that
	again time.Time // it is not tried before
}

// seedSlot is the drive that cloud-init reads, behind those of the record.
const seedSlot = model.MaxCDROMs

// Paths have to be short (maxSocketPath).
func (g *guests) diskSocket(id model.VolumeID) string {
	return filepath.Join(g.agent.cfg.Run, "disk-"+id.String()+".sock")
}

func (g *guests) cdSocket(vm model.VMID, id model.VolumeID) string {
	return filepath.Join(g.agent.cfg.Run, "cd-"+vm.String()+"-"+id.String()+".sock")
}

func (g *guests) seedSocket(vm model.VM) string {
	return filepath.Join(g.agent.cfg.Run, fmt.Sprintf("seed-%s-%x.sock", vm.ID, vm.Seed))
}

// bootOrders says what a machine starts from; one with a kernel of its own needs nothing.
func bootOrders(vm model.VM) virt.BootOrders {
	if vm.Boot != nil {
		return nil
	}
	return virt.Orders(vm.BootOrderOf())
}

// cdroms are the CD-ROM drives of a machine as they are on this node.
func (g *guests) cdroms(vm model.VM, boot virt.BootOrders) (list []virt.CDROM) {
	slots := map[model.DriveBus]int{}
	for i, c := range vm.CDROMs {
		d := virt.CDROM{Bus: c.Bus, Slot: slots[c.Bus], Boot: boot.Of(model.BootCDROM, i)}
		slots[c.Bus]++
		if c.Image != 0 {
			d.Socket = g.cdSocket(vm.ID, c.Image)
		}
		list = append(list, d)
	}
	if vm.Seed != 0 {
		list = append(list, virt.CDROM{Bus: model.BusSCSI, Slot: seedSlot, Socket: g.seedSocket(vm)})
	}
	return list
}

// driveDevice is what is served to a guest, and how it is let go.
type driveDevice struct {
	nbd.Device
	close func()
	disk  bool
}

// driveDevices returns how to make what a machine needs served, by path.
func (g *guests) driveDevices(vm model.VM) map[string]func(*state.View) (driveDevice, error) {
	all := map[string]func(*state.View) (driveDevice, error){}
	for _, d := range vm.OnBus(model.BusSATA) {
		all[g.diskSocket(d.Volume)] = func(view *state.View) (driveDevice, error) {
			rec, err := view.Volume(d.Volume)
			dev := &lateDisk{agent: g.agent, id: rec.ID, size: int64(rec.Size), turn: make(chan struct{}, 1)}
			return driveDevice{dev, dev.release, true}, err
		}
	}
	for _, c := range vm.CDROMs {
		if c.Image == 0 {
			continue
		}
		all[g.cdSocket(vm.ID, c.Image)] = func(view *state.View) (driveDevice, error) {
			rec, err := view.Volume(c.Image)
			if err != nil {
				return driveDevice{}, err
			}
			r := g.agent.read(rec.ID, 0)
			return driveDevice{cd{from: r, size: int64(rec.Size)}, r.close, false}, nil
		}
	}
	if vm.Seed != 0 {
		all[g.seedSocket(vm)] = func(view *state.View) (driveDevice, error) {
			seed, err := view.Seed(vm.ID)
			meta := seed.Meta.Reveal()
			if meta == "" {
				meta = "instance-id: " + vm.ID.String() + "\nlocal-hostname: " + vm.Name + "\n"
			}
			return driveDevice{seedDisc{image: cidata.Image(seed.User.Reveal(), meta)}, func() {}, false}, err
		}
	}
	return all
}

// openDrives serves what a machine's drives need and is not served yet.
func (g *guests) openDrives(ctx context.Context, m *guest, vm model.VM) error {
	for path, device := range g.driveDevices(vm) {
		i := slices.IndexFunc(m.drives, func(d *drive) bool { return d.path == path })
		if i >= 0 {
			if m.drives[i].serves() {
				continue
			}
			g.setDrives(m, slices.Delete(slices.Clone(m.drives), i, i+1))
		}
		owner, err := qemuOwner()
		if err != nil {
			return err
		}
		dev, err := device(g.agent.cfg.Meta.Local())
		if err != nil {
			return fmt.Errorf("serve a drive: %w", err)
		}
		d, err := g.agent.openDrive(ctx, path, owner, dev)
		if err != nil {
			dev.close()
			return err
		}
		g.setDrives(m, append(slices.Clone(m.drives), d))
	}
	return nil
}

func (a *Agent) openDrive(ctx context.Context, path string, owner unixsock.Owner, dev driveDevice) (*drive, error) {
	if err := checkSocket(path); err != nil {
		return nil, err
	}
	s, err := nbd.Listen(ctx, nbd.Config{
		Path: path, Owner: owner, Device: dev.Device, ReadOnly: !dev.disk, Resumes: true, Log: a.log,
	})
	if err != nil {
		return nil, fmt.Errorf("serve a drive: %w", err)
	}
	serve, stop := context.WithCancel(context.Background())
	d := &drive{path: path, server: s, stop: stop, ended: make(chan struct{}), disk: dev.disk}
	a.work.Go(func() {
		defer close(d.ended)
		defer dev.close()
		if err := s.Run(serve); err != nil && !errors.Is(err, context.Canceled) {
			a.log.Error("drive of a guest is not served any more", "socket", path, "err", err)
		}
	})
	return d, nil
}

// serves reports whether the server still runs.
func (d *drive) serves() bool {
	select {
	case <-d.ended:
		return false
	default:
		return true
	}
}

// close stops the server; when it returns nothing is held for it.
func (d *drive) close() {
	d.stop()
	<-d.ended
}

// setDrives is what others than the guest's own goroutine see of its drives.
func (g *guests) setDrives(m *guest, drives []*drive) {
	m.drives = drives
	g.mu.Lock()
	defer g.mu.Unlock()
	m.seenDrives = drives
}

// closeDrives stops serving those of a machine's drives that are to be closed.
func (g *guests) closeDrives(m *guest, these func(*drive) bool) {
	var left []*drive
	for _, d := range m.drives {
		if these(d) {
			d.close()
		} else {
			left = append(left, d)
		}
	}
	g.setDrives(m, left)
}

func anyDrive(*drive) bool { return true }

// matchMedia makes what is in the CD-ROM drives of a running guest what its record says,
// and returns what is in the way of that; once all is as it should be it costs nothing.
func (g *guests) matchMedia(ctx context.Context, m *guest, vm model.VM, have virt.Guest) error {
	want := g.cdroms(vm, bootOrders(vm))
	if len(want) == 0 {
		return nil
	}
	last := m.media
	same := last.of == have.Process && slices.Equal(last.want, want)
	if same && (last.err == nil || time.Now().Before(last.again)) {
		return last.err
	}
	err := g.hypervisor.MatchCDROMs(ctx, vm.ID, want)
	m.media = media{of: have.Process, want: want, err: err, again: time.Now().Add(cardsAgain)}
	if err != nil {
		if !same || last.err == nil || last.err.Error() != err.Error() {
			g.agent.log.Warn("cd-rom drives of a guest are not as they should be", "vm", vm.ID, "err", err)
		}
		return err
	}
	needed := g.driveDevices(vm)
	g.closeDrives(m, func(d *drive) bool { return needed[d.path] == nil }) // QEMU has let go of what they serve
	return nil
}

// rested returns an error if a disk on SATA of a guest at rest has requests that are not
// answered.
func (m *guest) rested(vm model.VM) error {
	for _, d := range m.drives {
		if n := d.server.Stats().InFlight; d.disk && (n > 0 || !d.serves()) {
			return model.Errorf(model.Unavailable, "a disk on sata of vm %s does not answer: %d requests wait", vm.Name, n)
		}
	}
	return nil
}

// A lateDisk is a volume that is taken when it is first needed, as the NBD server wants
// it. It is held until it is released, and taken anew if it is lost.
type lateDisk struct {
	agent *Agent
	id    model.VolumeID
	size  int64
	turn  chan struct{} // held by who takes the volume

	mu   sync.Mutex // guards hold; nothing blocks under it
	hold *Hold
}

// lateAgain is how often a volume is tried for that cannot be had now.
const lateAgain = 250 * time.Millisecond

// held returns the volume if it is held and lives.
func (d *lateDisk) held() *Hold {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hold == nil || d.hold.volume.Err() != nil {
		return nil
	}
	return d.hold
}

// release gives the volume up and waits until the record says so.
func (d *lateDisk) release() {
	d.mu.Lock()
	h := d.hold
	d.hold = nil
	d.mu.Unlock()
	if h != nil {
		d.agent.releaseWait(h)
	}
}

func (d *lateDisk) take(ctx context.Context) (*Hold, error) {
	if h := d.held(); h != nil {
		return h, nil
	}
	select {
	case d.turn <- struct{}{}:
		defer func() { <-d.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if h := d.held(); h != nil {
		return h, nil
	}
	d.release() // what is lost
	h, err := d.agent.Acquire(ctx, d.id, model.ForGuest)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hold = h
	return h, nil
}

// do does something with the volume as soon as it can be had, at most until ctx ends,
// and once more if the volume is lost meanwhile.
func (d *lateDisk) do(ctx context.Context, f func(frontDevice) error) error {
	for {
		h, err := d.take(ctx)
		if err == nil {
			if err = f(frontDevice{h.volume}); err == nil || h.volume.Err() == nil {
				return err
			}
		} else if model.CodeOf(err) == model.NotFound {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lateAgain):
		}
	}
}

// Size implements nbd.Device, as what follows does. It is what QEMU was told first, which
// asks no more.
func (d *lateDisk) Size() int64 { return d.size }

func (d *lateDisk) ReadAt(ctx context.Context, p []byte, off int64) error {
	return d.do(ctx, func(v frontDevice) error { return v.ReadAt(ctx, p, off) })
}

func (d *lateDisk) WriteAt(ctx context.Context, b *iobuf.Buffer, off int64) error {
	return d.do(ctx, func(v frontDevice) error { return v.WriteAt(ctx, b, off) })
}

func (d *lateDisk) Discard(ctx context.Context, off, n int64) error {
	return d.do(ctx, func(v frontDevice) error { return v.Discard(ctx, off, n) })
}

func (d *lateDisk) WriteZeroes(ctx context.Context, off, n int64) error {
	return d.do(ctx, func(v frontDevice) error { return v.WriteZeroes(ctx, off, n) })
}

func (d *lateDisk) Flush(ctx context.Context) error {
	if d.held() == nil {
		return nil // what was answered before is durable, by what WriteAt promises
	}
	return d.do(ctx, func(v frontDevice) error { return v.Flush(ctx) })
}

var errReadOnlyDisc = model.Errorf(model.Denied, "a cd-rom does not change")

// readOnly is the part of an NBD device that would change a CD.
type readOnly struct{}

func (readOnly) WriteAt(context.Context, *iobuf.Buffer, int64) error { return errReadOnlyDisc }
func (readOnly) Discard(context.Context, int64, int64) error         { return errReadOnlyDisc }
func (readOnly) WriteZeroes(context.Context, int64, int64) error     { return errReadOnlyDisc }
func (readOnly) Flush(context.Context) error                         { return nil }

// A cd is an image as the NBD server wants it, read wherever it is held.
type cd struct {
	readOnly
	from *reader
	size int64
}

// Size implements nbd.Device.
func (c cd) Size() int64 { return c.size }

// ReadAt waits for as long as the guest does.
func (c cd) ReadAt(ctx context.Context, p []byte, off int64) error {
	for {
		err := c.from.readAt(ctx, p, off)
		if model.CodeOf(err) != model.Unavailable || ctx.Err() != nil {
			return err
		}
	}
}

// A seedDisc is what cloud-init reads.
type seedDisc struct {
	readOnly
	image []byte
}

func (s seedDisc) Size() int64 { return int64(len(s.image)) }

func (s seedDisc) ReadAt(_ context.Context, p []byte, off int64) error {
	copy(p, s.image[off:])
	return nil
}
