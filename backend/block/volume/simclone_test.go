package volume

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/layout"
	"drystone.example/drystone/backend/block/volume/volumetest"
	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
)

// simOrigin is the volume of which the simulated one is a clone, and simOriginValue
// what its blocks hold.
const (
	simOrigin      = model.VolumeID(900)
	simOriginValue = 1
)

// beginAsClone makes the volume of a world a clone: what clients write holds something
// from before they began.
func (w *simWorld) beginAsClone() {
	w.value = simOriginValue
	for c, col := range w.raft.rec.Columns {
		for _, m := range col.Members {
			if err := w.seedOrigin(m.Disk, c); err != nil {
				w.complain("seed the origin: " + err.Error())
			}
		}
	}
	for _, run := range simRuns {
		for _, b := range run {
			w.hist.Add(volumetest.Event{Block: int(b), Write: true, Value: simOriginValue, Call: -2, Ret: -1})
		}
	}
	w.raft.rec.Origin = model.Origin{Volume: simOrigin, Epoch: 3}
	w.raft.rec.Trim = model.Trim{Since: 1, Rests: true}
}

// seedOrigin writes to a disk what the origin has in one column, and a later epoch over
// it, which the clone must not see.
func (w *simWorld) seedOrigin(id model.DiskID, column int) error {
	s, ok := w.disks[id].store.(*diskStore)
	if !ok {
		return fmt.Errorf("disk %s is not a real one", id)
	}
	ctx, number := context.Background(), uint64(0)
	if _, err := s.Prepare(ctx, disk.Prepare{Volume: simOrigin, Generation: model.Generation(column + 1)}); err != nil {
		return err
	}
	for _, e := range []model.Epoch{2, 4} {
		for _, run := range simRuns {
			from, n := model.Bytes(run[0])*model.BlockSize, model.Bytes(len(run))*model.BlockSize
			for _, x := range layout.Split(w.profile.columns, from, n) {
				if x.Column != column {
					continue
				}
				number++
				op := &disk.Op{
					Kind: disk.Write, Volume: simOrigin, Generation: model.Generation(column + 1),
					Number: number, Prev: number - 1, Column: uint32(column), Epoch: e,
					Block: x.Start, Count: uint64(x.Count), Data: iobuf.Get(x.Count * blockSize),
				}
				for i := range x.Count {
					b := op.Data.Bytes[i*blockSize:][:blockSize]
					fillBlock(b, simOriginValue+1000*uint64(e-2))
					op.Sums = append(op.Sums, sumOf(b))
				}
				done := make(chan error, 1)
				s.Apply(op, func(err error) { done <- err })
				err := <-done
				op.Data.Release()
				if err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// detach does what an agent does when the clone serves; after that the nodes delete the
// origin, each when it can.
func (w *simWorld) detach(v *Volume, rec model.Volume) {
	if rec.Origin.Volume == 0 || w.chance(0.3) {
		return // or the holder dies before it gets there
	}
	w.raft.mu.Lock()
	if w.raft.rec.Generation != rec.Generation {
		w.raft.mu.Unlock()
		return
	}
	first := w.raft.rec.Origin.Volume != 0
	w.raft.rec.Origin = model.Origin{}
	w.raft.rec.Revision++
	now := cloneRecord(w.raft.rec)
	w.raft.mu.Unlock()
	w.logf("generation %d: the clone is detached", rec.Generation)
	if err := v.Follow(now); err != nil {
		w.logf("generation %d: %v", rec.Generation, err)
	}
	if !first {
		return
	}
	for _, d := range w.disks {
		w.zombies.Go(func() { w.deleteOrigin(d) })
	}
}

func (w *simWorld) deleteOrigin(d *simDisk) {
	for !w.stopped() {
		time.Sleep(w.between(0, 2*time.Second))
		s, ok := d.store.(*diskStore)
		if !ok {
			return
		}
		if open := s.now(); open != nil && open.DropVolume(context.Background(), simOrigin) == nil {
			return
		}
	}
}

// simulateClone is simulate with a volume that is a clone. If forgotten, the record does
// not say so.
func simulateClone(t *testing.T, seed uint64, forgotten bool) (what, log string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, seed, defaultProfile(seed), mistakes{})
		w.beginAsClone()
		if forgotten {
			w.raft.rec.Origin = model.Origin{}
		}
		what = w.run()
		log = w.out.String()
	})
	return what, log
}

// A clone whose disks inherit while it is written, taken over, filled and cut, with power
// cuts and its origin deleted as soon as it does not need it: all that holds of a volume
// holds of it, and its blocks begin as those of its origin.
func TestSimulationOfAClone(t *testing.T) {
	for seed := *simFirst; seed < *simFirst+uint64(max(*simSeeds/5, 1)); seed++ {
		if what, log := simulateClone(t, seed, false); what != "" {
			t.Fatalf("seed %d: %s\n%s", seed, what, log)
		}
	}
	if what, _ := simulateClone(t, *simFirst, true); what == "" {
		t.Error("a clone that has nothing of its origin is not told from one that has")
	}
}
