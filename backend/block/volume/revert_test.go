package volume

import (
	"slices"
	"testing"
	"time"

	"drystone.example/drystone/backend/model"
)

// beginRevert is what the record does when a volume shall be reverted.
func beginRevert(rec model.Volume, s model.Snapshot) model.Volume {
	rec.Revision++
	if !rec.Revert.Due() {
		rec.Epoch++
	}
	rec.Revert = model.Revert{Snapshot: s.ID, Epoch: s.Epoch, Size: s.Size, Began: rec.Revision, Running: rec.Revert.Running}
	return rec
}

func (r *rig) revert(s model.Snapshot, v *Volume) {
	r.record.mu.Lock()
	r.record.rec = beginRevert(r.record.rec, s)
	r.record.mu.Unlock()
	r.tell(v)
}

// A reverted volume is what the snapshot is, size and holes included; all snapshots
// stay; and a member that was away meanwhile comes back with the same.
func TestRevert(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 16<<20, []int{0, 1})
		v := r.open(t)
		defer r.close(t, v)
		first := pattern(3*65536, 0, 1)
		write(t, v, 0, first)
		one := r.snapshot(1, v)
		r.record.mu.Lock()
		r.record.rec.Size = 24 << 20
		r.record.rec.Revision++
		r.record.mu.Unlock()
		r.tell(v)
		second := pattern(65536, 0, 2)
		write(t, v, 0, second)                                       // over something
		write(t, v, 5*65536, second)                                 // over nothing
		write(t, v, 20<<20, second)                                  // beyond what was its end
		if err := v.Discard(t.Context(), 65536, 65536); err != nil { // where there was something
			t.Fatal(err)
		}
		two := r.snapshot(2, v)
		r.disks[2].setDown(errDown)
		write(t, v, 6*65536, second) // so that it is dropped
		r.revert(one, v)
		eventually(t, "the revert", time.Minute, func() bool { return !r.record.get().Revert.Due() })
		r.disks[2].setDown(nil)
		eventually(t, "all members and all freed", 2*time.Minute, func() bool {
			rec := r.record.get()
			return rec.Columns[0].Count(model.Active) == 2 && !rec.Trim.Due()
		})
		r.wantSame(t)
		if v.Size() != 16<<20 {
			t.Errorf("the volume has %d bytes", v.Size())
		}
		wantRead(t, v, 0, slices.Concat(first, make([]byte, 16<<20-len(first))))
		wantAt(t, v, one, 0, first)
		wantAt(t, v, two, 0, second)
		wantAt(t, v, two, 65536, make([]byte, 65536))
		wantAt(t, v, two, 20<<20, second)
		write(t, v, 0, second)
		wantRead(t, v, 0, second)
		wantAt(t, v, one, 0, first)
	})
}

// A revert that is replaced while a member is away: what the member has of the one
// before is not what it gets to keep.
func TestRevertReplaced(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		if what := revertReplaced(t, mistakes{}); what != "" {
			t.Error(what)
		}
	})
}

func TestRevertReplacedCatchesMistake(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		if what := revertReplaced(t, mistakes{revertOld: true}); what == "" {
			t.Error("the stamp of the old version does as well")
		}
	})
}

func revertReplaced(t *testing.T, plant mistakes) string {
	t.Helper()
	const n = 64 * 65536
	r := newRig(t, 2, 2, 16<<20, []int{0, 1})
	v := r.open(t)
	write(t, v, 0, pattern(n, 0, 1))
	one := r.snapshot(1, v)
	write(t, v, 0, pattern(n, 0, 2))
	two := r.snapshot(2, v)
	write(t, v, 0, pattern(n, 0, 3))
	r.close(t, v)
	r.cfg.FillRate = 256 << 10 // four pages a second
	r.revert(two, nil)
	v, err := open(t.Context(), r.record.acquire(), r.cfg, plant)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close(t, v)
	time.Sleep(5 * time.Second)
	r.disks[2].setDown(errDown)
	eventually(t, "the member to be dropped", time.Minute, func() bool {
		return r.record.get().Columns[0].Count(model.Stale) == 1
	})
	r.revert(one, v)
	eventually(t, "the revert", 2*time.Minute, func() bool { return !r.record.get().Revert.Due() })
	r.disks[2].setDown(nil)
	eventually(t, "all members and all freed", 2*time.Minute, func() bool {
		rec := r.record.get()
		return rec.Columns[0].Count(model.Active) == 2 && !rec.Trim.Due()
	})
	return firstDifference(r.disks[1].versions(rigVolume, 0), r.disks[2].versions(rigVolume, 0))
}

// A revert goes on under the next holder, may be replaced while it runs, and what
// it has made stays below nothing.
func TestRevertGoesOn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 16<<20, []int{0, 1})
		v := r.open(t)
		const n = 64 * 65536
		write(t, v, 0, pattern(n, 0, 1))
		one := r.snapshot(1, v)
		write(t, v, 0, pattern(n, 0, 2))
		two := r.snapshot(2, v)
		write(t, v, 0, pattern(n, 0, 3))
		r.close(t, v)
		r.cfg.FillRate = 256 << 10 // four pages a second
		r.revert(one, nil)
		for range 3 {
			v = r.open(t)
			time.Sleep(3 * time.Second)
			if s := v.Status().Tending; !s.Reverts || s.Total == 0 {
				t.Errorf("while it reverts the status is %+v", s)
			}
			v.shut(errClosed) // as a crash
		}
		if !r.record.get().Revert.Running {
			t.Fatal("the record does not say that it runs")
		}
		v = r.open(t)
		time.Sleep(time.Second)
		r.revert(two, v)
		eventually(t, "the revert", time.Minute, func() bool { return !r.record.get().Revert.Due() })
		wantRead(t, v, 0, pattern(n, 0, 2))
		wantAt(t, v, one, 0, pattern(n, 0, 1))
		wantAt(t, v, two, 0, pattern(n, 0, 2))
		r.wantSame(t)
		eventually(t, "the version before to be freed", time.Minute, func() bool { return !r.record.get().Trim.Due() })
		if got := r.epochsOf(t, 3); !slices.Equal(got, []model.Epoch{1, 2, 4}) {
			t.Errorf("page 3 has versions of epochs %d", got)
		}
		r.close(t, v)
	})
}
