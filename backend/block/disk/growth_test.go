package disk_test

import (
	"bytes"
	"context"
	"testing"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/model"
)

// A filler sends the ops of volume 1 in generation 1, one after the other.
type filler struct {
	d    *disk.Disk
	last uint64
}

func (s *filler) send(op *disk.Op) error {
	op.Volume, op.Generation, op.Number, op.Prev = 1, 1, s.last+1, s.last
	err := apply(s.d, op)
	if err == nil {
		s.last++
	}
	return err
}

// grow writes whole pages until the disk takes no more and returns how many it took.
func (s *filler) grow(t *testing.T) (pages int) {
	t.Helper()
	for ; ; pages++ {
		err := s.send(writeOp(1, 0, 0, pages*16, 16, uint64(pages)))
		if model.CodeOf(err) == model.NoSpace {
			return pages
		}
		if err != nil {
			t.Fatalf("page %d: %v", pages, err)
		}
	}
}

func (s *filler) mustSend(t *testing.T, what string, op *disk.Op) {
	t.Helper()
	if err := s.send(op); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func share(u model.DiskUsage) float64 { return 100 * float64(u.Used) / float64(u.Size) }

// At 92 % a disk takes no more data that needs new places, whatever way it comes: into
// new pages, into pages that a snapshot keeps, into pages that a clone shares. What needs
// none goes on, and so do copies of whole versions, which fill and repair; when something
// was taken away, guests' data is taken again.
func TestGrowthStops(t *testing.T) {
	v := newDrive(t, 32<<20)
	s := &filler{d: openDrive(t, v)}
	defer closed(t, s.d)
	pages := s.grow(t)
	if full := share(s.d.Usage()); full > 92 || full < 91 {
		t.Fatalf("no growth at %.1f %%", full)
	}
	refused := func(what string, op *disk.Op) {
		t.Helper()
		before := s.d.Usage()
		if err := s.send(op); model.CodeOf(err) != model.NoSpace {
			t.Errorf("%s: %v, want no space", what, err)
		}
		if after := s.d.Usage(); after.Used != before.Used {
			t.Errorf("%s, refused, changed %+v into %+v", what, before, after)
		}
	}
	kept := writeOp(1, 0, 0, 16, 4, 3)
	kept.Epoch = 1
	refused("a write to a page that a snapshot keeps", kept)
	refused("a write over an old page and a new one", writeOp(1, 0, 0, (pages-1)*16, 32, 3))
	refused("a block of a new page", writeOp(1, 0, 0, pages*16+1, 1, 3))
	for i := range pages {
		s.mustSend(t, "an overwrite of a page", writeOp(1, 0, 0, i*16, 16, uint64(i+1000)))
		s.mustSend(t, "an overwrite of a block", writeOp(1, 0, 0, i*16+2, 1, uint64(i+2000)))
	}
	for i := range 6 { // of places that are spare, and not kept
		op := copyOp(0, 0, 0, uint32(pages+i), 0, model.Stamp{Generation: 1, Number: 1}, 0xffff, 7)
		s.mustSend(t, "a copy that fills", op)
	}
	refused("a write while it is fuller still", writeOp(1, 0, 0, (pages+20)*16, 16, 3))
	s.mustSend(t, "a discard", &disk.Op{Kind: disk.Discard, Block: 0, Count: 16 * 6})
	refused("a write while copies have what was freed", writeOp(1, 0, 0, (pages+20)*16, 16, 3))
	s.mustSend(t, "a removal", &disk.Op{Kind: disk.Remove, Page: 20})
	s.mustSend(t, "a write after there is room", writeOp(1, 0, 0, (pages+20)*16, 16, 3))
}

// Many overwrites of whole pages at one time, each with a second place for as long as it
// is on its way, do not make a disk refuse them, nor each other's.
func TestOverwritesTogetherWhileGrowthStops(t *testing.T) {
	v := newDrive(t, 32<<20)
	s := &filler{d: openDrive(t, v)}
	defer closed(t, s.d)
	pages := s.grow(t)
	for round := range 3 {
		all := make(chan error, pages)
		for i := range pages {
			op := writeOp(1, s.last+1, s.last, i*16, 16, uint64(round*1000+i))
			s.last++
			s.d.Apply(op, func(err error) { all <- err })
		}
		for range pages {
			if err := <-all; err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
		}
	}
	if full := share(s.d.Usage()); full > 92 {
		t.Errorf("the disk is %.1f %% full", full)
	}
}

// A disk without a free place opens after a power cut with everything that was answered,
// takes overwrites, and can be emptied.
func TestRecoveryOfAFullDisk(t *testing.T) {
	v := newDrive(t, 14<<20) // 80 places
	s := &filler{d: openDrive(t, v)}
	pages := s.grow(t)
	for e := model.Epoch(0); ; e++ { // fills, then edges of discards, take all that is left
		op := copyOp(0, 0, 0, uint32(pages), e, model.Stamp{Generation: 1, Number: 1}, 0xffff, 7)
		if err := s.send(op); model.CodeOf(err) == model.NoSpace {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	for page := 0; ; page++ {
		op := &disk.Op{Kind: disk.Discard, Epoch: 1, Block: 0, Count: 3}
		op.Block += writeOp(1, 0, 0, page*16, 1, 0).Block
		if err := s.send(op); model.CodeOf(err) == model.NoSpace {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if u := s.d.Usage(); u.Used != u.Size {
		t.Fatalf("%d of %d bytes are used", u.Used, u.Size)
	}
	for i := 20; i < 40; i++ {
		s.mustSend(t, "an overwrite", writeOp(1, 0, 0, i*16, 16, uint64(i+1000)))
		s.mustSend(t, "an overwrite of blocks", writeOp(1, 0, 0, i*16+3, 2, uint64(i+2000)))
	}
	v.Crash(100)
	_ = s.d.Close()
	var err error
	if s.d, err = v.Open(context.Background(), disk.Options{Cluster: cluster}); err != nil {
		t.Fatalf("open: %v", err)
	}
	defer closed(t, s.d)
	if u := s.d.Usage(); u.Used != u.Size {
		t.Errorf("%d of %d bytes are used after the power cut", u.Used, u.Size)
	}
	dst := make([]byte, model.PageSize)
	for i := 20; i < 40; i++ {
		want, _ := data(16, uint64(i+1000))
		part, _ := data(2, uint64(i+2000))
		copy(want.Bytes[3*4096:], part.Bytes)
		if _, err := s.d.ReadVersion(t.Context(), 1, 1, 0, uint32(i), 0, dst); err != nil || !bytes.Equal(dst, want.Bytes) {
			t.Fatalf("page %d is not what was answered: %v", i, err)
		}
		s.mustSend(t, "an overwrite after the power cut", writeOp(1, 0, 0, i*16, 16, 5))
	}
	for page := range uint32(40) {
		s.mustSend(t, "a removal", &disk.Op{Kind: disk.Remove, Page: page})
	}
	s.mustSend(t, "a write after there is room", writeOp(1, 0, 0, 16, 16, 9))
}

// A write to a page that is shared with a clone needs a place of its own.
func TestGrowthOfAClone(t *testing.T) {
	v := newDrive(t, 32<<20)
	b := &bench{newWorld(), openDrive(t, v)}
	defer closed(t, b.d)
	must(t, b.promise(1, 0, 0))
	for page := 0; ; page++ {
		if err := b.send(1, writeOp(0, 0, 0, page*16, 16, 1)); err != nil {
			break
		}
	}
	must(t, b.promise(2, 1, 0))
	op := writeOp(0, 0, 0, 18, 3, 5)
	op.Epoch = 1
	if err := b.send(2, op); model.CodeOf(err) != model.NoSpace {
		t.Errorf("a write to a shared page: %v, want no space", err)
	}
	if full := share(b.d.Usage()); full > 92 {
		t.Errorf("the disk is %.1f %% full", full)
	}
	must(t, b.equals(b.d, 2, 1, 4, 2))
}
