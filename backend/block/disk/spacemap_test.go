package disk_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/disk/disktest"
	"drystone.example/drystone/backend/block/layout"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/uring"
)

// Whenever the power is cut, also in a checkpoint beside which pages move, come and
// go: what was kept of the space is found, and with what the journal adds it is what
// the map says. No place is free that a version names, and none is lost.
func TestSpaceAfterPowerCuts(t *testing.T) {
	seeds := 3
	if testing.Short() {
		seeds = 2
	}
	cuts, within := 0, 0
	for seed := range uint64(seeds) {
		drive := disktest.New(seed, 64<<20)
		if _, err := drive.Format(t.Context(), cluster); err != nil {
			t.Fatal(err)
		}
		d := openDrive(t, drive)
		var mu sync.Mutex
		rng := rand.New(rand.NewPCG(seed, 2))
		var left []*disktest.Drive
		checkpoint := false
		drive.SetFault(func(r *disktest.Request) error {
			mu.Lock()
			defer mu.Unlock()
			if r.Kind == uring.Read || rng.IntN(8) > 0 && (!r.Map || rng.IntN(3) > 0) {
				return nil
			}
			left = append(left, drive.Clone(rng.Uint64(), []int{0, 50, 100}[rng.IntN(3)]))
			if checkpoint {
				within++
			}
			return nil
		})
		var wait sync.WaitGroup
		wait.Go(func() { churn(t, d, seed) })
		for range 6 {
			mu.Lock()
			checkpoint = true
			mu.Unlock()
			if err := d.Checkpoint(); err != nil {
				t.Error(err)
			}
			mu.Lock()
			checkpoint = false
			mu.Unlock()
		}
		wait.Wait()
		drive.SetFault(nil)
		if err := d.CheckSpace(); err != nil {
			t.Errorf("seed %d, without a cut: %v", seed, err)
		}
		closed(t, d)
		for i, v := range left {
			checkSpace(t, v, fmt.Sprintf("seed %d, cut %d", seed, i), false)
		}
		cuts += len(left)
	}
	if within == 0 {
		t.Error("no power cut came within a checkpoint")
	}
	t.Logf("%d power cuts, %d within a checkpoint", cuts, within)
}

// churn changes pages of three volumes in all ways at once: in place and to fresh
// places, of two epochs, and takes them away.
func churn(t *testing.T, d *disk.Disk, seed uint64) {
	t.Helper()
	var wait sync.WaitGroup
	for vol := model.VolumeID(1); vol <= 3; vol++ {
		if _, err := d.Prepare(context.Background(), disk.Prepare{Volume: vol, Generation: 1}); err != nil {
			t.Error(err)
			return
		}
		wait.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(vol)))
			for n := range uint64(150) {
				op := &disk.Op{
					Kind: disk.Write, Volume: vol, Column: uint32(rng.IntN(2)), Generation: 1,
					Number: n + 1, Prev: n, Epoch: model.Epoch(n / 75),
					Block: layout.Block(rng.IntN(40 * 16)), Count: uint64(1 + rng.IntN(40)),
				}
				switch rng.IntN(5) {
				case 0:
					op.Kind = disk.Discard
				case 1:
					op.Block, op.Count = op.Block/16*16, 32
				}
				if op.Kind == disk.Write {
					op.Data, op.Sums = data(int(op.Count), n)
				}
				if err := apply(d, op); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
}

// checkSpace opens a drive and compares its space with its map, and says whether the
// space had to be counted.
func checkSpace(t *testing.T, v *disktest.Drive, name string, counted bool) {
	t.Helper()
	d, err := v.Open(context.Background(), disk.Options{Cluster: cluster})
	if err != nil {
		t.Fatalf("%s: open: %v", name, err)
	}
	if got := d.SpaceCounted(); got != counted {
		t.Errorf("%s: the space was counted: %v", name, got)
	}
	if err := d.CheckSpace(); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	closed(t, d)
}

// What was kept of the space is believed only where nothing is wrong with it: if it is
// missing, of another moment, damaged, or does not add up, the map is read instead,
// and what was kept is replaced.
func TestSpaceInDoubt(t *testing.T) {
	meta, chunk, count := "mb", "b\x00\x00\x00\x00", "c\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00"
	flipped := func(at int) func([]byte) []byte {
		return func(b []byte) []byte {
			b[at] ^= 1
			return b
		}
	}
	none := func([]byte) []byte { return nil }
	for _, c := range []struct {
		name, key string
		change    func([]byte) []byte
	}{
		{"missing", meta, none},
		{"of another moment", meta, flipped(1)},
		{"does not add up", meta, flipped(9)},
		{"a chunk is missing", chunk, none},
		{"a chunk is damaged", chunk, flipped(20)},
		{"a chunk of another version", chunk, flipped(0)},
		{"a chunk is short", chunk, func(b []byte) []byte { return b[:len(b)-1] }},
		{"a count is damaged", count, flipped(0)},
		{"a count is short", count, func(b []byte) []byte { return b[:len(b)-1] }},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := newDrive(t, 64<<20)
			d := openDrive(t, v)
			churn(t, d, 1)
			closed(t, d)
			checkSpace(t, v, "before", false)

			d, err := v.Open(t.Context(), disk.Options{Cluster: cluster})
			if err != nil {
				t.Fatal(err)
			}
			value, err := d.GetMap(c.key)
			if err != nil || value == nil {
				t.Fatalf("%q is not in the map: %v", c.key, err)
			}
			if err := d.SetMap(c.key, c.change(value)); err != nil {
				t.Fatal(err)
			}
			if err := d.FlushMap(); err != nil {
				t.Fatal(err)
			}
			closed(t, d)
			checkSpace(t, v, "in doubt", true)
			checkSpace(t, v, "after", false)
		})
	}
}

// A disk whose map names a place that is free says so at the first read of it, and
// does nothing any more: the place could be given to another page.
func TestFreePlaceThatIsNamed(t *testing.T) {
	v := newDrive(t, 64<<20)
	d := openDrive(t, v)
	if err := apply(d, writeOp(1, 1, 0, 0, 16, 1)); err != nil {
		t.Fatal(err)
	}
	d.FreeBehindItsBack(0)
	dst, sums := make([]byte, 4096), make([]uint32, 1)
	_ = d.Read(t.Context(), disk.Read{Volume: 1, Generation: 1, Count: 1}, dst, sums)
	if model.CodeOf(d.Err()) != model.Corrupt {
		t.Errorf("the disk failed with %v", d.Err())
	}
	_ = d.Close()
}
