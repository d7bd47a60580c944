package server_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/layout"
	"drystone.example/drystone/backend/block/server"
	"drystone.example/drystone/backend/model"
)

type blockNo = layout.Block

func cpuTime(tb testing.TB) time.Duration {
	tb.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkApply is one write to the other node and its answer, over TLS on
// loopback; cpu-us/op is the CPU time of both sides together.
func BenchmarkApply(b *testing.B) {
	for _, c := range []struct{ blocks, depth int }{{1, 1}, {1, 4}, {1, 16}, {1, 64}, {16, 16}, {256, 4}} {
		b.Run(fmt.Sprintf("KiB=%d/depth=%d", 4*c.blocks, c.depth), func(b *testing.B) {
			r := newRig(b, nil, server.Config{})
			d := newMemDisk(b)
			r.server.Add(5, d)
			remote := r.client.Disk(store, 5)
			data, sums := payload(c.blocks, 1)
			b.SetBytes(int64(len(data.Bytes)))
			free := make(chan *disk.Op, c.depth)
			fail := make(chan error, 1)
			for range c.depth {
				free <- &disk.Op{}
			}
			w := &writes{volume: 1}
			run := func(n int) {
				for range n {
					op := <-free
					*op = *w.next(w.number%1024, data, sums)
					remote.Apply(op, func(err error) {
						if err != nil {
							select {
							case fail <- err:
							default:
							}
						}
						free <- op
					})
				}
				for range c.depth {
					<-free
				}
				for range c.depth {
					free <- &disk.Op{}
				}
			}
			run(100)
			b.ResetTimer()
			before := cpuTime(b)
			run(b.N)
			b.ReportMetric(float64((cpuTime(b)-before).Nanoseconds())/1e3/float64(b.N), "cpu-us/op")
			b.StopTimer()
			select {
			case err := <-fail:
				b.Fatal(err)
			default:
			}
		})
	}
}

func BenchmarkRead(b *testing.B) {
	for _, c := range []struct{ blocks, depth int }{{1, 1}, {1, 16}, {256, 4}} {
		b.Run(fmt.Sprintf("KiB=%d/depth=%d", 4*c.blocks, c.depth), func(b *testing.B) {
			r := newRig(b, nil, server.Config{})
			r.server.Add(5, newMemDisk(b))
			remote := r.client.Disk(store, 5)
			b.SetBytes(int64(c.blocks) * int64(model.BlockSize))
			before := cpuTime(b)
			b.SetParallelism(max(1, c.depth/2))
			b.RunParallel(func(pb *testing.PB) {
				dst := make([]byte, c.blocks*int(model.BlockSize))
				sums := make([]uint32, c.blocks)
				for pb.Next() {
					if err := remote.Read(b.Context(), disk.Read{Volume: 1, Count: c.blocks}, dst, sums); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64((cpuTime(b)-before).Nanoseconds())/1e3/float64(b.N), "cpu-us/op")
		})
	}
}
