package volume

import (
	"context"
	"sync"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/disk/disktest"
	"drystone.example/drystone/backend/model"
)

const simCluster = model.ClusterID(5)

// A diskStore is a real disk on a simulated drive. A crash cuts its power: what
// was not synced is lost or torn.
type diskStore struct {
	drive  *disktest.Drive
	memory model.Bytes // of the page map's cache; zero: as it comes
	tear   func() int

	mu   sync.Mutex
	open *disk.Disk // nil: down
	old  []*disk.Disk
}

var errDown = model.Errorf(model.Unavailable, "the disk is down")

// driveSize is the size of a disk: room for all snapshots of a run, each of which may keep
// all of the volume. On a full one writes wait, and so does closing, without an error.
const driveSize = 256 << 20

func newDiskStore(w *simWorld, id model.DiskID) simStore {
	return newDiskStoreWith(w, id, driveSize, 0)
}

func newDiskStoreWith(w *simWorld, id model.DiskID, size, memory model.Bytes) simStore {
	s := &diskStore{
		memory: memory,
		drive:  disktest.New(w.seed<<8|uint64(id), size),
		tear:   func() int { return w.intn(101) },
	}
	s.drive.SetDelay(w.between(20*time.Microsecond, 200*time.Microsecond))
	if _, err := s.drive.Format(w.t.Context(), simCluster); err != nil {
		w.complain("format: " + err.Error())
	}
	if err := s.restart(); err != nil {
		w.complain("open: " + err.Error())
	}
	return s
}

func (s *diskStore) now() *disk.Disk {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

func (s *diskStore) crash() {
	s.drive.Crash(s.tear())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open != nil {
		s.old = append(s.old, s.open)
	}
	s.open = nil
}

func (s *diskStore) restart() error {
	s.closeOld()
	d, err := s.drive.Open(context.Background(), disk.Options{Cluster: simCluster, MapMemory: s.memory})
	if err != nil {
		return err
	}
	d.SetFamilies(map[model.VolumeID]model.VolumeID{simOrigin: simOrigin, rigVolume: simOrigin})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = d
	return nil
}

// closeOld lets go of disks whose power was cut; they have nothing to say.
func (s *diskStore) closeOld() {
	s.mu.Lock()
	old := s.old
	s.old = nil
	s.mu.Unlock()
	for _, d := range old {
		_ = d.Close()
	}
}

func (s *diskStore) close() error {
	s.closeOld()
	if d := s.now(); d != nil {
		return d.Close()
	}
	return nil
}

func (s *diskStore) Prepare(ctx context.Context, p disk.Prepare) (disk.Promise, error) {
	if d := s.now(); d != nil {
		return d.Prepare(ctx, p)
	}
	return disk.Promise{}, errDown
}

func (s *diskStore) Apply(op *disk.Op, done func(error)) {
	if d := s.now(); d != nil {
		d.Apply(op, done)
		return
	}
	go done(errDown)
}

func (s *diskStore) Read(ctx context.Context, r disk.Read, dst []byte, sums []uint32) error {
	if d := s.now(); d != nil {
		return d.Read(ctx, r, dst, sums)
	}
	return errDown
}

func (s *diskStore) List(ctx context.Context, l disk.List) (disk.Listing, error) {
	if d := s.now(); d != nil {
		return d.List(ctx, l)
	}
	return disk.Listing{}, errDown
}

func (s *diskStore) Digest(ctx context.Context, l disk.List) (disk.Digest, error) {
	if d := s.now(); d != nil {
		return d.Digest(ctx, l)
	}
	return disk.Digest{}, errDown
}

func (s *diskStore) ReadVersion(ctx context.Context, vol model.VolumeID, gen model.Generation, column, page uint32,
	epoch model.Epoch, dst []byte,
) (disk.Version, error) {
	if d := s.now(); d != nil {
		return d.ReadVersion(ctx, vol, gen, column, page, epoch, dst)
	}
	return disk.Version{}, errDown
}

func (s *diskStore) dump(vol model.VolumeID, gen model.Generation, column uint32) (out []disk.Version, err error) {
	for from := uint32(0); ; {
		l, err := s.List(context.Background(), disk.List{Volume: vol, Generation: gen, Column: column, From: from, Max: 1000})
		if err != nil {
			return nil, err
		}
		out = append(out, l.Versions...)
		if l.Done {
			return out, nil
		}
		from = l.Next
	}
}
