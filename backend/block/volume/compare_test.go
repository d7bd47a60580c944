package volume

import (
	"context"
	"maps"
	"sync"
	"testing"
	"time"

	"drystone.example/drystone/backend/model"
)

// tamper changes what a disk holds behind everybody's back.
func (d *memDisk) tamper(f func(all map[memKey]*memVersion)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(d.volume(rigVolume).versions)
}

// altered is a version with another stamp or other sums.
func altered(x *memVersion, f func(x *memVersion)) *memVersion {
	o := *x
	f(&o)
	return &o
}

func compare(t *testing.T, v *Volume, snapshots ...model.Epoch) Comparison {
	t.Helper()
	var done, total model.Bytes
	c, err := v.Compare(t.Context(),
		func(context.Context) ([]model.Epoch, error) { return snapshots, nil },
		func(d, all model.Bytes) { done, total = d, all })
	if err != nil {
		t.Fatalf("Compare: %v", err)
	}
	if done != total || total != c.Compared+c.Skipped {
		t.Errorf("%d of %d done, %+v", done, total, c)
	}
	return c
}

// What an active member lacks, or has in an older version, is made the newest; what
// nobody can judge is left alone, and told; what nobody can read is no matter.
func TestCompare(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 3, 2, 256<<20, []int{0, 1}, []int{1, 2})
		v := r.open(t)
		defer r.close(t, v)
		data := pattern(2<<20, 0, 1)
		write(t, v, 0, data)
		write(t, v, 200<<20, data[:65536])
		all := Comparison{Compared: 256 << 20}
		if c := compare(t, v); c != all {
			t.Fatalf("of a volume that is well: %+v", c)
		}
		pageOf := func(page uint32) memKey { return memKey{0, page, 1} }
		older := func(x *memVersion) { x.Stamp.Number-- }
		other := func(x *memVersion) { x.Sums[3]++ }
		r.disks[2].tamper(func(all map[memKey]*memVersion) {
			delete(all, pageOf(3))
			all[pageOf(7)] = altered(all[pageOf(7)], other)
		})
		r.disks[1].tamper(func(all map[memKey]*memVersion) {
			all[pageOf(5)] = altered(all[pageOf(5)], older)
			// Something of an epoch before the first that nobody can read any more.
			all[memKey{0, 9, 0}] = altered(all[pageOf(9)], func(x *memVersion) { x.Epoch, x.Stamp.Number = 0, 1 })
		})
		diverged := maps.Clone(r.disks[2].volume(rigVolume).versions)[memKey{0, 7, 1}]
		want := all
		want.Different, want.Diverged = 2, 1
		if c := compare(t, v); c != want {
			t.Errorf("two pages differ and one diverged: %+v", c)
		}
		want.Different = 0
		if c := compare(t, v); c != want {
			t.Errorf("one page diverged: %+v", c)
		}
		if now := r.disks[2].volume(rigVolume).versions[memKey{0, 7, 1}]; now != diverged {
			t.Error("a page that diverged was changed")
		}
		if !v.columns[0].pinned || v.columns[1].pinned {
			t.Error("reads of the column, and of no other, do not stay with one member")
		}
		r.disks[2].tamper(func(all map[memKey]*memVersion) {
			all[pageOf(7)] = altered(all[pageOf(7)], func(x *memVersion) { x.Sums[3]-- })
		})
		want.Diverged, want.Different = 0, 1
		if c := compare(t, v, 0); c != want {
			t.Errorf("a snapshot that one member has not: %+v", c)
		}
		r.wantSame(t)
		wantRead(t, v, 0, data)
	})
}

// A member that does not answer is passed over, and said to be.
func TestCompareSkips(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 256<<20, []int{0, 1})
		v := r.open(t)
		defer r.close(t, v)
		write(t, v, 0, pattern(1<<20, 0, 1))
		r.pool.setReach(2, Away)
		r.disks[2].crash()
		if c := compare(t, v); c != (Comparison{Skipped: 256 << 20}) {
			t.Errorf("of one copy: %+v", c)
		}
	})
}

// It finds nothing where nothing is, though the pages change all the time.
func TestCompareBesideWrites(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		if c := compareBesideWrites(t, mistakes{}); c.Different+c.Diverged > 0 {
			t.Errorf("%+v", c)
		}
	})
}

// Without the page lock it would take a write on its way for a difference.
func TestCompareBesideWritesCatchesMistake(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		if c := compareBesideWrites(t, mistakes{compareUnlocked: true}); c.Different+c.Diverged == 0 {
			t.Error("nothing was found without the lock; the test proves nothing")
		}
	})
}

func compareBesideWrites(t *testing.T, plant mistakes) (sum Comparison) {
	t.Helper()
	r := newRig(t, 2, 2, 1<<20, []int{0, 1})
	r.disks[1].delay = 3 * time.Millisecond
	v, err := open(t.Context(), r.record.acquire(), r.cfg, plant)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	defer r.close(t, v)
	write(t, v, 0, pattern(1<<20, 0, 1))
	end := time.Now().Add(2 * time.Second)
	var work sync.WaitGroup
	for page := range 4 {
		work.Go(func() {
			for tag := uint64(2); time.Now().Before(end); tag++ {
				write(t, v, int64(page)*65536, pattern(4096, int64(page), tag))
			}
		})
	}
	for time.Now().Before(end) {
		c, err := v.Compare(t.Context(), func(context.Context) ([]model.Epoch, error) { return nil, nil }, func(_, _ model.Bytes) {})
		if err != nil && plant == (mistakes{}) {
			t.Errorf("Compare: %v", err)
		}
		sum.Different += c.Different
		sum.Diverged += c.Diverged
	}
	work.Wait()
	if plant == (mistakes{}) {
		r.wantSame(t)
	}
	return sum
}
