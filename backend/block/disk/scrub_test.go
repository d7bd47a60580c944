package disk_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/disk/disktest"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/uring"
)

const rawArea = int64(1<<20 + disktest.Journal)

// scrubbed makes a pass and returns the pages it found damaged.
func scrubbed(t *testing.T, d *disk.Disk) (pages []uint32) {
	t.Helper()
	err := d.Scrub(t.Context(), func(_ context.Context, at disk.ScrubPoint) {
		pages = append(pages, at.Page)
	})
	if err != nil {
		t.Fatalf("Scrub: %v", err)
	}
	return pages
}

// writePages writes whole pages of volume 1, each to a place of its own, one behind
// the other.
func writePages(t *testing.T, d *disk.Disk, n int) {
	t.Helper()
	for i := range n {
		if err := apply(d, writeOp(1, uint64(i+1), uint64(i), i*16, 16, uint64(i))); err != nil {
			t.Fatal(err)
		}
	}
}

// A pass names each damaged page, of all epochs, and no other; the damage is counted
// once; after a repair there is none left to find.
func TestScrubFindsDamage(t *testing.T) {
	v := newDrive(t, 32<<20)
	d := openDrive(t, v)
	defer closed(t, d)
	writePages(t, d, 100)
	over := writeOp(1, 101, 100, 7*16, 16, 500) // page 7 has a second version
	over.Epoch = 1
	if err := apply(d, over); err != nil {
		t.Fatal(err)
	}
	if pages := scrubbed(t, d); pages != nil {
		t.Fatalf("damaged: %v, want none", pages)
	}
	u := d.Usage()
	if u.Scrubbed.IsZero() || u.Scrub != (model.Scrub{}) || u.ChecksumErrors != 0 {
		t.Errorf("after a pass: %+v", u)
	}
	for _, page := range []int64{7, 42} { // 7 as of epoch 0, which reads do not see
		if v.RotWithin(rawArea+page*65536, rawArea+(page+1)*65536, 2) != 2 {
			t.Fatal("nothing to rot")
		}
	}
	for range 2 {
		if pages := scrubbed(t, d); !slices.Equal(pages, []uint32{7, 42}) {
			t.Fatalf("damaged: %v, want 7 and 42", pages)
		}
	}
	if u := d.Usage(); u.ChecksumErrors != 4 || u.Repaired != 0 {
		t.Errorf("%d checksum errors, %d repaired; want 4 and none", u.ChecksumErrors, u.Repaired)
	}
	for i, page := range []uint32{7, 42} {
		stamp := model.Stamp{Generation: 1, Number: uint64(page) + 1}
		n := uint64(102 + i)
		if err := apply(d, copyOp(1, n, n-1, page, 0, stamp, 0xffff, uint64(page))); err != nil {
			t.Fatal(err)
		}
	}
	if pages := scrubbed(t, d); pages != nil {
		t.Errorf("damaged after the repair: %v", pages)
	}
	if u := d.Usage(); u.ChecksumErrors != 4 || u.Repaired != 4 {
		t.Errorf("%d checksum errors, %d repaired; want 4 and 4", u.ChecksumErrors, u.Repaired)
	}
}

// A pass that is cancelled goes on where it was, also after a restart; only one pass
// is made at a time.
func TestScrubGoesOn(t *testing.T) {
	v := newDrive(t, 32<<20)
	d := openDrive(t, v)
	writePages(t, d, 100)
	if v.RotWithin(rawArea+60*65536, rawArea+61*65536, 1) != 1 {
		t.Fatal("nothing to rot")
	}
	ctx, cancel := context.WithCancel(t.Context())
	err := d.Scrub(ctx, func(ctx context.Context, _ disk.ScrubPoint) {
		if err := d.Scrub(ctx, nil); model.CodeOf(err) != model.Conflict {
			t.Errorf("a second pass: %v, want a conflict", err)
		}
		if s := d.Usage().Scrub; !s.Running || s.Done != 61*model.PageSize || s.Total != 100*model.PageSize {
			t.Errorf("at page 60: %+v", s)
		}
		cancel()
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled: %v", err)
	}
	closed(t, d)
	d = openDrive(t, v)
	defer closed(t, d)
	before := d.Usage()
	if s := before.Scrub; s.Running || s.Done < 61*model.PageSize || !before.Scrubbed.IsZero() {
		t.Fatalf("restarted: %+v", before)
	}
	var mu sync.Mutex
	reads := int64(0)
	v.SetFault(func(r *disktest.Request) error {
		mu.Lock()
		defer mu.Unlock()
		if r.Kind == uring.Read && r.Off >= rawArea {
			reads++
		}
		return nil
	})
	if pages := scrubbed(t, d); pages != nil {
		t.Errorf("damaged: %v: the pass began anew", pages)
	}
	v.SetFault(nil)
	mu.Lock()
	defer mu.Unlock()
	if want := int64((100*model.PageSize - before.Scrub.Done) / model.PageSize); reads != want {
		t.Errorf("%d pages read, want the %d that were left", reads, want)
	}
	if u := d.Usage(); u.Scrubbed.IsZero() || u.Scrub != (model.Scrub{}) {
		t.Errorf("after the pass: %+v", u)
	}
}

// Idle, a pass reads 64 MiB in a second and no more; beside other work, an eighth.
func TestScrubKeepsItsRate(t *testing.T) {
	for name, busy := range map[string]bool{"idle": false, "busy": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := openDrive(t, newDrive(t, 64<<20))
				defer closed(t, d)
				const pages = 512 // 32 MiB
				writePages(t, d, pages)
				ctx, cancel := context.WithCancel(t.Context())
				var others sync.WaitGroup
				if busy {
					others.Go(func() {
						dst, sums := make([]byte, 4096), make([]uint32, 1)
						r := disk.Read{Volume: 1, Generation: 1, Count: 1}
						for ctx.Err() == nil && d.Read(ctx, r, dst, sums) == nil {
							time.Sleep(time.Millisecond)
						}
					})
				}
				begun := time.Now()
				if bad := scrubbed(t, d); bad != nil {
					t.Errorf("damaged: %v", bad)
				}
				took := time.Since(begun)
				cancel()
				others.Wait()
				lo, hi := 480*time.Millisecond, 520*time.Millisecond
				if busy {
					lo, hi = 3500*time.Millisecond, 4100*time.Millisecond
				}
				if took < lo || took > hi {
					t.Errorf("took %v, want %v to %v", took, lo, hi)
				}
			})
		})
	}
}

// Beside writes of all kinds that move, replace and drop pages, a pass never takes for
// damaged what is only being replaced.
func TestScrubBesideWrites(t *testing.T) {
	v := newDrive(t, 64<<20)
	d := openDrive(t, v)
	defer closed(t, d)
	const pages = 64
	writePages(t, d, pages)
	ctx, cancel := context.WithCancel(t.Context())
	var writer sync.WaitGroup
	writer.Go(func() {
		rng := rand.New(rand.NewPCG(7, 7))
		for n := uint64(pages + 1); ctx.Err() == nil; n++ {
			first, count := rng.IntN(pages*16-32), 1+rng.IntN(32)
			op := writeOp(1, n, n-1, first, count, n)
			op.Epoch = model.Epoch(n / 300)
			if rng.IntN(5) == 0 {
				op.Kind, op.Data, op.Sums = disk.Discard, nil, nil
			}
			if err := apply(d, op); err != nil {
				if model.CodeOf(err) != model.NoSpace {
					t.Errorf("write %d: %v", n, err)
				}
				return
			}
		}
	})
	for range 20 {
		if bad := scrubbed(t, d); bad != nil {
			t.Errorf("damaged: %v", bad)
		}
	}
	cancel()
	writer.Wait()
	if u := d.Usage(); u.ChecksumErrors != 0 {
		t.Errorf("%d checksum errors", u.ChecksumErrors)
	}
}
