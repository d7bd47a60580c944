package disk

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/bits"
	"os"
	"path/filepath"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/uring"
)

// FormatOptions say what a new disk shall be.
type FormatOptions struct {
	Cluster model.ClusterID
	Disk    model.DiskID // zero: one is drawn
	Size    model.Bytes  // of the file to be made; zero: path exists and is taken as large as it is
	Journal model.Bytes  // of the journal; zero: a 64th of the disk, 64 MiB to 1 GiB

	// Sparse leaves the space of a file to be made with the file system until it is
	// written. When that has none left, the write fails, and the disk with it. A file
	// made without it has its space for ever: what is freed stays with the file.
	Sparse bool

	Map string // directory of the map, made anew; empty: path+".map"
}

// mapSuffix makes the name of the map's directory from the disk's.
const mapSuffix = ".map"

// Format makes a disk of the file or block device at path and a map beside it,
// in path+".map" unless the options say otherwise. It refuses a path that is a disk already. A file it made is
// removed when it fails. What an interrupted Format left is no disk, and may be
// formatted again.
func Format(ctx context.Context, path string, o FormatOptions) (model.DiskID, error) {
	f, made, err := openToFormat(path, o.Size > 0)
	if err != nil {
		return 0, err
	}
	id, err := formatFile(ctx, f, path, o)
	if err != nil && made {
		err = errors.Join(err, os.Remove(path), os.RemoveAll(cmp.Or(o.Map, path+mapSuffix)))
	}
	if err != nil {
		return 0, err
	}
	return id, syncDir(filepath.Dir(path))
}

// openToFormat opens what shall be a disk, or makes it.
func openToFormat(path string, create bool) (f *os.File, made bool, err error) {
	if create {
		f, err = openFile(path, os.O_CREATE|os.O_EXCL)
		if err == nil || !errors.Is(err, fs.ErrExist) {
			return f, err == nil, err
		}
	}
	f, err = openFile(path, 0)
	return f, false, err
}

// formatFile formats an open file and closes it.
func formatFile(ctx context.Context, f *os.File, path string, o FormatOptions) (model.DiskID, error) {
	if o.Size > 0 {
		if err := grow(f, o.Size, o.Sparse); err != nil {
			return 0, errors.Join(err, f.Close())
		}
	}
	m, err := fileMedium(f, cmp.Or(o.Map, path+mapSuffix))
	if err != nil {
		return 0, errors.Join(err, f.Close())
	}
	id, err := FormatMedium(ctx, m, o)
	if err != nil {
		return 0, errors.Join(err, m.Area.Close())
	}
	if err := m.Area.Close(); err != nil {
		return 0, fmt.Errorf("close: %w", err)
	}
	return id, nil
}

// grow makes a file at least as large as size. The file system's room is looked at
// first: a reservation that fails half way would take all of it from others.
func grow(f *os.File, size model.Bytes, sparse bool) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("size of disk: %w", err)
	}
	if !info.Mode().IsRegular() || model.Bytes(info.Size()) >= size {
		return nil
	}
	if sparse {
		err = f.Truncate(int64(size))
	} else if err = roomFor(f, size-model.Bytes(info.Size())); err == nil {
		err = unix.Fallocate(int(f.Fd()), 0, 0, int64(size))
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOSPC):
		return model.Errorf(model.NoSpace, "no room for a disk of %d bytes: %w", size, err)
	case errors.Is(err, unix.EFBIG):
		return model.Errorf(model.Invalid, "the file system has no files of %d bytes: %w", size, err)
	default:
		return fmt.Errorf("make room for disk: %w", err)
	}
}

// roomFor returns ENOSPC if the file system has less than that free.
func roomFor(f *os.File, size model.Bytes) error {
	var s unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &s); err != nil {
		return fmt.Errorf("free space: %w", err)
	}
	if uint64(size) > s.Bavail*uint64(s.Bsize) {
		return unix.ENOSPC
	}
	return nil
}

// Open opens the disk at path, replays its journal and checks that it belongs to
// the cluster. A disk is open in one process at a time.
func Open(ctx context.Context, path string, o Options) (*Disk, error) {
	f, err := openFile(path, 0)
	if err != nil {
		return nil, err
	}
	m, err := fileMedium(f, cmp.Or(o.Map, path+mapSuffix))
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return OpenMedium(ctx, m, o)
}

// openFile opens and locks a file without the kernel's cache: what the device
// says of a write is what the disk hears. A block device is also claimed: the kernel
// gives it to one that asks so, be it a mount, a RAID or a program, until it is closed.
func openFile(path string, flags int) (*os.File, error) {
	if info, err := os.Stat(path); err == nil && info.Mode()&(fs.ModeDevice|fs.ModeCharDevice) == fs.ModeDevice {
		flags |= os.O_EXCL
	}
	f, err := os.OpenFile(path, flags|os.O_RDWR|unix.O_DIRECT, 0o600) //nolint:gosec // the operator names it
	if errors.Is(err, fs.ErrNotExist) {
		return nil, model.Errorf(model.NotFound, "there is no disk here: %w", err)
	}
	if errors.Is(err, unix.EBUSY) {
		return nil, model.Errorf(model.Conflict, "the disk is in use: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("open disk: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(model.Errorf(model.Conflict, "the disk is in use: %w", err), f.Close())
	}
	return f, nil
}

// fileMedium is the medium of a disk in a file or on a block device.
func fileMedium(f *os.File, dir string) (Medium, error) {
	have, err := f.Seek(0, 2) // also right for a block device
	if err != nil {
		return Medium{}, fmt.Errorf("size of disk: %w", err)
	}
	area, err := uring.Open(f, uring.Options{})
	if err != nil {
		return Medium{}, err
	}
	return Medium{Area: area, Size: model.Bytes(have), FS: vfs.Default, Dir: dir}, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // the directory of the disk
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}

// FormatMedium is Format on a medium of the caller's, which stays open.
func FormatMedium(ctx context.Context, m Medium, o FormatOptions) (model.DiskID, error) {
	if o.Cluster == 0 {
		return 0, model.Errorf(model.Invalid, "a disk belongs to a cluster")
	}
	switch _, err := openSuper(m.Area); {
	case err == nil:
		return 0, model.Errorf(model.Conflict, "there is a disk here already")
	case model.CodeOf(err) == model.Corrupt:
		return 0, model.Errorf(model.Conflict, "there is a damaged disk here: %w", err)
	case model.CodeOf(err) != model.NotFound:
		return 0, err
	}
	s, err := geometry(m.Size, o.Journal)
	if err != nil {
		return 0, err
	}
	s.cluster, s.disk, s.salt = o.Cluster, o.Disk, uint64(model.NewID[model.DiskID]())
	if s.disk == 0 {
		s.disk = model.NewID[model.DiskID]()
	}
	s.tail = position{lsn: 1}

	if err := m.FS.RemoveAll(m.Dir); err != nil {
		return 0, fmt.Errorf("remove an old map: %w", err)
	}
	if err := formatMap(m, &s); err != nil {
		return 0, err
	}
	// The journal is written once, so that every write to it is an overwrite.
	zeros := iobuf.Aligned(1 << 20)
	for off := int64(0); off < int64(s.journal); off += int64(len(zeros)) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		q := uring.Request{Kind: uring.Write, Off: int64(journalStart) + off, Bufs: [][]byte{zeros}}
		if err := m.Area.Do(&q); err != nil {
			return 0, fmt.Errorf("write journal: %w", err)
		}
	}
	if err := m.Area.Do(&uring.Request{Kind: uring.Sync}); err != nil {
		return 0, fmt.Errorf("sync journal: %w", err)
	}
	return s.disk, writeSuper(m.Area, &s)
}

func formatMap(m Medium, s *superblock) error {
	stop := make(chan struct{})
	failed := make(chan struct{})
	var once sync.Once
	var why error
	st, err := openStore(m.FS, m.Dir, storeEvents{
		failed: func(err error) {
			once.Do(func() {
				why = err
				close(failed)
			})
		},
		stopped: stop, log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	err = st.db.Set(metaIdentity, identityValue(s), pebble.NoSync)
	if err == nil {
		at := appendPair([]byte{valueVersion}, s.tail.lsn, uint64(s.tail.offset))
		err = st.db.Set(metaPosition, at, pebble.NoSync)
	}
	if err == nil { // chunks that are not there name nothing
		err = st.db.Set(metaSpace, appendPair([]byte{valueVersion}, s.tail.lsn, 0), pebble.NoSync)
	}
	if err == nil {
		err = st.flush(failed)
	}
	close(stop)
	if err := errors.Join(err, st.close()); err != nil {
		return fmt.Errorf("make map: %w", err)
	}
	select {
	case <-failed:
		return fmt.Errorf("make map: %w", why)
	default:
		return nil
	}
}

// OpenMedium is Open on a medium of the caller's. The disk owns it from then on,
// also when it fails.
func OpenMedium(ctx context.Context, m Medium, o Options) (*Disk, error) {
	d, err := newDisk(m, o)
	if err != nil {
		return nil, errors.Join(err, m.Area.Close())
	}
	err = d.recover(ctx)
	if failed := d.Err(); failed != nil {
		err = failed // why the map failed; who called it knows only that it did
	}
	if err != nil {
		close(d.stop)
		return nil, errors.Join(err, d.store.close(), m.Area.Close())
	}
	d.tasks.Go(d.commit)
	d.tasks.Go(d.keep)
	d.tasks.Go(d.inheritAll)
	return d, nil
}

// newDisk makes a Disk of what can be known without the journal.
func newDisk(m Medium, o Options) (*Disk, error) {
	s, err := openSuper(m.Area)
	if err != nil {
		return nil, err
	}
	if s.cluster != o.Cluster {
		return nil, model.Errorf(model.Conflict, "the disk belongs to cluster %s, not %s",
			s.cluster, o.Cluster)
	}
	if s.size > m.Size {
		return nil, model.Errorf(model.Corrupt,
			"the disk was made with %d bytes and has %d now", s.size, m.Size)
	}
	if o.MapMemory == 0 {
		o.MapMemory = DefaultMapMemory
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	d := &Disk{
		super: s, area: m.Area, log: o.Logger, pagesStart: s.pagesStart(), release: o.Release,
		loaders: make(chan struct{}, loadersMax),
		failed:  make(chan struct{}), stop: make(chan struct{}),
		rows:  make(map[model.VolumeID]*row),
		pages: newPageMap(int(o.MapMemory)), overlay: newOverlay(), journal: newJournal(&s),
		refs: make(map[place]uint32), dirtyRefs: make(map[place]struct{}),
		origins: newOrigins(), heirs: make(chan struct{}, 1),
		damaged: make(map[damageKey]damage), dirtyDamage: make(map[damageKey]struct{}),
		dirtyCounts: make(map[columnKey]struct{}),
	}
	d.work.L, d.chores.L, d.room.L = &d.mu, &d.mu, &d.mu
	if _, err := m.FS.Stat(m.Dir); err != nil {
		return nil, model.Errorf(model.Corrupt, "the disk's page map is missing: %w", err)
	}
	d.store, err = openStore(m.FS, m.Dir, storeEvents{
		failed: func(err error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.fail(fmt.Errorf("page map: %w", err))
		},
		stopped: d.stop, log: o.Logger,
	})
	return d, err
}

// recover brings the map in memory up to the end of the journal.
func (d *Disk) recover(ctx context.Context) error {
	from, err := d.loadMeta()
	if err != nil {
		return err
	}
	if err := errors.Join(d.loadRows(), d.loadDamage()); err != nil {
		return err
	}
	if err := d.loadOrigins(); err != nil {
		return err
	}
	loaded, err := d.loadSpace(from)
	if err != nil {
		return err
	}
	release, err := d.fetchLeaves(ctx, from)
	if err != nil {
		return err
	}
	d.replaying = newReplay()
	seen := 0
	var failed error
	err = d.journal.replay(d.area, func(p position, records []record, payload int64) {
		if p.lsn < from.lsn || failed != nil {
			return
		}
		seen++
		if failed = ctx.Err(); failed == nil {
			failed = d.replayBatch(records, payload)
		}
	})
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	if d.journal.head.lsn < from.lsn {
		return model.Errorf(model.Corrupt,
			"the journal ends at batch %d, but the map has seen batch %d", d.journal.head.lsn, from.lsn-1)
	}
	if err := d.finishReplay(); err != nil {
		return err
	}
	d.replaying = nil
	release()
	if !loaded {
		if err := d.rebuildSpace(); err != nil {
			return err
		}
		d.counted = true
	}
	if !loaded || seen > 0 || d.super.tail != d.journal.head {
		d.dirty = true
		return d.checkpoint()
	}
	return nil
}

// loadMeta checks that the map belongs to the disk and returns from where on the
// journal is not in it.
func (d *Disk) loadMeta() (position, error) {
	id, err := d.store.get(metaIdentity)
	if err != nil {
		return position{}, err
	}
	if string(id) != string(identityValue(&d.super)) {
		return position{}, model.Errorf(model.Corrupt, "the page map belongs to another disk")
	}
	at, err := d.store.get(metaPosition)
	if err != nil {
		return position{}, err
	}
	lsn, offset, ok := parsePair(at)
	if !ok || lsn < d.super.tail.lsn {
		return position{}, model.Errorf(model.Corrupt,
			"the page map is older than the journal: it is not the one that was used last")
	}
	counts, err := d.store.get(metaCounters)
	if err != nil {
		return position{}, err
	}
	if counts != nil {
		if d.checksumErrors, d.repaired, ok = parsePair(counts); !ok {
			return position{}, errBadMap
		}
	}
	scrubbed, err := d.store.get(metaScrub)
	if err != nil {
		return position{}, err
	}
	if scrubbed != nil {
		if d.scrub, err = parseScrub(scrubbed); err != nil {
			return position{}, err
		}
	}
	return position{lsn: lsn, offset: int64(offset)}, nil
}

func (d *Disk) loadRows() error {
	err := d.store.table(tableRows, func(key, value []byte) (bool, error) {
		st, made, err := parseRow(value)
		if err != nil || len(key) != 9 {
			return false, errBadMap
		}
		r := d.rowOf(model.VolumeID(binary.BigEndian.Uint64(key[1:])))
		r.state, r.known = st, true
		r.uncertain.load(made)
		return true, nil
	})
	if err != nil {
		return err
	}
	return d.store.table(tableRefs, func(key, value []byte) (bool, error) {
		if len(key) != 5 || len(value) != 5 || value[0] != valueVersion {
			return false, errBadMap
		}
		d.refs[place(binary.BigEndian.Uint32(key[1:]))] = binary.LittleEndian.Uint32(value[1:])
		return true, nil
	})
}

// rebuildSpace counts what the map names, where a checkpoint did not leave it. It also
// finds a map that contradicts itself.
//
// Invariant: a place is counted with exactly as many versions as name it. Were it
// counted with fewer, it would be freed, and given to another page, under the last of
// them; with more, it would never be free again, and never be written in place.
func (d *Disk) rebuildSpace() error {
	s := newSpace(d.super.pages)
	claimed := make(map[place]uint32)
	count := func(k pageKey, v *version) error {
		d.rowOf(k.vol).count(k.column, 1, v.occupies())
		if v.place == noPlace {
			return nil
		}
		if claimed[v.place] > 0 && claimed[v.place] < d.refs[v.place] {
			claimed[v.place]++
			return nil
		}
		if !s.set(v.place) {
			return model.Errorf(model.Corrupt, "two versions claim place %d", v.place)
		}
		if d.refs[v.place] > 1 {
			claimed[v.place] = 1
		}
		return nil
	}
	for _, r := range d.rows {
		clear(r.columns)
	}
	err := d.store.table(tablePages, func(key, value []byte) (bool, error) {
		k, e, ok := parsePageKey(key)
		if !ok {
			return false, errBadMap
		}
		lk, i := leafOf(k)
		if l := d.pages.leaves[lk]; l != nil && (l.dirty|l.flushing)&(1<<i) != 0 {
			return true, nil // memory knows better
		}
		v, err := parseVersion(value, e)
		if err != nil {
			return false, err
		}
		return true, count(k, &v)
	})
	if err != nil {
		return err
	}
	for _, l := range d.pages.clock {
		for left := l.dirty | l.flushing; left != 0; left &= left - 1 {
			i := bits.TrailingZeros16(left)
			for v := range l.pages[i] {
				if err := count(l.key.page(i), &l.pages[i][v]); err != nil {
					return err
				}
			}
		}
	}
	for p, n := range d.refs {
		if claimed[p] != n {
			return model.Errorf(model.Corrupt, "place %d is counted with %d versions and %d name it",
				p, n, claimed[p])
		}
	}
	d.space = s
	return nil
}
