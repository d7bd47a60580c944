package volume

import (
	"context"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/model"
)

// obtain gets a joining member what it needs before anything may be listed on it
// or sent to it: a promise given after it joined, and a row. The promise keeps the
// disk's node from freeing what the disk held when it was no member (a disk that
// has promised again frees nothing, see disk.Held). A disk that has no row yet
// begins one, which makes everything old on its way to it too late; one whose row
// is whole keeps it, for what it was sent before comes before. v.mu is held.
func (v *Volume) obtain(m *member) {
	r := v.rows[m.disk]
	if v.promising[m.disk] || r != nil && (r.state != live || r.failure != nil) {
		return
	}
	v.promising[m.disk] = true
	id, last := m.disk, v.number
	if r != nil {
		last = 0 // the row goes on where it is
	}
	// Who joins after this moment needs a promise given after that.
	var columns []int
	for c := range v.columns {
		if o := v.columns[c].member(id); o != nil && o.state == model.Joining && o.row == nil {
			columns = append(columns, c)
		}
	}
	v.work.Go(func() { v.promise(id, r, last, columns) })
}

// promise asks a disk for the columns it joined, and makes a row of the answer
// unless it has one.
func (v *Volume) promise(id model.DiskID, r *row, last uint64, columns []int) {
	d, local, err := v.cfg.Disks.Disk(id)
	if err == nil && !v.plant.skipPromise {
		ctx, cancel := context.WithTimeout(v.ctx, v.cfg.Timeout)
		_, err = d.Prepare(ctx, disk.Prepare{Volume: v.id, Generation: v.gen, Last: last})
		cancel()
	}
	v.mu.Lock()
	defer v.unlock()
	delete(v.promising, id)
	if v.err != nil {
		return
	}
	if model.CodeOf(err) == model.Fenced {
		v.end(err)
		return
	}
	if v.rows[id] != r || r != nil && (r.state != live || r.failure != nil) {
		return // the row ended meanwhile, and the member with it
	}
	for _, c := range columns {
		m := v.columns[c].member(id)
		if m == nil || m.state != model.Joining || m.row != nil {
			continue
		}
		if err != nil {
			m.refused, v.change = err, true
			continue
		}
		if r == nil && v.plant.skipPromise {
			last = v.lastSentTo[id]
		}
		if r == nil {
			r = v.newRow(id, d, local, last)
		}
		v.give(c, m, r)
	}
}

// newRow begins a row after number last; v.mu is held.
func (v *Volume) newRow(id model.DiskID, d Disk, local bool, last uint64) *row {
	r := &row{v: v, id: id, disk: d, local: local, last: last}
	v.rows[id] = r
	return r
}
