package disk_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/disk/disktest"
	"drystone.example/drystone/backend/block/layout"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/uring"
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

// An op of many batches that a power cut ends half way, after a checkpoint between two
// of them: what it has changed already is listed to the next holder, though the journal
// has nothing of it any more.
func TestCheckpointWithinAnOp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newDrive(t, 96<<20)
		d := openDrive(t, v)
		const pages = 900
		for i := range uint64(pages) {
			op := writeOp(1, i+1, i, int(i)*16, 16, i)
			op.Watermark = model.Stamp{Generation: 1, Number: i}
			if err := apply(d, op); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		writes := 0
		v.SetFault(func(r *disktest.Request) error {
			if r.Durable && r.Kind == uring.Write {
				if writes++; writes == 2 {
					r.Delay = time.Minute
				}
			}
			return nil
		})
		done := make(chan error, 1)
		d.Apply(&disk.Op{
			Kind: disk.Discard, Volume: 1, Generation: 1, Number: pages + 1, Prev: pages, Count: pages * 16,
		}, func(err error) { done <- err })
		time.Sleep(time.Second)
		if err := d.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		left := v.Clone(1, 100)
		v.SetFault(nil)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		closed(t, d)

		d = openDrive(t, left)
		defer closed(t, d)
		promise, err := d.Prepare(t.Context(), disk.Prepare{Volume: 1, Generation: 2})
		if err != nil {
			t.Fatal(err)
		}
		listed := make(map[uint32]bool)
		for _, u := range promise.Uncertain {
			listed[u.Page] = true
		}
		gone, dst, sums := 0, make([]byte, model.PageSize), make([]uint32, 16)
		for page := range uint32(pages) {
			r := disk.Read{Volume: 1, Generation: 2, Block: layout.Block(page * 16), Count: 16}
			if err := d.Read(t.Context(), r, dst, sums); err != nil {
				t.Fatal(err)
			}
			if sums[0] != zeroSum {
				continue
			}
			if gone++; !listed[page] {
				t.Fatalf("page %d is gone and not uncertain", page)
			}
		}
		if gone == 0 || gone == pages {
			t.Fatalf("%d pages are gone: the cut was not within the op", gone)
		}
	})
}

// The last place of a disk is enough for a write that needs one, also if the page has to
// be moved there first and the write touches another that needs none.
func TestMoveToTheLastPlace(t *testing.T) {
	v := newDrive(t, 17<<20)
	b := &bench{newWorld(), openDrive(t, v)}
	defer func() { closed(t, b.d) }()
	must(t, b.promise(1, 0, 0))
	pages := fillDisk(t, b, 1)
	later := func(block, count int) *disk.Op {
		op := writeOp(0, 0, 0, block, count, 99)
		op.Epoch = 1
		return op
	}
	must(t, b.send(1, &disk.Op{Kind: disk.Remove, Page: uint32(pages - 1)}), b.send(1, later(19, 2)))
	must(t, b.send(1, &disk.Op{Kind: disk.Remove, Page: uint32(pages - 2)}), b.send(1, later(14, 4)))
	must(t, b.equals(b.d, 1, 1, uint32(pages), 2))
	if err := b.send(1, later(30, 4)); model.CodeOf(err) != model.NoSpace {
		t.Errorf("a write that needs a place where none is left: %v", err)
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

// A place that a page has left is not used for another page while what the first one
// left behind may still be written there: neither what is being written in place
// now, nor what was to be.
func TestPlaceIsNotReusedUnderAWrite(t *testing.T) {
	for stop := range 16 { // which of the places after the first will be the one
		synctest.Test(t, func(t *testing.T) { reuse(t, stop, true) })
		synctest.Test(t, func(t *testing.T) { reuse(t, stop, false) })
	}
}

// reuse has page 0 in place 0 with a block that waits to be written in place, removes
// it, and takes one place after the other. While the block is on its way before the
// page is removed, if early, or while the last page is.
func reuse(t *testing.T, stop int, early bool) {
	t.Helper()
	v := newDrive(t, 14<<20) // 80 places
	d := openDrive(t, v)
	defer closed(t, d)
	last := uint64(0)
	begin := func(op *disk.Op) chan error {
		last++
		op.Generation, op.Number, op.Prev = 1, last, last-1
		done := make(chan error, 1)
		d.Apply(op, func(err error) { done <- err })
		return done
	}
	send := func(op *disk.Op) {
		t.Helper()
		if err := <-begin(op); err != nil {
			t.Fatal(err)
		}
	}
	send(writeOp(1, 0, 0, 3, 1, 1))
	for page := 1; page < 70; page++ {
		send(writeOp(1, 0, 0, page*16, 16, uint64(page)))
	}
	checkpointed := make(chan error, 1)
	checkpoint := func() { checkpointed <- d.Checkpoint() }
	if early {
		v.SetDelay(10 * time.Second)
		go checkpoint()
		synctest.Wait() // the block is on its way
		v.SetDelay(0)
	}
	send(&disk.Op{Kind: disk.Remove, Volume: 1, Page: 0})
	for i := range stop {
		send(writeOp(1, 0, 0, (100+i)*16, 16, uint64(i)))
		send(&disk.Op{Kind: disk.Remove, Volume: 1, Page: uint32(100 + i)})
	}
	if !early {
		v.SetDelay(2 * time.Second)
	}
	done := begin(writeOp(1, 0, 0, 200*16, 16, 7))
	if !early {
		time.Sleep(time.Second)
		go checkpoint()
		time.Sleep(2 * time.Second)
		v.SetDelay(0)
	}
	if err := errors.Join(<-done, <-checkpointed); err != nil {
		t.Fatal(err)
	}
	dst := make([]byte, model.PageSize)
	r := disk.Read{Volume: 1, Generation: 1, Block: 200 * 16, Count: 16}
	if err := d.Read(t.Context(), r, dst, make([]uint32, 16)); err != nil {
		t.Errorf("after %d others: %v", stop, err)
	}
}

// A place that an op leaves is not used by the next one before the batch of the first
// is durable: a power cut between the two leaves what was there.
func TestPlaceIsKeptUntilItsBatchIsDurable(t *testing.T) {
	for before := range 16 { // which place is the next to be taken
		synctest.Test(t, func(t *testing.T) {
			v := newDrive(t, 14<<20) // 80 places
			d := openDrive(t, v)
			last := uint64(0)
			begin := func(op *disk.Op) chan error {
				last++
				op.Generation, op.Number, op.Prev = 1, last, last-1
				done := make(chan error, 1)
				d.Apply(op, func(err error) { done <- err })
				return done
			}
			send := func(op *disk.Op) {
				t.Helper()
				if err := <-begin(op); err != nil {
					t.Fatal(err)
				}
			}
			for page := range 70 {
				send(writeOp(1, 0, 0, page*16, 16, uint64(page)))
			}
			for range before {
				send(writeOp(1, 0, 0, 100*16, 16, 7))
				send(&disk.Op{Kind: disk.Remove, Volume: 1, Page: 100})
			}
			raw := int64(1<<20 + disktest.Journal)
			v.SetFault(func(r *disktest.Request) error {
				if r.Kind == uring.Write && !r.Map && r.Off < raw {
					r.Delay = time.Minute
				}
				return nil
			})
			first := begin(writeOp(1, 0, 0, 0, 16, 1000))
			time.Sleep(time.Second) // its batch is on its way
			second := begin(writeOp(1, 0, 0, 200*16, 16, 2000))
			time.Sleep(time.Second)
			left := v.Clone(1, 0)
			v.SetFault(nil)
			if err := errors.Join(<-first, <-second); err != nil {
				t.Fatal(err)
			}
			closed(t, d)

			d = openDrive(t, left)
			defer closed(t, d)
			want, _ := data(16, 0)
			if got, err := readAll(d, 16); err != nil || !bytes.Equal(got, want.Bytes) {
				t.Errorf("after %d others the page is lost: %v", before, err)
			}
		})
	}
}

// A replay does not put what one page once had in a place over what another has there
// by now.
func TestReplayLeavesReusedPlaces(t *testing.T) {
	for stop := range 16 { // which of the places after the first is the one
		v := newDrive(t, 14<<20) // 80 places
		d := openDrive(t, v)
		last := uint64(0)
		send := func(op *disk.Op) {
			t.Helper()
			last++
			op.Generation, op.Number, op.Prev = 1, last, last-1
			if err := apply(d, op); err != nil {
				t.Fatal(err)
			}
		}
		send(writeOp(1, 0, 0, 3, 1, 1)) // waits in the journal for place 0
		for page := 1; page < 70; page++ {
			send(writeOp(1, 0, 0, page*16, 16, uint64(page)))
		}
		send(&disk.Op{Kind: disk.Remove, Volume: 1, Page: 0})
		for range stop {
			send(writeOp(1, 0, 0, 100*16, 16, 7))
			send(&disk.Op{Kind: disk.Remove, Volume: 1, Page: 100})
		}
		send(writeOp(1, 0, 0, 0, 16, 1000))
		v.Crash(100)
		_ = d.Close()
		d = openDrive(t, v)
		want, _ := data(16, 1000)
		if got, err := readAll(d, 16); err != nil || !bytes.Equal(got, want.Bytes) {
			t.Errorf("after %d others: %v", stop, err)
		}
		closed(t, d)
	}
}

// A page that is read while it is removed, and all other places are used, is read as
// it was.
func TestPlaceIsNotReusedUnderARead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newDrive(t, 14<<20) // 80 places
		d := openDrive(t, v)
		defer closed(t, d)
		op := writeOp(1, 1, 0, 0, 16, 1)
		if err := apply(d, op); err != nil {
			t.Fatal(err)
		}
		v.SetDelay(time.Second)
		got := make([]byte, model.PageSize)
		read := make(chan error)
		go func() {
			r := disk.Read{Volume: 1, Generation: 1, Count: 16}
			read <- d.Read(t.Context(), r, got, make([]uint32, 16))
		}()
		synctest.Wait() // the read is on its way
		v.SetDelay(0)
		rm := &disk.Op{Kind: disk.Remove, Volume: 1, Generation: 1, Number: 2, Prev: 1}
		if err := apply(d, rm); err != nil {
			t.Fatal(err)
		}
		for n := uint64(3); n < 300; n += 2 { // every place, more than once
			w := writeOp(1, n, n-1, 16, 16, n)
			rm := &disk.Op{
				Kind: disk.Remove, Volume: 1, Generation: 1, Number: n + 1, Prev: n, Page: 1,
			}
			if err := errors.Join(apply(d, w), apply(d, rm)); err != nil {
				t.Fatal(err)
			}
		}
		if err := <-read; err != nil || !bytes.Equal(got, op.Data.Bytes) {
			t.Errorf("read %v; equal %v", err, bytes.Equal(got, op.Data.Bytes))
		}
		if u := d.Usage(); u.Used != 0 {
			t.Errorf("%d bytes are used after the read", u.Used)
		}
	})
}

// A block that is written, and put in place, while it is read is old or new, never
// damaged.
func TestReadBesideAWriteInPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newDrive(t, 32<<20)
		d := openDrive(t, v)
		defer closed(t, d)
		if err := apply(d, writeOp(1, 1, 0, 0, 16, 1)); err != nil {
			t.Fatal(err)
		}
		v.SetDelay(time.Second)
		got := make([]byte, model.BlockSize)
		read := make(chan error)
		go func() {
			r := disk.Read{Volume: 1, Generation: 1, Block: 3, Count: 1}
			read <- d.Read(t.Context(), r, got, make([]uint32, 1))
		}()
		synctest.Wait() // the read is on its way
		v.SetDelay(0)
		op := writeOp(1, 2, 1, 3, 1, 2)
		if err := errors.Join(apply(d, op), d.Checkpoint()); err != nil {
			t.Fatal(err)
		}
		if err := <-read; err != nil || !bytes.Equal(got, op.Data.Bytes) {
			t.Errorf("read %v; it is the new block: %v", err, bytes.Equal(got, op.Data.Bytes))
		}
		if u := d.Usage(); u.ChecksumErrors != 0 {
			t.Errorf("%d checksum errors", u.ChecksumErrors)
		}
	})
}

// Where no checkpoint comes to an end, writes wait before the journal overwrites what
// is in no map yet, and a power cut then loses nothing that was answered.
func TestJournalNeverOverruns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		v := newDrive(t, 32<<20)
		d := openDrive(t, v)
		v.SetFault(func(r *disktest.Request) error {
			if r.Kind == uring.Sync && !r.Map {
				r.Delay = time.Hour
			}
			return nil
		})
		first := d
		defer func() {
			v.SetFault(nil)
			_ = first.Close()
		}()
		w := newWorld()
		_, _ = w.prepare(disk.Prepare{Volume: 1, Generation: 1})
		for n := uint64(1); ; n++ {
			op := writeOp(1, n, n-1, int(n%20)*16, 15, n)
			done := make(chan error, 1)
			d.Apply(op, func(err error) { done <- err })
			stalled := false
			select {
			case err := <-done:
				if err != nil {
					t.Fatal(err)
				}
			case <-time.After(time.Minute):
				stalled = true
			}
			if stalled {
				break
			}
			w.apply(op)
			if n > 2*uint64(disktest.Journal)/(15*4096) {
				t.Fatal("the journal has gone round with no checkpoint")
			}
		}
		v.Crash(0)
		v.SetFault(nil)
		_ = first.Close()
		d, err := v.Open(ctx, disk.Options{Cluster: cluster})
		if err != nil {
			t.Fatal(err)
		}
		defer closed(t, d)
		if err := w.equals(d, 1, 1, 32, 1); err != nil {
			t.Error(err)
		}
	})
}

// Whoever is answered may send the next op at once, also while the queue is full:
// the disk does not wait for itself.
func TestApplyFromDone(t *testing.T) {
	v := newDrive(t, 32<<20)
	d := openDrive(t, v)
	defer closed(t, d)
	const rows, each = 4, 1500
	all := make(chan error, rows)
	for vol := range model.VolumeID(rows) {
		p := disk.Prepare{Volume: vol + 1, Generation: 1}
		if _, err := d.Prepare(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		var next func(n uint64) func(error)
		send := func(n uint64) {
			op := &disk.Op{Kind: disk.Mark, Volume: vol + 1, Generation: 1, Number: n, Prev: n - 1}
			d.Apply(op, next(n))
		}
		next = func(n uint64) func(error) {
			return func(err error) {
				switch {
				case err != nil || n == 2*each:
					all <- err
				case n >= each: // one more for each that is answered
					send(n + 1)
				}
			}
		}
		go func() {
			for n := uint64(1); n <= each; n++ {
				send(n)
			}
		}()
	}
	for range rows {
		if err := <-all; err != nil {
			t.Error(err)
		}
	}
}
