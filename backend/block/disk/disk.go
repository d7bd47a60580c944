package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/uring"
)

// An Area is the bytes a disk consists of: a file, a partition, or a simulated
// disk (package disktest). *uring.Ring is one. Requests are aligned to 4 KiB in
// memory, offset and length.
type Area interface {
	// Do carries a request out and waits for it.
	Do(q *uring.Request) error
	// Start begins a request and returns; Done is called once, by another
	// goroutine.
	Start(q *uring.Request)
	// Close waits for what is under way.
	Close() error
}

// A Medium is everything a disk is kept in.
type Medium struct {
	Area Area
	Size model.Bytes // of Area
	FS   vfs.FS      // holds the page map
	Dir  string      // the page map's directory in FS
}

// Options say how a disk is opened.
type Options struct {
	Cluster   model.ClusterID // must be the one it was formatted for
	MapMemory model.Bytes     // bound of the page map's cache; zero: DefaultMapMemory
	Logger    *slog.Logger    // nil: nothing is logged
	Map       string          // directory of the map; empty: path+".map"

	// Release, if set, is called at the end of Close, when neither the disk nor its map
	// is used any more. If Open fails it is not called.
	Release func() error
}

// Stats are counters since the disk was opened.
type Stats struct {
	Reads, ReadBytes   uint64
	Writes, WriteBytes uint64
	ReadTime           time.Duration // summed over requests
	WriteTime          time.Duration // from Apply to its answer, summed
	Batches            uint64        // journal batches written
	JournalBytes       uint64
	Checkpoints        uint64
}

// DefaultMapMemory is the bound of a page map's cache where none is given, and
// MinMapMemory the least that may be.
const (
	DefaultMapMemory = model.Bytes(32 << 20)
	MinMapMemory     = model.Bytes(1 << 20)
)

const (
	// roundSize is how much is pending before it is written in place, and
	// overlayLimit how much may be at all; both in bytes.
	roundSize    = 8 << 20
	overlayLimit = 64 << 20
	// checkpointEvery bounds how old the map on disk gets while there are changes.
	checkpointEvery = time.Minute
	// loadersMax bounds how many leaves are read from the store at one time.
	loadersMax = 8
)

type counters struct {
	reads, readBytes, readNanos    atomic.Uint64
	writes, writeBytes, writeNanos atomic.Uint64
	batches, journalBytes          atomic.Uint64
	checkpoints                    atomic.Uint64
}

// A Disk is an open disk. Its methods may be called at the same time.
type Disk struct {
	super      superblock // the keeper's, after Open
	area       Area
	store      *store
	log        *slog.Logger
	pagesStart int64
	release    func() error // may be nil
	counters   counters
	loaders    chan struct{}

	failed chan struct{} // closed with the first failure
	stop   chan struct{} // closed by Close

	tasks sync.WaitGroup // commit, keep, inheritAll, loads, preparations

	mu     sync.Mutex
	work   sync.Cond // for commit: something is ready, there is room again, or the end
	chores sync.Cond // for keep: something is wanted, or the end
	room   sync.Cond // for Apply and Close: something has left the queue

	err     error
	closing bool
	users   int // calls and ops under way

	queued      int
	queuedBytes int
	// answering: commit is calling back. The room in the queue is made after that, so
	// whoever is called back must not wait for it; nobody does meanwhile.
	answering bool
	rows      map[model.VolumeID]*row
	ready     []*row
	control   []*control

	pages     *pageMap
	space     *space // nil while the journal is replayed
	overlay   *overlay
	journal   *journal
	refs      map[place]uint32
	dirtyRefs map[place]struct{}
	origins   origins
	families  families
	heirs     chan struct{} // of capacity 1: wakes inheritAll
	// dirtyCounts are the columns of which there is more or less than in the store.
	dirtyCounts map[columnKey]struct{}
	counted     bool // the space was counted when the disk was opened, not loaded

	damaged                  map[damageKey]damage
	dirtyDamage              map[damageKey]struct{}
	checksumErrors, repaired uint64
	scrub                    scrub

	wanted bool // a checkpoint
	dirty  bool // there is something to checkpoint
	timer  *time.Timer

	replaying *replay // while the disk is opened
}

// ID returns the disk's identifier.
func (d *Disk) ID() model.DiskID { return d.super.disk }

// Failed is closed when the disk has failed: a write or sync went wrong, or the
// map cannot be read. Nothing is done after that.
func (d *Disk) Failed() <-chan struct{} { return d.failed }

// Err returns what the disk failed with, or nil.
func (d *Disk) Err() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// Usage tells how full the disk is and what damage it has seen.
func (d *Disk) Usage() model.DiskUsage {
	d.mu.Lock()
	defer d.mu.Unlock()
	return model.DiskUsage{
		Disk: d.super.disk, Size: model.Bytes(d.space.pages) * model.PageSize,
		Used:           model.Bytes(int(d.space.pages)-d.space.free) * model.PageSize,
		ChecksumErrors: d.checksumErrors, Repaired: d.repaired, Damaged: len(d.damaged),
		Scrubbed: d.scrub.ended, Scrub: d.scrub.Scrub,
		Map: model.MapCache{
			Memory: model.Bytes(d.pages.bytes), Limit: model.Bytes(d.pages.limit),
			Hits: d.pages.hits, Misses: d.pages.misses,
		},
	}
}

// Stats returns the counters.
func (d *Disk) Stats() Stats {
	c := &d.counters
	return Stats{
		Reads: c.reads.Load(), ReadBytes: c.readBytes.Load(),
		Writes: c.writes.Load(), WriteBytes: c.writeBytes.Load(),
		ReadTime:  time.Duration(c.readNanos.Load()),
		WriteTime: time.Duration(c.writeNanos.Load()),
		Batches:   c.batches.Load(), JournalBytes: c.journalBytes.Load(),
		Checkpoints: c.checkpoints.Load(),
	}
}

// fail latches the disk. The first reason stays. The mutex is held.
func (d *Disk) fail(err error) {
	if d.err != nil {
		return
	}
	if errors.Is(err, unix.ENOSPC) { // only a sparse file hears that
		err = model.Errorf(model.NoSpace, "the file system below the disk is full: %w", err)
	}
	d.err = err
	close(d.failed)
	d.wake()
}

// Fail takes the disk out of service for good, as a failed write does: what its owner
// knows of the media that the disk cannot know itself.
func (d *Disk) Fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail(err)
}

// refusal is why nothing is done any more, or nil. The mutex is held.
func (d *Disk) refusal() error {
	if d.err == nil {
		return nil
	}
	return model.Errorf(model.Unavailable, "disk %s has failed: %w", d.super.disk, d.err)
}

func (d *Disk) wake() {
	d.work.Broadcast()
	d.chores.Broadcast()
	d.room.Broadcast()
}

// enter begins a call.
func (d *Disk) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closing {
		return ErrClosed
	}
	if err := d.refusal(); err != nil {
		return err
	}
	d.users++
	return nil
}

// exit ends it.
func (d *Disk) exit() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.users--
	if d.closing {
		d.wake()
	}
}

// rowOf returns the row of a volume. The mutex is held.
func (d *Disk) rowOf(vol model.VolumeID) *row {
	r := d.rows[vol]
	if r == nil {
		r = newRow(vol)
		d.rows[vol] = r
	}
	return r
}

// pinLeaf returns a leaf, loading it if need be, that stays in memory until it is
// unpinned.
func (d *Disk) pinLeaf(k leafKey) (*leaf, error) {
	var got *leaf
	var failed error
	done := make(chan struct{})
	d.mu.Lock()
	d.withLeaf(k, func(l *leaf, err error) {
		if got, failed = l, err; err != nil {
			d.fail(err)
		} else {
			l.pins++
		}
		close(done)
	})
	d.mu.Unlock()
	<-done
	return got, failed
}

func (d *Disk) unpinLeaves(leaves []*leaf) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range leaves {
		l.pins--
	}
}

// changed notes that there is something to checkpoint. The mutex is held.
func (d *Disk) changed() {
	if !d.dirty && d.replaying == nil {
		d.dirty = true
		d.timer = time.AfterFunc(checkpointEvery, func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.wantCheckpoint()
		})
	}
	if d.journal.full() || d.pages.full() {
		d.wantCheckpoint()
	}
	if d.overlay.bytes >= roundSize {
		d.chores.Signal()
	}
}

func (d *Disk) wantCheckpoint() {
	if d.dirty && !d.wanted {
		d.wanted = true
		d.chores.Signal()
	}
}

// Close answers what is queued, checkpoints and closes. It returns the error the
// disk failed with, if it did.
func (d *Disk) Close() error {
	d.mu.Lock()
	if d.closing {
		d.mu.Unlock()
		return ErrClosed
	}
	d.closing = true
	close(d.stop)
	d.wake()
	for d.users > 0 {
		d.room.Wait()
	}
	d.wake()
	if d.timer != nil {
		d.timer.Stop()
	}
	d.mu.Unlock()
	d.tasks.Wait()
	err := d.Err()
	err = errors.Join(err, d.store.close(), d.area.Close())
	if d.release != nil {
		err = errors.Join(err, d.release())
	}
	return err
}

// openSuper reads the superblock.
func openSuper(area Area) (superblock, error) {
	var best superblock
	var errs []error
	found := false
	for _, off := range superOffsets {
		b := iobuf.Aligned(superSize)
		q := uring.Request{Kind: uring.Read, Off: off, Bufs: [][]byte{b}}
		err := area.Do(&q)
		var s superblock
		switch {
		case errors.Is(err, io.ErrUnexpectedEOF):
			err = model.Errorf(model.NotFound, "there is no disk of this kind here")
		case err != nil:
			err = fmt.Errorf("read superblock: %w", err)
		default:
			s, err = decodeSuperblock(b)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if !found || s.sequence > best.sequence {
			best, found = s, true
		}
	}
	if !found {
		return best, errors.Join(errs...)
	}
	return best, nil
}

// writeSuper makes both copies of the superblock durable, one after the other: one
// of them is whole at any moment.
func writeSuper(area Area, s *superblock) error {
	s.sequence++
	b := iobuf.Aligned(superSize)
	s.encode(b)
	for _, off := range superOffsets {
		q := uring.Request{Kind: uring.Write, Durable: true, Off: off, Bufs: [][]byte{b}}
		if err := area.Do(&q); err != nil {
			return fmt.Errorf("write superblock: %w", err)
		}
	}
	return nil
}
