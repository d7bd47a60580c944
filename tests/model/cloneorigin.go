package model

// originHolder takes the origin's guest's writes, cuts and deletes snapshots, and deletes
// the origin. A holder that takes over makes its members equal before it serves, and
// what the one before had under way reaches nobody any more.
func (m *CloneModel) originHolder(s *Family, out emitFamily) {
	o := &s.Of[origin]
	if s.Deleted {
		return
	}
	if s.Takeovers < m.Reigns {
		t := *s
		t.Takeovers++
		t.Of[origin].Serves, t.Write, t.Wait = false, 0, 0
		out(Step{Name: "acquire the origin"}, &t)
	}
	if !o.Serves {
		t := *s
		m.rollOrigin(&t)
		t.Of[origin].Serves = true
		out(Step{Name: "roll the origin forward, and serve"}, &t)
		return
	}
	switch {
	case s.Write == 0 && s.Writes < m.Writes:
		t := *s
		t.Writes++
		t.Write, t.Wait = t.Writes, o.active()
		out(Step{Name: "write to the origin (id)", A: t.Writes}, &t)
	case s.Write != 0 && s.Wait&o.active() == 0:
		t := *s
		t.Write, t.Wait = 0, 0
		out(Step{Name: "complete the write to the origin (id)", A: s.Write}, &t)
	}
	if s.Write == 0 && s.Epoch < uint8(m.Epochs) {
		t := *s
		t.Snap[s.Epoch] = s.Disk[o.active().first()].read(origin, s.Epoch)
		t.Epoch++
		out(Step{Name: "cut a snapshot of the origin (epoch)", A: s.Epoch}, &t)
	}
	for e := range s.Epoch {
		if s.Gone>>e&1 == 0 {
			t := *s
			t.Gone |= 1 << e
			out(Step{Name: "delete a snapshot of the origin (epoch)", A: e, Optional: true}, &t)
		}
	}
	t := *s
	t.Deleted, t.Write, t.Wait = true, 0, 0
	out(Step{Name: "delete the origin", Optional: true}, &t)
}

// rollOrigin makes each version the newest that an active member has, on all of them.
func (m *CloneModel) rollOrigin(s *Family) {
	active := s.Of[origin].active()
	for e := range s.Epoch + 1 {
		newest := uint8(0)
		for d := range m.Disks {
			if p := s.Disk[d].Page[origin][e]; active.has(d) && p != 0 {
				newest = max(newest, s.Disk[d].Val[p-1])
			}
		}
		for d := range m.Disks {
			if p := s.Disk[d].Page[origin][e]; active.has(d) && newest != 0 && (p == 0 || s.Disk[d].Val[p-1] != newest) {
				m.change(s, d, e, newest)
			}
		}
	}
}

// change makes a version of the origin what was written, after its clone has what it
// inherits.
func (m *CloneModel) change(s *Family, d int, e, val uint8) {
	m.bequeath(s, d, e)
	s.Disk[d].put(origin, e, val)
}

// originMembers drops members of the origin and fills them.
func (m *CloneModel) originMembers(s *Family, out emitFamily) {
	o := &s.Of[origin]
	if s.Deleted {
		return
	}
	for d := range m.Disks {
		m.dropMember(s, origin, d, o.active(), out)
		role := o.Member[d]
		if !o.Serves || s.Write != 0 || s.Joins == m.Joins ||
			role != Stale && (role != Absent || o.active().count() >= m.Copies) {
			continue
		}
		t := *s
		t.Joins++
		m.fillOrigin(&t, o.active().first(), d)
		t.Of[origin].Member[d] = Active
		out(Step{Name: "fill a member of the origin (disk)", A: uint8(d)}, &t)
	}
}

// dropMember makes a member of a volume stale, if an active one is left that counts; and
// lets one that is stale go when there are enough.
func (m *CloneModel) dropMember(s *Family, vol, d int, counts Set, out emitFamily) {
	r := &s.Of[vol]
	active := r.active()
	t := *s
	switch {
	case (r.Member[d] == Active || r.Member[d] == Joining) && s.Drops < m.Drops &&
		active.without(one(d))&counts != 0:
		t.Drops++
		t.Of[vol].Member[d] = Stale
		if vol == origin {
			t.Wait = t.Wait.without(one(d))
		}
		out(Step{Name: "drop a member (volume, disk)", A: uint8(vol), B: uint8(d), Optional: true}, &t)
	case r.Member[d] == Stale && active.count() >= m.Copies:
		t.Of[vol].Member[d] = Absent
		out(Step{Name: "let a member go (volume, disk)", A: uint8(vol), B: uint8(d)}, &t)
	}
}

// fillOrigin makes what a disk has of the origin equal to another's.
func (m *CloneModel) fillOrigin(s *Family, from, to int) {
	for e := range s.Epoch + 1 {
		p, q := s.Disk[from].Page[origin][e], s.Disk[to].Page[origin][e]
		switch {
		case p != 0 && (q == 0 || s.Disk[from].Val[p-1] != s.Disk[to].Val[q-1]):
			m.change(s, to, e, s.Disk[from].Val[p-1])
		case p == 0 && q != 0:
			m.bequeath(s, to, e)
			s.Disk[to].remove(origin, e)
		}
	}
}

// fillClone makes what a disk has of the clone equal to another's. To list what it has,
// each of them inherits first.
func (m *CloneModel) fillClone(s *Family, from, to int) {
	if m.Mistake != FillBare {
		m.inherit(s, from)
	}
	m.inherit(s, to)
	for e := range uint8(2) {
		p, q := s.Disk[from].Page[clone][e], s.Disk[to].Page[clone][e]
		switch {
		case p != 0 && (q == 0 || s.Disk[from].Val[p-1] != s.Disk[to].Val[q-1]):
			s.Disk[to].put(clone, e, s.Disk[from].Val[p-1])
		case p == 0 && q != 0:
			s.Disk[to].remove(clone, e)
		}
	}
}

// trimOrigin removes a version of the origin that no kept epoch sees. One that a clone
// begins as is kept until it is detached.
func (m *CloneModel) trimOrigin(s *Family, d int, out emitFamily) {
	disk := &s.Disk[d]
	if s.Deleted || s.Of[origin].Member[d] != Active || !s.Of[origin].Serves {
		return
	}
	for e := range s.Epoch {
		if disk.Page[origin][e] == 0 || m.originSees(s, disk, e) {
			continue
		}
		t := *s
		m.bequeath(&t, d, e)
		t.Disk[d].remove(origin, e)
		out(Step{Name: "trim the origin (disk, epoch)", A: uint8(d), B: e}, &t)
	}
}

func (m *CloneModel) originSees(s *Family, disk *FamilyDisk, e uint8) bool {
	for kept := e; kept <= s.Epoch; kept++ {
		if kept > e && disk.Page[origin][kept] != 0 {
			return false
		}
		pinned := s.Attached && kept == s.From && m.Mistake != PinnedTrimmed
		if kept == s.Epoch || s.Gone>>kept&1 == 0 || pinned {
			return true
		}
	}
	return false
}

// collect frees what no record names: on a disk that is a member no more, or of a volume
// that is deleted. What an attached clone may still inherit there stays.
func (m *CloneModel) collect(s *Family, d int, out emitFamily) {
	disk := &s.Disk[d]
	needed := s.Attached && s.Of[clone].Member[d] != Absent && m.Mistake != PinnedFreed
	if (s.Deleted || s.Of[origin].Member[d] == Absent) && !needed && disk.Page[origin] != [maxEpochs + 1]uint8{} {
		t := *s
		m.bequeath(&t, d, 0)
		for e := range uint8(maxEpochs + 1) {
			t.Disk[d].remove(origin, e)
		}
		out(Step{Name: "free the origin (disk)", A: uint8(d)}, &t)
	}
	if s.Made && s.Of[clone].Member[d] == Absent && (disk.Noted || disk.Page[clone] != [maxEpochs + 1]uint8{}) {
		t := *s
		t.Disk[d].Noted = false
		for e := range uint8(maxEpochs + 1) {
			t.Disk[d].remove(clone, e)
		}
		out(Step{Name: "free the clone (disk)", A: uint8(d)}, &t)
	}
}

// disk lets the origin's write arrive, a promise become durable or be lost, and the
// clone inherit in the background.
func (m *CloneModel) disk(s *Family, d int, out emitFamily) {
	disk := &s.Disk[d]
	if s.Wait.has(d) {
		t := *s
		t.Wait = t.Wait.without(one(d))
		m.change(&t, d, s.Epoch, s.Write)
		out(Step{Name: "the origin's write arrives (disk)", A: uint8(d)}, &t)
	}
	if disk.Noted {
		t := *s
		m.inherit(&t, d)
		out(Step{Name: "inherit (disk)", A: uint8(d)}, &t)
	}
	if disk.Asked == 0 {
		return
	}
	t := *s
	x := &t.Disk[d]
	x.Promise = max(x.Promise, x.Asked)
	x.Noted = x.Noted || x.Noting
	if member := s.Of[clone].Member[d]; x.Asked == s.Of[clone].Gen && (member == Active || member == Joining) {
		t.Prepared |= one(d)
	}
	x.Asked, x.Noting = 0, false
	out(Step{Name: "promise and note are durable (disk)", A: uint8(d)}, &t)
	if s.Crashes < m.Crashes {
		t := *s
		t.Crashes++
		t.Disk[d].Asked, t.Disk[d].Noting = 0, false
		out(Step{Name: "crash before they are (disk)", A: uint8(d), Optional: true}, &t)
	}
}
