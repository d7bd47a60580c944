package disk_test

import (
	"bytes"
	"context"
	"testing"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/disk/disktest"
	"drystone.example/drystone/backend/model"
)

// A discard of any length takes away exactly its blocks, also where it is applied in
// many batches, with pages in memory and in the store, and behind a write that is
// not answered yet.
func TestLongDiscard(t *testing.T) {
	v := newDrive(t, 96<<20)
	d := openDrive(t, v)
	defer closed(t, d)
	w := newWorld()
	_, _ = w.prepare(disk.Prepare{Volume: 1, Generation: 1})
	number := uint64(0)
	var waiting []chan error
	send := func(op *disk.Op) {
		number++
		op.Generation, op.Number, op.Prev = 1, number, number-1
		done := make(chan error, 1)
		d.Apply(op, func(err error) { done <- err })
		waiting = append(waiting, done)
		w.apply(op)
	}
	answered := func() {
		t.Helper()
		for _, c := range waiting {
			if err := <-c; err != nil {
				t.Fatal(err)
			}
		}
		waiting = nil
	}
	const pages = 900
	for page := 0; page < pages; page += 2 {
		send(writeOp(1, 0, 0, page*16, 16, uint64(page)))
	}
	answered()
	if err := d.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	for page := 1; page < pages; page += 60 {
		send(writeOp(1, 0, 0, page*16+3, 20, uint64(page)))
	}
	send(&disk.Op{Kind: disk.Discard, Volume: 1, Epoch: 1, Block: 21, Count: (pages-2)*16 + 7})
	send(writeOp(1, 0, 0, 500, 3, 7))
	answered()
	if err := w.equals(d, 1, 1, pages, 2); err != nil {
		t.Error(err)
	}
}

// A place that versions share is not changed in place, is counted once, and is free
// only when the last one has left it; the counts survive.
func TestSharedPlaces(t *testing.T) {
	ctx := context.Background()
	v := newDrive(t, 32<<20)
	d := openDrive(t, v)
	used := func(want int) {
		t.Helper()
		if got := int(d.Usage().Used / model.PageSize); got != want {
			t.Errorf("%d places are used, want %d", got, want)
		}
	}
	page := func(vol model.VolumeID) []byte {
		t.Helper()
		dst := make([]byte, model.PageSize)
		r := disk.Read{Volume: vol, Generation: 1, Count: 16}
		if err := d.Read(ctx, r, dst, make([]uint32, 16)); err != nil {
			t.Fatal(err)
		}
		return dst
	}
	reopen := func(cut bool) {
		t.Helper()
		if cut {
			v.Crash(50)
			_ = d.Close()
		} else {
			closed(t, d)
		}
		var err error
		if d, err = v.Open(ctx, disk.Options{Cluster: cluster}); err != nil {
			t.Fatal(err)
		}
	}
	if err := apply(d, writeOp(1, 1, 0, 0, 16, 1)); err != nil {
		t.Fatal(err)
	}
	original := page(1)
	for _, vol := range []model.VolumeID{2, 3} {
		if _, err := d.Prepare(ctx, disk.Prepare{Volume: vol, Generation: 1}); err != nil {
			t.Fatal(err)
		}
		if err := d.Share(ctx, 1, vol, 0, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	used(1)
	reopen(true)
	used(1)
	if err := apply(d, writeOp(1, 2, 1, 5, 1, 9)); err != nil { // moves
		t.Fatal(err)
	}
	used(2)
	for _, vol := range []model.VolumeID{2, 3} {
		if !bytes.Equal(page(vol), original) {
			t.Errorf("volume %d has changed", vol)
		}
	}
	reopen(false)
	used(2)
	if err := d.DropVolume(ctx, 2); err != nil {
		t.Fatal(err)
	}
	used(2)
	if !bytes.Equal(page(3), original) {
		t.Error("the last of those that shared a place has lost it")
	}
	op := writeOp(1, 1, 0, 3, 2, 11) // alone by now: in place
	op.Volume = 3
	if err := apply(d, op); err != nil {
		t.Fatal(err)
	}
	used(2)
	if err := d.DropVolume(ctx, 3); err != nil {
		t.Fatal(err)
	}
	used(1)
	closed(t, d)
}

// A journal that goes round many times is as good as new.
func TestJournalGoesRound(t *testing.T) {
	ctx := context.Background()
	v := newDrive(t, 32<<20)
	d := openDrive(t, v)
	w := newWorld()
	_, _ = w.prepare(disk.Prepare{Volume: 1, Generation: 1})
	number := uint64(0)
	for number < 900 { // each 60 KiB: six times round
		number++
		op := writeOp(1, number, number-1, int(number%9)*16, 15, number)
		op.Watermark = model.Stamp{Generation: 1, Number: number - 1}
		if err := apply(d, op); err != nil {
			t.Fatal(err)
		}
		w.apply(op)
		if number%97 == 0 {
			v.Crash(50)
			_ = d.Close()
			var err error
			if d, err = v.Open(ctx, disk.Options{Cluster: cluster}); err != nil {
				t.Fatalf("after %d writes: %v", number, err)
			}
			if err := w.equals(d, 1, 1, 16, 1); err != nil {
				t.Fatalf("after %d writes: %v", number, err)
			}
		}
	}
	if s := d.Stats(); s.JournalBytes == 0 || number*15*4096 < 6*uint64(disktest.Journal) {
		t.Errorf("%d bytes of journal", s.JournalBytes)
	}
	closed(t, d)
}
