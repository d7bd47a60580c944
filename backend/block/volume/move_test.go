package volume

import (
	"testing"
	"time"

	"drystone.example/drystone/backend/model"
)

// leave marks a member of a column as leaving, as the leader does, and lets another
// disk join where one is named.
func (r *register) leave(column int, from, to model.DiskID) model.Volume {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rec = cloneRecord(r.rec)
	r.rec.Revision++
	col := &r.rec.Columns[column]
	for i := range col.Members {
		if col.Members[i].Disk == from {
			col.Members[i].Leaving = true
		}
	}
	if to != 0 {
		col.Members = append(col.Members, model.Member{Disk: to, State: model.Joining})
	}
	return cloneRecord(r.rec)
}

func (r *rig) follow(t *testing.T, v *Volume, rec model.Volume) {
	t.Helper()
	if err := v.Follow(rec); err != nil {
		t.Fatalf("Follow: %v", err)
	}
}

// A move under writes: there are never fewer copies than asked for, the new member
// has everything when the old one goes, and what is written goes on.
func TestMove(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 3, 2, 16<<20, []int{0, 1}, []int{1, 0})
		v := r.open(t)
		defer r.close(t, v)
		data := pattern(8<<20, 0, 1)
		write(t, v, 0, data)
		fewest := 2
		r.record.before = func() { fewest = min(fewest, r.record.rec.Columns[0].Count(model.Active)) }
		r.follow(t, v, r.record.leave(0, 1, 3))
		for i, began := 0, time.Now(); !r.record.get().Columns[0].Whole(2); i++ {
			if time.Since(began) > time.Minute {
				t.Fatalf("the move did not end: %+v", r.record.get().Columns[0])
			}
			off := int64(i%2048) * 4096
			p := pattern(4096, off, uint64(i))
			write(t, v, off, p)
			copy(data[off:], p)
		}
		if _, there := r.record.get().Columns[0].Member(1); there || fewest < 2 {
			t.Errorf("after the move: %+v, with %d copies meanwhile", r.record.get().Columns[0], fewest)
		}
		wantRead(t, v, 0, data)
		r.wantSame(t)
	})
}

// Where the disk that shall take over fails, another is found; where there is none
// the member stays, and the move ends when one comes.
func TestMoveFindsAnother(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 4, 2, 4<<20, []int{0, 1})
		v := r.open(t)
		defer r.close(t, v)
		data := pattern(2<<20, 0, 1)
		write(t, v, 0, data)
		r.disks[3].setDown(model.Errorf(model.Unavailable, "connection lost"))
		r.pool.setReach(3, Failed)
		r.follow(t, v, r.record.leave(0, 1, 3))
		time.Sleep(time.Minute)
		if m, _ := r.record.get().Columns[0].Member(1); m.State != model.Active || !m.Leaving {
			t.Errorf("without another disk the member is %+v", m)
		}
		r.pool.mu.Lock()
		r.pool.spare = []model.DiskID{4}
		r.pool.mu.Unlock()
		eventually(t, "the member moved to the disk that came", time.Minute, func() bool {
			return r.record.get().Columns[0].Whole(2)
		})
		wantRead(t, v, 0, data)
		r.wantSame(t)
	})
}

// A node that is away for a while gets what it missed and no more; one that does not
// come back is replaced by a disk that is filled with everything.
func TestAwayAndLost(t *testing.T) {
	for _, c := range []struct {
		name  string
		after Reach
		whole bool // all of the data is copied
	}{{"comes back", Up, false}, {"does not come back", Failed, true}} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				t.Helper()
				r := newRig(t, 3, 2, 16<<20, []int{0, 1})
				r.pool.spare = []model.DiskID{3}
				v := r.open(t)
				defer r.close(t, v)
				data := pattern(8<<20, 0, 1)
				write(t, v, 0, data)
				r.disks[2].setDown(model.Errorf(model.Unavailable, "connection lost"))
				r.pool.setReach(2, Away)
				missed := pattern(4096, 8192, 2)
				write(t, v, 8192, missed)
				copy(data[8192:], missed)
				time.Sleep(30 * time.Second)
				if n := v.Stats().Copied; n > 1<<20 {
					t.Errorf("%d bytes were copied while the node was away", n)
				}
				if c.after == Up {
					r.disks[2].setDown(nil)
				}
				r.pool.setReach(2, c.after)
				eventually(t, "the column is whole", time.Minute, func() bool {
					return r.record.get().Columns[0].Whole(2)
				})
				if n := v.Stats().Copied; (n >= 8<<20) != c.whole {
					t.Errorf("%d bytes were copied, of %d", n, 8<<20)
				}
				if _, there := r.record.get().Columns[0].Member(2); there == c.whole {
					t.Errorf("afterwards: %+v", r.record.get().Columns[0])
				}
				wantRead(t, v, 0, data)
				r.wantSame(t)
			})
		})
	}
}

// Of a node that somebody works on nothing is copied elsewhere, for as long as it rests,
// which is longer than Grace; when it does not any more, it is.
func TestRests(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 3, 2, 16<<20, []int{0, 1})
		r.pool.spare = []model.DiskID{3}
		v := r.open(t)
		defer r.close(t, v)
		data := pattern(8<<20, 0, 1)
		write(t, v, 0, data)
		r.disks[2].setDown(model.Errorf(model.Unavailable, "connection lost"))
		r.pool.setReach(2, Rests)
		write(t, v, 8192, data[8192:16384])
		time.Sleep(3 * r.cfg.Grace)
		if n := v.Stats().Copied; n > 1<<20 {
			t.Errorf("%d bytes were copied while somebody worked on the node", n)
		}
		r.pool.setReach(2, Away) // it is let in again, and is not there
		eventually(t, "the column is whole", time.Minute, func() bool {
			return r.record.get().Columns[0].Whole(2)
		})
		if n := v.Stats().Copied; n < 8<<20 {
			t.Errorf("%d bytes were copied, of %d", n, 8<<20)
		}
		wantRead(t, v, 0, data)
	})
}

// A member that is lost is dropped although nothing is written, once somebody looks.
func TestProbe(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 3, 2, 4<<20, []int{0, 1})
		r.pool.spare = []model.DiskID{3}
		v := r.open(t)
		defer r.close(t, v)
		data := pattern(1<<20, 0, 1)
		write(t, v, 0, data)
		time.Sleep(5 * time.Second)
		r.disks[2].setDown(model.Errorf(model.NotFound, "there is no such disk here"))
		r.pool.setReach(2, Failed)
		v.Probe()
		eventually(t, "another disk has taken its place", time.Minute, func() bool {
			return r.record.get().Columns[0].Whole(2)
		})
		wantRead(t, v, 0, data)
		r.wantSame(t)
	})
}
