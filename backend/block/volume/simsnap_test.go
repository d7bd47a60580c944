package volume

import (
	"context"
	"fmt"
	"slices"
	"time"

	"drystone.example/drystone/backend/block/volume/volumetest"
	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
)

// A simSnapshot is one that raft has recorded. Its content is what the blocks
// were at one moment between call and at.
type simSnapshot struct {
	model.Snapshot

	call, at time.Duration
	deleted  bool
}

// A simSnapBlock names a block of a snapshot.
type simSnapBlock struct {
	id    model.SnapshotID
	block int64
}

// cutSnapshots cuts n snapshots at once, as far as the clients are concerned.
func (w *simWorld) cutSnapshots(n int) {
	_, v := w.present()
	if v == nil {
		return
	}
	for range n {
		id, call := w.nextSnapshot(), w.now()
		w.clients.Go(func() {
			ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
			defer cancel()
			err := Cut(ctx, []*Volume{v}, func(ctx context.Context, recs []model.Volume) ([]model.Volume, error) {
				rec, err := w.raft.propose(ctx, func() (model.Volume, error) {
					return w.raft.cut(id, recs[0].Generation, recs[0].Revision, call)
				})
				if rec.ID == 0 {
					return nil, err
				}
				return []model.Volume{rec}, err
			})
			w.logf("snapshot %d: %v", id, err)
		})
	}
}

func (w *simWorld) nextSnapshot() model.SnapshotID {
	w.hmu.Lock()
	defer w.hmu.Unlock()
	w.value++
	w.snapping = true
	return model.SnapshotID(w.value)
}

// cut is what the record does with a cut.
func (r *simRaft) cut(id model.SnapshotID, gen model.Generation, rev model.Revision, call time.Duration,
) (model.Volume, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.snaps {
		if s.ID == id {
			return cloneRecord(r.rec), nil
		}
	}
	switch {
	case r.rec.Generation != gen:
		return cloneRecord(r.rec), model.Errorf(model.Fenced, "the record is at generation %d", r.rec.Generation)
	case r.rec.Revision != rev:
		return cloneRecord(r.rec), model.Errorf(model.Conflict, "the record is at revision %d", r.rec.Revision)
	}
	r.snaps = append(r.snaps, simSnapshot{
		Snapshot: model.Snapshot{ID: id, Volume: r.rec.ID, Epoch: r.rec.Epoch, Size: r.rec.Size},
		call:     call, at: r.w.now(),
	})
	r.w.logf("raft: snapshot %d of epoch %d", id, r.rec.Epoch)
	r.rec.Epoch++
	r.rec.Revision++
	return cloneRecord(r.rec), nil
}

// cutUnheld cuts while nobody holds the volume: whoever did crashed or is about
// to be deposed, and takeover decides what of the last writes was in time.
func (r *simRaft) cutUnheld() {
	rec, now := r.get(), r.w.now()
	if rec.Revert.Due() {
		return // it would be refused
	}
	if _, err := r.cut(r.w.nextSnapshot(), rec.Generation, rec.Revision, now); err != nil {
		r.w.complain("an unheld cut was refused: " + err.Error())
	}
}

// Kept is answered late and may be old by then.
func (r *simRaft) Kept(context.Context, model.VolumeID) (model.Volume, []model.Epoch, error) {
	r.mu.Lock()
	rec, kept := cloneRecord(r.rec), r.rec.KeptEpochs(r.kept(), nil)
	r.mu.Unlock()
	time.Sleep(r.w.between(0, 300*time.Millisecond))
	return rec, kept, nil
}

// kept lists the snapshots that are not deleted; r.mu is held.
func (r *simRaft) kept() (out []model.Snapshot) {
	for _, s := range r.snaps {
		if !s.deleted {
			out = append(out, s.Snapshot)
		}
	}
	return out
}

func (r *simRaft) Tended(ctx context.Context, _ model.VolumeID, gen model.Generation, done model.Tended,
) (model.Volume, error) {
	return r.propose(ctx, func() (rec model.Volume, err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.rec, err = applyTended(r.rec, gen, done)
		r.w.logf("raft: generation %d tended %+v: %v", gen, done, err)
		return cloneRecord(r.rec), err
	})
}

// deleteSnapshot takes one out of the record; its holder hears of it a little later.
func (w *simWorld) deleteSnapshot() {
	r := w.raft
	r.mu.Lock()
	var there []int
	for i, s := range r.snaps {
		if !s.deleted {
			there = append(there, i)
		}
	}
	if len(there) == 0 {
		r.mu.Unlock()
		return
	}
	s := &r.snaps[there[w.intn(len(there))]]
	s.deleted = true
	r.rec.Revision++
	r.rec.Trim = model.Trim{Since: r.rec.Revision}
	w.logf("raft: snapshot %d of epoch %d is deleted", s.ID, s.Epoch)
	r.mu.Unlock()
	w.tellLater()
}

// tellLater gives the holder the record a little later, as an agent does that follows it.
func (w *simWorld) tellLater() {
	rec := w.raft.get()
	_, v := w.present()
	w.zombies.Go(func() {
		time.Sleep(w.between(0, 500*time.Millisecond))
		if v != nil && v.gen == rec.Generation {
			_ = v.Follow(rec)
		}
	})
}

// tended reports whether there is nothing to free, and no revert under way.
func (r *simRaft) tended() bool {
	rec := r.get()
	return !rec.Trim.Due() && !rec.Revert.Due()
}

// superfluous says which version an active member has that no kept epoch sees, or "".
// Where a trim rests there may be some, which writes have made so.
func (w *simWorld) superfluous() string {
	w.raft.mu.Lock()
	rec, kept := cloneRecord(w.raft.rec), w.raft.rec.KeptEpochs(w.raft.kept(), nil)
	w.raft.mu.Unlock()
	if rec.Trim.Since != 0 {
		return ""
	}
	view := &trimView{kept: kept}
	for c, col := range rec.Columns {
		for _, m := range col.Members {
			if m.State != model.Active {
				continue // one may have been dropped, as slow, when all were active; what joins instead is not filled
			}
			all, err := w.disks[m.Disk].store.dump(rec.ID, rec.Generation, uint32(c))
			if err != nil {
				return fmt.Sprintf("column %d: cannot look for what is left: %v", c, err)
			}
			for _, have := range byPage(all) {
				for i, stays := range view.seen(have) {
					if !stays {
						return fmt.Sprintf("column %d, disk %s: page %d has a version of epoch %d that none of %d sees",
							c, m.Disk, have[i].Page, have[i].Epoch, kept)
					}
				}
			}
		}
	}
	return ""
}

func (r *simRaft) snapshots() []simSnapshot {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(r.snaps), func(s simSnapshot) bool { return s.deleted })
}

// readSnapshot reads blocks of one of the snapshots, if there are any. Each block
// reads the same for ever, and as what it was when the snapshot was cut.
func (w *simWorld) readSnapshot(ctx context.Context, v *Volume, blocks []int64) bool {
	all := w.raft.snapshots()
	if len(all) == 0 {
		return false
	}
	w.readFrom(ctx, v, all[w.intn(len(all))], blocks)
	return true
}

func (w *simWorld) readFrom(ctx context.Context, v *Volume, s simSnapshot, blocks []int64) bool {
	at, err := v.At(s.Snapshot)
	if err != nil {
		return false // a holder of before the snapshot
	}
	p := iobuf.Aligned(len(blocks) * blockSize)
	if err := at.ReadAt(ctx, p, blocks[0]*int64(blockSize)); err != nil {
		return false
	}
	for i, b := range blocks {
		value, whole := blockValue(p[i*blockSize : (i+1)*blockSize])
		if !whole {
			w.complain(fmt.Sprintf("block %d of snapshot %d is a mixture", b, s.ID))
		}
		k := simSnapBlock{s.ID, b}
		w.hmu.Lock()
		was, again := w.snapped[k]
		w.snapped[k] = value
		w.hmu.Unlock()
		switch {
		case !again:
			w.hist.Add(volumetest.Event{Client: w.profile.clients, Block: int(b), Value: value, Call: s.call, Ret: s.at})
		case was != value:
			w.complain(fmt.Sprintf("block %d of snapshot %d was %d and is %d", b, s.ID, was, value))
		}
	}
	return true
}

// readSnapshots reads, at the end, the places of every snapshot that clients
// write most.
func (w *simWorld) readSnapshots() {
	_, v := w.present()
	for _, s := range w.raft.snapshots() {
		for _, run := range simRuns {
			ctx, cancel := context.WithTimeout(w.t.Context(), 15*time.Second)
			if v == nil || !w.readFrom(ctx, v, s, run) {
				w.logf("snapshot %d could not be read at the end", s.ID)
			}
			cancel()
		}
	}
}
