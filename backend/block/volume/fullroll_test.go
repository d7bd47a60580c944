package volume

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"drystone.example/drystone/backend/model"
)

// halfHeld makes a page of which members have one stamp and not the same: a write that
// the members full refused is on the others, and a later one to another block on all. It
// leaves the volume as a crash does, with the first write unanswered.
func halfHeld(t *testing.T, r *rig, full ...model.DiskID) (held, later []byte) {
	t.Helper()
	held, later = pattern(4096, 8*pageBytes, 2), pattern(4096, 8*pageBytes+4096, 3)
	v := r.open(t)
	writePages(t, v, 0, 8, 1)
	for _, id := range full {
		r.disks[id].bound(8, 0)
	}
	w := beginWrite(t, v, 8*pageBytes, held)
	time.Sleep(100 * time.Millisecond)
	for _, id := range full {
		r.disks[id].bound(0, 0)
	}
	write(t, v, 8*pageBytes+4096, later)
	wantAllOpen(t, []pending{w}, "though members have not got it")
	v.shut(errClosed)
	if err := <-w; err == nil {
		t.Fatal("a write was answered that not all members have")
	}
	return held, later
}

// wantHalfHeld reads the page of halfHeld: the later write is there, and the first one as
// a whole or not at all. It reports whether it is.
func wantHalfHeld(t *testing.T, r *rig, v *Volume, held, later []byte) (there bool) {
	t.Helper()
	wantRead(t, v, 8*pageBytes+4096, later)
	got := make([]byte, len(held))
	if err := v.ReadAt(t.Context(), got, 8*pageBytes); err != nil {
		t.Fatal(err)
	}
	if there = string(got) == string(held); !there && strings.Trim(string(got), "\x00") != "" {
		t.Error("a write that was not acknowledged is there in part")
	}
	r.wantSame(t)
	return there
}

// Where a write waited for room on some members while a later one to the same page was on
// all, a takeover makes the page equal: what was acknowledged is there, what was not is
// there or not, and stays so over more takeovers. It takes the one that can be read.
func TestTakeoverWithAHeldWrite(t *testing.T) {
	for name, c := range map[string]struct {
		full   []model.DiskID
		before func(r *rig)
		there  bool
	}{
		"one of two":      {[]model.DiskID{2}, func(*rig) {}, true},
		"one of three":    {[]model.DiskID{3}, func(*rig) {}, true},
		"two of three":    {[]model.DiskID{2, 3}, func(*rig) {}, true},
		"the one is gone": {[]model.DiskID{2, 3}, func(r *rig) { r.disks[1].setDown(errDown) }, false},
		"the one is damaged": {[]model.DiskID{2, 3}, func(r *rig) {
			r.disks[1].rot(0, 8, 1)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				t.Helper()
				members := []int{0, 1, 2}
				if name == "one of two" {
					members = members[:2]
				}
				r := newRig(t, len(members), len(members), 16<<20, members)
				held, later := halfHeld(t, r, c.full...)
				c.before(r)
				v := r.open(t)
				if there := wantHalfHeld(t, r, v, held, later); there != c.there {
					t.Errorf("the write that was not answered is there: %v, want %v", there, c.there)
				}
				v.shut(errClosed)
				r.disks[1].setDown(nil)
				v = r.open(t)
				eventually(t, "all members are active", time.Minute, func() bool {
					return r.record.get().Columns[0].Count(model.Active) == len(members)
				})
				if there := wantHalfHeld(t, r, v, held, later); there != c.there {
					t.Errorf("after another takeover it is there: %v", there)
				}
			})
		})
	}
}

// A takeover that breaks off when it has made some of the members equal is begun anew by
// another, which ends it.
func TestTakeoverWithAHeldWriteAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 3, 3, 16<<20, []int{0, 1, 2})
		held, later := halfHeld(t, r, 2, 3)
		r.disks[3].refuseCopies(true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := Open(ctx, r.record.acquire(), r.cfg); err == nil {
			t.Fatal("it serves with a member that is not equal")
		}
		r.disks[3].refuseCopies(false)
		wantHalfHeld(t, r, r.open(t), held, later)
	})
}

// Where one member does not list the page as uncertain, it cannot be that it waits for
// room: it is damage that nobody knows of, and nothing is made equal.
func TestTakeoverOfAPageThatDiverged(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 16<<20, []int{0, 1})
		halfHeld(t, r, 2)
		r.disks[2].mu.Lock()
		delete(r.disks[2].volume(rigVolume).made, memKey{0, 8, 1})
		r.disks[2].mu.Unlock()
		v, err := Open(t.Context(), r.record.acquire(), r.cfg)
		if err == nil {
			v.shut(errClosed)
		}
		if model.CodeOf(err) != model.Corrupt || !strings.Contains(err.Error(), "one stamp and different data") {
			t.Errorf("the takeover came to %v", err)
		}
	})
}

// What waits for room is not read: who asks for it waits as well, and then has the new.
func TestReadOfAHeldWriteWaits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 16<<20, []int{0, 1})
		v := r.open(t)
		writePages(t, v, 0, 8, 1)
		r.disks[2].bound(8, 0)
		w := beginWrite(t, v, 8*pageBytes, page(8, 2))
		time.Sleep(5 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		p := make([]byte, 4096)
		if err := v.ReadAt(ctx, p, 8*pageBytes); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a write that not all members have was read: %v", err)
		}
		r.disks[2].bound(0, 0)
		w.want(t, 5*time.Second)
		wantRead(t, v, 8*pageBytes, page(8, 2))
	})
}

// A member that joins gets what lies below a write that waits for room, in older epochs
// and in the other blocks of its page.
func TestFillBelowAHeldWrite(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 3, 2, 16<<20, []int{0, 1})
		r.cfg.Grace = 0
		v := r.open(t)
		writePages(t, v, 0, 30, 1)
		first := r.snapshot(1, v)
		for _, id := range []model.DiskID{1, 2} {
			r.disks[id].bound(30, 0)
		}
		w := beginWrite(t, v, 5*pageBytes+4096, pattern(4096, 0, 2))
		time.Sleep(3 * time.Second)
		r.pool.mu.Lock()
		r.pool.spare = []model.DiskID{3}
		r.pool.mu.Unlock()
		r.disks[2].setDown(errDown)
		r.pool.setReach(2, Failed)
		eventually(t, "the new member is active", 30*time.Second, func() bool { return r.state(0, 3).State == model.Active })
		wantAllOpen(t, []pending{w}, "without room")
		r.disks[1].bound(0, 0)
		w.want(t, 10*time.Second)
		wantAt(t, v, first, 5*pageBytes, page(5, 1))
		want := page(5, 1)
		copy(want[4096:], pattern(4096, 0, 2))
		wantRead(t, v, 5*pageBytes, want)
		r.wantSame(t)
	})
}

// A lent lock lets those in who fill, sends the holder's other work away, also what waited
// for it before, and keeps everybody else waiting. It is not taken back from a filler.
func TestLentSpan(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		var r ranges
		now, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		take := func(s *span, want error) {
			t.Helper()
			if err := r.acquire(now, s); !errors.Is(err, want) {
				t.Fatalf("%+v: %v, want %v", s, err, want)
			}
		}
		held := &span{lo: 4096, hi: 8192, exclusive: true}
		take(held, nil)
		waited := make(chan error)
		go func() { waited <- r.acquire(t.Context(), &span{hi: 65536, exclusive: true, use: inner}) }()
		time.Sleep(time.Millisecond)
		r.lend(held)
		if err := <-waited; !errors.Is(err, errLent) {
			t.Errorf("what waited for it was told %v", err)
		}
		take(&span{hi: 65536, exclusive: true, use: inner}, errLent)
		f := &span{hi: 65536, exclusive: true, use: filling}
		take(f, nil)
		if r.reclaim(held) {
			t.Error("it was taken back while a page of it was filled")
		}
		r.release(f)
		if !r.reclaim(held) {
			t.Error("it was not given back")
		}
		take(&span{lo: 4096, hi: 8192}, context.DeadlineExceeded)
	})
}
