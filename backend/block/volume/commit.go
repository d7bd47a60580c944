package volume

import (
	"context"
	"slices"
	"time"

	"drystone.example/drystone/backend/model"
)

// The pace of proposals.
const (
	commitTimeout = 5 * time.Second
	commitMin     = 50 * time.Millisecond
	commitMax     = time.Second
)

// A proposal is one compare-and-swap of the record.
type proposal struct {
	revision model.Revision
	changes  []model.MemberChange
	dropped  []model.DiskID
	slow     []Slow         // why, of those that are dropped for being slow
	short    []int          // columns that could do with a substitute
	avoid    []model.DiskID // disks that failed not long ago
	probes   []*row
	record   model.Volume // as it is now
}

// commit is the one place that changes the record: one proposal at a time, and
// everything that is wanted at that moment in it, so that all stalled writes wait
// for one commit.
func (v *Volume) commit(ctx context.Context) {
	pause := commitMin
	for {
		select {
		case <-ctx.Done():
			return
		case <-v.committer:
		}
		for ctx.Err() == nil {
			p := v.plan(time.Now())
			v.substitutes(p)
			if len(p.changes) == 0 {
				v.settled()
				break
			}
			if v.propose(ctx, p) {
				pause = commitMin
				continue
			}
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
			pause = min(2*pause, commitMax)
		}
	}
}

// propose reports whether raft gave a definite answer. When it did not, the same
// revision is proposed for until it does (Volume.unsure), because the lost
// proposal may still be applied: what it says is then heard as a conflict.
func (v *Volume) propose(ctx context.Context, p *proposal) bool {
	v.mu.Lock()
	v.proposed = p
	v.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	if v.plant.ackEarly {
		v.mu.Lock()
		v.letGo(p)
		v.unlock()
	}
	rec, err := v.cfg.Record.ChangeMembers(ctx, v.id, v.gen, p.revision, p.changes)
	code := model.CodeOf(err)
	if err != nil && code != model.Conflict {
		v.mu.Lock()
		if v.proposing = false; v.rec.Revision == p.revision {
			v.unsure = p.changes
		}
		if code == model.Fenced || code == model.NotFound {
			v.end(err)
		}
		again := v.refused == code
		v.refused = code
		v.unlock()
		if !again { // while there is no leader this repeats
			v.log.Warn("members not changed", "volume", v.id, "err", err)
		}
		return false
	}
	v.mu.Lock()
	v.unsure, v.proposing, v.refused = nil, false, ""
	known := v.rec.Revision
	if v.adopt(rec) && err == nil {
		v.count(p)
	}
	stuck := err != nil && rec.Revision <= known
	v.unlock()
	if err == nil {
		v.tell(p)
	}
	return !stuck
}

// carriedOut notes which disks were dropped, if a record is what the last proposal makes
// of the one before. It may come by Follow before raft has answered; v.mu is held.
func (v *Volume) carriedOut(rec model.Volume) {
	p := v.proposed
	if p == nil || rec.Revision != p.revision+1 {
		return
	}
	for _, ch := range p.changes {
		m, in := rec.Columns[ch.Column].Member(ch.Disk)
		if in != (ch.State != "") || in && m.State != ch.State {
			return
		}
	}
	v.proposed = nil
	for _, id := range p.dropped {
		v.lost(id, p.slowOf(id), time.Now())
	}
}

func (v *Volume) settled() {
	v.mu.Lock()
	v.proposing = false
	v.mu.Unlock()
}

// letGo is the planted mistake of not waiting for the commit.
func (v *Volume) letGo(p *proposal) {
	for _, c := range p.changes {
		if m := v.columns[c.Column].member(c.Disk); m != nil && m.row != nil && c.State == model.Stale {
			v.release(m.row, c.Column)
		}
	}
}

func (v *Volume) count(p *proposal) {
	for _, c := range p.changes {
		switch c.State {
		case model.Stale:
			v.stats.dropped.Add(1)
		case model.Active:
			v.stats.joined.Add(1)
		case model.Joining:
		}
	}
}

func (v *Volume) tell(p *proposal) {
	for _, id := range p.dropped {
		if s := p.slowOf(id); s != nil {
			v.log.Warn("slow disk dropped", "volume", v.id, "disk", id, "took", s.Took, "limit", s.Limit)
			continue
		}
		v.log.Warn("disk dropped", "volume", v.id, "disk", id)
	}
	stale, joining, active := 0, 0, 0
	for _, c := range p.changes {
		switch c.State {
		case model.Stale:
			stale++
		case model.Joining:
			joining++
		case model.Active:
			active++
		}
	}
	v.log.Info("members changed", "volume", v.id, "revision", p.revision+1,
		"stale", stale, "joining", joining, "active", active)
}

// plan collects what the record should say.
func (v *Volume) plan(now time.Time) *proposal {
	v.mu.Lock()
	p := &proposal{revision: v.rec.Revision, record: v.rec}
	if v.err != nil {
		v.unlock()
		return p
	}
	v.filledBy = time.Time{}
	spared := v.needed()
	v.leaveOut(p, now)
	v.unproven(p, spared, now)
	for c := range v.columns {
		v.planColumn(c, p, spared)
	}
	if !v.search && len(p.dropped) == 0 {
		p.short = nil
	}
	if len(p.changes) == 0 && len(v.unsure) > 0 {
		p.changes = v.unsure
		if was := v.proposed; was != nil {
			p.dropped, p.slow = was.dropped, was.slow
		}
	}
	v.search = false
	for id, t := range v.patience {
		if now.Before(t.until) {
			p.avoid = append(p.avoid, id)
		}
	}
	v.proposing = true // until propose has an answer, or there is nothing to propose
	rows := v.probe(p.probes, now)
	v.pump(rows)
	return p
}

// unproven adds the failing disks about whose columns too little is known. Nobody
// knows which member of a column is the last one alive before another of its
// active members has answered something sent at or after the oldest message that
// the failing one has not answered. If none has, they are asked, and all columns
// of the disk wait, so that they go in one commit.
func (v *Volume) unproven(p *proposal, spared map[model.DiskID]bool, now time.Time) {
	for c := range v.columns {
		well := v.columns[c].well()
		for _, m := range v.columns[c].members {
			late := m.row != nil && m.row.first != nil && now.Sub(m.row.first.queued) >= v.cfg.Timeout/2
			if m.state != model.Active || !late && !v.failing(m) || v.proven(well, m) {
				continue
			}
			if len(well) == 0 && !v.columns[c].undecided(m) {
				continue // it is the last one; the disk's other columns need not wait
			}
			spared[m.disk] = true
			for _, o := range well {
				if o.row.first == nil && !slices.Contains(p.probes, o.row) {
					o.row.probed = true
					p.probes = append(p.probes, o.row)
				}
			}
		}
	}
}

// undecided reports whether another active member may be well soon.
func (c *column) undecided(m *member) bool {
	for _, o := range c.members {
		if o != m && o.state == model.Active && o.row != nil && o.row.failure == nil {
			return true
		}
	}
	return false
}

func (v *Volume) proven(well []*member, m *member) bool {
	if m.row == nil || m.row.first == nil {
		return true
	}
	for _, o := range well {
		if o != m && !o.row.heard.Before(m.row.first.queued) {
			return true
		}
	}
	return false
}

// needed names disks that a takeover waits for, because a column has no other
// active member that promised: they are not dropped from other columns either.
func (v *Volume) needed() map[model.DiskID]bool {
	set := map[model.DiskID]bool{}
	if v.serving {
		return set
	}
	for c := range v.columns {
		if v.columns[c].well() == nil {
			for _, m := range v.columns[c].members {
				if m.state == model.Active {
					set[m.disk] = true
				}
			}
		}
	}
	return set
}

// well returns the active members that promised and are not failing.
func (c *column) well() (set []*member) {
	for _, m := range c.members {
		if m.state == model.Active && m.row != nil && m.row.failure == nil && m.row.state == live {
			set = append(set, m)
		}
	}
	return set
}

// sound returns those of well that need not be dropped for want of room.
func (c *column) sound() []*member {
	return slices.DeleteFunc(c.well(), func(m *member) bool { return m.refused != nil })
}

// failing reports whether a member shall be dropped; v.mu is held.
func (v *Volume) failing(m *member) bool {
	switch {
	case m.state == model.Stale:
		return false
	case m.row != nil:
		return m.row.failure != nil || m.row.slow != nil || m.refused != nil
	default:
		return m.refused != nil
	}
}

// planDrop makes a failing member stale. What an active one has at or below the
// watermark is right; a joining one never had everything and keeps its cutoff.
func (v *Volume) planDrop(c int, m *member, p *proposal) {
	ch := model.MemberChange{Column: c, Disk: m.disk, State: model.Stale, Cutoff: m.cutoff}
	if m.state == model.Active {
		ch.Cutoff = v.watermark()
	} else if m.refused != nil && m.cutoff.IsZero() {
		ch.State = "" // it has nothing yet that is worth keeping
	}
	p.changes = append(p.changes, ch)
	if !slices.Contains(p.dropped, m.disk) {
		p.dropped = append(p.dropped, m.disk)
	}
}

// planColumn says what becomes of a column's members.
//
// The invariant of a move: a member that leaves is let go only while as many others
// that stay are active in the record, and well, as there are copies. One that this
// proposal makes active does not count: a column never changes all its members at
// once, so that whoever takes over meets one that knows everything.
func (v *Volume) planColumn(c int, p *proposal, spared map[model.DiskID]bool) {
	col := &v.columns[c]
	well := col.well()
	change := func(m *member, s model.MemberState, cutoff model.Stamp) {
		p.changes = append(p.changes, model.MemberChange{Column: c, Disk: m.disk, State: s, Cutoff: cutoff})
	}
	active, staying, joining := col.count(model.Active), col.staying(), 0
	settled := 0
	for _, m := range well {
		if !m.leaving && m.refused == nil && m.row.slow == nil {
			settled++
		}
	}
	if v.plant.letGoEarly {
		settled = staying + col.count(model.Joining)
	}
	var rest []*member
	for _, m := range col.members {
		last := len(well) == 0 || slices.Contains(well, m) && len(col.sound()) == 0
		if !v.failing(m) || last || spared[m.disk] {
			rest = append(rest, m)
			continue
		}
		if m.state == model.Active {
			active--
			if !m.leaving {
				staying--
			}
		}
		v.planDrop(c, m, p)
	}
	for i, m := range rest {
		wanted := staying < v.rec.Copies && (!m.leaving || active < v.rec.Copies)
		if m.fill != nil && m.fill.finished && !v.failing(m) && wanted {
			change(m, model.Active, model.Stamp{})
			active++
			if !m.leaving {
				staying++
			}
			rest[i] = nil
		}
	}
	for _, m := range rest {
		switch {
		case m == nil:
		case m.state == model.Active:
			if m.leaving && v.serving && settled >= v.rec.Copies {
				change(m, "", model.Stamp{})
			}
		case staying >= v.rec.Copies:
			change(m, "", model.Stamp{}) // the column is whole without it
		case m.state == model.Joining:
			joining++
		case m.returns:
			change(m, model.Joining, m.cutoff)
			joining++
		}
	}
	if staying+joining < v.rec.Copies && v.serving {
		p.short = append(p.short, c)
	}
}

// probe sends a message that changes nothing, to hear whether a disk is there;
// v.mu is held.
func (v *Volume) probe(rows []*row, now time.Time) []*row {
	if len(rows) == 0 {
		return nil
	}
	j := v.newJob()
	rows = v.sendMarks(j, rows, now)
	j.drop()
	return rows
}

// substitutes names a disk for each column that is short of one.
func (v *Volume) substitutes(p *proposal) {
	if len(p.short) == 0 {
		return
	}
	after := p.record
	after.Columns = slices.Clone(after.Columns)
	for i := range after.Columns {
		after.Columns[i].Members = slices.Clone(after.Columns[i].Members)
	}
	for _, ch := range p.changes {
		for i, m := range after.Columns[ch.Column].Members {
			if m.Disk == ch.Disk {
				after.Columns[ch.Column].Members[i].State = ch.State
			}
		}
	}
	for _, c := range p.short {
		avoid := append(slices.Clone(p.dropped), p.avoid...)
		for _, m := range after.Columns[c].Members {
			avoid = append(avoid, m.Disk)
		}
		id := v.cfg.Disks.Substitute(after, c, avoid)
		if id == 0 || slices.Contains(avoid, id) {
			continue
		}
		p.changes = append(p.changes, model.MemberChange{Column: c, Disk: id, State: model.Joining})
	}
}
