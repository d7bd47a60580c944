package volume

import (
	"context"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/model"
)

// The pace of the keeper. It sleeps while nothing is under way, all members are
// active and all disks know that everything is acknowledged.
const (
	watchEvery = 250 * time.Millisecond // deadlines, while something is under way
	careEvery  = time.Second            // members that are not active
	idleAfter  = time.Second            // until the watermark is told
	rejoinMin  = time.Second
	rejoinMax  = time.Minute
	flapWindow = 10 * time.Minute // a disk that lasted that long starts from rejoinMin again
)

// A patience is how long a disk is left alone after its members were dropped.
type patience struct {
	until time.Time
	wait  time.Duration
	slow  []time.Time // when they were dropped for being slow, within the last hour
	why   Slow        // the last of that
}

// keep is the holder's clock: it sends broken rows again, notices members that
// are overdue, tells the watermark when the volume falls idle, and looks after
// members that are not active. It never waits for a disk or for raft.
func (v *Volume) keep(ctx context.Context) {
	timer := time.NewTimer(watchEvery)
	defer timer.Stop()
	for {
		next := v.tick(time.Now())
		if !timer.Stop() {
			select {
			case <-timer.C:
			default:
			}
		}
		if next > 0 {
			timer.Reset(next)
		}
		select {
		case <-ctx.Done():
			return
		case <-v.keeper:
		case <-timer.C:
		}
	}
}

// tick does what is due and returns how long until something may be due again;
// zero means not before it is poked.
func (v *Volume) tick(now time.Time) time.Duration {
	v.mu.Lock()
	next := time.Duration(0)
	soon := func(d time.Duration) {
		if d = max(d, time.Millisecond); next == 0 || d < next {
			next = d
		}
	}
	for _, r := range v.rows {
		v.watchRow(r, now, soon)
	}
	var rows []*row
	if len(v.held) > 0 {
		if rows = v.reissue(now); len(v.held) > 0 {
			soon(roomEvery)
		}
	}
	if v.firstOpen != nil {
		soon(watchEvery)
	} else if v.unmarked && v.serving {
		if wait := idleAfter - now.Sub(v.lastSent); wait > 0 {
			soon(wait)
		} else {
			rows = append(rows, v.mark(now)...)
			soon(watchEvery)
		}
	}
	if wait := v.filledBy.Sub(now); !v.filledBy.IsZero() && wait > 0 {
		soon(wait)
	} else if !v.filledBy.IsZero() {
		v.change = true
	}
	slow := v.weigh(now)
	absent := v.caredFor(now)
	if len(absent) > 0 {
		soon(careEvery)
	}
	v.watched = next > 0
	v.pump(rows)
	if slow {
		v.locate()
	}
	if len(absent) > 0 {
		v.care(absent, now)
	}
	return next
}

// watchRow looks after one row; v.mu is held.
func (v *Volume) watchRow(r *row, now time.Time, soon func(time.Duration)) {
	if r.state == broken && r.quiet() {
		if wait := r.retryAt.Sub(now); wait > 0 {
			soon(wait)
		} else {
			r.retryAt = now.Add(resendMax) // it is under way
			soon(resendMax)
			v.work.Go(func() { v.resume(r) })
		}
	}
	switch {
	case r.first != nil && now.Sub(r.first.queued) >= v.cfg.Timeout:
		if r.failure == nil {
			r.fail(model.Errorf(model.Unavailable, "disk %s has not answered for %s", r.id, v.cfg.Timeout))
		}
		v.change = true // also when the last attempt to drop it had to wait
	case r.first != nil && now.Sub(r.first.queued) >= v.cfg.Timeout/2:
		v.change = true // so that it is known in time who else is alive
	case r.failure != nil:
		v.change = true
	}
}

// mark tells all members the watermark; v.mu is held.
func (v *Volume) mark(now time.Time) []*row {
	j := v.newJob()
	rows := v.markWith(j, now)
	j.drop() // nobody waits
	return rows
}

// Probe sends something to every member, so that one that is lost is missed although
// nothing is written.
func (v *Volume) Probe() {
	v.mu.Lock()
	if !v.serving || v.closing || v.err != nil {
		v.unlock()
		return
	}
	v.pump(v.mark(time.Now()))
}

func (v *Volume) markWith(j *job, now time.Time) []*row {
	v.unmarked = false
	rows := make([]*row, 0, len(v.rows))
	for _, r := range v.rows {
		rows = append(rows, r)
	}
	return v.sendMarks(j, rows, now)
}

// sendMarks puts a Mark into each row and returns the rows to pump; v.mu is held.
func (v *Volume) sendMarks(j *job, rows []*row, now time.Time) []*row {
	if len(rows) == 0 {
		return nil
	}
	for _, r := range rows {
		j.parts = append(j.parts, part{kind: disk.Mark, only: r})
	}
	v.begin(j, now)
	return append([]*row(nil), j.rows...)
}

// caredFor lists the disks of members that are not active, if it is time to look
// at them; v.mu is held.
func (v *Volume) caredFor(now time.Time) (ids []model.DiskID) {
	if !v.serving || v.whole || v.err != nil {
		return nil
	}
	seen := map[model.DiskID]bool{}
	for c := range v.columns {
		for _, m := range v.columns[c].members {
			if !seen[m.disk] {
				seen[m.disk] = true
				ids = append(ids, m.disk)
			}
		}
	}
	if len(ids) > 0 && now.Before(v.nextCare) {
		return ids[:1] // not yet; only keeps the clock going
	}
	return ids
}

// care proposes stale members whose disk is in reach again, asks joining ones
// for their promise, and looks for substitutes now and then.
func (v *Volume) care(ids []model.DiskID, now time.Time) {
	v.mu.Lock()
	early := now.Before(v.nextCare)
	if !early {
		v.nextCare = now.Add(careEvery)
	}
	v.mu.Unlock()
	if early {
		return
	}
	reach := make(map[model.DiskID]Reach, len(ids))
	for _, id := range ids {
		reach[id] = v.cfg.Disks.Reach(id)
	}
	v.mu.Lock()
	v.reach = reach
	for c := range v.columns {
		for _, m := range v.columns[c].members {
			p := v.patience[m.disk]
			if m.state == model.Stale && reach[m.disk] == Up && (p == nil || !now.Before(p.until)) {
				m.returns = true
				v.change = true
			}
			if m.state == model.Joining && m.row == nil && m.refused == nil {
				v.obtain(m)
			}
			// It may go as soon as the others are well; who is not needed any more, because
			// a move was taken back, goes now.
			surplus := m.state != model.Active && v.columns[c].staying() >= v.rec.Copies
			v.change = v.change || m.leaving || surplus
		}
	}
	if !now.Before(v.nextSearch) && v.short() {
		v.nextSearch = now.Add(10 * careEvery)
		v.search, v.change = true, true
	}
	poke(v.filler)
	v.unlock()
}

// short reports whether a column has neither its copies, on members that stay, nor
// a joining member.
func (v *Volume) short() bool {
	for c := range v.columns {
		if col := &v.columns[c]; col.staying()+col.count(model.Joining) < v.rec.Copies {
			return true
		}
	}
	return false
}

// lost notes that a disk's members were dropped, for being slow if why says so; v.mu
// is held.
func (v *Volume) lost(id model.DiskID, why *Slow, now time.Time) {
	p := v.patience[id]
	if p == nil {
		p = &patience{}
		v.patience[id] = p
	}
	if now.Sub(p.until) > flapWindow {
		p.wait = 0
	}
	least, most := rejoinMin, rejoinMax
	if why != nil {
		p.why, p.slow = *why, append(p.slow, now)
		least, most = slowRejoinMin, slowRejoinMax
		if v.timesSlow(id, now) >= slowTimes {
			least = slowDamped
		}
	}
	p.wait = min(max(2*p.wait, least), most)
	p.until = now.Add(p.wait)
}
