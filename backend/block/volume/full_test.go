package volume

import (
	"slices"
	"strings"
	"testing"
	"time"

	"drystone.example/drystone/backend/model"
)

// page is a page's worth of a pattern, at its place in a volume of one column.
func page(n int, tag uint64) []byte { return pattern(int(pageBytes), int64(n)*pageBytes, tag) }

// writePages writes pages [from, to).
func writePages(t *testing.T, v *Volume, from, to int, tag uint64) {
	t.Helper()
	for n := from; n < to; n++ {
		write(t, v, int64(n)*pageBytes, page(n, tag))
	}
}

// beginPages begins to write pages [from, to), all at once.
func beginPages(t *testing.T, v *Volume, from, to int, tag uint64) (all []pending) {
	t.Helper()
	for n := from; n < to; n++ {
		all = append(all, beginWrite(t, v, int64(n)*pageBytes, page(n, tag)))
	}
	return all
}

// endedOf counts those that have ended.
func endedOf(all []pending) (n int) {
	for _, p := range all {
		n += len(p)
	}
	return n
}

func wantAllOpen(t *testing.T, all []pending, why string) {
	t.Helper()
	if n := endedOf(all); n > 0 {
		t.Fatalf("%d of %d ended %s", n, len(all), why)
	}
}

// On a disk that takes no more, writes that need room wait and everything else goes on,
// as fast as ever: overwrites, also of the same page's neighbours, reads and discards.
// The volume says for which disk they wait, and they end by themselves when there is
// room.
func TestWriteWaitsForRoom(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 16<<20, []int{0, 1})
		v := r.open(t)
		writePages(t, v, 0, 8, 1)
		r.disks[2].bound(8, 0)
		waiting := beginPages(t, v, 8, 40, 2)
		time.Sleep(10 * time.Second)
		wantAllOpen(t, waiting, "without room")
		if why := v.Status().Reason; !strings.Contains(why, r.disks[2].id.String()) {
			t.Errorf("the volume says %q", why)
		}
		began := time.Now()
		for i := range 400 {
			n := i % 8
			write(t, v, int64(n)*pageBytes, page(n, uint64(i)))
			wantRead(t, v, int64(n)*pageBytes, page(n, uint64(i)))
		}
		if err := v.Discard(t.Context(), 3*pageBytes, pageBytes/2); err != nil {
			t.Errorf("a discard: %v", err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("400 overwrites and reads took %v beside writes that wait", took)
		}
		r.disks[2].bound(20, 0)
		time.Sleep(5 * time.Second)
		if n := endedOf(waiting); n != 12 {
			t.Errorf("%d writes ended after there was room for 12 of 32", n)
		}
		r.disks[2].bound(0, 0)
		eventually(t, "nothing waits", 5*time.Second, func() bool { return v.Status().Reason == "" })
		for n := 8; n < 40; n++ {
			wantRead(t, v, int64(n)*pageBytes, page(n, 2))
		}
		r.wantSame(t)
		if n := r.record.changes(); n != 0 {
			t.Errorf("members were changed %d times", n)
		}
	})
}

// While writes wait for room, a column gets its copies back: a member that joins later
// is filled, with what the waiting writes left on one member, and is sent them too. It
// is not dropped because it takes no new data either.
func TestFillBesideWaitingWrites(t *testing.T) {
	for name, lost := range map[string]model.DiskID{"the one that has them": 1, "the one without room": 2} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				t.Helper()
				r := newRig(t, 4, 3, 16<<20, []int{0, 1, 2})
				r.cfg.Grace = 0
				v := r.open(t)
				writePages(t, v, 0, 30, 1)
				for _, id := range []model.DiskID{2, 3, 4} {
					r.disks[id].bound(30, 0)
				}
				waiting := beginPages(t, v, 30, 50, 2)
				part := beginWrite(t, v, 60*pageBytes+4096, pattern(4096, 0, 3))
				time.Sleep(3 * time.Second)
				r.pool.mu.Lock()
				r.pool.spare = []model.DiskID{4}
				r.pool.mu.Unlock()
				r.disks[lost].setDown(model.Errorf(model.Internal, "broken"))
				r.pool.setReach(lost, Failed)
				eventually(t, "the new member is active", 30*time.Second, func() bool {
					return r.state(0, 4).State == model.Active
				})
				writePages(t, v, 0, 30, 4)
				time.Sleep(10 * time.Second)
				wantAllOpen(t, waiting, "without room")
				if m := r.state(0, 4); m.State != model.Active {
					t.Errorf("the new member is %s", m.State)
				}
				for _, id := range []model.DiskID{2, 3, 4} {
					r.disks[id].bound(0, 0)
				}
				for _, p := range append(waiting, part) {
					p.want(t, 10*time.Second)
				}
				for n := 30; n < 50; n++ {
					wantRead(t, v, int64(n)*pageBytes, page(n, 2))
				}
				wantRead(t, v, 60*pageBytes+4096, pattern(4096, 0, 3))
				wantRead(t, v, 0, page(0, 4))
				r.wantSame(t)
			})
		})
	}
}

// A member that joins and has room only for what the others have is filled and becomes
// active while a write waits; one that has not even that is dropped for another.
func TestJoiningMemberWithoutRoom(t *testing.T) {
	for name, c := range map[string]struct {
		growth, room int
		want         model.MemberState
	}{
		"for more":     {20, 0, model.Active},
		"for anything": {0, 5, ""},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				t.Helper()
				r := newRig(t, 3, 2, 16<<20, []int{0, 1})
				r.cfg.Grace = 0
				v := r.open(t)
				writePages(t, v, 0, 30, 1)
				r.disks[3].bound(c.growth, c.room)
				r.pool.spare = []model.DiskID{3}
				r.disks[2].setDown(model.Errorf(model.Internal, "broken"))
				r.pool.setReach(2, Failed)
				w := beginPages(t, v, 30, 33, 2) // while it joins
				time.Sleep(30 * time.Second)
				if m := r.state(0, 3); m.State != c.want && c.want != "" || c.want == "" && m.State == model.Active {
					t.Errorf("the member is %q, want %q", m.State, c.want)
				}
				if c.want == model.Active {
					more := beginPages(t, v, 40, 42, 2)
					time.Sleep(5 * time.Second)
					wantAllOpen(t, more, "without room")
					w = append(w, more...)
				}
				r.disks[3].bound(0, 0)
				for _, p := range w {
					p.want(t, 5*time.Second)
				}
				if c.want == model.Active {
					r.wantSame(t)
				}
			})
		})
	}
}

// Deleting a snapshot makes room for writes that wait, also where they have locked the
// very pages of which most would be freed.
func TestTrimBesideWaitingWrites(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 16<<20, []int{0, 1})
		v := r.open(t)
		const pages = 40
		writePages(t, v, 0, pages, 1)
		r.snapshot(1, v)
		writePages(t, v, 0, pages, 2)
		second := r.snapshot(2, v)
		r.disks[2].bound(2*pages, 0)
		waiting := beginPages(t, v, 0, 20, 3)
		time.Sleep(3 * time.Second)
		wantAllOpen(t, waiting, "without room")
		r.deleteSnapshot(1, v)
		for _, p := range waiting {
			p.want(t, time.Minute)
		}
		eventually(t, "all of it is freed", time.Minute, func() bool { return r.record.get().Trim == model.Trim{} })
		for n := range pages {
			if got := r.epochsOf(t, uint32(n)); slices.Contains(got, 1) {
				t.Fatalf("page %d has versions of epochs %d", n, got)
			}
			wantAt(t, v, second, int64(n)*pageBytes, page(n, 2))
		}
		r.wantSame(t)
	})
}

// While a write waits, what is written beside it does not stay uncertain: what a
// takeover has to look at, and a disk to remember, stays small. The write itself does,
// and is on both members after a takeover.
func TestWatermarkMovesOnBesideAWaitingWrite(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 16<<20, []int{0, 1})
		v := r.open(t)
		writePages(t, v, 0, 100, 1)
		r.disks[2].bound(100, 0)
		waiting := beginPages(t, v, 100, 102, 2)
		for i := range 600 {
			n := i % 100
			write(t, v, int64(n)*pageBytes, page(n, uint64(i)))
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(5 * time.Second)
		writePages(t, v, 0, 1, 4)
		for id, d := range r.disks {
			if n := d.uncertain(); n > 10 {
				t.Errorf("%d versions on disk %s are uncertain", n, id)
			}
		}
		v.shut(errClosed)
		for _, p := range waiting {
			if err := <-p; err == nil {
				t.Error("a write was answered that one member has")
			}
		}
		v = r.open(t)
		r.wantSame(t)
		for n := 100; n < 102; n++ {
			wantRead(t, v, int64(n)*pageBytes, page(n, 2))
		}
	})
}

// A volume comes back though a member has no room at all for what it lacks of a write
// that was under way: it is dropped, and is a member again when there is room.
func TestTakeoverOnAFullDisk(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 16<<20, []int{0, 1})
		v := r.open(t)
		writePages(t, v, 0, 8, 1)
		r.disks[2].bound(8, 8)
		waiting := beginPages(t, v, 8, 10, 2)
		time.Sleep(3 * time.Second)
		v.shut(errClosed)
		for _, p := range waiting {
			if err := <-p; err == nil {
				t.Error("a write was answered that not all members have")
			}
		}
		v = r.open(t)
		for n := 8; n < 10; n++ {
			wantRead(t, v, int64(n)*pageBytes, page(n, 2))
		}
		if m := r.state(0, 2); m.State == model.Active {
			t.Error("a member is active that lacks a write")
		}
		writePages(t, v, 0, 8, 3)
		r.disks[2].bound(0, 0)
		eventually(t, "it is a member again", 3*time.Minute, func() bool { return r.state(0, 2).State == model.Active })
		r.wantSame(t)
	})
}

// The last active members stay, also where each lacks something that it has no room for.
func TestTakeoverOnTwoFullDisks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 16<<20, []int{0, 1})
		v := r.open(t)
		writePages(t, v, 0, 8, 1)
		r.disks[2].bound(8, 8)
		one := beginPages(t, v, 8, 9, 2)
		time.Sleep(2 * time.Second)
		r.disks[1].bound(9, 9)
		r.disks[2].bound(9, 9)
		two := beginPages(t, v, 9, 10, 2)
		time.Sleep(100 * time.Millisecond)
		v.shut(errClosed)
		for _, p := range append(one, two...) {
			if err := <-p; err == nil {
				t.Error("a write was answered that not all members have")
			}
		}
		v = r.open(t)
		if n := r.record.get().Columns[0].Count(model.Active); n == 0 {
			t.Fatal("the column has no active member")
		}
		for n := range 8 {
			wantRead(t, v, int64(n)*pageBytes, page(n, 1))
		}
	})
}
