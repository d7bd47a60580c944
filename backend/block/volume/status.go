package volume

import (
	"fmt"
	"sync/atomic"
	"time"

	"drystone.example/drystone/backend/block/layout"
	"drystone.example/drystone/backend/model"
)

// A Status is what a holder knows about its volume, for people.
type Status struct {
	Generation model.Generation
	Revision   model.Revision
	Serving    bool
	Reason     string // why requests wait or fail; empty when they do not
	Columns    []ColumnStatus
	Fill       Fill // of all joining members together
	Tending    Tending
	Slow       []Slow
}

// A Tending is how far freeing what deleted snapshots have left is, or reverting.
// Its progress is in bytes of address space; zero: neither goes on.
type Tending struct {
	Reverts bool // it is reverting, not freeing
	Fill
	Error string // why it does not get on
}

// A ColumnStatus is one column as the holder sees it.
type ColumnStatus struct {
	Members []MemberStatus
}

// A MemberStatus is one member of a column.
type MemberStatus struct {
	Disk   model.DiskID
	State  model.MemberState
	Silent bool // it is overdue, refuses, or its connection is broken
	Fill   Fill // of a joining member
}

// A Fill is how far filling is, in bytes of address space.
type Fill struct {
	Done  model.Bytes
	Total model.Bytes
}

// Stats are cumulative since Open.
type Stats struct {
	Reads, Writes         Traffic
	Discards              Traffic
	Repaired              uint64 // versions rewritten because their sums did not match
	Lost                  uint64 // reads and repairs that failed because no active member had a good copy
	Copied                model.Bytes
	Trimmed               model.Bytes // freed on each member of what deleted snapshots have left
	Dropped, Joined, Full uint64      // members dropped, members made active, requests held for want of room
}

// A Traffic counts requests answered.
type Traffic struct {
	Ops     uint64
	Bytes   uint64
	Latency time.Duration // sum over all requests
}

// A Run is a stretch of a volume that is alike.
type Run struct {
	Length model.Bytes
	Zero   bool // nothing is stored there; it reads as zeros
}

// counters are the Stats as they are counted.
type counters struct {
	reads, writes, discards traffic
	repaired, lost          atomic.Uint64
	dropped, joined, full   atomic.Uint64
	copied, trimmed         atomic.Int64
}

type traffic struct {
	ops, bytes atomic.Uint64
	latency    atomic.Int64
}

func (t *traffic) add(n int64, took time.Duration) {
	t.ops.Add(1)
	t.bytes.Add(uint64(n))
	t.latency.Add(int64(took))
}

func (t *traffic) load() Traffic {
	return Traffic{Ops: t.ops.Load(), Bytes: t.bytes.Load(), Latency: time.Duration(t.latency.Load())}
}

// Stats returns the counters. It waits for nothing.
func (v *Volume) Stats() Stats {
	s := &v.stats
	return Stats{
		Reads: s.reads.load(), Writes: s.writes.load(), Discards: s.discards.load(),
		Repaired: s.repaired.Load(), Lost: s.lost.Load(), Copied: model.Bytes(s.copied.Load()),
		Trimmed: model.Bytes(s.trimmed.Load()),
		Dropped: s.dropped.Load(), Joined: s.joined.Load(), Full: s.full.Load(),
	}
}

// Status says how the volume is.
func (v *Volume) Status() Status {
	leased := v.cfg.Lease.Valid()
	v.mu.Lock()
	defer v.mu.Unlock()
	s := Status{
		Generation: v.gen, Revision: v.rec.Revision, Serving: v.serving && v.err == nil && leased,
		Columns: make([]ColumnStatus, len(v.columns)), Tending: v.tending, Slow: v.slowDisks(time.Now()),
	}
	total := model.Bytes(layout.Pages(len(v.columns), v.rec.Size)) * model.PageSize
	for c := range v.columns {
		for _, m := range v.columns[c].members {
			st := MemberStatus{Disk: m.disk, State: m.state}
			st.Silent = m.row == nil && m.state != model.Active || m.row != nil && (m.row.state != live || m.row.failure != nil)
			if m.state == model.Joining {
				st.Fill = Fill{Total: total}
				if f := m.fill; f != nil && f.finished {
					st.Fill.Done = total
				} else if f != nil {
					st.Fill.Done = min(total, model.Bytes(f.cursor)*model.PageSize)
				}
				s.Fill.Done += st.Fill.Done
				s.Fill.Total += st.Fill.Total
			}
			s.Columns[c].Members = append(s.Columns[c].Members, st)
		}
	}
	s.Reason = v.reason(leased)
	return s
}

// reason says why requests wait or fail; v.mu is held.
func (v *Volume) reason(leased bool) string {
	switch {
	case v.err != nil:
		return v.err.Error()
	case !leased:
		return "the node has lost its lease"
	case !v.serving:
		return "the volume is being taken over"
	}
	for c := range v.columns {
		if col := &v.columns[c]; len(col.well()) == 0 {
			for _, m := range col.members {
				if m.state == model.Active {
					return fmt.Sprintf("column %d waits for disk %s, the last one with all of its data", c, m.disk)
				}
			}
		}
	}
	if id := v.waitsForRoom(); id != 0 {
		return fmt.Sprintf("writes wait for room on disk %s", id)
	}
	return ""
}
