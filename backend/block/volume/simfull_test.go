package volume

import (
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"drystone.example/drystone/backend/model"
)

var simTight = flag.Int("sim.tight", 12, "how many seeds TestSimulationOnFullDisks runs")

// collectGarbage frees on each disk what it has of columns it is no member of, as the
// agents do: by a promise count that was asked for before the record was read, and not
// before the holder knows that it is none any more, who would read from it.
func (w *simWorld) collectGarbage() {
	for !w.stopped() {
		time.Sleep(w.between(0, 3*time.Second))
		for _, n := range w.nodes {
			for _, d := range n.disks {
				w.collectFrom(d)
			}
		}
	}
}

func (w *simWorld) collectFrom(d *simDisk) {
	store, ok := d.store.(*diskStore)
	if !ok || store.now() == nil {
		return
	}
	now, ctx := store.now(), w.t.Context()
	held, err := now.Held(ctx)
	if err != nil {
		return // it crashes
	}
	rec := w.raft.get()
	if _, v := w.present(); v == nil || v.known().Revision < rec.Revision {
		return
	}
	for _, h := range held {
		if _, member := rec.Columns[h.Column].Member(d.id); !member {
			err := now.Drop(ctx, h.Volume, h.Column, h.Promises)
			w.logf("column %d is dropped from disk %s: %v", h.Column, d.id, err)
		}
	}
}

// makeRoom deletes all snapshots.
func (w *simWorld) makeRoom() {
	w.quiet.Store(true)
	for range w.raft.snapshots() {
		w.deleteSnapshot()
		time.Sleep(time.Second)
	}
	_, v := w.present()
	if v != nil {
		w.logf("disk %s was full, %d times", v.fullDisk(), v.Stats().Full)
	}
	w.quiet.Store(false)
}

// On disks that have room for the volume and for little of its snapshots, so that writes
// wait, are sent again and are taken over half done, while members crash, are filled and
// are dropped: what is promised holds as on disks with room, and once snapshots were
// deleted nothing waits any more and all copies are there.
func TestSimulationOnFullDisks(t *testing.T) {
	for i := range *simTight {
		seed := *simFirst + uint64(i)
		r := rand.New(rand.NewPCG(seed, 23))
		p := defaultProfile(seed)
		p.nodes, p.disks, p.copies, p.tight = 3, 1, 2, true
		size := model.Bytes(20+r.IntN(8)) << 20
		p.store = func(w *simWorld, id model.DiskID) simStore { return newDiskStoreWith(w, id, size, 0) }
		what, log := simulate(t, seed, p, mistakes{})
		if *simLog {
			t.Log(log)
		}
		if what != "" {
			name := filepath.Join(t.ArtifactDir(), "seed-"+strconv.FormatUint(seed, 10)+".txt")
			if err := os.WriteFile(name, []byte(what+"\n"+log), 0o600); err != nil {
				t.Error(err)
			}
			t.Fatalf("seed %d (rerun with -sim.first=%d -sim.tight=1): %s\nhistory: %s", seed, seed, what, name)
		}
	}
}
