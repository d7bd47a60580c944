package disk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"

	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/uring"
)

// A replay collects what the journal has that is perhaps not in place: for each
// block the place in the area where its newest content lies. As in an overlay, what
// is left by its version is forgotten, so that in the end nothing is applied to a
// place that another page owns by now.
type replay struct {
	pending map[place]*pendingBlocks
	payload int64 // of the batch being replayed, in the area
	doubt   error // the journal contradicts the map
}

type pendingBlocks struct {
	mask uint16
	at   [model.BlocksPerPage]int64
	sum  [model.BlocksPerPage]uint32
}

func newReplay() *replay { return &replay{pending: make(map[place]*pendingBlocks)} }

// forgetPending drops what waits to be written in place for some blocks.
func (d *Disk) forgetPending(p place, mask uint16) {
	if d.replaying == nil {
		d.overlay.forget(p, mask)
		return
	}
	if b := d.replaying.pending[p]; b != nil {
		if b.mask &^= mask; b.mask == 0 {
			delete(d.replaying.pending, p)
		}
	}
}

// putPending adds a block that waits to be written in place: block number index of
// the batch's payload.
func (d *Disk) putPending(p place, block int, buf *iobuf.Buffer, index int, r *record) {
	if d.replaying == nil {
		d.overlay.put(p, block, blockRef{buf: buf, index: uint32(index)})
		return
	}
	b := d.replaying.pending[p]
	if b == nil {
		b = new(pendingBlocks)
		d.replaying.pending[p] = b
	}
	b.mask |= 1 << block
	b.at[block] = d.replaying.payload + int64(index*blockSize)
	b.sum[block] = r.ver.sums[block]
}

// replayLoaders is how many leaves are read at once for a replay: as long as it lasts,
// nothing else wants the disk.
const replayLoaders = 32

// fetchLeaves brings the part of the map that the journal will change into memory, in
// order and many at once; one after the other, in the journal's order, they would take
// minutes. It returns what lets them go again.
func (d *Disk) fetchLeaves(ctx context.Context, from position) (release func(), err error) {
	wanted := make(map[leafKey]struct{})
	r := ringReader{area: d.area, j: d.journal, buf: iobuf.Aligned(4 * maxBatch)}
	_, err = d.journal.walk(&r, func(p position, records []record, _ int64) {
		for i := range records {
			if k := records[i].kind; p.lsn >= from.lsn && (k == recVersion || k == recShared || k == recGone) {
				lk, _ := leafOf(records[i].pageKey)
				wanted[lk] = struct{}{}
			}
		}
	})
	if err != nil {
		return nil, err
	}
	keys := slices.SortedFunc(maps.Keys(wanted), leafKey.compare)
	leaves, errs := make([]*leaf, len(keys)), make([]error, replayLoaders)
	var next atomic.Int64
	var wait sync.WaitGroup
	for i := range errs {
		wait.Go(func() {
			for errs[i] == nil {
				at := int(next.Add(1)) - 1
				if at >= len(keys) {
					return
				}
				if errs[i] = ctx.Err(); errs[i] == nil {
					leaves[at], errs[i] = d.store.load(keys[at])
				}
			}
		})
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range leaves {
		l.pins++
		d.pages.insert(l)
	}
	return func() { d.unpinLeaves(leaves) }, nil
}

// replayBatch installs the records of one batch.
func (d *Disk) replayBatch(records []record, payload int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.replaying.payload = payload
	for i := range records {
		r := &records[i]
		version := r.kind == recVersion || r.kind == recShared
		if version && r.ver.place != noPlace && uint32(r.ver.place) >= d.super.pages {
			return model.Errorf(model.Corrupt, "the journal names place %d, which is not there", r.ver.place)
		}
		if version || r.kind == recGone {
			k, _ := leafOf(r.pageKey)
			if d.pages.get(k) == nil {
				l, err := d.store.load(k) // the journal read otherwise the first time
				if err != nil {
					return err
				}
				l.pins++ // the map may be over its bound; this one is about to be dirty
				d.pages.insert(l)
				l.pins--
			}
		}
		d.installRecord(r, nil)
	}
	return d.replaying.doubt
}

// A movement is one block on its way from the journal to its place.
type movement struct {
	place place
	block int
	at    int64
	sum   uint32
}

// finishReplay writes in place what the journal has, now that the final map is
// known: in order of the journal, some blocks at a time.
func (d *Disk) finishReplay() error {
	var all []movement
	for p, b := range d.replaying.pending {
		for left := b.mask; left != 0; left &= left - 1 {
			i := bits.TrailingZeros16(left)
			all = append(all, movement{p, i, b.at[i], b.sum[i]})
		}
	}
	slices.SortFunc(all, func(a, b movement) int { return cmp.Compare(a.at, b.at) })
	const together = 64
	for len(all) > 0 {
		n := min(together, len(all))
		if err := d.moveBlocks(all[:n]); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}

func (d *Disk) moveBlocks(ms []movement) error {
	buf := iobuf.Get(len(ms) * blockSize)
	defer buf.Release()
	runs := make([]diskRun, 0, len(ms))
	for i, m := range ms {
		runs = appendRun(runs, m.at, buf.Bytes[i*blockSize:][:blockSize])
	}
	d.readRuns(runs)
	done := make(chan error, len(ms))
	under := 0
	for i, m := range ms {
		b := buf.Bytes[i*blockSize:][:blockSize]
		if sumOf(b) != m.sum {
			continue // it was right a moment ago; a read of the block will say so
		}
		under++
		d.area.Start(&uring.Request{
			Kind: uring.Write, Off: d.offset(m.place, m.block), Bufs: [][]byte{b},
			Done: func(err error) { done <- err },
		})
	}
	var failed error
	for range under {
		if err := <-done; err != nil {
			failed = fmt.Errorf("write in place: %w", err)
		}
	}
	return failed
}
