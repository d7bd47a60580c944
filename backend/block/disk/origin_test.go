package disk_test

import (
	"context"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/disk/disktest"
	"drystone.example/drystone/backend/block/layout"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/uring"
)

// A bench drives a disk and a world with the same ops on several volumes.
type bench struct {
	*world
	d *disk.Disk
}

// promise has the disk promise, for a clone if from is not zero.
func (b *bench) promise(vol, from model.VolumeID, e model.Epoch) error {
	p := disk.Prepare{Volume: vol, Generation: b.volume(vol).gen + 1}
	if from != 0 {
		p.Origin = &disk.Origin{Volume: from, Epoch: e, Columns: []uint32{0}}
	}
	_, err := b.d.Prepare(context.Background(), p)
	if err == nil {
		_, err = b.prepare(p)
	}
	return err
}

// send applies an op as the next of its volume.
func (b *bench) send(vol model.VolumeID, op *disk.Op) error {
	b.address(vol, op)
	err := apply(b.d, op)
	if err == nil {
		b.apply(op)
	}
	return err
}

func (w *world) address(vol model.VolumeID, op *disk.Op) {
	v := w.volume(vol)
	op.Volume, op.Generation, op.Number, op.Prev = vol, v.gen, v.last+1, v.last
}

// must fails the test at the first error.
func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A clone of a clone, made before anything was inherited, has its content when all it
// came from is deleted at once; only what is written to it takes space; and deleting
// it gives back all there is.
func TestCloneOutlivesItsOrigins(t *testing.T) {
	v := newDrive(t, 64<<20)
	b := &bench{newWorld(), openDrive(t, v)}
	must(t, b.promise(1, 0, 0))
	const pages = 300
	for page := range pages {
		op := writeOp(0, 0, 0, page*16, 1+page%16, uint64(page))
		op.Epoch = model.Epoch(page % 3)
		must(t, b.send(1, op))
	}
	must(t, b.promise(2, 1, 1))
	late := writeOp(0, 0, 0, 16, 16, 77)
	late.Epoch = 2
	must(t, b.send(1, late), b.promise(3, 2, 0))
	own := writeOp(0, 0, 0, 64, 40, 99)
	own.Epoch = 1
	must(t, b.send(3, own))
	ctx := context.Background()
	for _, vol := range []model.VolumeID{2, 1} {
		must(t, b.d.DropVolume(ctx, vol))
		delete(b.volumes, vol)
	}
	for _, again := range []bool{false, true} {
		if again {
			closed(t, b.d)
			b.d = openDrive(t, v)
		}
		must(t, b.equals(b.d, 3, 1, pages, 4))
		// Of three pages two are of the clone's epoch or older; it wrote on three more.
		if got, most := b.d.Usage().Used/model.PageSize, model.Bytes(pages*2/3+3); got > most {
			t.Errorf("%d pages are used, want at most %d", got, most)
		}
	}
	must(t, b.d.DropVolume(ctx, 3))
	if used := b.d.Usage().Used; used != 0 {
		t.Errorf("%d bytes are used by nothing", used)
	}
	closed(t, b.d)
}

// A Copy over a page that a clone has still to inherit leaves the clone the old place and
// takes one for itself, not two, and none for nothing.
func TestCopyOverWhatIsToBeInherited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newDrive(t, 96<<20)
		b := &bench{newWorld(), openDrive(t, v)}
		const pages = 1200
		must(t, b.promise(1, 0, 0))
		for page := 0; page < pages; page += 8 {
			must(t, b.send(1, writeOp(0, 0, 0, page*16, 8*16, uint64(page))))
		}
		used := b.d.Usage().Used / model.PageSize
		v.SetDelay(5 * time.Millisecond)
		must(t, b.promise(2, 1, 0))
		stamp := model.Stamp{Generation: 1, Number: 9000}
		must(t, b.send(1, copyOp(0, 0, 0, pages-1, 0, stamp, 0xff, 1)))
		must(t, b.send(1, copyOp(0, 0, 0, pages-500, 0, stamp, 0, 1)))
		if b.d.Inherits() == 0 {
			t.Fatal("everything was inherited before; the test shows nothing")
		}
		time.Sleep(time.Minute)
		if now := b.d.Usage().Used / model.PageSize; now != used+1 {
			t.Errorf("%d pages are used, want %d", now, used+1)
		}
		must(t, b.equals(b.d, 1, 1, pages, 2), b.equals(b.d, 2, 1, pages, 2))
		closed(t, b.d)
	})
}

// A Remove of what a clone has still to inherit needs no place, also on a full disk: the
// clone keeps the one there is.
func TestRemoveOfWhatIsToBeInherited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newDrive(t, 96<<20)
		b := &bench{newWorld(), openDrive(t, v)}
		must(t, b.promise(1, 0, 0))
		pages := fillDisk(t, b, 1)
		v.SetDelay(5 * time.Millisecond)
		must(t, b.promise(2, 1, 0))
		must(t, b.send(1, &disk.Op{Kind: disk.Remove, Page: uint32(pages - 1)}))
		if b.d.Inherits() == 0 {
			t.Fatal("everything was inherited before; the test shows nothing")
		}
		time.Sleep(time.Minute)
		must(t, b.equals(b.d, 1, 1, uint32(pages), 2), b.equals(b.d, 2, 1, uint32(pages), 2))
		closed(t, b.d)
	})
}

// fillDisk writes whole pages to a volume until no place is left, and says how many.
func fillDisk(t *testing.T, b *bench, vol model.VolumeID) (pages int) {
	t.Helper()
	for n := 8; n > 0; {
		err := b.send(vol, writeOp(0, 0, 0, pages*16, n*16, uint64(pages)))
		if model.CodeOf(err) == model.NoSpace {
			n /= 2
			continue
		}
		must(t, err)
		pages += n
	}
	return pages
}

// What is asked of a disk right behind a promise for a clone finds the clone: a column
// that is dropped then is inherited before, as it is by one that begins a moment earlier.
func TestDropBehindTheFirstPromise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{newWorld(), nil}
		v := newDrive(t, 64<<20)
		b.d = openDrive(t, v)
		defer func() { closed(t, b.d) }()
		must(t, b.promise(1, 0, 0), b.send(1, writeOp(0, 0, 0, 0, 64, 1)))
		held, err := b.d.Held(t.Context())
		must(t, err)
		v.SetDelay(5 * time.Millisecond)
		busy := writeOp(0, 0, 0, 16, 1, 2)
		b.address(1, busy)
		b.apply(busy)
		wait := make(chan error, 3)
		b.d.Apply(busy, func(err error) { wait <- err })
		clone := disk.Prepare{Volume: 2, Generation: 1, Origin: &disk.Origin{Volume: 1, Columns: []uint32{0}}}
		if _, err := b.prepare(clone); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the disk writes a batch: what comes now goes into the next, together
		go func() {
			_, err := b.d.Prepare(t.Context(), clone)
			wait <- err
		}()
		synctest.Wait()
		go func() { wait <- b.d.Drop(t.Context(), 1, 0, held[0].Promises) }()
		must(t, <-wait, <-wait, <-wait)
		b.drop(1, 0)
		must(t, b.equals(b.d, 1, 1, 4, 1), b.equals(b.d, 2, 1, 4, 1))
	})
}

// What nobody asks for is inherited in the background, also by a disk that was closed
// half way; it takes no place of the raw area, and the disk is still after it.
func TestInheritInTheBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newDrive(t, 96<<20)
		b := &bench{newWorld(), openDrive(t, v)}
		must(t, b.promise(1, 0, 0))
		const pages = 1200
		for page := 0; page < pages; page += 8 {
			must(t, b.send(1, writeOp(0, 0, 0, page*16, 8*16, uint64(page))))
		}
		used := b.d.Usage().Used
		v.SetDelay(5 * time.Millisecond)
		clones := []model.VolumeID{2, 3, 4, 5}
		for _, vol := range clones {
			must(t, b.promise(vol, 1, 0))
		}
		closed(t, b.d)
		b.d = openDrive(t, v)
		if b.d.Inherits() == 0 {
			t.Fatal("everything was inherited at once; the test shows nothing")
		}
		time.Sleep(time.Minute)
		if n := b.d.Inherits(); n != 0 {
			t.Errorf("%d columns have not inherited after a minute", n)
		}
		if now := b.d.Usage().Used; now != used {
			t.Errorf("%d bytes are used, want %d", now, used)
		}
		for _, vol := range clones {
			must(t, b.equals(b.d, vol, 1, pages, 2))
		}
		closed(t, b.d)
	})
}

// A late first promise, which says of an origin what was inherited and overwritten long
// ago, changes nothing.
func TestOriginIsNotedOnce(t *testing.T) {
	v := newDrive(t, 64<<20)
	b := &bench{newWorld(), openDrive(t, v)}
	defer func() { closed(t, b.d) }()
	must(t, b.promise(1, 0, 0), b.send(1, writeOp(0, 0, 0, 0, 16, 1)), b.promise(2, 1, 0),
		b.send(2, &disk.Op{Kind: disk.Remove, Page: 0}), b.promise(2, 1, 0))
	must(t, b.equals(b.d, 2, 1, 4, 1))
}

// A volume cannot begin as itself, nor as one that was never on the disk: its data would
// be zeros. Refused, it is as if nothing had been asked.
func TestOriginMustBeThere(t *testing.T) {
	v := newDrive(t, 64<<20)
	b := &bench{newWorld(), openDrive(t, v)}
	defer func() { closed(t, b.d) }()
	if err := b.promise(3, 3, 0); model.CodeOf(err) != model.Invalid {
		t.Errorf("volume 3 begins as itself: %v", err)
	}
	if err := b.promise(2, 3, 0); model.CodeOf(err) != model.Conflict {
		t.Errorf("volume 2 begins as a volume that was never there: %v", err)
	}
	must(t, b.promise(3, 0, 0), b.send(3, writeOp(0, 0, 0, 0, 16, 1)), b.promise(2, 3, 0))
	must(t, b.equals(b.d, 2, 1, 4, 1))
}

// On a disk without a free place a clone is made and read; a write to it that needs a
// place is refused and changes nothing; and there is room again when others go.
func TestCloneOnAFullDisk(t *testing.T) {
	v := newDrive(t, 17<<20)
	b := &bench{newWorld(), openDrive(t, v)}
	defer func() { closed(t, b.d) }()
	must(t, b.promise(1, 0, 0), b.promise(9, 0, 0))
	pages := 0
	for ; ; pages++ {
		err := b.send(1, writeOp(0, 0, 0, pages*16, 16, uint64(pages)))
		if model.CodeOf(err) == model.NoSpace {
			break
		}
		must(t, err)
	}
	must(t, b.promise(2, 1, 0), b.equals(b.d, 2, 1, uint32(pages), 2))
	for e := range model.Epoch(2) {
		op := writeOp(0, 0, 0, 18, 3, 5)
		op.Epoch = e
		if err := b.send(2, op); model.CodeOf(err) != model.NoSpace {
			t.Fatalf("a write to a shared page of a full disk: %v", err)
		}
	}
	must(t, b.send(2, &disk.Op{Kind: disk.Discard, Epoch: 1, Block: 16, Count: 64}))
	must(t, b.equals(b.d, 2, 1, uint32(pages), 2))
	must(t, b.d.DropVolume(context.Background(), 1))
	delete(b.volumes, 1)
	must(t, b.equals(b.d, 2, 1, uint32(pages), 2))
}

// Damage in a place that is shared is found by each who shares it. A repair of one goes
// to a place of its own and leaves the others' for them to repair.
func TestRepairOfASharedPlace(t *testing.T) {
	v := newDrive(t, 64<<20)
	b := &bench{newWorld(), openDrive(t, v)}
	defer func() { closed(t, b.d) }()
	must(t, b.promise(1, 0, 0), b.send(1, writeOp(0, 0, 0, 0, 16, 1)), b.d.Checkpoint(), b.promise(2, 1, 0),
		b.equals(b.d, 2, 1, 1, 1))
	if n := v.Rot(int64(disktest.Journal)+1<<20, 1); n != 1 {
		t.Fatalf("%d blocks are damaged", n)
	}
	dst := make([]byte, model.PageSize)
	bad := func(vol model.VolumeID) bool {
		t.Helper()
		_, err := b.d.ReadVersion(t.Context(), vol, b.volume(vol).gen, 0, 0, 0, dst)
		if err != nil && model.CodeOf(err) != model.Corrupt {
			t.Fatal(err)
		}
		return err != nil
	}
	for _, vol := range []model.VolumeID{1, 2} {
		if !bad(vol) {
			t.Errorf("volume %d is read from the damaged place", vol)
		}
	}
	for _, vol := range []model.VolumeID{2, 1} {
		good := b.volume(vol).versions[where{}]
		op := copyOp(0, 0, 0, 0, 0, good.Stamp, good.Mask, 1)
		must(t, b.send(vol, op))
		if bad(vol) {
			t.Errorf("volume %d is damaged after its repair", vol)
		}
		if vol == 2 && !bad(1) {
			t.Error("the repair of the clone went to the shared place")
		}
	}
	if used := b.d.Usage().Used; used != 2*model.PageSize {
		t.Errorf("%d bytes are used, want those of two pages", used)
	}
}

// A turn is one thing done to a disk with clones on it.
type turn struct {
	name string
	vol  model.VolumeID // it is about; what is known of it during a deletion is nothing
	op   *disk.Op
	do   func(b *bench) error
}

// turns makes a sequence of them: what is written to volume 1 before, between and after
// a clone 2, a clone 3 of the clone, and the end of each.
func turns(seed uint64) []turn {
	rng := rand.New(rand.NewPCG(seed, 2))
	write := func(vol model.VolumeID, lowest, highest int) turn {
		op := writeOp(0, 0, 0, rng.IntN(20*16), 1+rng.IntN(30), rng.Uint64())
		op.Epoch = model.Epoch(lowest + rng.IntN(highest-lowest+1))
		if rng.IntN(5) == 0 {
			op = &disk.Op{Kind: disk.Discard, Block: op.Block, Count: op.Count, Epoch: op.Epoch}
		}
		return turn{name: "write", vol: vol, op: op}
	}
	clone := func(vol, from model.VolumeID) turn {
		return turn{name: "clone", vol: vol, do: func(b *bench) error { return b.promise(vol, from, 1) }}
	}
	drop := func(vol model.VolumeID) turn {
		return turn{name: "drop", vol: vol, do: func(b *bench) error {
			err := b.d.DropVolume(context.Background(), vol)
			delete(b.volumes, vol)
			return err
		}}
	}
	out := []turn{{name: "promise", vol: 1, do: func(b *bench) error { return b.promise(1, 0, 0) }}}
	for range 5 {
		out = append(out, write(1, 0, 1))
	}
	out = append(out, clone(2, 1), write(1, 2, 2), write(2, 1, 1), clone(3, 2), write(3, 1, 2),
		turn{name: "remove", vol: 1, op: &disk.Op{Kind: disk.Remove, Page: uint32(rng.IntN(20)), Epoch: 1}})
	ends := [][]turn{{drop(1), write(2, 2, 2), drop(2), drop(3)}, {drop(2), drop(3), write(1, 2, 2), drop(1)}}
	return append(out, ends[seed%2]...)
}

// Whenever the power is cut while clones are made, written, and deleted with what they
// came from: each has what it had or what it was about to have, no place is counted
// otherwise than it is named (the disk would not open), and when all is deleted all is
// free.
func TestPowerCutAmongClones(t *testing.T) {
	seeds, cuts := 4, 0
	if testing.Short() {
		seeds = 2
	}
	for seed := range uint64(seeds) {
		drive := disktest.New(seed, 16<<20)
		if _, err := drive.Format(t.Context(), cluster); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var left []*disktest.Drive
		request := uint64(0)
		drive.SetFault(func(r *disktest.Request) error {
			if r.Kind == uring.Read {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			request++
			left = append(left, drive.Clone(seed<<32|request, []int{0, 100, 50}[request%3]))
			return nil
		})
		b := &bench{newWorld(), openDrive(t, drive)}
		for i, s := range turns(seed) {
			before := b.clone()
			at := fmt.Sprintf("seed %d, turn %d, %s of volume %d", seed, i, s.name, s.vol)
			var err error
			if s.op != nil {
				err = b.send(s.vol, s.op)
			} else {
				err = s.do(b)
			}
			if err != nil {
				t.Fatalf("%s: %v", at, err)
			}
			if i%4 == 3 {
				must(t, b.d.Checkpoint())
			}
			mu.Lock()
			now := left
			left = nil
			mu.Unlock()
			for n, drive := range now {
				checkCut(t, fmt.Sprintf("%s, cut %d", at, n), drive, before, b.world)
			}
			cuts += len(now)
		}
		drive.SetFault(nil)
		if used := b.d.Usage().Used; used != 0 {
			t.Errorf("seed %d: %d bytes are used by nothing", seed, used)
		}
		closed(t, b.d)
	}
	t.Logf("%d power cuts", cuts)
}

// checkCut opens what a cut left, compares each volume with what it was before and after
// the turn under way, and deletes them all.
func checkCut(t *testing.T, at string, drive *disktest.Drive, before, after *world) {
	t.Helper()
	d := openDrive(t, drive)
	if err := d.CheckSpace(); err != nil || d.SpaceCounted() {
		t.Fatalf("%s: %v; the space was counted: %v", at, err, d.SpaceCounted())
	}
	for _, vol := range []model.VolumeID{1, 2, 3} {
		was, is := before.volumes[vol], after.volumes[vol]
		if was == nil || is == nil || was.gen == 0 {
			continue // it begins or ends
		}
		gen := max(was.gen, is.gen) + 1
		if _, err := d.Prepare(t.Context(), disk.Prepare{Volume: vol, Generation: gen}); err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		const n = 23 * model.BlocksPerPage
		dst, sums := make([]byte, n*4096), make([]uint32, n)
		for e := range model.Epoch(3) {
			err := d.Read(t.Context(), disk.Read{Volume: vol, Generation: gen, Count: n, Epoch: e}, dst, sums)
			if err != nil {
				t.Fatalf("%s: %v", at, err)
			}
			for i := range n {
				sum := crc32.Checksum(dst[i*4096:][:4096], table)
				old, fresh := before.sumOf(vol, layout.Block(i), e), after.sumOf(vol, layout.Block(i), e)
				if sum != old && sum != fresh {
					t.Fatalf("%s: block %d of epoch %d of volume %d has sum %08x, want %08x or %08x",
						at, i, e, vol, sum, old, fresh)
				}
			}
		}
	}
	for _, vol := range []model.VolumeID{2, 1, 3} {
		must(t, d.DropVolume(t.Context(), vol))
	}
	if used := d.Usage().Used; used != 0 {
		t.Fatalf("%s: %d bytes are used by nothing", at, used)
	}
	closed(t, d)
}

// Blocks that are still only in the journal when their page is shared stay there for
// all who share it, when one of them discards its own, also after a power cut.
func TestDiscardInASharedPlace(t *testing.T) {
	v := newDrive(t, 64<<20)
	b := &bench{newWorld(), openDrive(t, v)}
	must(t, b.promise(1, 0, 0), b.send(1, writeOp(0, 0, 0, 2, 9, 1)), b.promise(2, 1, 0),
		b.send(2, &disk.Op{Kind: disk.Discard, Block: 4, Count: 3}))
	must(t, b.equals(b.d, 1, 1, 1, 1), b.equals(b.d, 2, 1, 1, 1))
	v.Crash(0)
	_ = b.d.Close()
	b.d = openDrive(t, v)
	must(t, b.equals(b.d, 1, 1, 1, 1), b.equals(b.d, 2, 1, 1, 1))
	closed(t, b.d)
}

// A scrub reads a place once, however many share it, and damage in one is reported for
// each of them.
func TestScrubOfSharedPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newDrive(t, 64<<20)
		b := &bench{newWorld(), openDrive(t, v)}
		const pages, clones = 64, 9
		must(t, b.promise(1, 0, 0))
		for page := range pages {
			must(t, b.send(1, writeOp(0, 0, 0, page*16, 16, uint64(page))))
		}
		for vol := range model.VolumeID(clones) {
			must(t, b.promise(vol+2, 1, 0), b.equals(b.d, vol+2, 1, pages, 1))
		}
		var mu sync.Mutex
		var read int
		v.SetFault(func(r *disktest.Request) error {
			mu.Lock()
			defer mu.Unlock()
			if r.Kind == uring.Read && !r.Map {
				read += r.Len
			}
			return nil
		})
		if bad := scrubbed(t, b.d); len(bad) != 0 {
			t.Errorf("pages %v are said to be damaged", bad)
		}
		if most := pages * int(model.PageSize); read > most {
			t.Errorf("%d bytes were read, want at most %d", read, most)
		}
		if n := v.Rot(int64(disktest.Journal)+1<<20, 1); n != 1 {
			t.Fatalf("%d blocks are damaged", n)
		}
		if bad := scrubbed(t, b.d); len(bad) != clones+1 {
			t.Errorf("damage is reported %d times, want it for each of %d", len(bad), clones+1)
		}
		closed(t, b.d)
	})
}
