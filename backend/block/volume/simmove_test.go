package volume

import (
	"fmt"
	"time"

	"drystone.example/drystone/backend/model"
)

// move changes the record as the leader does, who is not the holder, and returns it.
func (r *simRaft) move(change func(rec *model.Volume) bool) (model.Volume, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec := cloneRecord(r.rec)
	if !change(&rec) {
		return rec, false
	}
	rec.Revision++
	r.rec = rec
	r.w.logf("raft: revision %d: moves: %+v", rec.Revision, rec.Columns)
	return cloneRecord(rec), true
}

// moveMember wishes that a member of a whole column be replaced, mostly by a disk
// that is named at once, else by the one the holder finds.
func (w *simWorld) moveMember() {
	c := w.intn(w.profile.columns)
	at, named := w.intn(w.profile.copies), w.chance(0.8)
	var to model.DiskID
	if proc := w.holding(); proc != nil && named {
		to = proc.Substitute(withoutMember(w.raft.get(), c, at), c, nil)
	}
	rec, ok := w.raft.move(func(rec *model.Volume) bool {
		col := &rec.Columns[c]
		if !col.Whole(rec.Copies) {
			return false
		}
		col.Members[at].Leaving = true
		if _, member := col.Member(to); to != 0 && !member {
			col.Members = append(col.Members, model.Member{Disk: to, State: model.Joining})
		}
		return true
	})
	if ok {
		w.tellHolder(rec)
	}
}

func withoutMember(rec model.Volume, c, at int) model.Volume {
	if at < len(rec.Columns[c].Members) {
		rec.Columns[c].Members[at].Leaving = true
	}
	return rec
}

// takeBackMoves takes back each move with a probability.
func (w *simWorld) takeBackMoves(p float64) {
	rec, ok := w.raft.move(func(rec *model.Volume) bool {
		some := false
		for c := range rec.Columns {
			for i := range rec.Columns[c].Members {
				m := &rec.Columns[c].Members[i]
				if m.Leaving && rec.Columns[c].Staying() < rec.Copies && w.chance(p) {
					m.Leaving, some = false, true
				}
			}
		}
		return some
	})
	if ok {
		w.tellHolder(rec)
	}
}

// tellHolder gives a record to the holder, mostly at once, else a little later: an agent
// follows the record for as long as it holds a volume.
func (w *simWorld) tellHolder(rec model.Volume) {
	if _, v := w.present(); v != nil && w.chance(0.7) {
		if err := v.Follow(rec); err != nil {
			w.logf("follow: %v", err)
		}
		return
	}
	w.zombies.Go(func() {
		for range 20 { // whoever is taking it over began with an older one
			time.Sleep(500 * time.Millisecond)
			if _, v := w.present(); v != nil && v.Follow(w.raft.get()) == nil {
				return
			}
		}
	})
}

func (w *simWorld) holding() *simProc {
	if h, _ := w.present(); h != nil {
		return h.proc
	}
	return nil
}

// keepsCopies says how a change breaks the invariant of moves: an active member is
// let go only while as many others that stay active are active already as there are
// copies.
func keepsCopies(before, after model.Volume) string {
	for c, was := range before.Columns {
		kept, gone := 0, false
		for _, m := range was.Members {
			now, there := after.Columns[c].Member(m.Disk)
			if m.State == model.Active && there && now.State == model.Active {
				kept++
			}
			gone = gone || m.State == model.Active && !there
		}
		if gone && kept < before.Copies {
			return fmt.Sprintf("column %d let an active member go with %d copies left: %+v", c, kept, was)
		}
	}
	return ""
}
