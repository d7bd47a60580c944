package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/bits"

	"github.com/cockroachdb/pebble/v2"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/uring"
)

// keep is the goroutine that writes in place what the journal holds, and moves the
// journal's tail. It sleeps while there is nothing to do.
func (d *Disk) keep() {
	for {
		d.mu.Lock()
		for d.err == nil && !d.wanted && d.overlay.bytes < roundSize && !d.lastChance() {
			d.chores.Wait()
		}
		if failed := d.err; failed != nil || d.lastChance() && !d.dirty {
			d.mu.Unlock()
			if failed != nil {
				d.log.Error("disk failed",
					slog.String("disk", d.super.disk.String()), slog.Any("err", failed))
			}
			return
		}
		checkpoint := d.wanted || d.lastChance()
		d.mu.Unlock()
		var err error
		if checkpoint {
			err = d.checkpoint()
		} else {
			err = d.applyRound()
		}
		if err != nil {
			d.mu.Lock()
			d.fail(err)
			d.mu.Unlock()
		}
	}
}

// lastChance reports whether the disk is closing and nothing changes any more.
func (d *Disk) lastChance() bool { return d.closing && d.users == 0 }

// applyRound writes in place what is pending now. When it returns, that is in
// place, but not durable there.
func (d *Disk) applyRound() error {
	d.mu.Lock()
	places := d.overlay.begin()
	round := d.overlay.round
	for _, p := range places {
		d.space.pin(p) // it is not used for another page while it is written
	}
	d.mu.Unlock()

	err := d.writeInPlace(places, round)

	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		return err // the round stays: what is in flight may still be read
	}
	d.overlay.end()
	for _, p := range places {
		d.space.unpin(p)
	}
	d.work.Signal()
	return nil
}

// inPlaceMax is how many writes in place are under way at once: few, because the
// journal waits behind them for the device.
const inPlaceMax = 8

// writeInPlace writes the blocks of a round, neighbours together.
func (d *Disk) writeInPlace(places []place, round map[place]*blocks) error {
	done := make(chan error, inPlaceMax)
	under := 0
	var failed error
	finish := func(limit int) {
		for under > limit {
			if err := <-done; err != nil && failed == nil {
				failed = fmt.Errorf("write in place: %w", err)
			}
			under--
		}
	}
	for _, p := range places {
		b := round[p]
		for left := b.mask; left != 0 && failed == nil; {
			first := bits.TrailingZeros16(left)
			q := &uring.Request{
				Kind: uring.Write, Off: d.offset(p, first), Done: func(err error) { done <- err },
			}
			for i := first; i < model.BlocksPerPage && left&(1<<i) != 0; i++ {
				q.Bufs = append(q.Bufs, b.at[i].bytes())
				left &^= 1 << i
			}
			finish(inPlaceMax - 1)
			under++
			d.area.Start(q)
		}
	}
	finish(0)
	return failed
}

// checkpoint brings the map in the store up to where the journal is now, and moves
// the journal's tail there. A crash at any point of it leaves the old tail, from
// where a replay ends at the same map, for records are absolute.
func (d *Disk) checkpoint() error {
	d.mu.Lock()
	head := d.journal.head
	d.wanted, d.dirty = false, false
	if d.timer != nil {
		d.timer.Stop()
	}
	d.mu.Unlock()

	if err := d.applyRound(); err != nil {
		return err
	}
	if err := d.area.Do(&uring.Request{Kind: uring.Sync}); err != nil {
		return fmt.Errorf("sync pages: %w", err)
	}
	if err := d.flushMap(head); err != nil {
		return fmt.Errorf("checkpoint map: %w", err)
	}
	d.super.tail = head
	if err := writeSuper(d.area, &d.super); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.journal.tail = head
	d.pages.evict()
	d.counters.checkpoints.Add(1)
	d.work.Broadcast()
	return nil
}

// A flushLeaf is what a checkpoint takes of a leaf.
type flushLeaf struct {
	leaf  *leaf
	taken uint16
	pages [leafPages][]version
	gone  []goneVersion
}

// flushMap puts what changed into the store, then the position from which on the
// journal is not in it, and makes both durable.
func (d *Disk) flushMap(head position) error {
	d.mu.Lock()
	list := d.pages.dirty
	d.pages.dirty = nil
	d.mu.Unlock()

	const together = 64
	for len(list) > 0 {
		n := min(together, len(list))
		if err := d.flushLeaves(list[:n]); err != nil {
			return err
		}
		list = list[n:]
	}
	b := d.store.db.NewBatch()
	if err := errors.Join(d.putRows(b), d.putDamage(b)); err != nil {
		return err
	}
	d.mu.Lock()
	counts := appendPair([]byte{valueVersion}, d.checksumErrors, d.repaired)
	scrubbed := d.scrub.value()
	d.mu.Unlock()
	if err := b.Set(metaCounters, counts, nil); err != nil {
		return err
	}
	if err := b.Set(metaScrub, scrubbed, nil); err != nil {
		return err
	}
	at := appendPair([]byte{valueVersion}, head.lsn, uint64(head.offset))
	if err := b.Set(metaPosition, at, nil); err != nil {
		return err
	}
	if err := b.Commit(pebble.NoSync); err != nil {
		return err
	}
	return d.store.flush(d.failed)
}

// flush makes what was put durable, unless failed is closed.
func (s *store) flush(failed <-chan struct{}) error {
	done, err := s.db.AsyncFlush()
	if err != nil {
		return err
	}
	select {
	case <-done:
	case <-failed:
		return errFlush
	}
	select {
	case <-failed: // what pebble was told since is not true
		return errFlush
	default:
		return nil
	}
}

var errFlush = model.Errorf(model.Internal, "the page map could not be flushed")

// flushLeaves puts some leaves into the store. Until they are there, what is in
// memory counts.
func (d *Disk) flushLeaves(list []*leaf) error {
	taken := make([]flushLeaf, len(list))
	d.mu.Lock()
	for i, l := range list {
		f := &taken[i]
		f.leaf, f.taken, f.gone = l, l.dirty, l.gone
		for p := range l.pages {
			if l.dirty&(1<<p) != 0 {
				f.pages[p] = append([]version(nil), l.pages[p]...)
			}
		}
		l.flushing, l.dirty, l.gone, l.listed = l.dirty, 0, nil, false
	}
	d.mu.Unlock()

	b := d.store.db.NewBatch()
	var key, value []byte
	for i := range taken {
		f := &taken[i]
		for _, g := range f.gone {
			key = pageKeyOf(key, f.leaf.key.page(g.page), g.epoch)
			if err := b.Delete(key, nil); err != nil {
				return err
			}
		}
		for p := range f.pages { // after the deletions: one may have come back
			for v := range f.pages[p] {
				ver := &f.pages[p][v]
				key = pageKeyOf(key, f.leaf.key.page(p), ver.epoch)
				value = appendVersion(value[:0], ver)
				if err := b.Set(key, value, nil); err != nil {
					return err
				}
			}
		}
	}
	if err := b.Commit(pebble.NoSync); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range taken {
		taken[i].leaf.flushing = 0
	}
	return nil
}

// putRows puts the rows, reference counts and origins that changed into a batch.
func (d *Disk) putRows(b *pebble.Batch) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for vol, r := range d.rows {
		if !r.dirty {
			continue
		}
		r.dirty = false
		var err error
		if r.known {
			err = b.Set(rowKey(vol), rowValue(r.state, &r.uncertain), nil)
		} else {
			err = b.Delete(rowKey(vol), nil)
		}
		if err != nil {
			return err
		}
		if r.idle() {
			delete(d.rows, vol)
		}
	}
	for p := range d.dirtyRefs {
		var err error
		if n := d.refs[p]; n > 1 {
			err = b.Set(refsKey(p), binary.LittleEndian.AppendUint32([]byte{valueVersion}, n), nil)
		} else {
			err = b.Delete(refsKey(p), nil)
		}
		if err != nil {
			return err
		}
	}
	clear(d.dirtyRefs)
	return d.putOrigins(b)
}
