package volume

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
)

func TestChanged(t *testing.T) {
	at := func(epoch model.Epoch, mask uint16) disk.Version { return disk.Version{Epoch: epoch, Mask: mask} }
	for _, c := range []struct {
		name         string
		versions     []disk.Version
		since, until model.Epoch
		want         bool
	}{
		{"never written", nil, 1, 2, false},
		{"written before", []disk.Version{at(1, 1)}, 1, 3, false},
		{"written after", []disk.Version{at(2, 1)}, 1, 3, true},
		{"written again", []disk.Version{at(1, 1), at(2, 1)}, 1, 3, true},
		{"written later than both", []disk.Version{at(1, 1), at(4, 1)}, 1, 3, false},
		{"first written later than both", []disk.Version{at(4, 1)}, 1, 3, false},
		{"in between, and again after both", []disk.Version{at(1, 1), at(3, 1), at(4, 1)}, 2, 3, true},
		{"discarded", []disk.Version{at(1, 1), at(2, 0)}, 1, 3, true},
		{"discarded in part", []disk.Version{at(1, 3), at(2, 1)}, 1, 3, true},
		{"written and discarded", []disk.Version{at(2, 0)}, 1, 3, false},
		{"discarded twice", []disk.Version{at(1, 1), at(2, 0), at(3, 0)}, 2, 3, false},
		{"discarded, written, discarded", []disk.Version{at(1, 1), at(2, 0), at(3, 1), at(4, 0)}, 2, 4, false},
		{"discarded and written", []disk.Version{at(1, 1), at(2, 0), at(3, 1)}, 2, 3, true},
		{"until now", []disk.Version{at(1, 1), at(7, 1)}, 3, newestEpoch, true},
	} {
		if got := changed(c.versions, c.since, c.until); got != c.want {
			t.Errorf("%s: changed(%v, %d, %d) = %v, want %v", c.name, c.versions, c.since, c.until, got, c.want)
		}
	}
}

// cutNow cuts the rig's volume.
func (r *rig) cutNow(t *testing.T, v *Volume) model.Snapshot {
	t.Helper()
	var s model.Snapshot
	err := Cut(t.Context(), []*Volume{v}, func(context.Context, []model.Volume) ([]model.Volume, error) {
		r.record.mu.Lock()
		defer r.record.mu.Unlock()
		rec := &r.record.rec
		s = model.Snapshot{ID: model.SnapshotID(rec.Epoch), Volume: rec.ID, Epoch: rec.Epoch, Size: rec.Size}
		rec.Epoch++
		rec.Revision++
		return []model.Volume{cloneRecord(*rec)}, nil
	})
	if err != nil {
		t.Fatalf("Cut: %v", err)
	}
	return s
}

// grow makes the rig's volume larger.
func (r *rig) grow(t *testing.T, v *Volume, size model.Bytes) {
	t.Helper()
	r.record.mu.Lock()
	r.record.rec.Size = size
	r.record.rec.Revision++
	rec := cloneRecord(r.record.rec)
	r.record.mu.Unlock()
	if err := v.Follow(rec); err != nil {
		t.Fatalf("Resize(%d): %v", size, err)
	}
}

// allChanges asks until there is an answer for everything and returns the pages
// that were changed, and how many calls it took.
func allChanges(t *testing.T, size int64, ask func(ctx context.Context, off, n int64) ([]Change, error),
) (pages map[int64]bool, calls int) {
	t.Helper()
	pages = map[int64]bool{}
	for off := int64(0); off < size; {
		found, err := ask(t.Context(), off, size-off)
		if err != nil || len(found) == 0 {
			t.Fatalf("Changes(%d, %d) = %v, %v", off, size-off, found, err)
		}
		calls++
		for i, c := range found {
			end := off + int64(c.Length)
			if c.Length <= 0 || end > size || i > 0 && found[i-1].Changed == c.Changed {
				t.Fatalf("Changes: part %d is %+v after %+v; it ends at %d of %d", i, c, found[max(0, i-1)], end, size)
			}
			for p := off / pageBytes; c.Changed && p*pageBytes < end; p++ {
				pages[p] = true
			}
			off = end
		}
	}
	return pages, calls
}

const (
	pageBytes = int64(model.PageSize)
	perPage   = int64(model.BlocksPerPage)
)

// A moment is a snapshot with what a plain model of the volume was then.
type moment struct {
	snap   model.Snapshot
	blocks map[int64]uint64 // what was written last; without those that are zeros
	time   int              // counts what was done
}

// Between any two snapshots, and a snapshot and now, exactly those pages are said to
// be changed that were written or discarded in between and hold, or held, something;
// whatever was cut between, wherever the volume was grown and who was the holder.
func TestChangesAreExact(t *testing.T) {
	for seed := range uint64(6) {
		bubble(t, func(t *testing.T) {
			t.Helper()
			testChangesAreExact(t, rand.New(rand.NewPCG(seed, 1)))
		})
	}
}

func testChangesAreExact(t *testing.T, random *rand.Rand) {
	t.Helper()
	const first, last = int64(5<<20 + 4096), int64(9<<20 + 512)
	r := newRig(t, 3, 2, model.Bytes(first), []int{0, 1}, []int{1, 2}, []int{2, 0}, []int{1, 0})
	v := r.open(t)
	blocks, touched := map[int64]uint64{}, map[int64][]int{}
	var moments []moment
	now := 0
	keep := func(s model.Snapshot) {
		was := map[int64]uint64{}
		for b, value := range blocks {
			was[b] = value
		}
		moments = append(moments, moment{s, was, now})
	}
	for range 120 {
		now++
		blocksNow := v.Size() / int64(blockSize)
		b := random.Int64N(blocksNow)
		n := min(1+random.Int64N(40), blocksNow-b)
		switch k := random.IntN(20); {
		case k < 11:
			write(t, v, b*int64(blockSize), pattern(int(n)*blockSize, b*int64(blockSize), uint64(now)))
			for i := b; i < b+n; i++ {
				blocks[i] = uint64(now)
				touched[i/perPage] = append(touched[i/perPage], now)
			}
		case k < 15:
			if err := v.Discard(t.Context(), b*int64(blockSize), n*int64(blockSize)); err != nil {
				t.Fatalf("Discard: %v", err)
			}
			for i := b; i < b+n; i++ {
				touched[i/perPage] = append(touched[i/perPage], now)
				delete(blocks, i)
			}
		case k < 18:
			keep(r.cutNow(t, v))
		case k == 18 && v.Size() < last:
			r.grow(t, v, model.Bytes(last))
		default:
			r.close(t, v)
			v = r.open(t)
		}
	}
	keep(r.cutNow(t, v))
	for i, from := range moments {
		for _, to := range moments[i+1:] {
			at, err := v.At(to.snap)
			if err != nil {
				t.Fatal(err)
			}
			got, _ := allChanges(t, at.Size(), func(ctx context.Context, off, n int64) ([]Change, error) {
				return at.Changes(ctx, from.snap, off, n)
			})
			if diff := cmp.Diff(wantChanges(from, to, touched), got); diff != "" {
				t.Errorf("changes from epoch %d to %d (-want +got):\n%s", from.snap.Epoch, to.snap.Epoch, diff)
			}
		}
		got, _ := allChanges(t, v.Size(), func(ctx context.Context, off, n int64) ([]Change, error) {
			return v.Changes(ctx, from.snap, off, n)
		})
		if diff := cmp.Diff(wantChanges(from, moments[len(moments)-1], touched), got); diff != "" {
			t.Errorf("changes from epoch %d to now (-want +got):\n%s", from.snap.Epoch, diff)
		}
	}
	wantUnchangedSame(t, v, moments)
	r.close(t, v)
}

// wantChanges is what was touched between two moments, but for what was empty at both.
func wantChanges(from, to moment, touched map[int64][]int) map[int64]bool {
	empty := func(m moment, page int64) bool {
		for b := page * perPage; b < (page+1)*perPage; b++ {
			if _, there := m.blocks[b]; there {
				return false
			}
		}
		return true
	}
	pages := map[int64]bool{}
	for page, times := range touched {
		for _, at := range times {
			if from.time < at && at <= to.time && (!empty(from, page) || !empty(to, page)) {
				pages[page] = true
			}
		}
	}
	return pages
}

// wantUnchangedSame holds the invariant of Volume.Changes by reading: whoever copies
// what was changed from one moment to the next over a copy of the first has the second.
func wantUnchangedSame(t *testing.T, v *Volume, moments []moment) {
	t.Helper()
	var mirror []byte
	var before *model.Snapshot
	for _, m := range moments {
		at, err := v.At(m.snap)
		if err != nil {
			t.Fatal(err)
		}
		now := iobuf.Aligned(int(at.Size()))
		if err := at.ReadAt(t.Context(), now, 0); err != nil {
			t.Fatalf("read epoch %d: %v", m.snap.Epoch, err)
		}
		if before == nil {
			mirror = bytes.Clone(now)
		} else {
			mirror = append(mirror, make([]byte, len(now)-len(mirror))...)
			pages, _ := allChanges(t, at.Size(), func(ctx context.Context, off, n int64) ([]Change, error) {
				return at.Changes(ctx, *before, off, n)
			})
			for p := range pages {
				copy(mirror[p*pageBytes:], now[p*pageBytes:min((p+1)*pageBytes, at.Size())])
			}
		}
		if !bytes.Equal(mirror, now) {
			t.Fatalf("a copy that follows the changes up to epoch %d is not the snapshot", m.snap.Epoch)
		}
		before = &m.snap
	}
}

// A volume of 10 TiB of which little is written is walked in a few calls, and what
// stands at its very end is found.
func TestChangesOfSparseVolume(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		const size = int64(10 << 40)
		columns := make([][]int, 512)
		for i := range columns {
			columns[i] = []int{i % 2, 2}
		}
		r := newRig(t, 3, 2, model.Bytes(size), columns...)
		v := r.open(t)
		defer r.close(t, v)
		write(t, v, 0, pattern(4096, 0, 1))
		s := r.cutNow(t, v)
		want := map[int64]bool{}
		for _, off := range []int64{3 << 20, 5<<40 + 65536, size - 4096} {
			write(t, v, off, pattern(4096, off, 2))
			want[off/pageBytes] = true
		}
		got, calls := allChanges(t, size, func(ctx context.Context, off, n int64) ([]Change, error) {
			return v.Changes(ctx, s, off, n)
		})
		if diff := cmp.Diff(want, got); diff != "" || calls > 3 {
			t.Errorf("%d calls (-want +got):\n%s", calls, diff)
		}
		runs, err := v.Extents(t.Context(), 0, size)
		wantRuns := []Run{
			{4096, false},
			{3<<20 - 4096, true},
			{4096, false},
			{5<<40 + 65536 - (3<<20 + 4096), true},
			{4096, false},
			{model.Bytes(size) - 4096 - (5<<40 + 65536 + 4096), true},
			{4096, false},
		}
		if diff := cmp.Diff(wantRuns, runs); diff != "" || err != nil {
			t.Errorf("Extents: %v (-want +got):\n%s", err, diff)
		}
	})
}

// What is asked for wrongly is refused: nothing is said of what is not the volume's.
func TestChangesRefusals(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 4<<20, []int{0, 1})
		v := r.open(t)
		defer r.close(t, v)
		old, young := r.cutNow(t, v), r.cutNow(t, v)
		at, err := v.At(old)
		if err != nil {
			t.Fatal(err)
		}
		other := old
		other.Volume++
		future := old
		future.Epoch = 9
		for name, ask := range map[string]func() ([]Change, error){
			"to an older one":     func() ([]Change, error) { return at.Changes(t.Context(), young, 0, 4096) },
			"of another volume":   func() ([]Change, error) { return v.Changes(t.Context(), other, 0, 4096) },
			"of a later epoch":    func() ([]Change, error) { return v.Changes(t.Context(), future, 0, 4096) },
			"beyond the end":      func() ([]Change, error) { return v.Changes(t.Context(), old, 4<<20, 512) },
			"beyond the old end":  func() ([]Change, error) { return at.Changes(t.Context(), old, 4<<20-512, 1024) },
			"less than a sector":  func() ([]Change, error) { return v.Changes(t.Context(), old, 0, 100) },
			"from before nothing": func() ([]Change, error) { return v.Changes(t.Context(), old, -512, 512) },
		} {
			if got, err := ask(); model.CodeOf(err) != model.Invalid {
				t.Errorf("%s: %v, %v, want invalid", name, got, err)
			}
		}
	})
}
