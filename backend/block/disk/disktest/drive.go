// Package disktest is a disk that exists only in memory, for tests: it loses and
// tears what was not synced when its power is cut, in units of 512 bytes, and has
// the faults of real ones on demand. It works inside a testing/synctest bubble.
//
// What happens at a power cut and which bits rot is drawn from the seed. (The order
// in which goroutines get to draw is Go's, so a seed is not a recording.)
package disktest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/must"
	"drystone.example/drystone/backend/uring"
)

const (
	blockSize  = int(model.BlockSize)
	sectorSize = int(model.SectorSize)
	mapDir     = "map"
)

// Journal is the size of the journal of a Drive's disk.
const Journal = model.Bytes(8 << 20)

// ErrPower is what an area answers after its power was cut.
var ErrPower = errors.New("the power is off")

// A Drive is a simulated drive with its page map. It outlives the disks opened on
// it, and the cuts of its power.
type Drive struct {
	size model.Bytes

	mu   sync.Mutex
	rng  *rand.Rand
	area *area
	fs   *vfs.MemFS

	delay  time.Duration
	fault  func(*Request) error
	flight func(*Request)

	asking sync.Mutex // one question to the fault at a time
}

// A Request is what a fault may look at and change.
type Request struct {
	Kind    uring.Kind
	Durable bool
	Off     int64 // changed: the request goes astray
	Len     int
	Lose    bool // set for a Write: it is answered and not done
	Map     bool // not the area, but the page map's file system; has no delay
	Delay   time.Duration
}

// New makes an empty drive. 16 MiB is about the least; memory is used for what was
// written.
func New(seed uint64, size model.Bytes) *Drive {
	rng := rand.New(rand.NewPCG(seed, 0x6473)) //nolint:gosec // a seed must give the same again
	return &Drive{size: size, rng: rng, area: newArea(), fs: vfs.NewCrashableMem()}
}

// medium is the drive as a disk sees it until the next power cut.
func (v *Drive) medium() disk.Medium {
	v.mu.Lock()
	defer v.mu.Unlock()
	return disk.Medium{
		Area: &port{drive: v, area: v.area}, Size: v.size, FS: faultFS{FS: v.fs, drive: v}, Dir: mapDir,
	}
}

// Format makes a disk of the drive.
func (v *Drive) Format(ctx context.Context, cluster model.ClusterID) (model.DiskID, error) {
	return disk.FormatMedium(ctx, v.medium(), disk.FormatOptions{Cluster: cluster, Journal: Journal})
}

// Open opens the disk on the drive. After a Crash it must be opened anew; the one
// before must still be closed.
func (v *Drive) Open(ctx context.Context, o disk.Options) (*disk.Disk, error) {
	return disk.OpenMedium(ctx, v.medium(), o)
}

// SetDelay sets how long each request takes from now on.
func (v *Drive) SetDelay(d time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.delay = d
}

// SetFault sets what is asked before each request from now on; nil: nothing. It may
// fail the request, bend it, or look at the drive, also by Clone. It is called by
// many goroutines, one at a time.
func (v *Drive) SetFault(f func(*Request) error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.fault = f
}

// SetFlight sets what is told of each write to the area while that is on its way: a
// Clone made then may have any part of it. It is called as the fault is.
func (v *Drive) SetFlight(f func(*Request)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.flight = f
}

// Crash cuts the power. Of what was written and not synced a part survives, each
// 512 bytes for themselves, percent of it on average. Whatever has the disk open
// gets errors from now on.
func (v *Drive) Crash(percent int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.area.cut()
	v.area = v.area.survivors(v.rng, percent)
	v.fs = v.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: v.rng})
}

// Clone returns a drive as this one would be after a Crash now, and leaves this one
// running.
func (v *Drive) Clone(seed uint64, percent int) *Drive {
	v.mu.Lock()
	defer v.mu.Unlock()
	c := New(seed, v.size)
	c.area = v.area.survivors(c.rng, percent)
	c.fs = v.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: c.rng})
	return c
}

// Rot flips a bit of each of n blocks, drawn from those that were ever written at
// or after offset from. It returns how many it found.
func (v *Drive) Rot(from int64, n int) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.area.rot(v.rng, from, math.MaxInt64, n)
}

// RotWithin does what Rot does, to blocks in [from, to).
func (v *Drive) RotWithin(from, to int64, n int) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.area.rot(v.rng, from, to, n)
}

// A port is the area a disk has open.
type port struct {
	drive *Drive
	area  *area
	wg    sync.WaitGroup
}

func (p *port) Do(q *uring.Request) error {
	p.wg.Add(1)
	defer p.wg.Done()
	return p.carry(q)
}

func (p *port) Start(q *uring.Request) {
	p.wg.Go(func() { q.Done(p.carry(q)) })
}

func (p *port) Close() error {
	p.wg.Wait()
	return nil
}

// carry does one request. A write is in flight until its delay is over: a power
// cut meanwhile may leave any part of it.
func (p *port) carry(q *uring.Request) error {
	r := Request{Kind: q.Kind, Durable: q.Durable, Off: q.Off}
	for _, b := range q.Bufs {
		must.That(len(b)%blockSize == 0 && len(b) > 0, "a buffer of %d bytes", len(b))
		r.Len += len(b)
	}
	must.That(q.Off%int64(blockSize) == 0, "a request at %d", q.Off)
	if r.Off+int64(r.Len) > int64(p.drive.size) {
		return io.ErrUnexpectedEOF
	}
	if err := p.drive.ask(&r); err != nil {
		return err
	}
	if q.Kind == uring.Write && !r.Lose {
		flight := p.area.takeOff(r.Off, q.Bufs)
		p.drive.tell(&r)
		sleep(r.Delay)
		return p.area.land(flight, q.Durable)
	}
	sleep(r.Delay)
	switch q.Kind {
	case uring.Read:
		return p.area.read(r.Off, q.Bufs)
	case uring.Sync:
		return p.area.sync()
	case uring.Write:
		return p.area.alive()
	default:
		return fmt.Errorf("a request of kind %d", q.Kind)
	}
}

func sleep(d time.Duration) {
	if d > 0 {
		time.Sleep(d)
	}
}

// ask lets the fault have its say.
func (v *Drive) ask(r *Request) error {
	v.mu.Lock()
	fault := v.fault
	r.Delay = v.delay
	v.mu.Unlock()
	if fault == nil {
		return nil
	}
	v.asking.Lock()
	defer v.asking.Unlock()
	return fault(r)
}

// tell says that a write is on its way.
func (v *Drive) tell(r *Request) {
	v.mu.Lock()
	flight := v.flight
	v.mu.Unlock()
	if flight != nil {
		v.asking.Lock()
		defer v.asking.Unlock()
		flight(r)
	}
}

// A faultFS asks the drive's fault before what the page map writes and syncs.
type faultFS struct {
	vfs.FS
	drive *Drive
}

func (f faultFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.drive.ask(&Request{Kind: uring.Write, Map: true}); err != nil {
		return nil, err
	}
	file, err := wrap(f.drive)(f.FS.Create(name, c))
	if err != nil {
		return nil, err
	}
	return file, f.syncDir(name)
}

// syncDir makes a new name durable at once. Real file systems keep the order of names
// at least, and pebble relies on it; the crashable one would lose any of them.
func (f faultFS) syncDir(name string) error {
	dir, err := f.FS.OpenDir(f.PathDir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (f faultFS) OpenReadWrite(name string, c vfs.DiskWriteCategory,
	o ...vfs.OpenOption,
) (vfs.File, error) {
	return wrap(f.drive)(f.FS.OpenReadWrite(name, c, o...))
}

func (f faultFS) OpenDir(name string) (vfs.File, error) {
	return wrap(f.drive)(f.FS.OpenDir(name))
}

func (f faultFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return wrap(f.drive)(f.FS.ReuseForWrite(from, to, c))
}

func wrap(v *Drive) func(vfs.File, error) (vfs.File, error) {
	return func(f vfs.File, err error) (vfs.File, error) {
		if err != nil {
			return nil, err
		}
		return faultFile{File: f, drive: v}, nil
	}
}

type faultFile struct {
	vfs.File
	drive *Drive
}

func (f faultFile) Write(b []byte) (int, error) {
	if err := f.drive.ask(&Request{Kind: uring.Write, Map: true, Len: len(b)}); err != nil {
		return 0, err
	}
	return f.File.Write(b)
}

func (f faultFile) Sync() error {
	if err := f.drive.ask(&Request{Kind: uring.Sync, Map: true}); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f faultFile) SyncData() error {
	if err := f.drive.ask(&Request{Kind: uring.Sync, Map: true}); err != nil {
		return err
	}
	return f.File.SyncData()
}
