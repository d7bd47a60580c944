package disk_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/disk/disktest"
	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/uring"
)

// oneFamily has volumes 1 to 9 descend from volume 1.
func oneFamily() map[model.VolumeID]model.VolumeID {
	of := make(map[model.VolumeID]model.VolumeID)
	for vol := model.VolumeID(1); vol < 10; vol++ {
		of[vol] = 1
	}
	return of
}

// newFamily makes a disk on which volumes 1 to n, of one family, are promised.
func newFamily(t *testing.T, size model.Bytes, n int) (*bench, *disktest.Drive) {
	t.Helper()
	v := newDrive(t, size)
	b := &bench{newWorld(), openDrive(t, v)}
	b.d.SetFamilies(oneFamily())
	for vol := range model.VolumeID(n) {
		must(t, b.promise(vol+1, 0, 0))
	}
	return b, v
}

// used is how many pages the disk has in use.
func (b *bench) used() int { return int(b.d.Usage().Used / model.PageSize) }

// content is what a version of a page reads as.
func (b *bench) content(t *testing.T, vol model.VolumeID, page uint32, e model.Epoch) []byte {
	t.Helper()
	dst := make([]byte, model.PageSize)
	_, err := b.d.ReadVersion(t.Context(), vol, b.volume(vol).gen, 0, page, e, dst)
	must(t, err)
	return dst
}

// copied makes a Copy of pages that were written with a seed.
func copied(page uint32, e model.Epoch, mask uint16, seed uint64) *disk.Op {
	return copyOp(0, 0, 0, page, e, model.Stamp{Generation: 1, Number: 7}, mask, seed)
}

// altered changes some of the data of a Copy, and its sums with it.
func altered(op *disk.Op, change func(b []byte)) *disk.Op {
	b := iobuf.Get(len(op.Data.Bytes))
	copy(b.Bytes, op.Data.Bytes)
	change(b.Bytes)
	op.Data, op.Sums = b, slices.Clone(op.Sums)
	for i := range op.Sums {
		op.Sums[i] = crc32.Checksum(b.Bytes[i*4096:][:4096], table)
	}
	return op
}

// collide changes a block so that its CRC32C stays the same: by a multiple of the
// polynomial.
func collide(b []byte) {
	const polynomial = uint64(0x11edc6f41)
	for i := range 33 {
		b[100+i/8] ^= byte(polynomial>>(32-i)&1) << (i % 8)
	}
}

// A Copy takes no place if, and only if, a relative has every byte of it in the same page
// of the same column, in any epoch. It is what came all the same.
func TestCopyOfWhatARelativeHas(t *testing.T) {
	const seed = 5
	for name, c := range map[string]struct {
		op    *disk.Op
		to    model.VolumeID
		takes int
	}{
		"the same":             {op: copied(0, 3, 0xffff, seed), to: 2},
		"one bit is different": {op: altered(copied(0, 3, 0xffff, seed), func(b []byte) { b[65535] ^= 1 }), to: 2, takes: 1},
		"only the sums are":    {op: altered(copied(0, 3, 0xffff, seed), collide), to: 2, takes: 1},
		"in another page":      {op: copied(1, 3, 0xffff, seed), to: 2, takes: 1},
		"fewer blocks":         {op: copied(0, 3, 0x7fff, seed), to: 2, takes: 1},
		"the same few blocks":  {op: copied(2, 3, 0x01fc, seed), to: 2},
		"no relative":          {op: copied(0, 3, 0xffff, seed), to: 11, takes: 1},
		"nothing":              {op: copied(0, 3, 0, seed), to: 2},
	} {
		t.Run(name, func(t *testing.T) {
			b, v := newFamily(t, 64<<20, 2)
			must(t, b.promise(11, 0, 0))
			few := writeOp(0, 0, 0, 2*16+2, 7, seed)
			few.Epoch = 1
			must(t, b.send(1, writeOp(0, 0, 0, 0, 16, seed)), b.send(1, few))
			used := b.used()
			must(t, b.send(c.to, c.op))
			if now := b.used(); now != used+c.takes {
				t.Errorf("%d pages are used, want %d", now, used+c.takes)
			}
			for range 2 {
				must(t, b.d.CheckSpace(), b.equals(b.d, 1, 1, 8, 4), b.equals(b.d, c.to, 1, 8, 4))
				got := b.content(t, c.to, c.op.Page, 3)
				for i, at := 0, 0; at < 16; at++ {
					if c.op.Version.Mask>>at&1 == 0 {
						continue
					}
					if !bytes.Equal(got[at*4096:][:4096], c.op.Data.Bytes[i*4096:][:4096]) {
						t.Fatalf("block %d is not what came", at)
					}
					i++
				}
				v.Crash(0)
				_ = b.d.Close()
				b.d = openDrive(t, v)
			}
			closed(t, b.d)
		})
	}
}

// What is shared goes on when the relative is written, when its version is removed, and
// when all of it is dropped; and when the last goes, the place is free.
func TestMatchNeedsNoRelative(t *testing.T) {
	for name, end := range map[string]func(b *bench) error{
		"written":     func(b *bench) error { return b.send(1, writeOp(0, 0, 0, 3, 2, 9)) },
		"overwritten": func(b *bench) error { return b.send(1, writeOp(0, 0, 0, 0, 16, 9)) },
		"discarded":   func(b *bench) error { return b.send(1, &disk.Op{Kind: disk.Discard, Block: 3, Count: 2}) },
		"removed":     func(b *bench) error { return b.send(1, &disk.Op{Kind: disk.Remove}) },
		"replaced":    func(b *bench) error { return b.send(1, copied(0, 0, 0xffff, 9)) },
		"dropped": func(b *bench) error {
			held, err := b.d.Held(t.Context())
			b.drop(1, 0)
			i := slices.IndexFunc(held, func(h disk.Held) bool { return h.Volume == 1 })
			return cmp.Or(err, b.d.Drop(t.Context(), 1, 0, held[i].Promises))
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, _ := newFamily(t, 64<<20, 2)
			defer func() { closed(t, b.d) }()
			must(t, b.send(1, writeOp(0, 0, 0, 0, 16, 5)), b.send(2, copied(0, 0, 0xffff, 5)))
			if n := b.used(); n != 1 {
				t.Fatalf("%d pages are used; the test shows nothing", n)
			}
			must(t, end(b), b.equals(b.d, 1, 1, 8, 1), b.equals(b.d, 2, 1, 8, 1), b.d.CheckSpace())
			must(t, b.send(2, writeOp(0, 0, 0, 8, 2, 10)), b.equals(b.d, 1, 1, 8, 1), b.equals(b.d, 2, 1, 8, 1))
			must(t, b.d.DropVolume(t.Context(), 2), b.d.DropVolume(t.Context(), 1))
			if n := b.used(); n != 0 {
				t.Errorf("%d pages are used by nothing", n)
			}
		})
	}
}

// What the relative has on a damaged place, or on one that cannot be read, is not shared:
// the Copy is whole in a place of its own.
func TestDamageIsNotShared(t *testing.T) {
	for _, name := range []string{"not known", "known", "not readable"} {
		t.Run(name, func(t *testing.T) {
			b, v := newFamily(t, 64<<20, 2)
			defer func() { closed(t, b.d) }()
			must(t, b.send(1, writeOp(0, 0, 0, 0, 16, 5)), b.d.Checkpoint())
			const at = int64(disktest.Journal) + 1<<20
			if name == "not readable" {
				v.SetFault(func(r *disktest.Request) error {
					if r.Kind == uring.Read && r.Off >= at && r.Off < at+4096 {
						return errors.New("unreadable")
					}
					return nil
				})
			} else if n := v.Rot(at, 1); n != 1 {
				t.Fatalf("%d blocks are damaged", n)
			}
			if name == "known" && len(scrubbed(t, b.d)) != 1 {
				t.Fatal("the damage is not found; the test shows nothing")
			}
			must(t, b.send(2, copied(0, 0, 0xffff, 5)))
			v.SetFault(nil)
			if n := b.used(); n != 2 {
				t.Errorf("%d pages are used, want 2", n)
			}
			must(t, b.equals(b.d, 2, 1, 1, 1), b.d.CheckSpace())
		})
	}
}

// A Copy that is to repair what lies in a place with others does not go there again.
func TestRepairLeavesTheSharedPlace(t *testing.T) {
	b, _ := newFamily(t, 64<<20, 3)
	defer func() { closed(t, b.d) }()
	must(t, b.send(1, writeOp(0, 0, 0, 0, 16, 5)), b.send(2, copied(0, 0, 0xffff, 5)))
	if n := b.used(); n != 1 {
		t.Fatalf("%d pages are used; the test shows nothing", n)
	}
	must(t, b.send(2, copied(0, 0, 0xffff, 5)), b.d.CheckSpace())
	if n := b.used(); n != 2 {
		t.Errorf("%d pages are used after the repair of one, want 2", n)
	}
	must(t, b.send(1, copied(0, 0, 0xffff, 5)), b.d.CheckSpace())
	if n := b.used(); n != 1 {
		t.Errorf("%d pages are used after the repair of the other, want 1 again", n)
	}
	must(t, b.equals(b.d, 1, 1, 1, 1), b.equals(b.d, 2, 1, 1, 1))
}

// A full disk takes a Copy that needs no place, and refuses one that does.
func TestMatchOnAFullDisk(t *testing.T) {
	b, _ := newFamily(t, 17<<20, 2)
	defer func() { closed(t, b.d) }()
	pages := fillDisk(t, b, 1)
	for page, err := uint32(pages), error(nil); err == nil; page++ {
		if err = b.send(1, copied(page, 0, 0xffff, uint64(page))); err != nil && model.CodeOf(err) != model.NoSpace {
			t.Fatal(err)
		}
	}
	seen := b.volume(1).versions[where{page: uint32(pages - 1)}]
	data := b.content(t, 1, uint32(pages-1), 0)
	same := copied(uint32(pages-1), 0, seen.Mask, 1)
	must(t, b.send(2, altered(same, func(to []byte) { copy(to, data) })))
	if err := b.send(2, copied(0, 0, 0xffff, 9999)); model.CodeOf(err) != model.NoSpace {
		t.Errorf("a Copy of something else on a full disk: %v", err)
	}
	must(t, b.equals(b.d, 2, 1, uint32(pages), 1), b.d.CheckSpace())
}

// A relative that is written between the comparison and the moment the Copy is applied
// does not take the Copy with it: what was compared is not there any more.
func TestRelativeIsWrittenMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, v := newFamily(t, 64<<20, 2)
		defer func() { closed(t, b.d) }()
		const pages = 8
		for page := range pages {
			must(t, b.send(1, writeOp(0, 0, 0, page*16, 16, uint64(page))))
		}
		must(t, b.send(2, writeOp(0, 0, 0, 30*16, 16, 99)), b.d.Checkpoint())
		v.SetDelay(5 * time.Millisecond)
		done := make(chan error, 2*pages+1)
		start := func(vol model.VolumeID, op *disk.Op) {
			b.address(vol, op)
			b.apply(op)
			b.d.Apply(op, func(err error) { done <- err })
		}
		// Its page has to move first, so what is behind it waits after it was compared.
		slow := writeOp(0, 0, 0, 30*16+1, 2, 98)
		slow.Epoch = 1
		start(2, slow)
		for page := range pages {
			start(2, copied(uint32(page), 1, 0xffff, uint64(page)))
		}
		for page := range pages {
			start(1, writeOp(0, 0, 0, page*16+3, 1+page, 77))
		}
		for range cap(done) {
			must(t, <-done)
		}
		must(t, b.equals(b.d, 1, 1, 32, 2), b.equals(b.d, 2, 1, 32, 2), b.d.CheckSpace())
	})
}

// Relatives that come at the same time share what they have in common: the second of two
// Copies finds the first by the time it is applied, or soon is behind.
func TestRelativesComeTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, v := newFamily(t, 64<<20, 3)
		defer func() { closed(t, b.d) }()
		v.SetDelay(time.Millisecond)
		const pages = 128
		var all sync.WaitGroup
		for _, vol := range []model.VolumeID{1, 2, 3} {
			all.Go(func() {
				done := make(chan error, pages)
				var last uint64
				for page := range uint32(pages) {
					op := copied(page, 0, 0xffff, uint64(page))
					op.Volume, op.Generation, op.Number, op.Prev = vol, 1, last+1, last
					last++
					b.d.Apply(op, func(err error) { done <- err })
					if page >= 8 { // as many as a holder fills at a time
						must(t, <-done)
					}
				}
				for range 8 {
					must(t, <-done)
				}
			})
		}
		all.Wait()
		if n := b.used(); n > pages*5/4 {
			t.Errorf("%d pages are used for three times the same %d", n, pages)
		}
		must(t, b.d.CheckSpace())
	})
}

// With and without relatives a disk holds the same, after whatever was done: sharing
// changes only where it lies.
func TestSharingChangesNothingElse(t *testing.T) {
	const pages = 6
	for seed := range uint64(20) {
		var benches []*bench
		for _, families := range []bool{true, false} {
			b, _ := newFamily(t, 64<<20, 3)
			if !families {
				b.d.SetFamilies(nil)
			}
			rng := rand.New(rand.NewPCG(seed, 3))
			for range 120 {
				vol, page := model.VolumeID(1+rng.IntN(3)), rng.IntN(pages)
				op := writeOp(0, 0, 0, page*16, 16, uint64(page))
				switch rng.IntN(6) {
				case 0:
					op = writeOp(0, 0, 0, page*16+rng.IntN(8), 1+rng.IntN(8), rng.Uint64())
				case 1, 2, 3:
					op = copied(uint32(page), 0, 0xffff, uint64(page))
				case 4:
					op = &disk.Op{Kind: disk.Discard, Block: op.Block, Count: uint64(1 + rng.IntN(16))}
				}
				op.Epoch = model.Epoch(rng.IntN(3))
				op.Version.Epoch = op.Epoch
				must(t, b.send(vol, op))
			}
			must(t, b.d.CheckSpace())
			benches = append(benches, b)
		}
		a, b := benches[0], benches[1]
		if a.used() >= b.used() {
			t.Errorf("seed %d: %d pages are used with relatives, %d without", seed, a.used(), b.used())
		}
		for vol := model.VolumeID(1); vol < 4; vol++ {
			must(t, a.equals(a.d, vol, 1, 8, 3), a.equals(b.d, vol, 1, 8, 3))
			for at := range a.volume(vol).versions {
				if !bytes.Equal(a.content(t, vol, at.page, at.epoch), b.content(t, vol, at.page, at.epoch)) {
					t.Errorf("seed %d: page %d of epoch %d of volume %d reads otherwise", seed, at.page, at.epoch, vol)
				}
			}
		}
		closed(t, a.d)
		closed(t, b.d)
	}
}

// matchWords is what a history with relatives consists of. Volumes 1 and 3 get page 0 of
// volume 2, in different epochs, and something becomes of each.
var matchWords = map[string]turn{
	"match":      {vol: 1, op: copied(0, 0, 0xffff, 5)},
	"third":      {vol: 3, op: copied(0, 1, 0xffff, 5)},
	"few":        {vol: 1, op: copied(1, 0, 0x01fc, 5)},
	"other":      {vol: 1, op: copied(0, 0, 0xffff, 6)},
	"part":       {vol: 1, op: writeOp(0, 0, 0, 13, 9, 7)},
	"written":    {vol: 2, op: writeOp(0, 0, 0, 2, 18, 8)},
	"discard":    {vol: 3, op: &disk.Op{Kind: disk.Discard, Block: 4, Count: 5, Epoch: 1}},
	"removed":    {vol: 2, op: &disk.Op{Kind: disk.Remove}},
	"checkpoint": {do: func(b *bench) error { return b.d.Checkpoint() }},
	"dropped": {vol: 2, do: func(b *bench) error {
		err := b.d.Drop(context.Background(), 2, 0, b.volume(2).promises)
		b.drop(2, 0)
		return err
	}},
}

// Every history of up to three operations among relatives, with the power cut at every
// sync and with every write on its way in the last of them: each volume is as it was or as
// it was about to be, every place is counted as it is named, and when all is deleted all
// is free. Of those of three a few are tried unless all are asked for.
func TestEveryShortHistoryOfMatches(t *testing.T) {
	words := make([]string, 0, len(matchWords))
	for w := range matchWords {
		words = append(words, w)
	}
	slices.Sort(words)
	cuts, shared := 0, 0
	try := func(h ...string) {
		n, s := tryMatches(t, h)
		cuts += n
		shared += s
	}
	i := 0
	for _, a := range words {
		try(a)
		for _, b := range words {
			try(a, b)
			for _, c := range words {
				if i++; *exhaustive || i%25 == 0 {
					try(a, b, c)
				}
			}
		}
	}
	if shared == 0 {
		t.Error("nothing was shared; the test shows nothing")
	}
	t.Logf("%d power cuts; %d histories shared something", cuts, shared)
}

// tryMatches does what the words say and cuts the power in the last of them. It tells how
// often, and whether anything was shared.
func tryMatches(t *testing.T, words []string) (cuts, shared int) {
	t.Helper()
	drive := newDrive(t, 16<<20)
	b := &bench{newWorld(), openDrive(t, drive)}
	b.d.SetFamilies(oneFamily())
	must(t, b.promise(1, 0, 0), b.promise(2, 0, 0), b.promise(3, 0, 0),
		b.send(2, writeOp(0, 0, 0, 0, 16, 5)), b.send(2, writeOp(0, 0, 0, 16+2, 7, 5)))
	run := func(word string) error {
		s := matchWords[word]
		if s.op == nil {
			return s.do(b)
		}
		op := *s.op
		return b.send(s.vol, &op)
	}
	for _, w := range words[:len(words)-1] {
		must(t, run(w))
	}
	var mu sync.Mutex // pebble asks from goroutines of its own
	var left []*disktest.Drive
	cut := func() {
		mu.Lock()
		defer mu.Unlock()
		left = append(left, drive.Clone(uint64(len(left)), []int{0, 100, 50}[len(left)%3]))
	}
	drive.SetFlight(func(*disktest.Request) { cut() })
	drive.SetFault(func(r *disktest.Request) error {
		if r.Kind == uring.Sync {
			cut()
		}
		return nil
	})
	before := b.clone()
	must(t, run(words[len(words)-1]))
	drive.SetFlight(nil)
	drive.SetFault(nil)
	mu.Lock() // a request that had begun may still tell of itself
	all := append(left, drive.Clone(uint64(len(left)), 0))
	mu.Unlock()
	at := strings.Join(words, " ")
	for n, d := range all {
		was := before
		if n == len(all)-1 { // all of it was answered
			was = b.world
		}
		checkCut(t, fmt.Sprintf("%s, cut %d", at, n), d, was, b.world)
	}
	if b.used() < b.places() {
		shared = 1
	}
	closed(t, b.d)
	return len(all), shared
}
