package uring_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/uring"
)

func open(tb testing.TB, size int64, o uring.Options) *uring.Ring {
	tb.Helper()
	f, err := os.OpenFile(filepath.Join(tb.TempDir(), "f"),
		os.O_RDWR|os.O_CREATE|unix.O_DIRECT, 0o600)
	if err != nil {
		tb.Fatal(err)
	}
	zero := iobuf.Aligned(1 << 20)
	for off := int64(0); off < size; off += int64(len(zero)) {
		if _, err := f.WriteAt(zero[:min(int64(len(zero)), size-off)], off); err != nil {
			tb.Fatal(err)
		}
	}
	r, err := uring.Open(f, o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := r.Close(); err != nil && !errors.Is(err, uring.ErrClosed) {
			tb.Error(err)
		}
	})
	return r
}

// ways are the two ways a ring works.
var ways = map[string]uring.Options{"ring": {}, "plain": {Plain: true}}

// What was written is read, whatever goes on at the same time and however many
// requests there are.
func TestReadsWhatWasWritten(t *testing.T) {
	for name, o := range ways {
		t.Run(name, func(t *testing.T) {
			const blocks, rounds = 700, 4 // more than fit into the ring
			r := open(t, blocks*4096, o)
			var wg sync.WaitGroup
			for i := range blocks {
				wg.Go(func() {
					for round := range rounds {
						want := iobuf.Aligned(4096)
						for j := range want {
							want[j] = byte(i + round + j)
						}
						w := &uring.Request{
							Kind: uring.Write, Durable: round%2 == 0, Off: int64(i) * 4096,
							Bufs: [][]byte{want},
						}
						if err := r.Do(w); err != nil {
							t.Errorf("write: %v", err)
						}
						got := iobuf.Aligned(4096)
						rd := &uring.Request{Kind: uring.Read, Off: int64(i) * 4096, Bufs: [][]byte{got}}
						if err := r.Do(rd); err != nil || !bytes.Equal(got, want) {
							t.Errorf("read of block %d: %v, equal %v", i, err, bytes.Equal(got, want))
						}
					}
				})
			}
			wg.Wait()
			if err := r.Do(&uring.Request{Kind: uring.Sync}); err != nil {
				t.Errorf("sync: %v", err)
			}
		})
	}
}

// A vectored request is one transfer of all its parts in order, by Start and Do.
func TestVectors(t *testing.T) {
	for name, o := range ways {
		t.Run(name, func(t *testing.T) {
			r := open(t, 1<<20, o)
			var parts [][]byte
			for i := range 5 {
				parts = append(parts, iobuf.Aligned(4096*(i+1)))
				for j := range parts[i] {
					parts[i][j] = byte(i + 1)
				}
			}
			done := make(chan error, 2)
			for range 2 {
				r.Start(&uring.Request{
					Kind: uring.Write, Off: 8192, Bufs: parts, Durable: true,
					Done: func(err error) { done <- err },
				})
				if err := <-done; err != nil {
					t.Fatal(err)
				}
			}
			got := [][]byte{iobuf.Aligned(4096), iobuf.Aligned(4096 * 14)}
			if err := r.Do(&uring.Request{Kind: uring.Read, Off: 8192, Bufs: got}); err != nil {
				t.Fatal(err)
			}
			all := append(bytes.Clone(got[0]), got[1]...)
			if !bytes.Equal(all, bytes.Join(parts, nil)) {
				t.Error("what was read is not what was written")
			}
		})
	}
}

// The end of the file and the kernel's refusals are errors, not short transfers.
func TestErrors(t *testing.T) {
	for name, o := range ways {
		t.Run(name, func(t *testing.T) {
			r := open(t, 8192, o)
			b := [][]byte{iobuf.Aligned(8192)}
			for _, n := range []int{1, 2} { // alone, and beside another
				var wg sync.WaitGroup
				for range n {
					wg.Go(func() {
						q := &uring.Request{Kind: uring.Read, Off: 4096, Bufs: b}
						if err := r.Do(q); !errors.Is(err, io.ErrUnexpectedEOF) {
							t.Errorf("read across the end: %v", err)
						}
					})
				}
				wg.Wait()
			}
			odd := &uring.Request{Kind: uring.Write, Off: 3, Bufs: b}
			if err := r.Do(odd); !errors.Is(err, unix.EINVAL) {
				t.Errorf("unaligned write: %v, want EINVAL", err)
			}
		})
	}
}

// Close waits for what is under way and refuses what comes after.
func TestClose(t *testing.T) {
	for name, o := range ways {
		t.Run(name, func(t *testing.T) {
			r := open(t, 1<<20, o)
			var done sync.WaitGroup
			for i := range 100 {
				done.Add(1)
				r.Start(&uring.Request{
					Kind: uring.Write, Off: int64(i) * 4096, Bufs: [][]byte{iobuf.Aligned(4096)},
					Done: func(err error) {
						if err != nil {
							t.Errorf("write: %v", err)
						}
						done.Done()
					},
				})
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			done.Wait()
			q := &uring.Request{Kind: uring.Sync}
			if err := r.Do(q); !errors.Is(err, uring.ErrClosed) {
				t.Errorf("after Close: %v, want ErrClosed", err)
			}
		})
	}
}

// Who closes a ring gives its file's lock up, also while others hold on to the file, as
// the kernel does for a moment: the next one to open it is not refused.
func TestCloseUnlocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	locked := func() *os.File {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err == nil {
			err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		}
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	f := locked()
	other, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(other) //nolint:errcheck // nothing was written
	r, err := uring.Open(f, uring.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := locked().Close(); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkRead(b *testing.B) {
	const size = 256 << 20
	for _, plain := range []bool{false, true} {
		for _, depth := range []int{1, 16, 32} {
			b.Run(fmt.Sprintf("plain=%v/depth=%d", plain, depth), func(b *testing.B) {
				r := open(b, size, uring.Options{Plain: plain})
				before, start := cpu(), time.Now()
				b.ResetTimer()
				var wg sync.WaitGroup
				for w := range depth {
					wg.Go(func() {
						q := &uring.Request{Kind: uring.Read, Bufs: [][]byte{iobuf.Aligned(4096)}}
						for i := w; i < b.N; i += depth {
							q.Off = rand.Int64N(size/4096) * 4096
							if err := r.Do(q); err != nil {
								b.Error(err)
							}
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "IOPS")
				b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-µs/op")
			})
		}
	}
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
