package volume

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
)

// snapshot is a cut of a volume that is held, or of one that is not.
func (r *rig) snapshot(id model.SnapshotID, v *Volume) model.Snapshot {
	r.record.mu.Lock()
	s := model.Snapshot{ID: id, Volume: rigVolume, Epoch: r.record.rec.Epoch, Size: r.record.rec.Size}
	r.record.snaps = append(r.record.snaps, s)
	r.record.rec.Epoch++
	r.record.rec.Revision++
	r.record.mu.Unlock()
	r.tell(v)
	return s
}

// deleteSnapshot takes a snapshot out of the record.
func (r *rig) deleteSnapshot(id model.SnapshotID, v *Volume) {
	r.record.mu.Lock()
	r.record.snaps = slices.DeleteFunc(r.record.snaps, func(s model.Snapshot) bool { return s.ID == id })
	r.record.rec.Revision++
	r.record.rec.Trim = model.Trim{Since: r.record.rec.Revision}
	r.record.mu.Unlock()
	r.tell(v)
}

func (r *rig) tell(v *Volume) {
	if v != nil {
		_ = v.Follow(r.record.get())
	}
}

// epochsOf lists the epochs of which every active disk has a version of a page.
func (r *rig) epochsOf(t *testing.T, page uint32) (out []model.Epoch) {
	t.Helper()
	r.wantSame(t)
	for _, have := range r.disks[r.order[0]].versions(rigVolume, 0) {
		if have.Page == page {
			out = append(out, have.Epoch)
		}
	}
	return out
}

// wantAt reads a snapshot.
func wantAt(t *testing.T, v *Volume, s model.Snapshot, off int64, want []byte) {
	t.Helper()
	at, err := v.At(s)
	if err != nil {
		t.Fatalf("At(%d): %v", s.ID, err)
	}
	got := iobuf.Aligned(len(want))
	if err := at.ReadAt(t.Context(), got, off); err != nil {
		t.Fatalf("read snapshot %d at %d: %v", s.ID, off, err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("snapshot %d at %d reads as something else", s.ID, off)
	}
}

// What only deleted snapshots kept is gone from every member, and nothing else is:
// the volume and the other snapshots read as before, and a reader of the deleted one
// is told.
func TestTrim(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 16<<20, []int{0, 1})
		v := r.open(t)
		defer r.close(t, v)
		var snaps []model.Snapshot
		var data [][]byte
		for i := range 4 { // page 0 in all epochs, page 1 only in the first, page 2 from the second on
			data = append(data, pattern(65536, 0, uint64(i)))
			write(t, v, 0, data[i])
			if i == 0 {
				write(t, v, 65536, data[0])
			}
			if i > 0 {
				write(t, v, 2*65536, data[i])
			}
			if i < 3 {
				snaps = append(snaps, r.snapshot(model.SnapshotID(i+1), v))
			}
		}
		second, err := v.At(snaps[1])
		if err != nil {
			t.Fatal(err)
		}
		r.deleteSnapshot(2, v)
		eventually(t, "the second snapshot to be freed", time.Minute, func() bool { return r.record.get().Trim == model.Trim{} })
		for page, want := range [][]model.Epoch{{1, 3, 4}, {1}, {3, 4}} {
			if got := r.epochsOf(t, uint32(page)); !slices.Equal(got, want) {
				t.Errorf("page %d has versions of epochs %d, want %d", page, got, want)
			}
		}
		if n := v.Stats().Trimmed; n != 2*model.PageSize {
			t.Errorf("%d bytes were counted as freed, want two pages", n)
		}
		wantAt(t, v, snaps[0], 0, data[0])
		wantAt(t, v, snaps[0], 65536, data[0])
		wantAt(t, v, snaps[0], 2*65536, make([]byte, 65536))
		wantAt(t, v, snaps[2], 2*65536, data[2])
		wantRead(t, v, 0, data[3])
		if err := second.ReadAt(t.Context(), iobuf.Aligned(4096), 0); model.CodeOf(err) != model.NotFound {
			t.Errorf("reading the deleted snapshot: %v, want not found", err)
		}
		if _, err := second.Extents(t.Context(), 0, 65536); model.CodeOf(err) != model.NotFound {
			t.Errorf("the extents of the deleted snapshot: %v, want not found", err)
		}
	})
}

// A page that was not written since the deleted snapshot lies in an old epoch. When
// it is written, the old version is freed a little later.
func TestTrimRests(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 16<<20, []int{0, 1})
		v := r.open(t)
		defer func() { r.close(t, v) }()
		write(t, v, 0, pattern(2*65536, 0, 1))
		r.snapshot(1, v)
		r.deleteSnapshot(1, v)
		eventually(t, "the trim to rest", time.Minute, func() bool { return r.record.get().Trim.Rests })
		write(t, v, 0, pattern(65536, 0, 2))
		if got := r.epochsOf(t, 0); !slices.Equal(got, []model.Epoch{1, 2}) {
			t.Errorf("after the write page 0 has epochs %d", got)
		}
		time.Sleep(trimRest + time.Minute)
		if got := r.epochsOf(t, 0); !slices.Equal(got, []model.Epoch{2}) {
			t.Errorf("later page 0 has epochs %d", got)
		}
		write(t, v, 65536, pattern(65536, 65536, 2))
		r.close(t, v) // another holder looks at once
		v = r.open(t)
		eventually(t, "all to be freed", time.Minute, func() bool { return r.record.get().Trim == model.Trim{} })
		if got := r.epochsOf(t, 1); !slices.Equal(got, []model.Epoch{2}) {
			t.Errorf("in the end page 1 has epochs %d", got)
		}
		wantRead(t, v, 0, pattern(65536, 0, 2))
	})
}

// While a member is away nothing waits for it, and when it comes back it loses what
// was freed meanwhile although that is below its cutoff.
func TestTrimWithoutAMember(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 16<<20, []int{0, 1})
		v := r.open(t)
		defer r.close(t, v)
		write(t, v, 0, pattern(65536, 0, 1))
		r.snapshot(1, v)
		write(t, v, 0, pattern(65536, 0, 2))
		r.disks[2].setDown(errDown)
		write(t, v, 65536, pattern(65536, 65536, 2))
		r.deleteSnapshot(1, v)
		eventually(t, "the snapshot to be freed", time.Minute, func() bool { return r.record.get().Trim == model.Trim{} })
		r.disks[2].setDown(nil)
		eventually(t, "the member to be active", time.Minute, func() bool {
			return r.record.get().Columns[0].Count(model.Active) == 2
		})
		if got := r.epochsOf(t, 0); !slices.Equal(got, []model.Epoch{2}) {
			t.Errorf("page 0 has versions of epochs %d", got)
		}
	})
}

// Whatever versions there are and whatever is kept, an epoch that is kept reads the
// same before and after; and it does so if what is kept is judged by a record from
// before any number of cuts and deletions.
func TestTrimView(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		var have []disk.Version
		for e := model.Epoch(1); e <= 8; e++ {
			if rnd.IntN(2) == 0 {
				have = append(have, disk.Version{Epoch: e, Stamp: model.Stamp{Generation: 1, Number: uint64(e)}})
			}
		}
		if len(have) == 0 {
			continue
		}
		// Of the epochs before then, those that were kept then; of all, those that are now.
		then := model.Epoch(1 + rnd.IntN(8))
		now := then + model.Epoch(rnd.IntN(int(9-then)))
		var old, kept []model.Epoch
		for e := model.Epoch(1); e < now; e++ {
			was := rnd.IntN(2) == 0
			if was && e < then {
				old = append(old, e)
			}
			if (was || e >= then) && rnd.IntN(2) == 0 {
				kept = append(kept, e)
			}
		}
		old, kept = append(old, then), append(kept, now)
		view := &trimView{kept: old}
		var left []disk.Version
		for i, stays := range view.seen(have) {
			if stays {
				left = append(left, have[i])
			}
		}
		for _, e := range kept {
			if before, after := seenFrom(have, e), seenFrom(left, e); before != after {
				t.Fatalf("versions %v, judged by %d: epoch %d of %d saw epoch %d and sees %d",
					have, old, e, kept, before.Epoch, after.Epoch)
			}
		}
		for i, stays := range view.seen(have) {
			if !stays && i == len(have)-1 {
				t.Fatalf("the newest of %v is removed, judged by %d", have, old)
			}
		}
	}
}

// A cut that is refused because a snapshot was deleted in that moment is tried again,
// also if the holder has heard of that already.
func TestCutBesideDelete(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 16<<20, []int{0, 1})
		v := r.open(t)
		defer r.close(t, v)
		r.snapshot(1, v)
		tries := 0
		err := Cut(t.Context(), []*Volume{v}, func(_ context.Context, recs []model.Volume) ([]model.Volume, error) {
			if tries++; tries == 1 {
				r.deleteSnapshot(1, v)
			}
			rec := r.record.get()
			if rec.Revision != recs[0].Revision {
				return []model.Volume{rec}, model.Errorf(model.Conflict, "the record is at revision %d", rec.Revision)
			}
			r.snapshot(2, nil)
			return []model.Volume{r.record.get()}, nil
		})
		if err != nil || tries < 2 {
			t.Errorf("Cut = %v after %d tries", err, tries)
		}
	})
}

// A change of the members whose answer was lost is not proposed again when the
// record shows what came of it.
func TestLostAnswerIsInTheRecord(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 16<<20, []int{0, 1})
		v := r.open(t)
		defer r.close(t, v)
		r.disks[2].setDown(errDown)
		r.pool.setReach(2, Away)
		r.record.mu.Lock()
		r.record.lose = true
		r.record.before = func() { // what comes of it is heard before the answer would be
			time.AfterFunc(time.Millisecond, func() { r.tell(v) })
		}
		r.record.mu.Unlock()
		write(t, v, 0, pattern(4096, 0, 1))
		time.Sleep(5 * time.Second)
		if n := r.record.changes(); n != 1 {
			t.Errorf("%d changes were proposed, want one", n)
		}
	})
}
