package disk

import (
	"context"
	"encoding/binary"
	"time"

	"drystone.example/drystone/backend/model"
)

// Checkpoint makes a checkpoint now, between those the keeper makes.
func (d *Disk) Checkpoint() error {
	d.mu.Lock()
	defer d.exit() // as a call does: Close waits
	defer d.mu.Unlock()
	d.users++
	d.dirty = true
	before := d.counters.checkpoints.Load()
	d.wantCheckpoint()
	for d.counters.checkpoints.Load() == before && d.err == nil {
		d.mu.Unlock()
		time.Sleep(100 * time.Microsecond)
		d.mu.Lock()
	}
	return d.err
}

// fixSum gives a header the sum of what it says.
func fixSum(b []byte, h header) { binary.LittleEndian.PutUint32(b[8:], sumOf(b[12:h.used])) }

// Share makes a page of volume to the same version as one of volume from, in the same
// place, as a clone does.
func (d *Disk) Share(ctx context.Context, from, to model.VolumeID, column, page uint32, e model.Epoch) error {
	for _, vol := range []model.VolumeID{from, to} {
		k, _ := leafOf(pageKey{vol, column, page})
		l, err := d.pinLeaf(k)
		if err != nil {
			return err
		}
		defer d.unpinLeaves([]*leaf{l})
	}
	return d.do(ctx, maxRecordSize+12, func(b *batch) error {
		vs := d.versions(b, pageKey{from, column, page})
		i, _ := find(vs, e)
		d.share(b, pageKey{to, column, page}, vs[i], 0)
		return nil
	})
}

// QueuedBytes is what the queue counts.
func (d *Disk) QueuedBytes() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.queuedBytes
}

// Inherits tells how many columns have not inherited everything.
func (d *Disk) Inherits() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.origins.columns)
}
