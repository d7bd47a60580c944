package volume

import (
	"bytes"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
)

// rot damages blocks of what a disk holds of a page in its newest epoch.
func (d *memDisk) rot(column, page uint32, blocks uint16) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if x := d.volume(rigVolume).newest(memKey{column, page, 1<<32 - 1}); x != nil {
		x.rot |= blocks & x.Mask
	}
}

// rotten lists the pages of column 0 of which a version is damaged.
func (d *memDisk) rotten() (pages []uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, x := range d.volume(rigVolume).sorted(0) {
		if x.rot != 0 {
			pages = append(pages, x.Page)
		}
	}
	return pages
}

// A repair makes the damaged version what it was, stamp and all, from another
// member; what is not damaged and who is no member is left alone.
func TestRepair(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 3, 2, 16<<20, []int{0, 1})
		v := r.open(t)
		defer r.close(t, v)
		data := pattern(4*65536, 0, 1)
		write(t, v, 0, data)
		before := r.disks[2].versions(rigVolume, 0)
		r.disks[2].rot(0, 1, 0x8001)
		for _, c := range []struct {
			page uint32
			want int
		}{{0, 0}, {1, 1}, {1, 0}, {200, 0}} {
			if n, err := v.Repair(t.Context(), 0, c.page, 2); n != c.want || err != nil {
				t.Errorf("Repair(page %d) = %d, %v, want %d", c.page, n, err, c.want)
			}
		}
		if bad := r.disks[2].rotten(); bad != nil {
			t.Errorf("still damaged: %v", bad)
		}
		if what := firstDifference(before, r.disks[2].versions(rigVolume, 0)); what != "" {
			t.Errorf("the repair changed what the disk holds: %s", what)
		}
		if _, err := v.Repair(t.Context(), 0, 1, 3); model.CodeOf(err) != model.Conflict {
			t.Errorf("Repair on a disk that is no member = %v, want a conflict", err)
		}
		for _, bad := range []struct {
			column int
			page   uint32
		}{{-1, 0}, {1, 0}} {
			if _, err := v.Repair(t.Context(), bad.column, bad.page, 2); model.CodeOf(err) != model.Invalid {
				t.Errorf("Repair(%+v) = %v, want invalid", bad, err)
			}
		}
		wantRead(t, v, 0, data)
		r.wantSame(t)
	})
}

// Members that are damaged in different places make one good copy together: it is
// read, and each is repaired.
func TestDamageInDifferentPlaces(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 16<<20, []int{0, 1})
		v := r.open(t)
		defer r.close(t, v)
		data := pattern(4*65536, 0, 1)
		write(t, v, 0, data)
		r.disks[1].rot(0, 1, 0x00f0)
		r.disks[2].rot(0, 1, 0x0f00)
		r.disks[1].rot(0, 2, 0x0001)
		r.disks[2].rot(0, 2, 0x8000)
		wantRead(t, v, 65536, data[65536:2*65536])
		for _, id := range r.order {
			for page := range uint32(4) {
				if _, err := v.Repair(t.Context(), 0, page, id); err != nil {
					t.Errorf("Repair(page %d, disk %s): %v", page, id, err)
				}
			}
			if bad := r.disks[id].rotten(); bad != nil {
				t.Errorf("disk %s is still damaged: %v", id, bad)
			}
		}
		wantRead(t, v, 0, data)
		r.wantSame(t)
		if n := v.Stats().Lost; n != 0 {
			t.Errorf("%d reads and repairs failed", n)
		}
	})
}

// What cannot be repaired, because a block of the page is lost, is told once, however
// often a guest reads what of it one member has.
func TestUnrepairedIsToldOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 16<<20, []int{0, 1})
		var said bytes.Buffer // by one repair of the page at a time
		r.cfg.Log = slog.New(slog.NewTextHandler(&said, nil))
		v := r.open(t)
		data := pattern(2*65536, 0, 1)
		write(t, v, 0, data)
		for _, id := range r.order {
			r.disks[id].rot(0, 1, 0x0008)
		}
		r.disks[r.order[0]].rot(0, 1, 0x0020)
		r.disks[r.order[1]].rot(0, 1, 0x0040)
		for range 100 {
			wantRead(t, v, 65536+5*4096, data[65536+5*4096:65536+6*4096])
			wantRead(t, v, 65536+6*4096, data[65536+6*4096:65536+7*4096])
			synctest.Wait() // the repair has failed
		}
		r.close(t, v)
		if n := strings.Count(said.String(), "not repaired"); n != 1 {
			t.Errorf("%d lines are about what is not repaired, want 1", n)
		}
	})
}

// Of a page with a lost block, what another member has is repaired all the same: the
// block that is damaged on one member is not lost when the other one goes.
func TestRepairBesideALostBlock(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 16<<20, []int{0, 1})
		v := r.open(t)
		defer r.close(t, v)
		data := pattern(2*65536, 0, 1)
		write(t, v, 0, data)
		const lost = 0x0008
		for i, id := range r.order {
			r.disks[id].rot(0, 1, lost|0x0020<<i)
		}
		for range 2 { // the second time there is nothing to gain
			for _, id := range r.order {
				if n, err := v.Repair(t.Context(), 0, 1, id); n != 0 || model.CodeOf(err) != model.Corrupt {
					t.Errorf("Repair on disk %s = %d, %v, want corrupt", id, n, err)
				}
			}
		}
		for _, id := range r.order {
			d := r.disks[id]
			d.mu.Lock()
			x := d.volume(rigVolume).newest(memKey{0, 1, 1<<32 - 1})
			if x.rot != lost {
				t.Errorf("of the page blocks %#x are damaged on disk %s, want %#x", x.rot, id, lost)
			}
			d.mu.Unlock()
		}
		wantRead(t, v, 0, data[:65536+3*4096])
		wantRead(t, v, 65536+4*4096, data[65536+4*4096:])
	})
}

// A block that is damaged on every member is lost: it is an error for the reader and
// for who wants it repaired, never zeros and never what an older epoch has; it is
// counted, its neighbours are read, and a write makes it good.
func TestDamageEverywhere(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 16<<20, []int{0, 1})
		v := r.open(t)
		write(t, v, 0, pattern(2*65536, 0, 1))
		r.close(t, v)
		r.record.mu.Lock()
		r.record.rec.Epoch++ // as a snapshot does
		r.record.mu.Unlock()
		v = r.open(t)
		defer r.close(t, v)
		data := pattern(2*65536, 0, 2)
		write(t, v, 0, data)
		for _, id := range r.order {
			r.disks[id].rot(0, 1, 0x0008)
		}
		got := iobuf.Aligned(65536)
		for _, x := range []struct{ off, n int64 }{{65536, 65536}, {65536 + 3*4096, 4096}, {65536 + 3*4096 + 512, 512}} {
			before := v.Stats().Lost
			if err := v.ReadAt(t.Context(), got[:x.n], x.off); model.CodeOf(err) != model.Corrupt {
				t.Errorf("ReadAt(%d bytes, %d) = %v, want corrupt", x.n, x.off, err)
			}
			if after := v.Stats().Lost; after <= before {
				t.Errorf("the failed read of %d bytes at %d was not counted", x.n, x.off)
			}
		}
		before := v.Stats().Lost
		for _, id := range r.order {
			if n, err := v.Repair(t.Context(), 0, 1, id); n != 0 || model.CodeOf(err) != model.Corrupt {
				t.Errorf("Repair on disk %s = %d, %v, want corrupt", id, n, err)
			}
		}
		if v.Stats().Lost != before+2 {
			t.Errorf("%d failures counted after %d and two failed repairs", v.Stats().Lost, before)
		}
		wantRead(t, v, 0, data[:65536+3*4096])
		wantRead(t, v, 65536+4*4096, data[65536+4*4096:])
		again := pattern(4096, 65536+3*4096, 3)
		write(t, v, 65536+3*4096, again)
		copy(data[65536+3*4096:], again)
		wantRead(t, v, 0, data)
		r.wantSame(t)
	})
}

// While bits of one disk flip and writes go on, repairs leave what was written last,
// and in the end both disks hold the same and nothing is damaged.
func TestRepairBesideWrites(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		if what := repairBesideWrites(t, 1, mistakes{}); what != "" {
			t.Error(what)
		}
	})
}

// Without the page lock it would be noticed, by one run of some.
func TestRepairBesideWritesCatchesMistake(t *testing.T) {
	const bound = 40
	for seed := uint64(1); seed <= bound; seed++ {
		what := ""
		bubble(t, func(t *testing.T) {
			t.Helper()
			what = repairBesideWrites(t, seed, mistakes{repairUnlocked: true})
		})
		if what != "" {
			t.Logf("caught by seed %d: %s", seed, what)
			return
		}
	}
	t.Errorf("a repair over newer writes was not noticed by %d runs", bound)
}

// repairBesideWrites says what went wrong.
func repairBesideWrites(t *testing.T, seed uint64, plant mistakes) string {
	t.Helper()
	const pages = 4
	r := newRig(t, 2, 2, 1<<20, []int{0, 1})
	v, err := open(t.Context(), r.record.acquire(), r.cfg, plant)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	defer r.close(t, v)
	shadow := pattern(pages*65536, 0, 1)
	write(t, v, 0, shadow)
	end := time.Now().Add(time.Second)
	var work sync.WaitGroup
	for page := range pages { // each page has a writer of its own, who knows what is in it
		work.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(page)))
			for tag := uint64(2); time.Now().Before(end); tag++ {
				off := page*65536 + rng.IntN(16)*4096
				data := pattern(4096, int64(off), tag)
				write(t, v, int64(off), data)
				copy(shadow[off:], data)
				wantRead(t, v, int64(page*65536), shadow[page*65536:][:65536])
				time.Sleep(time.Duration(rng.IntN(4000)) * time.Microsecond)
			}
		})
	}
	work.Go(func() {
		rng := rand.New(rand.NewPCG(seed, 1<<32))
		for time.Now().Before(end) {
			page := uint32(rng.IntN(pages))
			r.disks[2].rot(0, page, 1<<rng.IntN(16))
			time.Sleep(time.Duration(rng.IntN(1000)) * time.Microsecond)
			if _, err := v.Repair(t.Context(), 0, page, 2); err != nil && plant == (mistakes{}) {
				t.Errorf("Repair(page %d): %v", page, err)
			}
		}
	})
	work.Wait()
	for page := range uint32(pages) {
		if _, err := v.Repair(t.Context(), 0, page, 2); err != nil {
			return err.Error()
		}
	}
	if n := v.Stats().Repaired; n < 100 && plant == (mistakes{}) {
		t.Errorf("only %d repairs", n)
	}
	if what := firstDifference(r.disks[1].versions(rigVolume, 0), r.disks[2].versions(rigVolume, 0)); what != "" {
		return what
	}
	if r.disks[2].rotten() != nil {
		return "there is damage left"
	}
	got := iobuf.Aligned(len(shadow))
	if err := r.disks[2].Read(t.Context(), disk.Read{
		Volume: rigVolume, Generation: v.gen, Count: len(shadow) / 4096, Epoch: v.rec.Epoch,
	}, got, make([]uint32, len(shadow)/4096)); err != nil {
		return err.Error()
	}
	if !bytes.Equal(got, shadow) {
		return "the repaired disk has something else than what was written last"
	}
	return ""
}

// A column with a lost block gets its copies back: the block is copied as lost, stays
// an error to read, and can be written, also while the column is filled. What a member
// that does not answer may have whole is not lost.
func TestFillPastLostBlocks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 3, 2, 16<<20, []int{0, 1})
		v := r.open(t)
		defer r.close(t, v)
		data := pattern(4*65536, 0, 1)
		write(t, v, 0, data)
		r.disks[1].rot(0, 1, 0x0108)
		r.pool.spare = []model.DiskID{3}
		r.pool.setReach(2, Failed)
		r.disks[2].crash()
		rows := v.activeRows(0)
		want := r.disks[1].versions(rigVolume, 0)[1]
		err := v.readBlock(t.Context(), 0, want, 3, rows, make([]byte, 4096))
		if len(rows) != 2 || err == nil || model.CodeOf(err) == model.Corrupt {
			t.Errorf("a block that a silent member may have: %v", err)
		}
		write(t, v, 65536+8*4096, data[:4096]) // drops disk 2, begins to fill disk 3
		eventually(t, "the column is whole", time.Minute, func() bool {
			m, is := r.record.get().Columns[0].Member(3)
			return is && m.State == model.Active
		})
		if r.disks[3].rotten() == nil {
			t.Error("the lost block is not known as lost on the disk that joined")
		}
		lost, got := int64(65536+3*4096), iobuf.Aligned(4096)
		if err := v.ReadAt(t.Context(), got, lost); model.CodeOf(err) != model.Corrupt {
			t.Errorf("a lost block was read: %v", err)
		}
		wantRead(t, v, lost-4096, data[lost-4096:lost])
		write(t, v, lost, data[lost:lost+4096])
		wantRead(t, v, lost, data[lost:lost+4096])
		r.wantSame(t)
	})
}
