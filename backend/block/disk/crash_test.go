package disk_test

import (
	"context"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"sync"
	"testing"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/disk/disktest"
	"drystone.example/drystone/backend/block/layout"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/uring"
)

// A step is one thing a script does: an op, or something else with no effect on
// what is held.
type step struct {
	op         *disk.Op
	prepare    model.Generation
	checkpoint bool
}

// script makes a short sequence of steps on a few pages, with epochs, so that every
// way of writing is in some of them.
func script(seed uint64, length int) []step {
	rng := rand.New(rand.NewPCG(seed, 1))
	out := []step{{prepare: 1}}
	gen, last := model.Generation(1), uint64(0)
	for range length {
		switch rng.IntN(10) {
		case 0:
			gen++
			out = append(out, step{prepare: gen})
			last = 0
			continue
		case 1, 2:
			out = append(out, step{checkpoint: true})
			continue
		}
		op := &disk.Op{
			Kind: disk.Write, Volume: 1, Generation: gen, Number: last + 1, Prev: last,
			Epoch: model.Epoch(rng.IntN(2)),
		}
		if rng.IntN(2) == 0 {
			op.Watermark = model.Stamp{Generation: gen, Number: last}
		}
		last++
		op.Block, op.Count = layout.Block(rng.IntN(3*16)), uint64(1+rng.IntN(20))
		switch rng.IntN(6) {
		case 0:
			op.Kind = disk.Discard
		case 1:
			op = copyOp(gen, op.Number, op.Prev, uint32(rng.IntN(3)), op.Epoch,
				model.Stamp{Generation: 1, Number: 1}, uint16(rng.Uint32()), rng.Uint64())
		case 2:
			op.Block, op.Count = 0, 32 // whole pages
		}
		if op.Kind == disk.Write {
			op.Data, op.Sums = data(int(op.Count), rng.Uint64())
		}
		out = append(out, step{op: op})
	}
	return out
}

// A moment is a drive as a power cut would have left it, and what was known then.
type moment struct {
	drive    *disktest.Drive
	before   *world // all of it was answered
	underway *disk.Op
	at       string
}

// Whenever the power is cut, at every request and between any two, whatever part of
// what was not synced survives: what was answered is there, what was not is there
// or not, block for block, and no promise is forgotten.
func TestPowerCutAtEveryRequest(t *testing.T) {
	ctx := context.Background()
	scripts, cuts := 4, 0
	if testing.Short() {
		scripts = 2
	}
	for seed := range uint64(scripts) {
		drive := disktest.New(seed, 16<<20)
		if _, err := drive.Format(ctx, cluster); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex // pebble asks from goroutines of its own
		w := newWorld()
		var underway *disk.Op
		var check []moment
		request := 0
		drive.SetFault(func(r *disktest.Request) error {
			if r.Kind == uring.Read { // it changes nothing
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			request++
			for i, percent := range []int{0, 100, 50} {
				check = append(check, moment{
					drive: drive.Clone(seed<<32|uint64(request*3+i), percent), before: w.clone(),
					underway: underway, at: fmt.Sprintf("seed %d, request %d, %d %%", seed, request, percent),
				})
			}
			return nil
		})
		d, err := drive.Open(ctx, disk.Options{Cluster: cluster})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range script(seed, 14) {
			mu.Lock()
			underway = s.op
			mu.Unlock()
			next := w.clone()
			if _, err := runScript(d, next, []step{s}); err != nil {
				t.Fatalf("seed %d: %+v: %v", seed, s, err)
			}
			mu.Lock()
			w, underway = next, nil
			now := check
			check = nil
			mu.Unlock()
			for _, m := range now {
				m.verify(t)
			}
			cuts += len(now)
		}
		drive.SetFault(nil)
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d power cuts", cuts)
}

// verify opens what the cut left and compares.
func (m *moment) verify(t *testing.T) {
	t.Helper()
	ctx := context.Background()
	d, err := m.drive.Open(ctx, disk.Options{Cluster: cluster})
	if err != nil {
		t.Fatalf("%s: open: %v", m.at, err)
	}
	defer func() {
		if err := d.Close(); err != nil {
			t.Errorf("%s: close: %v", m.at, err)
		}
	}()
	if err := d.CheckSpace(); err != nil {
		t.Fatalf("%s: %v", m.at, err)
	}
	v := m.before.volume(1)
	if v.gen > 1 {
		_, err := d.Prepare(ctx, disk.Prepare{Volume: 1, Generation: v.gen - 1})
		if model.CodeOf(err) != model.Fenced {
			t.Fatalf("%s: the promise is forgotten: %v", m.at, err)
		}
	}
	after := m.before.clone()
	if m.underway != nil {
		after.apply(m.underway)
	}
	// A new holder asks: what is uncertain is listed.
	got, err := d.Prepare(ctx, disk.Prepare{Volume: 1, Generation: v.gen + 2})
	if err != nil {
		t.Fatalf("%s: %v", m.at, err)
	}
	if w := got.Watermark; w != v.watermark && w != after.volume(1).watermark {
		t.Fatalf("%s: watermark %v, want %v", m.at, w, v.watermark)
	}
	listed := make(map[where]bool)
	for _, u := range got.Uncertain {
		listed[where{u.Column, u.Page, u.Epoch}] = true
	}
	for at, op := range v.uncertain {
		if op.After(got.Watermark) && !listed[at] {
			t.Fatalf("%s: %+v is uncertain and not listed", m.at, at)
		}
	}
	m.readBack(t, d, v.gen+2, after)
}

// readBack reads all blocks: each is as before the op under way, or as after it.
func (m *moment) readBack(t *testing.T, d *disk.Disk, gen model.Generation, after *world) {
	t.Helper()
	for e := range model.Epoch(4) {
		const n = 4 * model.BlocksPerPage
		dst, sums := make([]byte, n*4096), make([]uint32, n)
		err := d.Read(context.Background(),
			disk.Read{Volume: 1, Generation: gen, Count: n, Epoch: e}, dst, sums)
		if err != nil {
			t.Fatalf("%s: %v", m.at, err)
		}
		for i := range n {
			b := layout.Block(i)
			sum := crc32.Checksum(dst[i*4096:][:4096], table)
			old, fresh := m.before.sum(b, e), after.sum(b, e)
			if sum != sums[i] || sum != old && sum != fresh {
				t.Fatalf("%s: block %d of epoch %d has sum %08x, want %08x or %08x",
					m.at, b, e, sum, old, fresh)
			}
		}
	}
}

// sum is the checksum a block of column 0 of volume 1 has.
func (w *world) sum(b layout.Block, e model.Epoch) uint32 { return w.sumOf(1, b, e) }

// sumOf is the checksum a block of column 0 of a volume has.
func (w *world) sumOf(vol model.VolumeID, b layout.Block, e model.Epoch) uint32 {
	ver, ok := w.volume(vol).visible(0, b.Page(), e)
	if !ok || ver.Mask&(1<<b.InPage()) == 0 {
		return zeroSum
	}
	return ver.Sums[b.InPage()]
}
