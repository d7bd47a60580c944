package volume

import (
	"slices"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/model"
)

// A column is the members of one column as the holder last heard of them.
type column struct {
	members []*member
	pinned  bool // reads stay with the first member that is well
}

// A member is a disk's part in a column. What is not const is guarded by Volume.mu.
type member struct {
	disk    model.DiskID
	state   model.MemberState
	leaving bool // it shall go once the column has its copies without it
	cutoff  model.Stamp
	row     *row  // nil: stale, or joining and not promised yet
	fill    *fill // of a joining member with a row

	// refused is why it shall be dropped though no row of its disk fails: it did
	// not promise, or has no room.
	refused error
	returns bool // a stale one's disk is in reach: it shall join
}

func newMember(m model.Member) *member {
	return &member{disk: m.Disk, state: m.State, leaving: m.Leaving, cutoff: m.Cutoff}
}

func (c *column) member(id model.DiskID) *member {
	for _, m := range c.members {
		if m.disk == id {
			return m
		}
	}
	return nil
}

// count returns how many members are in a state.
func (c *column) count(s model.MemberState) (n int) {
	for _, m := range c.members {
		if m.state == s {
			n++
		}
	}
	return n
}

// staying returns how many members are active and shall remain.
func (c *column) staying() (n int) {
	for _, m := range c.members {
		if m.state == model.Active && !m.leaving {
			n++
		}
	}
	return n
}

// adopt takes over a newer record, that raft answered with or that another than the
// holder changed; v.mu is held. It reports false when it is one of another
// generation, which ends the holder.
func (v *Volume) adopt(rec model.Volume) bool {
	if rec.Generation != v.gen {
		v.end(model.Errorf(model.Fenced, "volume %s was taken by generation %d", v.id, rec.Generation))
		return false
	}
	if rec.Revision <= v.rec.Revision {
		return true
	}
	v.carriedOut(rec)
	v.rec = rec
	v.unsure = nil // proposed for a revision that is over: it was applied or never will be
	v.size.Store(int64(rec.Size))
	for c := range rec.Columns {
		v.adoptColumn(c, rec.Columns[c].Members)
	}
	for id, r := range v.rows {
		if !v.inUse(id) {
			v.bury(r)
			delete(v.rows, id)
		}
	}
	v.whole = v.isWhole()
	v.wake = true
	poke(v.filler)
	poke(v.tender)
	return true
}

// isWhole reports whether there is nothing to care for; v.mu is held.
func (v *Volume) isWhole() bool {
	for c := range v.columns {
		if n := v.columns[c].staying(); n < v.rec.Copies || n < len(v.columns[c].members) {
			return false
		}
	}
	return true
}

func (v *Volume) adoptColumn(c int, members []model.Member) {
	old := v.columns[c].members
	fresh := make([]*member, 0, len(members))
	for _, m := range members {
		was := v.columns[c].member(m.Disk)
		switch {
		case was != nil && was.state == m.State:
			was.cutoff, was.leaving = m.Cutoff, m.Leaving
			fresh = append(fresh, was)
		case was != nil && was.state == model.Joining && m.State == model.Active:
			was.state, was.cutoff, was.fill, was.leaving = m.State, model.Stamp{}, nil, m.Leaving
			fresh = append(fresh, was)
		default:
			fresh = append(fresh, newMember(m))
		}
	}
	v.columns[c].members = fresh
	for _, was := range old {
		if was.row != nil && !slices.Contains(fresh, was) {
			v.release(was.row, c)
		}
	}
	for _, m := range fresh {
		if m.state == model.Joining && m.row == nil {
			v.obtain(m)
		}
	}
}

// give makes a joining member one that is sent to and filled; v.mu is held.
func (v *Volume) give(c int, m *member, r *row) {
	m.row = r
	m.fill = &fill{column: c, member: m, began: time.Now()}
	poke(v.filler)
}

// release frees what waits for a member that is none any more: its messages of
// that column are still sent, because the row needs their numbers, but nobody
// waits for them. v.mu is held.
func (v *Volume) release(r *row, c int) {
	for m := r.first; m != nil; m = m.next {
		if g := m.group; g != nil && g.column == c && m.op.Kind != disk.Mark {
			m.group = nil
			v.arrived(g)
		}
	}
}

// bury ends a row for ever; v.mu is held. What is flying is recycled when it is
// answered.
func (v *Volume) bury(r *row) {
	if v.plant.skipPromise {
		v.lastSentTo[r.id] = r.last
	}
	r.state, r.unsent = dead, nil
	for m := r.first; m != nil; {
		next := m.next
		if g := m.group; g != nil {
			m.group = nil
			v.arrived(g)
		}
		if m.prev, m.next = nil, nil; !m.flying {
			v.recycle(m)
		}
		m = next
	}
	r.first, r.final = nil, nil
}

func (v *Volume) inUse(id model.DiskID) bool {
	for c := range v.columns {
		if m := v.columns[c].member(id); m != nil && m.row != nil {
			return true
		}
	}
	return false
}

// refuse notes that a disk has no room for a joining member; v.mu is held.
func (v *Volume) refuse(c int, id model.DiskID, err error) {
	if m := v.columns[c].member(id); m != nil && m.state == model.Joining {
		m.refused = err
		v.change = true
	}
}
