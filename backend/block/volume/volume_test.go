package volume

import (
	"slices"
	"testing"
	"time"

	"drystone.example/drystone/backend/model"
)

// What is written is read, whatever its alignment, before and after a takeover.
func TestWriteRead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 4, 2, 64<<20, []int{0, 1}, []int{1, 2}, []int{2, 3}, []int{3, 0})
		v := r.open(t)
		shadow := make([]byte, 8<<20)
		put := func(off int64, n int, tag uint64) {
			data := pattern(n, off, tag)
			copy(shadow[off:], data)
			write(t, v, off, data)
		}
		put(0, 4096, 1)
		put(512, 512, 2)
		put(4096*3+512, 4096*2, 3)
		put(1<<20-4096, 8192, 4)
		put(1<<20-512, 1024, 5)
		put(2<<20, 3<<20, 6)
		put(5<<20+1024, 1<<20+512, 7)
		wantRead(t, v, 0, shadow)
		wantRead(t, v, 512, shadow[512:8192])
		if err := v.Discard(t.Context(), 2<<20+512, 1<<20); err != nil {
			t.Fatalf("Discard: %v", err)
		}
		clear(shadow[2<<20+512 : 3<<20+512])
		wantRead(t, v, 0, shadow)
		r.close(t, v)
		v = r.open(t)
		wantRead(t, v, 0, shadow)
		r.close(t, v)
		r.wantSame(t)
	})
}

func TestBadRequests(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 1<<20, []int{0, 1})
		v := r.open(t)
		defer r.close(t, v)
		for _, c := range []struct {
			name string
			off  int64
			n    int
		}{{"beyond the end", 1 << 20, 512}, {"over the end", 1<<20 - 512, 1024}, {"below zero", -512, 512}, {"odd", 3, 512}, {"odd length", 0, 100}} {
			if err := writeErr(t.Context(), v, c.off, make([]byte, c.n)); model.CodeOf(err) != model.Invalid {
				t.Errorf("%s: WriteAt(%d, %d) = %v, want invalid", c.name, c.off, c.n, err)
			}
			if err := v.ReadAt(t.Context(), make([]byte, c.n), c.off); model.CodeOf(err) != model.Invalid {
				t.Errorf("%s: ReadAt(%d, %d) = %v, want invalid", c.name, c.off, c.n, err)
			}
		}
	})
}

// A member that falls silent is dropped through raft before the write is
// answered; it comes back by itself and is filled.
func TestDropAndReturn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 3, 2, 16<<20, []int{0, 1}, []int{1, 2})
		v := r.open(t)
		defer r.close(t, v)
		one := pattern(1<<20, 0, 1)
		write(t, v, 0, one)
		down := model.Errorf(model.Unavailable, "connection lost")
		r.disks[2].setDown(down)
		r.pool.setReach(2, Away)
		began := time.Now()
		two := pattern(4096, 8192, 2)
		write(t, v, 8192, two)
		copy(one[8192:], two)
		if took := time.Since(began); took < r.cfg.Timeout || took > 5*time.Second {
			t.Errorf("the write took %v", took)
		}
		m, _ := r.record.get().Columns[0].Member(2)
		if m.State != model.Stale || m.Cutoff.IsZero() {
			t.Errorf("member after the drop: %+v", m)
		}
		if m, _ := r.record.get().Columns[1].Member(2); m.State != model.Stale {
			t.Errorf("the disk's other column: %+v", m)
		}
		wantRead(t, v, 0, one)
		r.disks[2].setDown(nil)
		r.pool.setReach(2, Up)
		eventually(t, "disk 2 is active again", time.Minute, func() bool {
			rec := r.record.get()
			return rec.Columns[0].Count(model.Active) == 2 && rec.Columns[1].Count(model.Active) == 2
		})
		wantRead(t, v, 0, one)
		r.wantSame(t)
	})
}

// All columns of a disk that comes back change together: one commit drops them, one
// lets them join, and one or two make them active, for little was missed: what is
// filled when the commit before ends does not wait.
func TestColumnsChangeTogether(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		columns := make([][]int, 32)
		for i := range columns {
			columns[i] = []int{i % 2, 2}
		}
		r := newRig(t, 3, 2, 64<<20, columns...)
		v := r.open(t)
		defer r.close(t, v)
		write(t, v, 0, pattern(1<<20, 0, 1))
		r.disks[3].setDown(model.Errorf(model.Unavailable, "connection lost"))
		r.pool.setReach(3, Away)
		for c := range columns {
			write(t, v, int64(c)<<20, pattern(4096, 0, 2))
		}
		if n := r.record.changes(); n != 1 {
			t.Errorf("the disk was dropped by %d commits", n)
		}
		r.disks[3].setDown(nil)
		r.pool.setReach(3, Up)
		eventually(t, "all members are active again", time.Minute, func() bool {
			rec := r.record.get()
			return !slices.ContainsFunc(rec.Columns, func(c model.Column) bool { return c.Count(model.Active) != 2 })
		})
		if n := r.record.changes(); n > 4 {
			t.Errorf("the disk was dropped and came back by %d commits, want at most 4", n)
		}
		r.wantSame(t)
	})
}
