package volume

import (
	"slices"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/model"
)

// Writes that wait for room on a disk.
//
// A disk refuses what would make it fuller than it may be, and touches nothing; the
// other members have it then. The group is held: it keeps its lock, and is sent again,
// to all members there are by then and with a new number, until all of them have it:
// those that have it overwrite it with itself. Everything else goes on meanwhile, above
// all what makes room and what brings back copies.
//
// Invariants:
//
//   - Of a held group nothing is in flight: each member has it, durably, or refused it.
//     So what it touches changes nowhere until it is sent again.
//   - The watermark stays below every number under which a member may have it. A group is
//     open under a number for which each member has it under that one or a later one, or
//     has nothing of it. So it is uncertain to whoever takes over, who makes it equal;
//     and the watermark still moves on while it waits.
//   - What is written to other blocks of its pages meanwhile passes it by, so that members
//     may have one stamp there and not the same (rollOnce). None of the difference is
//     acknowledged, and the watermark is below that stamp.
//   - A request of which every group that is not complete is held lends its lock: a page
//     of it is filled beside it, with nothing else in flight to it. It is sent again only
//     when no filler is there (reclaim), to a member that has reached a page of it, and is
//     missed by others (fill.takes), as any write. So filling ends although it waits.
//     Other work of the holder leaves its pages out (errLent): what frees room must not
//     wait for what waits for room.

// roomEvery is the time between two attempts on one disk.
const roomEvery = time.Second

// refusals withdraws the messages a full disk did not apply, so that those
// behind them go on; v.mu is held. What they carried is sent again when there may be
// room (hold). A joining member stays for as long as it can be filled: that it has no
// room for more than that is no reason to have one copy less.
func (v *Volume) refusals(r *row) {
	now := time.Now()
	answers := false
	for m := r.first; m != nil; {
		next := m.next
		if err := m.full; err != nil {
			if answers = true; !v.refusedLately(now) {
				poke(v.tender)
			}
			v.refusedAt = now
			r.withdraw(m)
			if g := m.group; g != nil && g.job.parts[g.part].only != nil {
				g.job.err = err
				v.spareOne(g.column, r, err)
				v.arrived(g)
			} else if g != nil {
				v.stats.full.Add(1)
				if m.op.Kind == disk.Copy {
					v.refuse(g.column, r.id, err)
				}
				if !now.Before(r.fullUntil) {
					r.fullUntil = now.Add(roomEvery)
				}
				g.torn = g.torn || m.torn
				if g.refusing = append(g.refusing, r); g.left == len(g.refusing) {
					v.hold(g)
				}
			}
			v.recycle(m)
		} else if answers { // what it was behind was refused: it is sent anew
			m.queued = now
		}
		m = next
	}
}

// spareOne has an active member dropped during a takeover that has no room for what it
// lacks of a write which nobody acknowledged, if another can go on without it: a volume
// must come back while its disks are full. v.mu is held.
func (v *Volume) spareOne(c int, r *row, err error) {
	if v.serving {
		return
	}
	col := &v.columns[c]
	m := col.member(r.id)
	if m == nil || m.state != model.Active {
		return
	}
	for _, o := range col.sound() {
		if o != m {
			m.refused, v.change = err, true
			return
		}
	}
}

// hold keeps a group whose remaining members have no room for it; v.mu is held.
func (v *Volume) hold(g *group) {
	nothing := v.lacking(g)
	if g.asked {
		nothing = slices.DeleteFunc(nothing, func(m *member) bool { return !slices.Contains(g.without, m) })
		if len(nothing) == len(g.refusing) && !g.torn { // all others have it under the new number
			v.renumber(g)
		}
	}
	g.without = nothing
	g.held, g.asked = true, true
	g.job.held++
	v.held = append(v.held, g)
	v.wake = true
	v.lend(g.job)
}

// lacking returns the active members that have refused a group just now. One that joins
// may have got some of it with a page that was filled; v.mu is held.
func (v *Volume) lacking(g *group) (list []*member) {
	for _, r := range g.refusing {
		if m := v.columns[g.column].member(r.id); m != nil && m.state == model.Active {
			list = append(list, m)
		}
	}
	return list
}

// lend lets fillers to the pages of a request of which all that is not complete is held;
// v.mu is held.
func (v *Volume) lend(j *job) {
	if j.held > 0 && j.held == j.left && j.span.list != nil {
		v.spans.lend(&j.span)
	}
}

// renumber opens a group under the number it was sent with last; v.mu is held.
func (v *Volume) renumber(g *group) {
	v.shutGroup(g)
	g.number = g.sent
	at := v.lastOpen
	for at != nil && at.number > g.number {
		at = at.prev
	}
	v.openGroup(g, at)
}

// reissue sends held groups again: of those that a disk refused one, to ask whether it
// has room, and when it has, the others. v.mu is held.
func (v *Volume) reissue(now time.Time) (rows []*row) {
	kept := v.held[:0]
	for _, g := range v.held {
		j := g.job
		r := g.refusing[len(g.refusing)-1]
		if r.state != dead && now.Before(r.fullUntil) {
			kept = append(kept, g)
			continue
		}
		if j.span.list != nil && !v.spans.reclaim(&j.span) {
			kept = append(kept, g)
			continue
		}
		if !r.fullUntil.IsZero() {
			r.fullUntil = now.Add(roomEvery)
		}
		v.number++
		g.held, g.sent, g.asks = false, v.number, r
		j.held--
		v.fanOut(g, &j.parts[g.part], v.number, now)
		rows = append(rows, j.rows...)
	}
	clear(v.held[len(kept):])
	v.held = kept
	return rows
}

// hasRoom notes that a disk took what it had refused; v.mu is held.
func (v *Volume) hasRoom(r *row, g *group) {
	if g.asks == r {
		g.asks, r.fullUntil = nil, time.Time{}
		v.wake = v.wake || len(v.held) > 0
	}
}

// waitsForRoom names a disk on which writes wait for room, or zero; v.mu is held.
func (v *Volume) waitsForRoom() model.DiskID {
	if len(v.held) == 0 {
		return 0
	}
	return v.held[0].refusing[0].id
}

// fullDisk is waitsForRoom for whoever does not hold v.mu.
func (v *Volume) fullDisk() model.DiskID {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.waitsForRoom()
}

// cramped reports whether a disk refused something not long ago.
func (v *Volume) cramped(now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.refusedLately(now)
}

// refusedLately is cramped for whoever holds v.mu.
func (v *Volume) refusedLately(now time.Time) bool { return now.Sub(v.refusedAt) < trimRest }
