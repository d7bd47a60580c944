package disk

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"

	"drystone.example/drystone/backend/model"
)

// do has a batch run what changes durable state and waits until that is durable.
// When the context ends first it may become so at any moment.
func (d *Disk) do(ctx context.Context, size int, run func(b *batch) error) error {
	select {
	case err := <-d.begin(size, run):
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// begin is do without the wait.
func (d *Disk) begin(size int, run func(b *batch) error) <-chan error {
	c := &control{size: size, run: run, done: make(chan error, 1)}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.users++ // until it is done, whoever waits
	d.control = append(d.control, c)
	d.work.Signal()
	return c.done
}

// Prepare makes a promise for a volume durable: to refuse every other generation.
// It tells what the disk knows. A lower generation than the one promised is
// refused with model.Fenced; the same one begins the row anew.
func (d *Disk) Prepare(ctx context.Context, p Prepare) (Promise, error) {
	if p.Generation == 0 || p.Volume == 0 {
		return Promise{}, model.Errorf(model.Invalid, "a promise without a volume or a generation")
	}
	size := rowRecSize
	if p.Origin != nil {
		if err := p.Origin.check(p.Volume); err != nil {
			return Promise{}, err
		}
		size += originRecSize * len(p.Origin.Columns)
	}
	if err := d.enter(ctx); err != nil {
		return Promise{}, err
	}
	defer d.exit()
	err := d.do(ctx, size, func(b *batch) error {
		r := d.rowOf(p.Volume)
		s := b.state(r)
		switch {
		case p.Generation < s.generation:
			return model.Errorf(model.Fenced, "volume %s is promised to generation %d, not %d",
				p.Volume, s.generation, p.Generation)
		case p.Generation == s.generation:
			s.last = max(s.last, p.Last)
		default:
			s.generation, s.last = p.Generation, p.Last
		}
		if p.Origin != nil && s.promises == 0 {
			if err := d.note(b, p.Volume, p.Origin); err != nil {
				return err
			}
		}
		s.promises++
		b.setState(r, s)
		return nil
	})
	if err != nil {
		return Promise{}, err
	}
	if p.Origin != nil {
		select {
		case d.heirs <- struct{}{}:
		default:
		}
	}
	return d.promise(p.Volume)
}

// promise tells what is uncertain. Nothing changes it meanwhile: whoever held the
// volume is refused by now, and the new holder waits for this.
func (d *Disk) promise(vol model.VolumeID) (Promise, error) {
	d.mu.Lock()
	r := d.rowOf(vol)
	out := Promise{Watermark: r.state.watermark}
	keys := r.uncertain.keys()
	d.mu.Unlock()
	for _, k := range keys {
		v := Version{Page: k.page, Epoch: k.epoch}
		lk, i := leafOf(pageKey{vol, k.column, k.page})
		l, err := d.pinLeaf(lk)
		if err != nil {
			return Promise{}, err
		}
		d.mu.Lock()
		l.pins--
		if at, ok := find(l.pages[i], k.epoch); ok {
			v = l.pages[i][at].export(k.page)
		}
		d.mu.Unlock()
		out.Uncertain = append(out.Uncertain, ColumnVersion{Column: k.column, Version: v})
	}
	return out, nil
}

// List tells which versions of a column the disk holds.
func (d *Disk) List(ctx context.Context, l List) (Listing, error) {
	if err := d.enter(ctx); err != nil {
		return Listing{}, err
	}
	defer d.exit()
	d.mu.Lock()
	r := d.rows[l.Volume]
	fenced := l.Generation == 0 || r == nil || r.state.generation != l.Generation
	d.mu.Unlock()
	if fenced {
		return Listing{}, model.Errorf(model.Fenced,
			"volume %s is not promised to generation %d", l.Volume, l.Generation)
	}
	to := uint64(l.To)
	if to == 0 {
		to = math.MaxUint32 + 1
	}
	return d.list(l, to)
}

// maxListing bounds how many versions are listed at once.
const maxListing = 4096

// list lists the versions of pages [l.From, to). A column inherits what is listed of
// it.
func (d *Disk) list(l List, to uint64) (Listing, error) {
	limit := l.Max
	if limit <= 0 || limit > maxListing {
		limit = maxListing
	}
	end, err := d.inheritRange(l, to, limit)
	if err != nil {
		return Listing{}, err
	}
	out, err := d.listHeld(l, end, limit)
	if err == nil && out.Done && end < to {
		out.Done, out.Next = false, uint32(end)
	}
	return out, err
}

// listHeld lists the versions of pages [l.From, to): those that changed since they
// were put into the store from memory, the others from the store. Memory is
// looked at first: what leaves it until the store is read is in the store then.
func (d *Disk) listHeld(l List, to uint64, limit int) (Listing, error) {
	changed, end := d.changedPages(l, to, limit)
	out := Listing{Done: end == to}
	last := int64(-1) // page of the last version in out
	full := func(page uint32) bool {
		return len(out.Versions) >= limit && int64(page) != last
	}
	stop := uint64(0)
	take := func(page uint32, vs ...version) bool {
		if full(page) {
			stop = uint64(page)
			return false
		}
		for i := range vs {
			out.Versions = append(out.Versions, vs[i].export(page))
			last = int64(page)
		}
		return true
	}
	next := 0 // of changed
	err := d.store.scan(l.Volume, l.Column, l.From, end, func(page uint32, v version) bool {
		for next < len(changed) && changed[next].page < page {
			if !take(changed[next].page, changed[next].versions...) {
				return false
			}
			next++
		}
		if next < len(changed) && changed[next].page == page {
			return true // memory knows better
		}
		return take(page, v)
	})
	for ; err == nil && stop == 0 && next < len(changed); next++ {
		take(changed[next].page, changed[next].versions...)
	}
	if err != nil {
		d.mu.Lock()
		d.fail(err)
		d.mu.Unlock()
		return Listing{}, err
	}
	switch {
	case stop > 0:
		out.Next, out.Done = uint32(stop), false
	case !out.Done:
		out.Next = uint32(end)
	}
	return out, nil
}

type changedPage struct {
	page     uint32
	versions []version
}

// changedPages returns the pages of which memory knows more than the store, in
// order, and up to which page these are all of them.
func (d *Disk) changedPages(l List, to uint64, limit int) (out []changedPage, end uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var leaves []*leaf
	for _, lf := range d.pages.clock {
		if lf.key.vol == l.Volume && lf.key.column == l.Column && lf.dirty|lf.flushing != 0 &&
			uint64(lf.key.number)*leafPages < to && lf.key.number >= l.From/leafPages {
			leaves = append(leaves, lf)
		}
	}
	slices.SortFunc(leaves, func(a, b *leaf) int {
		return int(int64(a.key.number) - int64(b.key.number))
	})
	for _, lf := range leaves {
		if len(out) > limit {
			return out, uint64(lf.key.number) * leafPages
		}
		for i := range lf.pages {
			page := lf.key.number*leafPages + uint32(i)
			if (lf.dirty|lf.flushing)&(1<<i) == 0 || page < l.From || uint64(page) >= to {
				continue
			}
			out = append(out, changedPage{page, append([]version(nil), lf.pages[i]...)})
		}
	}
	return out, to
}

// Held lists the columns the disk has versions of, or has to inherit, in no order.
func (d *Disk) Held(ctx context.Context) ([]Held, error) {
	if err := d.enter(ctx); err != nil {
		return nil, err
	}
	defer d.exit()
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []Held
	for vol, r := range d.rows {
		for column, h := range r.columns {
			out = append(out, Held{
				Volume: vol, Column: column, Promises: r.state.promises,
				Bytes: model.Bytes(h.pages) * model.PageSize,
			})
		}
	}
	for k := range d.origins.columns {
		r := d.rowOf(k.vol)
		if _, listed := r.columns[k.column]; !listed {
			out = append(out, Held{Volume: k.vol, Column: k.column, Promises: r.state.promises})
		}
	}
	return out, nil
}

// dropChunk is how many versions one batch drops.
const dropChunk = 500

// Drop frees all versions of a column, unless the volume's promises are no longer
// as many as given: then it is model.Conflict. Interrupted, it may be
// repeated.
func (d *Disk) Drop(ctx context.Context, vol model.VolumeID, column uint32, promises uint64) error {
	if err := d.enter(ctx); err != nil {
		return err
	}
	defer d.exit()
	return d.drop(ctx, vol, column, func(s rowState) error {
		if s.promises != promises {
			return model.Errorf(model.Conflict, "volume %s was promised again meanwhile", vol)
		}
		return nil
	})
}

func (d *Disk) drop(ctx context.Context, vol model.VolumeID, column uint32,
	allowed func(rowState) error,
) error {
	k := columnKey{vol, column}
	if err := d.disown(ctx, k, allowed); err != nil {
		return err
	}
	l := List{Volume: vol, Column: column, Max: dropChunk}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		found, err := d.list(l, math.MaxUint32+1)
		if err != nil {
			return err
		}
		for len(found.Versions) > 0 {
			n := min(dropChunk, len(found.Versions))
			if err := d.dropVersions(ctx, vol, column, found.Versions[:n], allowed); err != nil {
				return err
			}
			found.Versions = found.Versions[n:]
		}
		if found.Done {
			break
		}
		l.From = found.Next
	}
	const size = 16 + originRecSize
	return d.do(ctx, size, func(b *batch) error {
		err := allowed(d.stateOf(b, vol))
		if err == nil {
			d.forgetOrigin(b, k)
			b.add(record{kind: recSettled, pageKey: pageKey{vol: vol, column: column}})
		}
		return err
	})
}

func (d *Disk) dropVersions(ctx context.Context, vol model.VolumeID, column uint32, vs []Version,
	allowed func(rowState) error,
) error {
	var pinned []*leaf
	defer func() { d.unpinLeaves(pinned) }()
	for _, v := range vs {
		k, _ := leafOf(pageKey{vol, column, v.Page})
		if n := len(pinned); n > 0 && pinned[n-1].key == k {
			continue
		}
		l, err := d.pinLeaf(k)
		if err != nil {
			return err
		}
		pinned = append(pinned, l)
	}
	const size = 40 + refsRecSize // of a record and a count
	for {
		if err := d.bequeath(pinned); err != nil {
			return err
		}
		// It relies on the leaves, so they stay pinned until it is done.
		err := d.do(context.WithoutCancel(ctx), len(vs)*size, func(b *batch) error {
			if err := cmp.Or(allowed(d.stateOf(b, vol)), d.bequeathed(pinned)); err != nil {
				return err
			}
			for _, v := range vs {
				d.gone(b, pageKey{vol, column, v.Page}, v.Epoch, model.Stamp{})
			}
			return nil
		})
		if !errors.Is(err, errHeirs) {
			return err
		}
	}
}

// stateOf returns the state of a volume's row as of here in the batch; zero if
// there is none.
func (d *Disk) stateOf(b *batch, vol model.VolumeID) rowState {
	if r := d.rows[vol]; r != nil {
		return b.state(r)
	}
	return rowState{}
}

// DropVolume frees everything of a deleted volume and forgets its promise; without
// one, every message for it is refused.
func (d *Disk) DropVolume(ctx context.Context, vol model.VolumeID) error {
	if err := d.enter(ctx); err != nil {
		return err
	}
	defer d.exit()
	// First the promise: nothing can be written any more after that.
	err := d.do(ctx, 12, func(b *batch) error {
		if d.stateOf(b, vol) != (rowState{}) {
			b.setState(d.rowOf(vol), rowState{}) // that is: none
		}
		return nil
	})
	if err != nil {
		return err
	}
	d.mu.Lock()
	columns := d.columnsOf(vol)
	d.mu.Unlock()
	for _, c := range columns {
		err := d.drop(ctx, vol, c, func(s rowState) error {
			if s.generation != 0 {
				return model.Errorf(model.Conflict, "volume %s is promised again", vol)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
