package volume

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
)

// A lateDisk does what it is asked, and answers late.
type lateDisk struct {
	*memDisk

	writes, reads atomic.Int64 // how much later
}

func (d *lateDisk) Apply(op *disk.Op, done func(error)) {
	d.memDisk.Apply(op, func(err error) {
		go func() {
			time.Sleep(time.Duration(d.writes.Load()))
			done(err)
		}()
	})
}

func (d *lateDisk) Read(ctx context.Context, r disk.Read, dst []byte, sums []uint32) error {
	time.Sleep(time.Duration(d.reads.Load()))
	return d.memDisk.Read(ctx, r, dst, sums)
}

// late puts all disks of a rig behind a lateDisk each.
func (r *rig) late() map[model.DiskID]*lateDisk {
	out := map[model.DiskID]*lateDisk{}
	for id, d := range r.disks {
		out[id] = &lateDisk{memDisk: d}
		r.pool.wrap[id] = out[id]
	}
	return out
}

// A guest writes and reads in all columns, some requests at a time, and knows how long
// the slowest took since somebody asked.
type guest struct {
	v       *Volume
	columns int
	stop    chan struct{}
	work    sync.WaitGroup
	think   atomic.Int64

	mu   sync.Mutex
	most time.Duration
	done int
}

func newGuest(t *testing.T, v *Volume, columns int) *guest {
	t.Helper()
	g := &guest{v: v, columns: columns, stop: make(chan struct{})}
	g.think.Store(int64(20 * time.Millisecond))
	for id := range 4 {
		g.work.Go(func() { g.run(t, id) })
	}
	return g
}

func (g *guest) run(t *testing.T, id int) {
	t.Helper()
	buf := iobuf.Aligned(blockSize)
	for i := 0; ; i++ {
		select {
		case <-g.stop:
			return
		case <-time.After(time.Duration(g.think.Load())):
		}
		off := int64(i%g.columns)*int64(model.StripeUnit) + int64(id*blockSize)
		began := time.Now()
		if err := writeErr(t.Context(), g.v, off, pattern(blockSize, off, uint64(i))); err != nil {
			t.Errorf("WriteAt: %v", err)
			return
		}
		if err := g.v.ReadAt(t.Context(), buf, off); err != nil {
			t.Errorf("ReadAt: %v", err)
			return
		}
		g.mu.Lock()
		g.most = max(g.most, time.Since(began))
		g.done++
		g.mu.Unlock()
	}
}

func (g *guest) end() {
	close(g.stop)
	g.work.Wait()
}

// rest lets the guest do little for a while.
func (g *guest) rest(d time.Duration) {
	was := g.think.Swap(int64(time.Second))
	time.Sleep(d)
	g.think.Store(was)
}

// slowest returns how long the slowest write and read took that ended in a time.
func (g *guest) slowest(within time.Duration) time.Duration {
	g.mu.Lock()
	g.most, g.done = 0, 0
	g.mu.Unlock()
	time.Sleep(within)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.done == 0 {
		return within
	}
	return g.most
}

// out lists the disks that are no active members of some column they were in.
func (r *rig) out() (ids []model.DiskID) {
	for _, col := range r.record.get().Columns {
		for _, m := range col.Members {
			if m.State != model.Active && !slices.Contains(ids, m.Disk) {
				ids = append(ids, m.Disk)
			}
		}
	}
	slices.Sort(ids)
	return ids
}

const testLag = int64(700 * time.Millisecond)

// TestSlowDisk: one disk of three answers late. The guest waits for it for some ten
// seconds and not after; the status says which disk it is. It comes back after half a
// minute, a minute, and then only after half an hour; by then it is well, and stays.
func TestSlowDisk(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 3, 2, 12<<20, []int{0, 1}, []int{1, 2}, []int{2, 0})
		late := r.late()
		v := r.open(t)
		g := newGuest(t, v, 3)
		if took := g.slowest(20 * time.Second); took > 100*time.Millisecond {
			t.Fatalf("a request took %v beside disks that are well", took)
		}
		late[2].writes.Store(testLag)
		for i, wait := range []time.Duration{30 * time.Second, time.Minute, 30 * time.Minute} {
			eventually(t, "disk 2 is left out", 15*time.Second, func() bool {
				s := v.Status().Slow
				return len(s) == 1 && s[0].Disk == 2 && s[0].Times == i+1 && !s[0].Until.IsZero()
			})
			if out := r.out(); len(out) != 1 || out[0] != 2 {
				t.Fatalf("left out are %v", out)
			}
			time.Sleep(time.Second) // what was sent before
			if took := g.slowest(20 * time.Second); took > 100*time.Millisecond {
				t.Errorf("a request took %v without the slow disk", took)
			}
			s := v.Status().Slow[0]
			if s.Took < 500*time.Millisecond || s.Took > 700*time.Millisecond || s.Limit != 500*time.Millisecond {
				t.Errorf("the disk is said to take %v, with a limit of %v", s.Took, s.Limit)
			}
			if left := time.Until(s.Until); left > wait-21*time.Second || left < wait-23*time.Second {
				t.Errorf("the disk is left out for another %v, after 21 s of %v", left, wait)
			}
			g.rest(time.Until(s.Until))
		}
		late[2].writes.Store(0)
		eventually(t, "disk 2 is back", 10*time.Second, func() bool { return len(r.out()) == 0 })
		changes := r.record.changes()
		g.rest(61 * time.Minute)
		if r.record.changes() != changes || len(v.Status().Slow) != 0 {
			t.Errorf("it did not stay: %+v, %+v", r.record.get().Columns, v.Status().Slow)
		}
		g.end()
		r.close(t, v)
		r.wantSame(t)
	})
}

// TestSlowDiskIsFollowed: the holder hears that a disk was dropped before raft answers.
// It leaves the disk out for as long all the same.
func TestSlowDiskIsFollowed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 4<<20, []int{0, 1})
		late := r.late()
		v := r.open(t)
		g := newGuest(t, v, 1)
		late[2].writes.Store(testLag)
		r.record.after = func(rec model.Volume) {
			if err := v.Follow(rec); err != nil {
				t.Error(err)
			}
			time.Sleep(3 * time.Second)
		}
		eventually(t, "disk 2 is left out", 30*time.Second, func() bool { return len(r.out()) == 1 })
		time.Sleep(29 * time.Second)
		if m, _ := r.record.get().Columns[0].Member(2); m.State != model.Stale {
			t.Errorf("after 29 s the disk is %s", m.State)
		}
		g.end()
	})
}

// TestSlowPool: where all disks are slow, none is left out; nor one that is slow for
// less than ten seconds, or by less than ten times.
func TestSlowPool(t *testing.T) {
	for _, c := range []struct {
		name string
		lag  []time.Duration // of each disk
		long time.Duration
	}{
		{"all of them", []time.Duration{700e6, 700e6, 700e6}, 2 * time.Minute},
		{"most of them", []time.Duration{700e6, 0, 700e6}, 2 * time.Minute},
		{"by nine times", []time.Duration{100e6, 900e6, 100e6}, 2 * time.Minute},
		{"below half a second", []time.Duration{0, 450e6, 0}, 2 * time.Minute},
		{"for eight seconds", []time.Duration{0, 2e9, 0}, 8 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				t.Helper()
				r := newRig(t, 3, 2, 12<<20, []int{0, 1}, []int{1, 2}, []int{2, 0})
				late := r.late()
				v := r.open(t)
				g := newGuest(t, v, 3)
				time.Sleep(5 * time.Second)
				for i, lag := range c.lag {
					late[model.DiskID(i+1)].writes.Store(int64(lag))
					late[model.DiskID(i+1)].reads.Store(int64(lag))
				}
				time.Sleep(c.long)
				for _, d := range late {
					d.writes.Store(0)
					d.reads.Store(0)
				}
				time.Sleep(20 * time.Second)
				if n := r.record.changes(); n != 0 {
					t.Errorf("members were changed %d times: %+v", n, r.record.get().Columns)
				}
				g.end()
			})
		})
	}
}

// TestSlowReads: a disk that writes well and reads slowly is read no more while there
// are others, is left out, and comes back.
func TestSlowReads(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 4<<20, []int{0, 1})
		late := r.late()
		v := r.open(t)
		g := newGuest(t, v, 1)
		time.Sleep(5 * time.Second)
		late[1].reads.Store(testLag)
		eventually(t, "disk 1 is left out", time.Minute, func() bool { return slices.Equal(r.out(), []model.DiskID{1}) })
		if took := g.slowest(20 * time.Second); took > 100*time.Millisecond {
			t.Errorf("a request took %v without the slow disk", took)
		}
		late[1].reads.Store(0)
		eventually(t, "disk 1 is back", time.Minute, func() bool { return len(r.out()) == 0 })
		g.end()
	})
}

// TestSlowLastCopy: the last active member of a column is never left out for being
// slow.
func TestSlowLastCopy(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 3, 2, 4<<20, []int{0, 1}, []int{1, 2})
		late := r.late()
		v := r.open(t)
		g := newGuest(t, v, 2)
		r.disks[1].setDown(errLost)
		r.pool.setReach(1, Away)
		eventually(t, "disk 1 is dropped", 10*time.Second, func() bool { return slices.Equal(r.out(), []model.DiskID{1}) })
		late[2].writes.Store(testLag)
		time.Sleep(time.Minute)
		if out := r.out(); !slices.Equal(out, []model.DiskID{1}) {
			t.Fatalf("left out are %v", out)
		}
		if s := v.Status().Slow; len(s) != 1 || s[0].Disk != 2 || !s[0].Until.IsZero() {
			t.Errorf("the status says %+v", s)
		}
		r.disks[1].setDown(nil)
		r.pool.setReach(1, Up)
		eventually(t, "disk 2 is left out when disk 1 is back", time.Minute, func() bool {
			return slices.Equal(r.out(), []model.DiskID{2})
		})
		g.end()
	})
}

// TestSlowCopies: of three copies of a column two lie on slow disks, in different nodes.
// One is left out at a time.
func TestSlowCopies(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 5, 3, 8<<20, []int{0, 1, 2}, []int{0, 3, 4})
		late := r.late()
		v := r.open(t)
		g := newGuest(t, v, 2)
		time.Sleep(5 * time.Second)
		late[2].writes.Store(testLag)
		late[3].writes.Store(testLag)
		most := 0
		for range 1200 {
			most = max(most, 3-r.record.get().Columns[0].Count(model.Active))
			time.Sleep(100 * time.Millisecond)
		}
		if most != 1 {
			t.Errorf("%d of three copies were left out, want 1", most)
		}
		g.end()
	})
}

// TestSlowNode: of two disks in one node that are slow, one is left out at a time.
func TestSlowNode(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 5, 2, 12<<20, []int{0, 1}, []int{2, 0}, []int{3, 4})
		late := r.late()
		r.pool.nodes = map[model.DiskID]model.NodeID{2: 9, 3: 9}
		v := r.open(t)
		g := newGuest(t, v, 3)
		time.Sleep(5 * time.Second)
		late[2].writes.Store(testLag)
		late[3].writes.Store(testLag)
		most := 0
		for range 1200 {
			most = max(most, len(r.out()))
			time.Sleep(100 * time.Millisecond)
		}
		if most != 1 {
			t.Errorf("at most %d disks of a node were left out, want 1", most)
		}
		g.end()
	})
}

// The buckets of a gauge lie side by side, and a hundredth of what it counts is left
// out.
func TestGauge(t *testing.T) {
	for b := 1; b < gaugeBuckets; b++ {
		if at := floorOf(b); bucketOf(at) != b || bucketOf(at-1) != b-1 {
			t.Errorf("%v is in bucket %d, what is shorter in %d; want %d and %d", at, bucketOf(at), bucketOf(at-1), b, b-1)
		}
	}
	for _, c := range []struct {
		fast, slow int
		want       time.Duration
	}{{98, 1, time.Second}, {99, 1, 10 * time.Millisecond}, {0, 1, time.Second}, {1000, 10, 10 * time.Millisecond}, {980, 20, time.Second}} {
		var g gauge
		for range c.fast {
			g.add(10 * time.Millisecond)
		}
		for range c.slow {
			g.add(time.Second)
		}
		g.close(time.Now(), 0)
		if g.p99 != bucketOf(c.want) {
			t.Errorf("of %d and %d it is %v, want %v", c.fast, c.slow, floorOf(g.p99), c.want)
		}
	}
}
