package disk

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

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
		d.share(b, record{pageKey: pageKey{to, column, page}, ver: vs[i]})
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

// CheckSpace counts what the map names and compares it with the space and with what the
// columns are said to have: they are the same at every moment.
func (d *Disk) CheckSpace() error {
	if err := d.enter(context.Background()); err != nil {
		return err
	}
	defer d.exit()
	d.mu.Lock()
	defer d.mu.Unlock()
	was, held := d.space, map[columnKey]holding{}
	for vol, r := range d.rows {
		for c, h := range r.columns {
			held[columnKey{vol, c}] = h
		}
	}
	if err := d.rebuildSpace(); err != nil {
		return err
	}
	now := d.space
	d.space = was
	for vol, r := range d.rows {
		for c, h := range r.columns {
			if k := (columnKey{vol, c}); held[k] != h {
				return fmt.Errorf("column %d of %s is said to have %+v and has %+v", c, vol, held[k], h)
			}
			delete(held, columnKey{vol, c})
		}
	}
	if len(held) > 0 {
		return fmt.Errorf("columns are said to have %+v and have nothing", held)
	}
	for c := range was.room {
		a, b := was.named([]uint32{uint32(c)})[0], now.named([]uint32{uint32(c)})[0]
		if !bytes.Equal(a, b) {
			return fmt.Errorf("chunk %d of the space is %x, and should be %x", c, a[5:], b[5:])
		}
	}
	if was.count() != now.count() {
		return fmt.Errorf("%d places are said to be named, and %d are", was.count(), now.count())
	}
	return nil
}

// SpaceCounted tells whether the disk had to read its whole map when it was opened.
func (d *Disk) SpaceCounted() bool { return d.counted }

// SetMap changes an entry of the map behind the disk's back; nil takes it away.
func (d *Disk) SetMap(key string, value []byte) error {
	if value == nil {
		return d.store.db.Delete([]byte(key), pebble.NoSync)
	}
	return d.store.db.Set([]byte(key), value, pebble.NoSync)
}

// GetMap returns an entry of the map.
func (d *Disk) GetMap(key string) ([]byte, error) { return d.store.get([]byte(key)) }

// FlushMap makes what SetMap changed durable.
func (d *Disk) FlushMap() error { return d.store.flush(d.failed) }

// FreeBehindItsBack marks a place as free, whoever names it.
func (d *Disk) FreeBehindItsBack(p uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.space.clear(place(p))
}
