package disk_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/disk/disktest"
	"drystone.example/drystone/backend/block/layout"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/uring"
)

// newDrive makes a formatted drive.
func newDrive(tb testing.TB, size model.Bytes) *disktest.Drive {
	tb.Helper()
	v := disktest.New(1, size)
	if _, err := v.Format(context.Background(), cluster); err != nil {
		tb.Fatal(err)
	}
	return v
}

// openDrive opens it; volume 1 is promised to generation 1.
func openDrive(tb testing.TB, v *disktest.Drive) *disk.Disk {
	tb.Helper()
	d, err := v.Open(context.Background(), disk.Options{Cluster: cluster})
	if err != nil {
		tb.Fatal(err)
	}
	p := disk.Prepare{Volume: 1, Generation: 1}
	if _, err := d.Prepare(context.Background(), p); err != nil {
		tb.Fatal(err)
	}
	return d
}

func closed(tb testing.TB, d *disk.Disk) {
	tb.Helper()
	if err := d.Close(); err != nil {
		tb.Errorf("close: %v", err)
	}
}

// runScript does steps until one fails, and tells the world of those that did not.
func runScript(d *disk.Disk, w *world, steps []step) (underway *disk.Op, err error) {
	for _, s := range steps {
		switch {
		case s.op != nil:
			if err := apply(d, s.op); err != nil {
				return s.op, err
			}
			w.apply(s.op)
		case s.prepare > 0:
			p := disk.Prepare{Volume: 1, Generation: s.prepare}
			if _, err := d.Prepare(context.Background(), p); err != nil {
				return nil, err
			}
			_, _ = w.prepare(p)
		case s.checkpoint:
			if err := d.Checkpoint(); err != nil {
				return nil, err
			}
		}
	}
	return nil, nil
}

// Whichever write or sync fails, once or from then on: the disk latches, refuses
// everything after it with a coded error, closes, and has kept what it answered.
func TestFailTheNthRequest(t *testing.T) {
	ctx := context.Background()
	steps := script(5, 8)
	for n := int64(1); ; n++ {
		hit := false
		for _, once := range []bool{true, false} {
			// A file that is sparse may hear that its file system is full.
			fails := []error{unix.EIO, unix.ENOSPC}[n%2]
			drive := disktest.New(uint64(n), 16<<20)
			if _, err := drive.Format(ctx, cluster); err != nil {
				t.Fatal(err)
			}
			d, err := drive.Open(ctx, disk.Options{Cluster: cluster})
			if err != nil {
				t.Fatal(err)
			}
			var count atomic.Int64
			drive.SetFault(func(r *disktest.Request) error {
				if r.Kind == uring.Read {
					return nil
				}
				if c := count.Add(1); c == n || c > n && !once {
					return fails
				}
				return nil
			})
			w := newWorld()
			underway, err := runScript(d, w, steps)
			drive.SetFault(nil)
			failed := count.Load() >= n
			if failed {
				latched(t, d, err, fails)
			} else if err != nil {
				t.Fatalf("request %d: %v", n, err)
			}
			if err := d.Close(); failed == (err == nil) {
				t.Fatalf("request %d: close: %v", n, err)
			}
			m := moment{drive: drive, before: w, underway: underway, at: "after a failure"}
			m.verify(t)
			hit = hit || failed
		}
		if !hit {
			t.Logf("%d requests", n)
			return
		}
	}
}

// latched checks that a disk whose request failed does nothing any more.
func latched(t *testing.T, d *disk.Disk, err, why error) {
	t.Helper()
	select {
	case <-d.Failed():
	case <-time.After(10 * time.Second):
		t.Fatalf("a request failed and the disk goes on; the script's error is %v", err)
	}
	if errors.Is(why, unix.ENOSPC) && model.CodeOf(d.Err()) != model.NoSpace {
		t.Errorf("failed with %v, want no_space", d.Err())
	}
	if !errors.Is(d.Err(), why) {
		t.Errorf("failed with %v, want %v", d.Err(), why)
	}
	for what, err := range map[string]error{
		"apply": apply(d, writeOp(1, 99, 98, 0, 1, 1)),
		"read": d.Read(context.Background(), disk.Read{Volume: 1, Generation: 1, Count: 1},
			make([]byte, 4096), make([]uint32, 1)),
		"prepare": func() error {
			_, err := d.Prepare(context.Background(), disk.Prepare{Volume: 1, Generation: 99})
			return err
		}(),
	} {
		if model.CodeOf(err) != model.Unavailable {
			t.Errorf("%s on a failed disk: %v", what, err)
		}
	}
}

// readAll reads the first n blocks of volume 1.
func readAll(d *disk.Disk, n int) ([]byte, error) {
	dst := make([]byte, n*4096)
	r := disk.Read{Volume: 1, Generation: 1, Count: n}
	return dst, d.Read(context.Background(), r, dst, make([]uint32, n))
}

// damaged returns the blocks an error names.
func damagedBlocks(t *testing.T, err error) []layout.Block {
	t.Helper()
	var c *disk.CorruptError
	if !errors.As(err, &c) || model.CodeOf(err) != model.Corrupt {
		t.Fatalf("got %v, want a CorruptError", err)
	}
	return c.Blocks
}

// A write that goes astray, is lost or torn, a bit that rots, a sector that cannot be
// read: the blocks are named, never returned as good, counted once, and a Copy
// repairs them, which is counted too.
func TestDamageIsFoundAndRepaired(t *testing.T) {
	raw := int64(1<<20 + disktest.Journal)
	strike := map[string]func(r *disktest.Request){
		"lost":  func(r *disktest.Request) { r.Lose = true },
		"moved": func(r *disktest.Request) { r.Off += 65536 },
	}
	for name, f := range strike {
		t.Run(name, func(t *testing.T) {
			v := newDrive(t, 32<<20)
			d := openDrive(t, v)
			defer closed(t, d)
			hit := false
			v.SetFault(func(r *disktest.Request) error {
				if r.Kind == uring.Write && r.Off >= raw && !hit {
					hit = true
					f(r)
				}
				return nil
			})
			op := writeOp(1, 1, 0, 0, 16, 1)
			if err := apply(d, op); err != nil {
				t.Fatal(err)
			}
			_, err := readAll(d, 16)
			if got := damagedBlocks(t, err); len(got) != 16 {
				t.Errorf("damaged: %v, want all of the page", got)
			}
			repairs(t, d, 16)
		})
	}
	t.Run("rot", func(t *testing.T) {
		v := newDrive(t, 32<<20)
		d := openDrive(t, v)
		defer closed(t, d)
		op := writeOp(1, 1, 0, 0, 16, 1)
		if err := apply(d, op); err != nil {
			t.Fatal(err)
		}
		if n := v.Rot(raw, 3); n != 3 {
			t.Fatal("nothing to rot")
		}
		got, err := readAll(d, 16)
		bad := damagedBlocks(t, err)
		if len(bad) != 3 {
			t.Fatalf("damaged: %v, want 3", bad)
		}
		for i := range 16 {
			same := bytes.Equal(got[i*4096:][:4096], op.Data.Bytes[i*4096:][:4096])
			if same == slices.Contains(bad, layout.Block(i)) {
				t.Errorf("block %d: right %v, said to be damaged %v", i, same, !same)
			}
		}
		repairs(t, d, 3)
	})
	t.Run("unreadable", func(t *testing.T) {
		v := newDrive(t, 32<<20)
		d := openDrive(t, v)
		defer closed(t, d)
		if err := apply(d, writeOp(1, 1, 0, 0, 16, 1)); err != nil {
			t.Fatal(err)
		}
		v.SetFault(func(r *disktest.Request) error {
			if r.Kind == uring.Read && r.Off <= raw+5*4096 && r.Off+int64(r.Len) > raw+5*4096 {
				return unix.EIO
			}
			return nil
		})
		_, err := readAll(d, 16)
		if got := damagedBlocks(t, err); !slices.Equal(got, []layout.Block{5}) {
			t.Errorf("damaged: %v, want block 5", got)
		}
		repairs(t, d, 1)
	})
}

// repairs checks that n damaged blocks of page 0 are counted, and copies a good
// version over it.
func repairs(t *testing.T, d *disk.Disk, n uint64) {
	t.Helper()
	_, _ = readAll(d, 16)
	if u := d.Usage(); u.ChecksumErrors != n || u.Repaired != 0 {
		t.Errorf("%d checksum errors, %d repaired; want %d and none", u.ChecksumErrors, u.Repaired, n)
	}
	stamp := model.Stamp{Generation: 1, Number: 1}
	if err := apply(d, copyOp(1, 2, 1, 0, 0, stamp, 0xffff, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := readAll(d, 16); err != nil {
		t.Errorf("after the repair: %v", err)
	}
	if u := d.Usage(); u.ChecksumErrors != n || u.Repaired != n {
		t.Errorf("%d checksum errors, %d repaired; want %d and %d", u.ChecksumErrors, u.Repaired, n, n)
	}
}

// A page with a damaged block that moves to a new epoch stays damaged there: the
// damage is not given a fresh sum.
func TestDamageIsNotCovered(t *testing.T) {
	v := newDrive(t, 32<<20)
	d := openDrive(t, v)
	defer closed(t, d)
	if err := apply(d, writeOp(1, 1, 0, 0, 16, 1)); err != nil {
		t.Fatal(err)
	}
	if v.Rot(1<<20+int64(disktest.Journal), 16) != 16 {
		t.Fatal("nothing to rot")
	}
	op := writeOp(1, 2, 1, 3, 1, 7)
	op.Epoch = 1
	if err := apply(d, op); err != nil {
		t.Fatal(err)
	}
	dst := make([]byte, 16*4096)
	err := d.Read(context.Background(), disk.Read{Volume: 1, Generation: 1, Count: 16, Epoch: 1},
		dst, make([]uint32, 16))
	if got := damagedBlocks(t, err); len(got) != 15 || slices.Contains(got, 3) {
		t.Errorf("damaged: %v, want all but block 3", got)
	}
}

// A promise that comes while an op of the old generation is being written has the op
// refused, and what is behind it: they are judged when they are applied.
func TestFencedWhenApplied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newDrive(t, 32<<20)
		d := openDrive(t, v)
		defer closed(t, d)
		v.SetDelay(time.Second)
		whole, small := make(chan error, 1), make(chan error, 1)
		d.Apply(writeOp(1, 1, 0, 0, 16, 1), func(err error) { whole <- err })
		d.Apply(writeOp(1, 2, 1, 40, 1, 1), func(err error) { small <- err })
		synctest.Wait() // the page is on its way
		v.SetDelay(0)
		p := disk.Prepare{Volume: 1, Generation: 2}
		if _, err := d.Prepare(context.Background(), p); err != nil {
			t.Fatal(err)
		}
		for _, c := range []chan error{whole, small} {
			if err := <-c; model.CodeOf(err) != model.Fenced {
				t.Errorf("the answer is %v, want fenced", err)
			}
		}
		got, err := d.List(context.Background(), disk.List{Volume: 1, Generation: 2})
		if err != nil || len(got.Versions) != 0 {
			t.Errorf("%d versions, %v; want none", len(got.Versions), err)
		}
		if u := d.Usage(); u.Used != 0 {
			t.Errorf("%d bytes are used by what was refused", u.Used)
		}
	})
}

// A full disk refuses before it touches anything; what needs no space goes on, and
// removal makes room.
func TestFullDisk(t *testing.T) {
	v := newDrive(t, 14<<20) // 80 places
	d := openDrive(t, v)
	defer closed(t, d)
	last := uint64(0)
	send := func(op *disk.Op) error {
		op.Number, op.Prev = last+1, last
		err := apply(d, op)
		if err == nil {
			last++
		}
		return err
	}
	page := 0
	for ; ; page++ {
		err := send(writeOp(1, 0, 0, page*16, 16, uint64(page)))
		if model.CodeOf(err) == model.NoSpace {
			break
		}
		if err != nil || page > 80 {
			t.Fatalf("page %d: %v", page, err)
		}
	}
	if page < 70 {
		t.Fatalf("full after %d pages", page)
	}
	before := d.Usage()
	if err := send(writeOp(1, 0, 0, page*16+3, 1, 5)); model.CodeOf(err) != model.NoSpace {
		t.Errorf("a small write into a new page: %v", err)
	}
	if err := send(writeOp(1, 0, 0, (page-1)*16, 32, 5)); model.CodeOf(err) != model.NoSpace {
		t.Errorf("a write half of which has room: %v", err)
	}
	if after := d.Usage(); after.Used != before.Used {
		t.Errorf("refused writes changed %+v into %+v", before, after)
	}
	dst := make([]byte, 65536)
	if _, err := d.ReadVersion(context.Background(), 1, 1, 0, uint32(page-1), 0, dst); err != nil {
		t.Error(err)
	}
	want, _ := data(16, uint64(page-1))
	if !bytes.Equal(dst, want.Bytes) {
		t.Error("a refused write has changed a page")
	}
	for i := range page { // all at once, in place
		if err := send(writeOp(1, 0, 0, i*16, 16, uint64(i+1000))); err != nil {
			t.Fatalf("overwrite of page %d: %v", i, err)
		}
		if err := send(writeOp(1, 0, 0, i*16+2, 1, uint64(i+2000))); err != nil {
			t.Fatalf("overwrite of a block of page %d: %v", i, err)
		}
	}
	op := copyOp(1, 0, 0, 1, 0, model.Stamp{Generation: 1, Number: 1}, 0xffff, 7)
	if err := send(op); err != nil {
		t.Errorf("a repair: %v", err)
	}
	trim := &disk.Op{Kind: disk.Discard, Volume: 1, Generation: 1, Epoch: 1, Block: 8, Count: 16 * 8}
	if err := send(trim); err != nil {
		t.Errorf("a discard in a new epoch: %v", err)
	}
	rm := &disk.Op{Kind: disk.Remove, Volume: 1, Generation: 1, Page: 0, Epoch: 0}
	for ; rm.Page < 12; rm.Page++ {
		again := *rm
		if err := send(&again); err != nil {
			t.Errorf("a removal: %v", err)
		}
	}
	if err := send(writeOp(1, 0, 0, page*16, 16, 9)); err != nil {
		t.Errorf("a write after there is room: %v", err)
	}
	if err := d.Drop(context.Background(), 1, 0, 1); err != nil {
		t.Fatal(err)
	}
	// A place that is being written in place is free when that is done.
	if err := d.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	if u := d.Usage(); u.Used != 0 {
		t.Errorf("%d bytes are used after everything was dropped", u.Used)
	}
}

// A disk that nobody uses does nothing: a minute after the last write it has been
// checkpointed, and then there is not one request more.
func TestIdleDiskIsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newDrive(t, 32<<20)
		v.SetDelay(100 * time.Microsecond)
		d := openDrive(t, v)
		defer closed(t, d)
		if err := apply(d, writeOp(1, 1, 0, 0, 30, 1)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		if n := d.Stats().Checkpoints; n != 1 {
			t.Errorf("%d checkpoints", n)
		}
		v.SetFault(func(r *disktest.Request) error {
			t.Errorf("an idle disk asks for %+v", r)
			return nil
		})
		time.Sleep(24 * time.Hour)
		v.SetFault(nil)
	})
}

// Whoever waits for a promise waits no longer than its context.
func TestPrepareEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newDrive(t, 32<<20)
		d := openDrive(t, v)
		defer closed(t, d)
		v.SetDelay(time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := d.Prepare(ctx, disk.Prepare{Volume: 1, Generation: 2})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want a deadline", err)
		}
		v.SetDelay(0)
	})
}
