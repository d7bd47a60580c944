package disk_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/layout"
	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
)

// openFile makes a disk in a real file. go test -bench wants TMPDIR on a real file
// system; the figures of docs are from ext4 on a virtual disk.
func openFile(tb testing.TB, size model.Bytes) *disk.Disk {
	tb.Helper()
	ctx := context.Background()
	path := filepath.Join(tb.TempDir(), "d")
	if _, err := disk.Format(ctx, path, disk.FormatOptions{Cluster: 7, Size: size}); err != nil {
		tb.Fatal(err)
	}
	d, err := disk.Open(ctx, path, disk.Options{Cluster: 7})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := d.Close(); err != nil {
			tb.Error(err)
		}
	})
	if _, err := d.Prepare(ctx, disk.Prepare{Volume: 1, Generation: 1}); err != nil {
		tb.Fatal(err)
	}
	return d
}

// A sender keeps one row going.
type sender struct {
	mu   sync.Mutex
	d    *disk.Disk
	last uint64
}

// send applies an op as the next of the row and waits for it.
func (s *sender) send(op *disk.Op, done chan error) error {
	s.mu.Lock()
	op.Generation, op.Prev, op.Number = 1, s.last, s.last+1
	if s.last > 64 {
		op.Watermark = model.Stamp{Generation: 1, Number: s.last - 64}
	}
	s.last++
	s.d.Apply(op, func(err error) { done <- err })
	s.mu.Unlock()
	return <-done
}

const benchSize = 512 << 20

// fill writes the volume once, so that what follows are overwrites.
func (s *sender) fill(tb testing.TB) {
	tb.Helper()
	b, sums := data(256, 1)
	for at := 0; at < benchSize/4096; at += 256 {
		op := &disk.Op{
			Kind: disk.Write, Volume: 1, Block: layout.Block(at), Count: 256, Sums: sums, Data: b,
		}
		if err := s.send(op, make(chan error, 1)); err != nil {
			tb.Fatal(err)
		}
	}
}

func BenchmarkWrite4K(b *testing.B) {
	for _, depth := range []int{1, 16, 32} {
		b.Run(fmt.Sprintf("depth=%d", depth), func(b *testing.B) {
			s := &sender{d: openFile(b, 2<<30)}
			s.fill(b)
			buf, sums := data(1, 3)
			run(b, depth, func(done chan error) error {
				return s.send(&disk.Op{
					Kind: disk.Write, Volume: 1, Count: 1, Sums: sums, Data: buf,
					Block: layout.Block(rand.Uint64N(benchSize / 4096)),
				}, done)
			})
			st := s.d.Stats()
			b.ReportMetric(float64(b.N)/float64(st.Batches), "ops/batch")
		})
	}
}

func BenchmarkWrite1M(b *testing.B) {
	s := &sender{d: openFile(b, 2<<30)}
	s.fill(b)
	buf, sums := data(256, 3)
	run(b, 4, func(done chan error) error {
		return s.send(&disk.Op{
			Kind: disk.Write, Volume: 1, Count: 256, Sums: sums, Data: buf,
			Block: layout.Block(rand.Uint64N(benchSize/(1<<20)) * 256),
		}, done)
	})
}

func BenchmarkRead4K(b *testing.B) {
	for _, depth := range []int{1, 16, 32} {
		b.Run(fmt.Sprintf("depth=%d", depth), func(b *testing.B) {
			s := &sender{d: openFile(b, 2<<30)}
			s.fill(b)
			pool := sync.Pool{New: func() any { return iobuf.Aligned(4096) }}
			run(b, depth, func(chan error) error {
				p, _ := pool.Get().([]byte)
				defer pool.Put(p) //nolint:staticcheck // a slice header is cheap enough here
				return s.d.Read(context.Background(), disk.Read{
					Volume: 1, Generation: 1, Count: 1,
					Block: layout.Block(rand.Uint64N(benchSize / 4096)),
				}, p, make([]uint32, 1))
			})
		})
	}
}

// run does f b.N times, depth at a time, and reports rate and processor time.
func run(b *testing.B, depth int, f func(done chan error) error) {
	b.Helper()
	before, start := cpu(), time.Now()
	b.ResetTimer()
	var wg sync.WaitGroup
	for w := range depth {
		wg.Go(func() {
			done := make(chan error, 1)
			for i := w; i < b.N; i += depth {
				if err := f(done); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "IOPS")
	b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-µs/op")
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
