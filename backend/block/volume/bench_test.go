package volume

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
)

// A nullDisk answers at once from a goroutine of its own, as a disk does; what
// is left is the holder's own work.
type nullDisk struct {
	tasks chan memTask
}

func newNullDisk(b *testing.B) *nullDisk {
	b.Helper()
	d := &nullDisk{tasks: make(chan memTask, 1024)}
	var worker sync.WaitGroup
	worker.Go(func() {
		for t := range d.tasks {
			t.done(nil)
		}
	})
	b.Cleanup(func() {
		close(d.tasks)
		worker.Wait()
	})
	return d
}

func (d *nullDisk) Prepare(context.Context, disk.Prepare) (disk.Promise, error) {
	return disk.Promise{}, nil
}

func (d *nullDisk) Apply(op *disk.Op, done func(error)) { d.tasks <- memTask{op, done} }

func (d *nullDisk) Read(_ context.Context, _ disk.Read, _ []byte, sums []uint32) error {
	for i := range sums {
		sums[i] = sumOfZeros
	}
	return nil
}

func (d *nullDisk) List(context.Context, disk.List) (disk.Listing, error) {
	return disk.Listing{Done: true}, nil
}

func (d *nullDisk) Digest(context.Context, disk.List) (disk.Digest, error) { return disk.Digest{}, nil }

func (d *nullDisk) ReadVersion(context.Context, model.VolumeID, model.Generation, uint32, uint32, model.Epoch,
	[]byte,
) (disk.Version, error) {
	return disk.Version{}, model.Errorf(model.NotFound, "nothing is stored")
}

type nullPool map[model.DiskID]*nullDisk

func (p nullPool) Disk(id model.DiskID) (Disk, bool, error) { return p[id], id == 1, nil }
func (p nullPool) Reach(model.DiskID) Reach                 { return Up }
func (p nullPool) Node(id model.DiskID) model.NodeID        { return model.NodeID(id) }
func (p nullPool) Substitute(model.Volume, int, []model.DiskID) model.DiskID {
	return 0
}

func benchVolume(b *testing.B) *Volume {
	b.Helper()
	pool := nullPool{}
	rec := model.Volume{ID: 1, Size: 1 << 30, Copies: 2, Generation: 1, Revision: 1}
	for i := range 6 {
		pool[model.DiskID(i+1)] = newNullDisk(b)
	}
	for c := range 32 {
		rec.Columns = append(rec.Columns, model.Column{Members: []model.Member{
			{Disk: model.DiskID(c%6 + 1), State: model.Active}, {Disk: model.DiskID((c+1)%6 + 1), State: model.Active},
		}})
	}
	cfg := Default()
	cfg.Disks, cfg.Record, cfg.Lease = pool, &register{rec: rec}, newLease()
	cfg.Log = slog.New(slog.DiscardHandler)
	v, err := Open(b.Context(), rec, cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := v.Close(context.Background()); err != nil {
			b.Error(err)
		}
	})
	return v
}

// BenchmarkWrite is what the holder itself costs, with disks that cost nothing.
func BenchmarkWrite(b *testing.B) {
	for _, c := range []struct{ size, depth int }{{4096, 1}, {4096, 16}, {1 << 20, 4}} {
		b.Run(fmt.Sprintf("%dk-depth%d", c.size>>10, c.depth), func(b *testing.B) {
			v := benchVolume(b)
			b.SetBytes(int64(c.size))
			b.ReportAllocs()
			spread(b, c.depth, func(i int64) error {
				buf := iobuf.Get(c.size)
				defer buf.Release()
				return v.WriteAt(b.Context(), buf, i*7919%(1<<30/int64(c.size))*int64(c.size))
			})
		})
	}
}

// BenchmarkRead is the same for reads.
func BenchmarkRead(b *testing.B) {
	for _, depth := range []int{1, 16} {
		b.Run(fmt.Sprintf("4k-depth%d", depth), func(b *testing.B) {
			v := benchVolume(b)
			b.ReportAllocs()
			var bufs sync.Pool
			spread(b, depth, func(i int64) error {
				p, ok := bufs.Get().(*[]byte)
				if !ok {
					fresh := iobuf.Aligned(4096)
					p = &fresh
				}
				defer bufs.Put(p)
				return v.ReadAt(b.Context(), *p, i*7919%(1<<18)*4096)
			})
		})
	}
}

// spread shares b.N calls among as many goroutines as the depth.
func spread(b *testing.B, depth int, f func(i int64) error) {
	b.Helper()
	var next atomic.Int64
	var wait sync.WaitGroup
	b.ResetTimer()
	for range depth {
		wait.Go(func() {
			for {
				i := next.Add(1)
				if i > int64(b.N) {
					return
				}
				if err := f(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
	b.StopTimer()
}
