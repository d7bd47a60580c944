package vhost

import (
	"context"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"drystone.example/drystone/backend/iobuf"
)

// A nowhere is a Device that takes no time.
type nowhere struct{}

func (nowhere) Size() int64                                         { return 1 << 30 }
func (nowhere) ReadAt(context.Context, []byte, int64) error         { return nil }
func (nowhere) WriteAt(context.Context, *iobuf.Buffer, int64) error { return nil }
func (nowhere) Discard(context.Context, int64, int64) error         { return nil }
func (nowhere) WriteZeroes(context.Context, int64, int64) error     { return nil }
func (nowhere) Flush(context.Context) error                         { return nil }

// BenchmarkRequests is what the front end itself costs per request of 4 KiB; the
// CPU time is that of both sides, guest and back end.
func BenchmarkRequests(b *testing.B) {
	for _, kind := range []uint32{blkIn, blkOut} {
		for _, depth := range []int{1, 16, 32} {
			b.Run(fmt.Sprintf("kind=%d/depth=%d", kind, depth), func(b *testing.B) {
				s, err := Listen(b.Context(), Config{
					Path: b.TempDir() + "/s", Size: 1 << 30,
					Acquire: func(context.Context) (Device, error) { return nowhere{}, nil },
					Release: func() {},
				})
				if err != nil {
					b.Fatal(err)
				}
				ctx, cancel := context.WithCancel(context.Background())
				done := make(chan error, 1)
				go func() { done <- s.Run(ctx) }()
				defer func() {
					cancel()
					if err := <-done; err != nil {
						b.Error(err)
					}
				}()
				v := newVMM(b, s.cfg.Path, 1)
				v.dial()
				v.handshake()
				v.run()
				drive(b, v.queues[0], kind, depth)
			})
		}
	}
}

func drive(b *testing.B, q *vring, kind uint32, depth int) {
	b.Helper()
	var ops []*op
	for range depth {
		data, status := segment{q.v.alloc(4096), 4096}, segment{q.v.alloc(1), 1}
		out, in := []segment{q.head(kind, 0), data}, []segment{status}
		if kind == blkIn {
			out, in = out[:1], []segment{data, status}
		}
		ops = append(ops, q.chain(out, in, false))
	}
	free := q.free
	before := cpu(b)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if n%depth == 0 {
			for _, o := range ops {
				q.publish(o)
			}
			for q.collect(); len(q.waiting) > 0; q.collect() {
				readable(q.call, 15000)
				drainEvent(q.call)
			}
			q.free = free
		}
		n++
	}
	b.ReportMetric(float64(cpu(b)-before)/1000/float64(n), "cpu-µs/op")
}

func cpu(b *testing.B) int64 {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
