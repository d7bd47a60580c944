package disk_test

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/disk/disktest"
	"drystone.example/drystone/backend/model"
)

// rotBlock flips a bit of a block of a page that lies where writePages put it.
func rotBlock(t *testing.T, v *disktest.Drive, page, block int64) {
	t.Helper()
	at := rawArea + page*65536 + block*4096
	if v.RotWithin(at, at+4096, 1) != 1 {
		t.Fatal("nothing to rot")
	}
}

// damaged is what a disk says is damaged, of volume 1 and column 0.
func damaged(t *testing.T, d *disk.Disk) []model.Damage {
	t.Helper()
	list, n := d.Damage(100)
	if n != len(list) || n != d.Usage().Damaged {
		t.Errorf("%d are said to be damaged, %d are named", n, len(list))
	}
	for i := range list {
		if list[i].Volume != 1 || list[i].Column != 0 {
			t.Errorf("damage where there is nothing: %+v", list[i])
		}
		list[i].Volume = 0
	}
	return list
}

func wantDamaged(t *testing.T, d *disk.Disk, what string, want ...model.Damage) {
	t.Helper()
	if got := damaged(t, d); !slices.Equal(got, want) {
		t.Errorf("%s: %+v, want %+v", what, got, want)
	}
}

// What was found damaged is known after a power cut that comes two seconds later,
// without being read again, and until it is written anew, block by block.
func TestDamageOutlivesPowerCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newDrive(t, 32<<20)
		d := openDrive(t, v)
		writePages(t, d, 10)
		time.Sleep(2 * time.Minute) // nothing but the damage is new
		rotBlock(t, v, 3, 5)
		rotBlock(t, v, 3, 6)
		rotBlock(t, v, 7, 0)
		if pages := scrubbed(t, d); !slices.Equal(pages, []uint32{3, 7}) {
			t.Fatalf("damaged: %v, want 3 and 7", pages)
		}
		both := []model.Damage{{Page: 3, Blocks: 3 << 5}, {Page: 7, Blocks: 1}}
		wantDamaged(t, d, "found", both...)
		time.Sleep(2 * time.Second)

		cut := func() {
			t.Helper()
			v.Crash(50)
			_ = d.Close() // it may notice, and may not
			d = openDrive(t, v)
		}
		cut()
		wantDamaged(t, d, "after the power cut", both...)
		must := func(op *disk.Op) {
			t.Helper()
			if err := apply(d, op); err != nil {
				t.Fatal(err)
			}
		}
		must(writeOp(1, 11, 10, 3*16+5, 1, 1000))
		wantDamaged(t, d, "one block is written anew", model.Damage{Page: 3, Blocks: 1 << 6}, both[1])
		must(writeOp(1, 12, 11, 7*16, 16, 1001)) // the whole page: it gets another place
		wantDamaged(t, d, "a page is written anew", model.Damage{Page: 3, Blocks: 1 << 6})
		cut() // the journal says so too
		wantDamaged(t, d, "after another power cut", model.Damage{Page: 3, Blocks: 1 << 6})
		must(copyOp(1, 13, 12, 3, 0, model.Stamp{Generation: 1, Number: 11}, 0xffff, 1002))
		wantDamaged(t, d, "repaired")
		time.Sleep(2 * time.Second)
		cut()
		wantDamaged(t, d, "repaired, after a power cut")
		closed(t, d)
	})
}

// What a new epoch takes over of a damaged version is damaged there; what it does
// not is damaged for snapshots only, until their version is freed.
func TestDamageBelowASnapshot(t *testing.T) {
	v := newDrive(t, 32<<20)
	d := openDrive(t, v)
	writePages(t, d, 4)
	rotBlock(t, v, 2, 5)
	rotBlock(t, v, 2, 6)
	scrubbed(t, d)
	wantDamaged(t, d, "found", model.Damage{Page: 2, Blocks: 3 << 5})
	in := func(e model.Epoch, op *disk.Op) {
		t.Helper()
		if op.Epoch = e; apply(d, op) != nil {
			t.Fatal("not applied")
		}
	}
	in(1, writeOp(1, 5, 4, 2*16+5, 1, 1000))
	below := model.Damage{Page: 2, Blocks: 3 << 5, Covered: true}
	wantDamaged(t, d, "one block is written in a new epoch", below, model.Damage{Page: 2, Epoch: 1, Blocks: 1 << 6})
	if pages := scrubbed(t, d); !slices.Equal(pages, []uint32{2}) {
		t.Fatalf("damaged: %v, want 2", pages)
	}
	wantDamaged(t, d, "scrubbed", below, model.Damage{Page: 2, Epoch: 1, Blocks: 1 << 6})
	in(1, writeOp(1, 6, 5, 2*16+6, 1, 1001))
	wantDamaged(t, d, "both are written", below)
	closed(t, d)
	d = openDrive(t, v)
	defer closed(t, d)
	wantDamaged(t, d, "opened again", below)
	in(1, &disk.Op{Kind: disk.Remove, Volume: 1, Generation: 1, Number: 7, Prev: 6, Page: 2})
	wantDamaged(t, d, "the newer one is gone", model.Damage{Page: 2, Blocks: 3 << 5})
	in(0, &disk.Op{Kind: disk.Remove, Volume: 1, Generation: 1, Number: 8, Prev: 7, Page: 2})
	wantDamaged(t, d, "both are gone")
}

// What reads as it should again is not damaged any more.
func TestDamageThatPasses(t *testing.T) {
	v := newDrive(t, 32<<20)
	d := openDrive(t, v)
	defer closed(t, d)
	writePages(t, d, 4)
	broken := true
	v.SetFault(func(r *disktest.Request) error {
		if broken && r.Off >= rawArea+2*65536 && r.Off < rawArea+3*65536 {
			return errNoRead
		}
		return nil
	})
	if pages := scrubbed(t, d); !slices.Equal(pages, []uint32{2}) {
		t.Fatalf("damaged: %v, want 2", pages)
	}
	wantDamaged(t, d, "cannot be read", model.Damage{Page: 2, Blocks: 0xffff})
	broken = false
	if pages := scrubbed(t, d); pages != nil {
		t.Fatalf("damaged: %v, want none", pages)
	}
	wantDamaged(t, d, "can be read again")
}

// A block that is copied as lost is an error to read, and no other; what is not said to
// be lost must match its sum.
func TestCopyOfLostBlocks(t *testing.T) {
	v := newDrive(t, 32<<20)
	d := openDrive(t, v)
	op := copyOp(1, 1, 0, 3, 0, model.Stamp{Generation: 1, Number: 9}, 0x8421, 7)
	clear(op.Data.Bytes[4096:8192]) // the second of those present: block 5
	if err := apply(d, op); model.CodeOf(err) != model.Corrupt {
		t.Fatalf("a block that does not match its sum: %v", err)
	}
	op.Lost = 1 << 5
	if err := apply(d, op); err != nil {
		t.Fatal(err)
	}
	lost := model.Damage{Page: 3, Blocks: 1 << 5}
	wantDamaged(t, d, "copied", lost)
	closed(t, d)
	d = openDrive(t, v)
	defer closed(t, d)
	wantDamaged(t, d, "opened again", lost)
	_, err := d.ReadVersion(t.Context(), 1, 1, 0, 3, 0, make([]byte, 65536))
	bad, corrupt := errors.AsType[*disk.CorruptError](err)
	if !corrupt || len(bad.Blocks) != 1 || bad.Blocks[0] != 3*16+5 {
		t.Errorf("read: %v", err)
	}
}

var errNoRead = model.Errorf(model.Unavailable, "cannot be read")
