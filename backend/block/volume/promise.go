package volume

import (
	"context"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/model"
)

// obtain gets a joining member what it needs before anything may be sent to it:
// a row that began after it joined. If its disk has one that is whole, that is
// it; else the disk promises, also when it did so before in this generation,
// which makes everything old on its way to it too late. v.mu is held.
func (v *Volume) obtain(c int, m *member) {
	r := v.rows[m.disk]
	switch {
	case r != nil && r.state == live && r.failure == nil:
		v.give(c, m, r)
	case r == nil && !v.promising[m.disk]:
		v.promising[m.disk] = true
		id, last := m.disk, v.number
		v.work.Go(func() { v.promise(id, last) })
	}
}

// promise asks a disk and makes a row of the answer.
func (v *Volume) promise(id model.DiskID, last uint64) {
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
	var r *row
	for c := range v.columns {
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
