package model

import (
	"fmt"

	"drystone.example/drystone/backend/must"
)

// Upper limits of the arrays in a Family.
const (
	familyDisks  = 3
	familyPlaces = 7
)

// The volumes of a Family.
const (
	origin = iota
	clone
	family
)

// A FamilyDisk is one disk with a page of an origin and of its clone. A version is a
// place, which several may share; what is in a place is the number of a guest's write.
type FamilyDisk struct {
	Page  [family][maxEpochs + 1]uint8 // which place holds it, from 1 on; 0: no version
	Val   [familyPlaces]uint8
	Count [familyPlaces]uint8 // of versions that name the place; 0: it is free

	Promise Gen  // of the clone
	Noted   bool // the clone has still to inherit

	Asked  Gen  // a promise that is not durable yet; 0: none
	Noting bool // with it the note that the clone has an origin
}

// A Reign is a volume's record and its holder in one.
type Reign struct {
	Gen    Gen
	Serves bool
	Member [familyDisks]Role
}

// active returns the active members.
func (r *Reign) active() (set Set) {
	for d, role := range r.Member {
		if role == Active {
			set |= one(d)
		}
	}
	return set
}

// A Family is an origin and its clone, in one page of one column. What the members of
// one volume owe each other is the State's: here raft answers at once, a write to the
// clone reaches all its members or none, and only the origin's are under way.
type Family struct {
	Of       [family]Reign
	Prepared Set // whose promises the clone's holder has
	Disk     [familyDisks]FamilyDisk

	Epoch   uint8 // of the origin
	Gone    uint8 // epochs that are no snapshots, by bit
	Deleted bool  // the origin
	Write   uint8 // to the origin, under way; 0: none
	Wait    Set   // who has not got it

	Made     bool
	Attached bool  // the clone's record names its origin
	From     uint8 // the epoch that it begins as

	// What is used up of the bounds, and what the guests are to see.
	Writes, Takeovers, Drops, Joins, Crashes uint8
	Snap                                     [maxEpochs + 1]uint8 // what an epoch held when it ended
	Want                                     uint8                // what the clone holds
}

// A CloneModel is the design of clones within a bound, less one rule if there is a
// Mistake.
type CloneModel struct {
	Bound
	Mistake Mistake
}

type emitFamily = func(Step, *Family)

func (m *CloneModel) start() Family {
	var s Family
	for d := range m.Copies {
		s.Of[origin].Member[d] = Active
	}
	s.Of[origin].Serves = true
	return s
}

// tidy forgets what does not matter any more, and numbers places in the order in which
// versions name them.
func (m *CloneModel) tidy(s *Family) {
	for e := range s.Snap {
		if s.Deleted || s.Gone>>e&1 != 0 {
			s.Snap[e] = 0
		}
	}
	if s.Deleted {
		s.Of[origin], s.Takeovers, s.Gone, s.Epoch = Reign{}, m.Reigns, 0, 0
	}
	for i := range m.Disks {
		d := &s.Disk[i]
		old, used := *d, uint8(0)
		d.Val, d.Count = [familyPlaces]uint8{}, [familyPlaces]uint8{}
		var number [familyPlaces]uint8
		for vol := range d.Page {
			for e, p := range old.Page[vol] {
				if p == 0 {
					continue
				}
				if number[p-1] == 0 {
					d.Val[used], d.Count[used] = old.Val[p-1], old.Count[p-1]
					used++
					number[p-1] = used
				}
				d.Page[vol][e] = number[p-1]
			}
		}
	}
}

// put makes a version what was written, in a fresh place.
func (d *FamilyDisk) put(vol int, e, val uint8) {
	d.remove(vol, e)
	for p := range d.Val {
		if d.Count[p] == 0 {
			d.Val[p], d.Count[p] = val, 1
			d.Page[vol][e] = uint8(p) + 1
			return
		}
	}
	must.That(false, "%d places are enough", familyPlaces)
}

// remove takes a version away. Its place is free when no other names it.
func (d *FamilyDisk) remove(vol int, e uint8) {
	p := d.Page[vol][e]
	if p == 0 {
		return
	}
	if d.Page[vol][e] = 0; d.Count[p-1] > 0 {
		d.Count[p-1]--
	}
}

// newest returns the place of the version that an epoch sees, or 0.
func (d *FamilyDisk) newest(vol int, e uint8) uint8 {
	for n := int(e); n >= 0; n-- {
		if p := d.Page[vol][n]; p != 0 {
			return p
		}
	}
	return 0
}

// read returns which write a volume reads as in an epoch.
func (d *FamilyDisk) read(vol int, e uint8) uint8 {
	if p := d.newest(vol, e); p != 0 {
		return d.Val[p-1]
	}
	return 0
}

// inherit gives the clone what it begins as, in the same place, and forgets that it has
// an origin.
func (m *CloneModel) inherit(s *Family, d int) {
	disk := &s.Disk[d]
	if !disk.Noted {
		return
	}
	disk.Noted = false
	from := s.From
	if m.Mistake == InheritNewest {
		from = maxEpochs
	}
	p := disk.newest(origin, from)
	if p == 0 || disk.Page[clone][0] != 0 || m.Mistake == ForgetOrigin {
		return
	}
	disk.Page[clone][0] = p
	if m.Mistake != UncountedShare {
		disk.Count[p-1]++
	}
}

// bequeath has the clone inherit before a version that it sees changes.
func (m *CloneModel) bequeath(s *Family, d int, e uint8) {
	if s.Disk[d].Noted && e <= s.From && m.Mistake != Unbequeathed {
		m.inherit(s, d)
	}
}

// reads is what the clone's guest is answered from a disk: that inherits first.
func (m *CloneModel) reads(s *Family, d int) uint8 {
	if t := *s; s.Disk[d].Noted && m.Mistake != ReadBare {
		m.inherit(&t, d)
		return t.Disk[d].read(clone, 1)
	}
	return s.Disk[d].read(clone, 1)
}

// check returns which invariant a state breaks, or "".
//
//	I5  A snapshot never changes until it is deleted.
//	I8  A clone reads as its origin at that epoch until it is written, whatever
//	    becomes of the origin.
func (m *CloneModel) check(s *Family) string {
	for d := range m.Disks {
		if s.Of[origin].Member[d] == Active && !s.Deleted {
			for e := range s.Epoch {
				if s.Gone>>e&1 == 0 && s.Disk[d].read(origin, e) != s.Snap[e] {
					return fmt.Sprintf("I5: snapshot %d on disk %d changed from write %d to %d",
						e, d, s.Snap[e], s.Disk[d].read(origin, e))
				}
			}
		}
		c := &s.Of[clone]
		if c.Serves && c.Member[d] == Active && s.Disk[d].Promise == c.Gen {
			if got := m.reads(s, d); got != s.Want {
				return fmt.Sprintf("I8: the clone reads write %d from disk %d, and holds write %d", got, d, s.Want)
			}
		}
	}
	return ""
}

// steps emits every state one step away from s.
func (m *CloneModel) steps(s *Family, out emitFamily) {
	m.originHolder(s, out)
	m.originMembers(s, out)
	m.makeClone(s, out)
	m.takeCloneOver(s, out)
	m.cloneHolder(s, out)
	m.cloneMembers(s, out)
	for d := range m.Disks {
		m.trimOrigin(s, d, out)
		m.collect(s, d, out)
		m.disk(s, d, out)
	}
}

// makeClone is one command of raft: of a snapshot, or of the present, which ends the
// epoch while nothing is in flight. The origin's holder serves, so its active members
// hold the same, and they become the clone's.
func (m *CloneModel) makeClone(s *Family, out emitFamily) {
	o := &s.Of[origin]
	if s.Made || s.Deleted || !o.Serves && m.Mistake != CloneUnrolled {
		return
	}
	for e := range s.Epoch + 1 {
		now := e == s.Epoch
		if now && (s.Epoch == uint8(m.Epochs) || s.Write != 0 && m.Mistake != CloneInFlight) ||
			!now && s.Gone>>e&1 != 0 {
			continue
		}
		t := *s
		t.Made, t.Attached, t.From = true, true, e
		t.Want = s.Disk[o.active().first()].read(origin, e)
		if now && m.Mistake != CloneOpen {
			t.Snap[e] = t.Want
			t.Gone |= 1 << e
			t.Epoch++
		}
		for d, role := range o.Member {
			if role == Active || role != Absent && m.Mistake == CloneStale {
				t.Of[clone].Member[d] = Active
			}
		}
		out(Step{Name: "make the clone (epoch)", A: e}, &t)
	}
}

// takeCloneOver raises the clone's generation, and asks its members for promises. With
// its first one a disk that is an active member notes the origin, by one batch; one that
// was away until the record names none any more is filled.
func (m *CloneModel) takeCloneOver(s *Family, out emitFamily) {
	c := &s.Of[clone]
	if s.Made && uint8(c.Gen) < m.Reigns {
		t := *s
		t.Of[clone].Gen++
		t.Of[clone].Serves, t.Prepared = false, 0
		out(Step{Name: "acquire the clone (generation)", A: uint8(c.Gen + 1)}, &t)
	}
	for d := range m.Disks {
		disk, role := &s.Disk[d], c.Member[d]
		if c.Gen == 0 || role != Active && role != Joining || s.Prepared.has(d) || disk.Asked == c.Gen {
			continue
		}
		t := *s
		x := &t.Disk[d]
		first := disk.Promise == 0 || m.Mistake == NoteAgain
		x.Asked, x.Noting = c.Gen, s.Attached && role == Active && first
		if m.Mistake == NoteUnsynced {
			t.Prepared |= one(d)
		}
		out(Step{Name: "ask for a promise of the clone (disk)", A: uint8(d)}, &t)
	}
	if c.Gen != 0 && !c.Serves && c.active().without(s.Prepared) == 0 {
		t := *s
		t.Of[clone].Serves = true
		out(Step{Name: "serve the clone (generation)", A: uint8(c.Gen)}, &t)
	}
}

// cloneHolder detaches a clone that serves, and writes to it. A write reaches all active
// members, which inherit first; a discard whose tombstone is forgotten leaves nothing.
func (m *CloneModel) cloneHolder(s *Family, out emitFamily) {
	c := &s.Of[clone]
	active := c.active()
	if s.Attached && (c.Serves || m.Mistake == DetachEarly && active&s.Prepared != 0) {
		t := *s
		t.Attached = false
		out(Step{Name: "detach the clone"}, &t)
	}
	if !c.Serves || s.Writes == m.Writes {
		return
	}
	for d := range m.Disks {
		if active.has(d) && s.Disk[d].Promise != c.Gen {
			return
		}
	}
	t := *s
	t.Writes++
	u := t
	for d := range m.Disks {
		if active.has(d) {
			m.inherit(&t, d)
			t.Disk[d].put(clone, 1, t.Writes)
			m.inherit(&u, d)
			u.Disk[d].remove(clone, 0)
			u.Disk[d].remove(clone, 1)
		}
	}
	t.Want, u.Want = t.Writes, 0
	out(Step{Name: "write to the clone (id)", A: t.Writes}, &t)
	if m.Discard && active.count() == m.Copies {
		out(Step{Name: "discard in the clone, and forget the tombstone"}, &u)
	}
}

// cloneMembers drops members of the clone and brings them back, filled from another one
// that has inherited.
func (m *CloneModel) cloneMembers(s *Family, out emitFamily) {
	c := &s.Of[clone]
	if c.Gen == 0 {
		return
	}
	for d := range m.Disks {
		m.dropMember(s, clone, d, s.Prepared, out)
		if !c.Serves {
			continue
		}
		switch role := c.Member[d]; {
		case role == Joining && s.Prepared.has(d):
			t := *s
			m.fillClone(&t, c.active().first(), d)
			t.Of[clone].Member[d] = Active
			out(Step{Name: "fill a member of the clone (disk)", A: uint8(d)}, &t)
		case (role == Stale || role == Absent && c.active().count() < m.Copies) && s.Joins < m.Joins:
			t := *s
			t.Joins++
			t.Of[clone].Member[d] = Joining
			t.Prepared = t.Prepared.without(one(d))
			out(Step{Name: "join the clone (disk)", A: uint8(d)}, &t)
		}
	}
}
