package volume

import (
	"math/bits"
	"slices"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/model"
)

// A disk that answers, but late, holds up every guest of the volumes striped over it:
// a write waits for all members. It is left out, as one is that does not answer, and
// comes back by itself.
//
// Slow is what is slow beside the others: where all disks are, nothing is left out.
//
// The invariant: a disk is dropped for being slow only if each column that it is active
// in has all its other copies on members that are well and not slow, at least one; and
// only while no other disk of its node is left out for that. So slowness alone never
// takes more than one copy of a column, nor the last one, and what slows a whole node
// down, such as the way to it, costs no more than one disk of it.

const (
	weighEvery  = time.Second // between two judgements
	slowFor     = 10 * time.Second
	slowWeighed = 5 // judgements in slowFor at least: a guest that does little proves little
	slowAtLeast = 500 * time.Millisecond
	slowFactor  = 10 // times as long as the others take

	// How long a slow disk is left out: doubling, and much longer from the third time
	// within an hour.
	slowRejoinMin = 30 * time.Second
	slowRejoinMax = time.Hour
	slowDamped    = 30 * time.Minute
	slowWindow    = time.Hour
	slowTimes     = 3
)

// What a disk is asked for, of which the guest waits for both.
const (
	ofWrites = iota
	ofReads
	gaugeKinds
)

// gaugeUnit is the width of a gauge's first buckets; there are four for each doubling.
const (
	gaugeUnit    = 1 << 17 // ns
	gaugeBuckets = 72      // to a minute
)

// A gauge knows how long a disk took to answer lately. What it says are lower bounds of
// buckets, a quarter of a doubling wide.
type gauge struct {
	counts [gaugeBuckets]uint32 // since the last judgement
	n      uint32

	p99   int       // bucket, at the last judgement that there was anything for
	at    time.Time // of that
	since time.Time // since when each judgement found it slow; zero: the last did not
	times int       // how many that were
	limit time.Duration
}

func bucketOf(took time.Duration) int {
	n := uint64(max(took, 0) / gaugeUnit)
	if n < 4 {
		return int(n)
	}
	above := bits.Len64(n) - 3
	return min(4*above+int(n>>above), gaugeBuckets-1)
}

// floorOf is the shortest time that falls into a bucket.
func floorOf(bucket int) time.Duration {
	if bucket < 4 {
		return time.Duration(bucket) * gaugeUnit
	}
	above := bucket/4 - 1
	return time.Duration(4+bucket%4) << above * gaugeUnit
}

func (g *gauge) add(took time.Duration) {
	g.counts[bucketOf(took)]++
	g.n++
}

// close ends a time of measuring. What has been waited for all that time counts as if
// it had just been answered.
func (g *gauge) close(now time.Time, waits time.Duration) {
	if waits >= slowAtLeast {
		g.add(waits)
	}
	if g.n == 0 {
		return
	}
	if now.Sub(g.at) > slowFor {
		g.since = time.Time{}
	}
	above := g.n / 100
	for g.p99 = gaugeBuckets - 1; g.counts[g.p99] <= above; g.p99-- {
		above -= g.counts[g.p99]
	}
	g.counts, g.n, g.at = [gaugeBuckets]uint32{}, 0, now
}

// judge notes whether it is slow now. A limit of zero is none that is known.
func (g *gauge) judge(now time.Time, limit time.Duration) {
	switch {
	case limit == 0 || floorOf(g.p99) < limit:
		g.since = time.Time{}
		return
	case g.since.IsZero():
		g.since, g.times = now, 0
	}
	g.times++
	g.limit = limit
}

func (g *gauge) slow(now time.Time) bool {
	return !g.since.IsZero() && now.Sub(g.since) >= slowFor && g.times >= slowWeighed && now.Sub(g.at) <= slowFor
}

// slowness returns the gauge that finds a disk slow, or nil.
func (r *row) slowness(now time.Time) *gauge {
	for k := range r.gauges {
		if r.gauges[k].slow(now) {
			return &r.gauges[k]
		}
	}
	return nil
}

// answeredIn counts how long an op took that the guest waits for; v.mu is held. What
// is sent to one disk alone, to fill it or to repair it, says nothing beside others.
func (r *row) answeredIn(kind disk.Kind, took time.Duration) {
	if kind != disk.Copy && kind != disk.Remove {
		r.gauges[ofWrites].add(took)
	}
}

// readIn counts how long a read took, and lets reads prefer another member after a long
// one; v.mu is held.
func (r *row) readIn(now time.Time, took time.Duration) {
	r.gauges[ofReads].add(took)
	if took >= slowAtLeast {
		r.shunned = now.Add(shunFor)
		r.v.wake = true // nothing else wakes the keeper where nobody writes
	}
}

// weigh judges all disks of the volume, once in weighEvery, and reports whether one is
// slow; v.mu is held.
func (v *Volume) weigh(now time.Time) (found bool) {
	if !v.serving || now.Sub(v.weighed) < weighEvery {
		return false
	}
	v.weighed = now
	for _, r := range v.rows {
		waits := time.Duration(0)
		if r.first != nil && r.state == live { // a broken one is waited for, but not slow
			waits = now.Sub(r.first.queued)
		}
		r.gauges[ofWrites].close(now, waits)
		r.gauges[ofReads].close(now, 0)
	}
	for _, r := range v.rows {
		for k := range r.gauges {
			if g := &r.gauges[k]; g.at.Equal(now) {
				g.judge(now, v.slowLimit(r, k, now))
			}
		}
		found = found || r.slowness(now) != nil
	}
	return found
}

// slowLimit is how long a disk may take, by what the others take; zero if that is not
// known, or the disk is not to be judged; v.mu is held. To be filled makes a disk
// slow, so that counts only against one that was slow before.
func (v *Volume) slowLimit(r *row, kind int, now time.Time) time.Duration {
	if floorOf(r.gauges[kind].p99) < slowAtLeast || v.has(r.id, model.Joining) && v.timesSlow(r.id, now) == 0 {
		return 0
	}
	var peers []int
	for _, o := range v.rows {
		if g := &o.gauges[kind]; o != r && !g.at.IsZero() && now.Sub(g.at) <= slowFor {
			peers = append(peers, g.p99)
		}
	}
	if len(peers) == 0 {
		return 0
	}
	slices.Sort(peers)
	return max(slowAtLeast, slowFactor*floorOf(peers[len(peers)/2]+1))
}

// has reports whether a disk is a member of any column in a state; v.mu is held.
func (v *Volume) has(id model.DiskID, s model.MemberState) bool {
	for c := range v.columns {
		if m := v.columns[c].member(id); m != nil && m.state == s {
			return true
		}
	}
	return false
}

// timesSlow is how often a disk was dropped for being slow within the last hour; v.mu
// is held.
func (v *Volume) timesSlow(id model.DiskID, now time.Time) int {
	p := v.patience[id]
	if p == nil {
		return 0
	}
	p.slow = slices.DeleteFunc(p.slow, func(at time.Time) bool { return now.Sub(at) > slowWindow })
	return len(p.slow)
}

// locate finds out on which nodes the disks are, and has the record changed: a slow one
// was found.
func (v *Volume) locate() {
	var ids []model.DiskID
	v.mu.Lock()
	for id := range v.rows {
		ids = append(ids, id)
	}
	for id := range v.patience {
		ids = append(ids, id)
	}
	v.mu.Unlock()
	nodes := make(map[model.DiskID]model.NodeID, len(ids))
	for _, id := range ids {
		nodes[id] = v.cfg.Disks.Node(id)
	}
	v.mu.Lock()
	v.nodes, v.change = nodes, true
	v.unlock()
}

// leaveOut chooses which disks the proposal drops for being slow; v.mu is held.
func (v *Volume) leaveOut(p *proposal, now time.Time) {
	var slow []*row
	for _, r := range v.rows {
		if r.slow = nil; v.serving && r.slowness(now) != nil {
			slow = append(slow, r)
		}
	}
	slices.SortFunc(slow, func(a, b *row) int { return b.slowness(now).p99 - a.slowness(now).p99 })
	for _, r := range slow {
		if v.spare(r) && !v.nodeIsShort(r.id, now) {
			r.slow = r.slowness(now)
			p.slow = append(p.slow, r.slow.verdict(r.id))
		}
	}
}

// slowOf is why a disk is dropped, if that is because it is slow.
func (p *proposal) slowOf(id model.DiskID) *Slow {
	for i := range p.slow {
		if p.slow[i].Disk == id {
			return &p.slow[i]
		}
	}
	return nil
}

// spare reports whether every column of a disk can do without it for a while; v.mu is
// held.
func (v *Volume) spare(r *row) bool {
	for c := range v.columns {
		if m := v.columns[c].member(r.id); m == nil || m.state != model.Active {
			continue
		}
		others := 0
		for _, o := range v.columns[c].well() {
			if o.row != r && o.row.slow == nil && o.refused == nil {
				others++
			}
		}
		if others < max(v.rec.Copies-1, 1) && !v.plant.slowLast {
			return false
		}
	}
	return true
}

// nodeIsShort reports whether another disk of a disk's node is left out for being slow,
// or about to be, or was and has not got everything yet; v.mu is held.
func (v *Volume) nodeIsShort(id model.DiskID, now time.Time) bool {
	node, known := v.nodes[id]
	if !known {
		return true
	}
	for _, r := range v.rows {
		if r.slow != nil && r.id != id && v.nodes[r.id] == node {
			return true
		}
	}
	for other, p := range v.patience {
		if other == id || v.nodes[other] != node || v.timesSlow(other, now) == 0 {
			continue
		}
		if now.Before(p.until) || v.has(other, model.Stale) || v.has(other, model.Joining) {
			return true
		}
	}
	return false
}

// A Slow is a disk that is slow beside the others, or was within the last hour.
type Slow struct {
	Disk  model.DiskID  `json:"disk"`
	Took  time.Duration `json:"took"`           // at least, for one request in a hundred
	Limit time.Duration `json:"limit"`          // by what the others take
	Times int           `json:"times"`          // that it was left out within the last hour
	Until time.Time     `json:"until,omitzero"` // it is left out until then; zero: it is in use
}

// slowDisks lists them, in order; v.mu is held.
func (v *Volume) slowDisks(now time.Time) (out []Slow) {
	for id, p := range v.patience {
		if n := v.timesSlow(id, now); n > 0 {
			s := p.why
			if s.Times = n; now.Before(p.until) {
				s.Until = p.until
			}
			out = append(out, s)
		}
	}
	for id, r := range v.rows {
		if g := r.slowness(now); g != nil && v.timesSlow(id, now) == 0 {
			out = append(out, g.verdict(id))
		}
	}
	slices.SortFunc(out, func(a, b Slow) int { return int(min(max(int64(a.Disk)-int64(b.Disk), -1), 1)) })
	return out
}

func (g *gauge) verdict(id model.DiskID) Slow {
	return Slow{Disk: id, Took: floorOf(g.p99), Limit: g.limit}
}
