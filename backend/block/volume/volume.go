package volume

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"drystone.example/drystone/backend/model"
)

// tellEvery is how often a volume logs the same kind of damage at most.
const tellEvery = time.Minute

// A Volume is one held volume. Its methods are safe for concurrent use.
type Volume struct {
	cfg   Config
	id    model.VolumeID
	gen   model.Generation
	log   *slog.Logger
	plant mistakes

	size  atomic.Int64
	spans ranges
	stats counters

	// What is wrong with the data is told at most once in tellEvery: a guest may read a
	// damaged block as often as it likes. All of it counts in stats, and disks know it.
	tellDamaged, tellLost, tellUnrepaired rate.Sometimes

	ctx       context.Context // ends with the volume; of its own goroutines
	stop      context.CancelFunc
	jobs      sync.Pool      // of *job
	readings  sync.Pool      // of *reading
	loops     sync.WaitGroup // keep, commit and fillAll
	work      sync.WaitGroup // what those began
	done      chan struct{}  // closed by end
	keeper    chan struct{}  // of capacity 1, as the next two: wakes keep
	committer chan struct{}  // wakes commit
	filler    chan struct{}  // wakes fillAll
	tender    chan struct{}  // wakes tend

	// mu guards what follows and the fields of rows, jobs and members. Nothing
	// that waits happens under it, and nobody else's code is called.
	mu      sync.Mutex
	rec     model.Volume
	columns []column
	rows    map[model.DiskID]*row
	number  uint64      // last number drawn
	told    model.Stamp // watermark while not serving
	serving bool
	closing bool
	err     error // why it ended

	firstOpen, lastOpen *group                  // numbers drawn and not acknowledged, in order
	held                []*group                // those that wait for room
	refusedAt           time.Time               // when a disk had no room for something last
	lastSentTo          map[model.DiskID]uint64 // only for mistakes.skipPromise
	lastSent            time.Time
	unmarked            bool // something was sent since the last Mark

	// What unlock does once mu is free, and whether keep is awake by itself.
	ended        *job
	wake, change bool
	watched      bool

	// Of members that are not active.
	whole      bool
	promising  map[model.DiskID]bool
	patience   map[model.DiskID]*patience
	weighed    time.Time
	nodes      map[model.DiskID]model.NodeID // of the disks, when a slow one was found last
	reach      map[model.DiskID]Reach
	nextCare   time.Time
	nextSearch time.Time
	search     bool
	unsure     []model.MemberChange // proposed for the present revision, outcome unknown
	refused    model.Code           // why raft gave no definite answer to the last proposal; empty if it did
	proposing  bool
	proposed   *proposal // the last one, until it is known to be carried out
	repairing  map[pageKey]bool
	tombs      []tomb
	fillNext   time.Time
	filledBy   time.Time // when finished fills are proposed at the latest; zero: there is none

	// Of deleted snapshots and of reverting.
	kept      []model.Epoch // what is freed is judged by; nil: nothing was freed yet
	tending   Tending
	tendNext  time.Time // clock of its pace
	trimNext  time.Time // when a trim that rests looks again
	trimmedAt uint64    // overwrites when the last one began
}

// A pageKey names a page of a volume.
type pageKey struct {
	column int
	page   uint32
}

// Mistakes leave out one rule each. Tests plant them to see that they are
// caught; they are all false otherwise.
type mistakes struct {
	ackEarly        bool // answer before the drop is committed
	skipPromise     bool // a member that joins is not asked for its promise
	serveEarly      bool // serve before the takeover has copied
	fillOverwrites  bool // fill without the page lock, over newer writes
	fillMisses      bool // the walk passes pages that were written to and not sent
	deltaOneSided   bool // a delta ignores what only the returning side has
	repairUnlocked  bool // repair without the page lock, over newer writes
	compareUnlocked bool // compare a page without its lock, while it is written
	cutUnheld       bool // cut while writes are in flight
	cutForgets      bool // write on after a cut of which raft has given no answer
	letGoEarly      bool // let a member that leaves go while another is only being filled
	trimSeen        bool // free what a kept epoch sees
	deltaKeeps      bool // a delta leaves what only the returning side has below its cutoff
	revertOld       bool // revert with the stamp that the old version has
	slowLast        bool // drop a slow disk also from a column that has no other copy
}

// Open takes the volume over: rec is the record after raft gave this node its
// Generation. It returns when every active member holds the same and the volume
// may be served. Where a column has no active member in reach it goes on trying
// until ctx ends, and then says in a model.Unavailable error for which disk.
// The Volume outlives ctx; Close ends it.
func Open(ctx context.Context, rec model.Volume, cfg Config) (*Volume, error) {
	return open(ctx, rec, cfg, mistakes{})
}

func open(ctx context.Context, rec model.Volume, cfg Config, plant mistakes) (*Volume, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if len(rec.Columns) == 0 || rec.Generation == 0 {
		return nil, model.Errorf(model.Invalid, "volume %s has no columns or was never acquired", rec.ID)
	}
	v := &Volume{
		cfg: cfg, id: rec.ID, gen: rec.Generation, log: cfg.Log, plant: plant,
		tellDamaged: rate.Sometimes{Interval: tellEvery}, tellLost: rate.Sometimes{Interval: tellEvery},
		tellUnrepaired: rate.Sometimes{Interval: tellEvery},
		done:           make(chan struct{}),
		keeper:         make(chan struct{}, 1),
		committer:      make(chan struct{}, 1),
		filler:         make(chan struct{}, 1),
		tender:         make(chan struct{}, 1),
		rec:            rec,
		columns:        make([]column, len(rec.Columns)),
		rows:           map[model.DiskID]*row{},
		promising:      map[model.DiskID]bool{},
		patience:       map[model.DiskID]*patience{},
		repairing:      map[pageKey]bool{},
	}
	if plant.skipPromise {
		v.lastSentTo = map[model.DiskID]uint64{}
	}
	v.size.Store(int64(rec.Size))
	for c := range rec.Columns {
		for _, m := range rec.Columns[c].Members {
			v.columns[c].members = append(v.columns[c].members, newMember(m))
		}
	}
	v.whole = v.isWhole()
	v.ctx, v.stop = context.WithCancel(context.WithoutCancel(ctx))
	v.loops.Go(func() { v.keep(v.ctx) })
	v.loops.Go(func() { v.commit(v.ctx) })
	if err := v.takeOver(ctx); err != nil {
		v.shut(err)
		return nil, err
	}
	v.loops.Go(func() { v.fillAll(v.ctx) })
	v.loops.Go(func() { v.tend(v.ctx) })
	return v, nil
}

// Size is the volume's size in bytes.
func (v *Volume) Size() int64 { return v.size.Load() }

// Generation is the number of this reign.
func (v *Volume) Generation() model.Generation { return v.gen }

// Follow takes over a record that another than the holder changed: the volume has
// grown, its members shall move, a snapshot was deleted, it shall be reverted. An
// older one than is known changes nothing.
func (v *Volume) Follow(rec model.Volume) error {
	v.mu.Lock()
	defer v.unlock()
	switch {
	case v.err != nil:
		return v.err
	case rec.ID != v.id || len(rec.Columns) != len(v.columns):
		return model.Errorf(model.Invalid, "the record is not one of volume %s", v.id)
	case rec.Generation != v.gen || rec.Revision <= v.rec.Revision:
		return nil // whoever follows us is noticed by the lease
	}
	v.adopt(rec)
	return v.err
}

// Done is closed when the volume stopped serving for good; Err then says why.
func (v *Volume) Done() <-chan struct{} { return v.done }

// Err is nil while the volume serves, model.Fenced after another holder took it.
func (v *Volume) Err() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.err
}

// end stops the volume for good: what is in flight fails with err and nothing is
// sent any more; v.mu is held. The first reason stays.
func (v *Volume) end(err error) {
	if v.err != nil {
		return
	}
	v.err = err
	close(v.done)
	v.stop()
	for g := v.firstOpen; g != nil; g = g.next {
		g.job.err = err
	}
	for _, r := range v.rows {
		v.bury(r)
	}
	for g := v.firstOpen; g != nil; {
		next := g.next
		v.complete(g) // those that nothing carried any more
		g = next
	}
	v.held = nil
}

// shut ends the volume and waits for its goroutines.
func (v *Volume) shut(err error) {
	v.mu.Lock()
	v.end(err)
	v.unlock()
	v.loops.Wait()
	v.work.Wait()
}

// Close lets requests in flight finish, tells the members that all is
// acknowledged, and stops. When ctx ends first it stops at once and says so.
func (v *Volume) Close(ctx context.Context) error {
	var err error
	select {
	case <-v.spans.close():
		v.farewell(ctx)
	case <-v.done:
	case <-ctx.Done():
		err = model.Errorf(model.Unavailable, "volume %s closed with requests in flight: %w", v.id, ctx.Err())
	}
	v.shut(errClosed)
	return err
}

// farewell stops filling and tells all members the watermark, so that the next
// takeover has nothing to compare.
func (v *Volume) farewell(ctx context.Context) {
	v.mu.Lock()
	if v.err != nil || len(v.rows) == 0 {
		v.unlock()
		return
	}
	v.closing = true
	j := v.newJob()
	v.pump(v.markWith(j, time.Now()))
	if err := v.wait(ctx, j); err != nil {
		v.log.Info("volume closed without telling its watermark", "volume", v.id, "err", err)
	}
}

// admit waits for the lease and refuses what the volume can never do.
func (v *Volume) admit(ctx context.Context, off, n int64) error {
	if err := v.within(off, n); err != nil {
		return err
	}
	return v.leased(ctx)
}

func (v *Volume) within(off, n int64) error { return inside(off, n, v.size.Load()) }

// inside refuses what does not lie within so many bytes, in whole sectors.
func inside(off, n, size int64) error {
	if off < 0 || n < 0 || off > size || n > size-off || (off|n)%int64(model.SectorSize) != 0 {
		return model.Errorf(model.Invalid, "%d bytes at %d of a volume of %d bytes", n, off, size)
	}
	return nil
}

// leased waits until the volume may be served.
func (v *Volume) leased(ctx context.Context) error {
	for !v.cfg.Lease.Valid() {
		if err := v.Err(); err != nil {
			return err
		}
		if err := v.cfg.Lease.Wait(ctx); err != nil {
			if model.CodeOf(err) == model.Fenced {
				v.Fence(err)
			}
			return err
		}
	}
	return nil
}

// Fence ends the volume, because the record names another holder. Requests under
// way and all later ones fail with err.
func (v *Volume) Fence(err error) {
	v.mu.Lock()
	v.end(err)
	v.unlock()
}
