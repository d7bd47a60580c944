package disk_test

import (
	"testing"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/model"
)

// A digest is that of the versions, whatever way they came to be there and however
// they are kept, and of those of the stretch alone; any change of one changes it.
func TestDigest(t *testing.T) {
	open := func() *disk.Disk { return openDrive(t, newDrive(t, 64<<20)) }
	a, b := open(), open()
	defer func() { closed(t, a); closed(t, b) }()
	const pages = 200 // more than are listed at a time
	writePages(t, a, pages)
	for i := pages - 1; i >= 0; i-- {
		n := uint64(pages - i)
		stamp := model.Stamp{Generation: 1, Number: uint64(i) + 1}
		if err := apply(b, copyOp(1, n, n-1, uint32(i), 0, stamp, 0xffff, uint64(i))); err != nil {
			t.Fatal(err)
		}
	}
	digest := func(d *disk.Disk, from, to uint32) disk.Digest {
		t.Helper()
		out, err := d.Digest(t.Context(), disk.List{Volume: 1, Generation: 1, From: from, To: to})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, c := range []struct {
		from, to uint32
		versions int
	}{{0, 0, pages}, {0, 1024, pages}, {10, 150, 140}, {150, 300, 50}, {1024, 2048, 0}} {
		x, y := digest(a, c.from, c.to), digest(b, c.from, c.to)
		if x != y || x.Versions != c.versions {
			t.Errorf("pages %d to %d: %x of %d and %x of %d versions", c.from, c.to, x.Sum[:4], x.Versions, y.Sum[:4], y.Versions)
		}
	}
	if digest(a, 0, 10) == digest(a, 10, 20) {
		t.Error("other pages have the same digest")
	}
	was, beside := digest(b, 0, 64), digest(b, 64, 128)
	again := copyOp(1, pages+1, pages, 63, 0, model.Stamp{Generation: 1, Number: 64}, 0xffff, 9999)
	if err := apply(b, again); err != nil { // only the sums are others
		t.Fatal(err)
	}
	if digest(b, 0, 64) == was || digest(b, 64, 128) != beside {
		t.Error("a digest does not say what changed")
	}
	if _, err := a.Digest(t.Context(), disk.List{Volume: 1, Generation: 2, To: 10}); model.CodeOf(err) != model.Fenced {
		t.Errorf("of another generation: %v", err)
	}
}
