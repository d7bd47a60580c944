package disk_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/disk/disktest"
	"drystone.example/drystone/backend/uring"
)

// crashed makes a drive whose power was cut with work in its journal: some of it in
// places, and some in places that had to be left again.
func crashed(t *testing.T, seed uint64) (*disktest.Drive, *world) {
	t.Helper()
	ctx := context.Background()
	drive := disktest.New(seed, 16<<20)
	if _, err := drive.Format(ctx, cluster); err != nil {
		t.Fatal(err)
	}
	d, err := drive.Open(ctx, disk.Options{Cluster: cluster})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld()
	if _, err := runScript(d, w, script(seed, 25)); err != nil {
		t.Fatal(err)
	}
	drive.Crash(50)
	_ = d.Close()
	return drive, w
}

// The power is cut again while a disk recovers, at every write on its way and every
// sync: the next recovery finds what the first would have.
func TestPowerCutDuringRecovery(t *testing.T) {
	cuts := 0
	for seed := range uint64(3) {
		drive, w := crashed(t, seed)
		var mu sync.Mutex
		var check []moment
		cut := func() {
			mu.Lock()
			defer mu.Unlock()
			for _, percent := range []int{0, 100, 50} {
				check = append(check, moment{
					drive: drive.Clone(uint64(len(check)), percent), before: w,
					at: fmt.Sprintf("seed %d, cut %d, %d %%", seed, len(check), percent),
				})
			}
		}
		drive.SetFlight(func(*disktest.Request) { cut() })
		drive.SetFault(func(r *disktest.Request) error {
			if r.Kind == uring.Sync {
				cut()
			}
			return nil
		})
		d, err := drive.Open(t.Context(), disk.Options{Cluster: cluster})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		drive.SetFlight(nil)
		drive.SetFault(nil)
		closed(t, d)
		for i := range check {
			check[i].verify(t)
		}
		if cuts += len(check); len(check) < 10 {
			t.Errorf("seed %d: only %d cuts in a recovery", seed, len(check))
		}
	}
	t.Logf("%d power cuts", cuts)
}

// Whichever request of a recovery fails, reads included, once or from then on: the
// disk does not open, or is as it should be, and it opens when nothing fails any more,
// with everything that was ever answered.
func TestFailTheNthRequestOfRecovery(t *testing.T) {
	base, w := crashed(t, 3)
	for n, hit := int64(1), true; hit; n++ {
		hit = false
		for _, once := range []bool{true, false} {
			at := fmt.Sprintf("request %d, once %v", n, once)
			drive := base.Clone(1, 100)
			var count atomic.Int64
			drive.SetFault(func(*disktest.Request) error {
				if c := count.Add(1); c == n || c > n && !once {
					return unix.EIO
				}
				return nil
			})
			d, err := drive.Open(t.Context(), disk.Options{Cluster: cluster})
			hit = hit || count.Load() >= n
			switch {
			case err == nil:
				err = d.Close()
				if err != nil && count.Load() < n {
					t.Errorf("%s: close: %v", at, err)
				}
			case !errors.Is(err, unix.EIO):
				t.Errorf("%s: %v, want EIO", at, err)
			}
			drive.SetFault(nil)
			m := moment{drive: drive, before: w, at: at}
			m.verify(t)
		}
		if n > 1000 {
			t.Fatal("a recovery without end")
		}
	}
}
