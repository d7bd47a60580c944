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

// checkpoint brings the map in the store up to where the journal is when it begins,
// and moves the journal's tail there. The store's map is always that of one position,
// exactly: what changes meanwhile is kept as it was, and all goes into it as one
// batch, of which a crash leaves all or nothing. So replay repeats what happened.
func (d *Disk) checkpoint() error {
	b := d.store.db.NewBatch()
	head, leaves, err := d.freeze(b)
	if err != nil {
		return err
	}
	if err := d.applyRound(); err != nil {
		return err
	}
	if err := d.area.Do(&uring.Request{Kind: uring.Sync}); err != nil {
		return fmt.Errorf("sync pages: %w", err)
	}
	if err := d.flushMap(b, head, leaves); err != nil {
		return fmt.Errorf("checkpoint map: %w", err)
	}
	d.super.tail = head
	if err := writeSuper(d.area, &d.super); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.journal.tail = head
	d.pages.evict(2 * len(d.pages.clock))
	d.counters.checkpoints.Add(1)
	d.work.Broadcast()
	return nil
}

// freeze begins a checkpoint: it puts what is small into the batch, and returns the
// leaves that have to be.
func (d *Disk) freeze(b *pebble.Batch) (head position, leaves []*leaf, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	head = d.journal.head
	d.wanted, d.dirty = false, false
	if d.timer != nil {
		d.timer.Stop()
	}
	if err := d.putCounts(b, head); err != nil {
		return head, nil, err
	}
	if err := errors.Join(d.putRows(b), d.putDamage(b)); err != nil {
		return head, nil, err
	}
	return head, d.pages.freeze(), nil
}

// flushMap puts the rest of what changed into the batch, and the batch into the store,
// durably. Until it is there, what is in memory counts.
func (d *Disk) flushMap(b *pebble.Batch, head position, leaves []*leaf) error {
	const together = 64
	for list := leaves; len(list) > 0; {
		n := min(together, len(list))
		if err := d.putLeaves(b, list[:n]); err != nil {
			return err
		}
		list = list[n:]
	}
	if err := d.putSpace(b); err != nil {
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
	d.mu.Lock()
	for _, l := range leaves {
		l.flushing = 0
	}
	d.mu.Unlock()
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

// putLeaves puts some leaves into a checkpoint's batch.
func (d *Disk) putLeaves(b *pebble.Batch, list []*leaf) error {
	pages, gone := make([][]keptPage, len(list)), make([][]goneVersion, len(list))
	d.mu.Lock()
	for i, l := range list {
		pages[i], gone[i] = l.thaw()
	}
	d.mu.Unlock()
	var key, value []byte
	for i, l := range list {
		for _, g := range gone[i] {
			key = pageKeyOf(key, l.key.page(g.page), g.epoch)
			if err := b.Delete(key, nil); err != nil {
				return err
			}
		}
		for _, p := range pages[i] { // after the deletions: one may have come back
			for v := range p.versions {
				key = pageKeyOf(key, l.key.page(p.page), p.versions[v].epoch)
				value = appendVersion(value[:0], &p.versions[v])
				if err := b.Set(key, value, nil); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// putRows puts the rows, reference counts and origins that changed into a batch. The
// mutex is held.
func (d *Disk) putRows(b *pebble.Batch) error {
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
