package disk

import "encoding/binary"

// Checkpoint makes a checkpoint now, between those the keeper makes.
func (d *Disk) Checkpoint() error {
	d.mu.Lock()
	d.users++ // as a call does: Close waits
	d.dirty = true
	before := d.counters.checkpoints.Load()
	d.wantCheckpoint()
	for d.counters.checkpoints.Load() == before && d.err == nil {
		d.work.Wait()
	}
	err := d.err
	d.mu.Unlock()
	d.exit()
	return err
}

// fixSum gives a header the sum of what it says.
func fixSum(b []byte, h header) { binary.LittleEndian.PutUint32(b[8:], sumOf(b[12:h.used])) }
