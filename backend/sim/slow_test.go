package sim

import (
	"testing"
	"testing/synctest"
	"time"

	"drystone.example/drystone/backend/block/volume"
	"drystone.example/drystone/backend/model"
)

// holder returns the volume where it is served, or nil.
func (w *world) holder() *volume.Volume {
	for _, n := range w.nodes[w.disks:] {
		if p := n.now(); p != nil && p.serving() != nil {
			return p.serving()
		}
	}
	return nil
}

// pace counts the requests that are answered in five seconds.
func (w *world) pace() int {
	count := func() int {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.done
	}
	before := count()
	time.Sleep(5 * time.Second)
	return count() - before
}

// One disk takes most of a second for everything. Some fifteen seconds later the
// clients are as fast as before, and the holder says which disk it is. When it is well
// it is a member again, and equal to the others.
func TestSlowDisk(t *testing.T) {
	for seed := *first; seed < *first+4; seed++ {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, seed, true)
			for id := range clients {
				w.work.Go(func() { w.client(id) })
			}
			time.Sleep(20 * time.Second)
			before := w.pace()
			slow := w.nodes[0]
			slow.drive.SetDelay(600 * time.Millisecond)
			time.Sleep(time.Second)
			during := w.pace()
			time.Sleep(12 * time.Second)
			after := w.pace()
			t.Logf("seed %d: %d requests in 5 s, %d beside the slow disk, then %d", seed, before, during, after)
			if during > before*2/3 || after < before*3/4 {
				t.Errorf("seed %d: %d requests in 5 s became %d, then %d", seed, before, during, after)
			}
			if s := w.holder().Status().Slow; len(s) != 1 || s[0].Disk != slow.disk || s[0].Until.IsZero() {
				t.Errorf("seed %d: the holder says %+v, want disk %s left out", seed, s, slow.disk)
			}
			rec, err := w.leader().Local().Volume(w.volume)
			w.check(err)
			for c, col := range rec.Columns {
				if m, in := col.Member(slow.disk); in && m.State == model.Active || col.Count(model.Active) < w.copies-1 {
					t.Errorf("seed %d: column %d is %+v", seed, c, col)
				}
			}
			slow.drive.SetDelay(100 * time.Microsecond)
			if !w.whole() {
				t.Errorf("seed %d: the disk is no member again", seed)
			}
			close(w.stop)
			w.work.Wait()
			what := w.hist.Check()
			if what == "" {
				time.Sleep(time.Minute) // who holds the volume lets go of it
				what = w.compare()
			}
			if what != "" {
				t.Errorf("seed %d: %s", seed, what)
			}
			for _, n := range w.nodes {
				n.crash(0)
			}
			if t.Failed() {
				t.Log(w.out.String())
			}
		})
	}
}
