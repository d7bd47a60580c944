package disk

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"math"
	"slices"
	"time"

	"drystone.example/drystone/backend/model"
)

// A clone begins as another volume was at the end of an epoch, its origin. Nothing is
// copied when it is made: with the first promise for it a disk notes, durably, which
// columns have an origin. What a clone has of its origin it gets leaf by leaf, when
// the leaf is asked for first, and from inheritAll, which goes over all of them in the
// background and then forgets the origin. To inherit a leaf is one batch: of each of
// its pages the version visible in the origin's epoch becomes a version of the clone,
// in epoch 0 and in the same place, whose count is raised.
//
// Invariants:
//
//   - A leaf is used only when it has what it inherits. Whoever uses one gets it from
//     withLeaf, which sees to it; an op whose leaf was in memory before the origin was
//     noted is made to wait by mustInherit; listings inherit what they list.
//   - Nothing of an origin changes in a leaf, in an epoch its clones see, before they
//     all have inherited that leaf: mustInherit and bequeath. So a clone does not care
//     what becomes of its origin, also when that is deleted.
//   - A place is counted with as many versions as name it (share, unshare; held at each
//     open by rebuildSpace), and never written to while that is more than one.
//
// An origin may be a clone with an origin of its own: to inherit from it makes it
// inherit first.

// originEpoch and originStamp are those of every version that was inherited. A holder
// of the clone writes in later epochs, and its cutoffs are above that stamp.
const originEpoch = model.Epoch(0)

var originStamp = model.Stamp{Number: 1}

const (
	// inheritChunk is about how many versions inheritAll has listed at a time, and
	// inheritTogether how many leaves inherit at once: what fits into a few batches.
	inheritChunk    = 1024
	inheritTogether = 64
	// inheritNap is how long inheritAll waits for a checkpoint before it looks again.
	inheritNap = 20 * time.Millisecond
)

// A columnKey names a column of a volume.
type columnKey struct {
	vol    model.VolumeID
	column uint32
}

// chunkLeaves is how many leaves one value in the map tells of.
const chunkLeaves = 4096

// A leafSet tells which leaves of a chunk have inherited.
type leafSet [chunkLeaves / 64]uint64

// An origin is what a column begins as.
type origin struct {
	vol   model.VolumeID
	epoch model.Epoch

	leaves map[uint32]*leafSet // by chunk
	dirty  map[uint32]struct{} // chunks that the store has not as they are
	fresh  bool                // the store may have leaves of one before it
	next   uint32              // pages below it have inherited
}

// origins are the columns that have not inherited everything. The disk's mutex guards
// it.
type origins struct {
	columns map[columnKey]*origin
	clones  map[columnKey][]model.VolumeID // by the column they begin as
	dirty   map[columnKey]struct{}         // the store has not as they are
}

func newOrigins() origins {
	return origins{
		columns: make(map[columnKey]*origin), clones: make(map[columnKey][]model.VolumeID),
		dirty: make(map[columnKey]struct{}),
	}
}

// of returns the origin from which a leaf has still to inherit, or nil.
func (o *origins) of(k leafKey) *origin {
	if len(o.columns) == 0 {
		return nil
	}
	x := o.columns[columnKey{k.vol, k.column}]
	if x == nil || x.has(k.number) {
		return nil
	}
	return x
}

func (x *origin) has(leaf uint32) bool {
	s := x.leaves[leaf/chunkLeaves]
	return s != nil && s[leaf%chunkLeaves/64]>>(leaf%64)&1 != 0
}

// put notes the origin of a column, or that it has none any more. One that is known
// stays as it is: a journal that is replayed says of old origins again.
func (o *origins) put(k columnKey, vol model.VolumeID, e model.Epoch) {
	o.dirty[k] = struct{}{}
	x := o.columns[k]
	switch {
	case vol == 0 && x != nil:
		source := columnKey{x.vol, k.column}
		o.clones[source] = slices.DeleteFunc(o.clones[source], func(v model.VolumeID) bool { return v == k.vol })
		if len(o.clones[source]) == 0 {
			delete(o.clones, source)
		}
		delete(o.columns, k)
	case vol != 0 && x == nil:
		o.columns[k] = &origin{
			vol: vol, epoch: e, fresh: true,
			leaves: make(map[uint32]*leafSet), dirty: make(map[uint32]struct{}),
		}
		source := columnKey{vol, k.column}
		o.clones[source] = append(o.clones[source], k.vol)
	}
}

// inherited notes that a leaf has inherited.
func (o *origins) inherited(k leafKey) {
	x := o.columns[columnKey{k.vol, k.column}]
	if x == nil {
		return // it is over, as the journal will say
	}
	chunk := k.number / chunkLeaves
	s := x.leaves[chunk]
	if s == nil {
		s = new(leafSet)
		x.leaves[chunk] = s
	}
	s[k.number%chunkLeaves/64] |= 1 << (k.number % 64)
	x.dirty[chunk] = struct{}{}
	o.dirty[columnKey{k.vol, k.column}] = struct{}{}
}

// heirs returns the leaves of clones that have to inherit before anything of epoch e
// changes in a leaf.
func (o *origins) heirs(k leafKey, e model.Epoch) (out []leafKey) {
	for _, vol := range o.clones[columnKey{k.vol, k.column}] {
		heir := leafKey{vol, k.column, k.number}
		if x := o.of(heir); x != nil && e <= x.epoch {
			out = append(out, heir)
		}
	}
	return out
}

// descends reports whether a column is one of a volume or begins as one, also by way
// of others.
func (o *origins) descends(k columnKey, from model.VolumeID) bool {
	for k.vol != from {
		x := o.columns[k]
		if x == nil {
			return false
		}
		k.vol = x.vol
	}
	return true
}

// note puts the origin of a new clone into the batch. A volume that was never promised
// here has nothing that could be inherited: to begin as it would be to begin as zeros.
// An origin is therefore older than its clones, and no volume begins as itself, also not
// by way of others: the number of a deleted volume is never used again.
func (d *Disk) note(b *batch, vol model.VolumeID, from *Origin) error {
	if len(from.Columns) > 0 && d.stateOf(b, from.Volume).promises == 0 {
		return model.Errorf(model.Conflict, "volume %s cannot begin as volume %s, which was never on this disk",
			vol, from.Volume)
	}
	for _, c := range from.Columns {
		b.add(record{
			kind: recOrigin, pageKey: pageKey{vol: vol, column: c},
			origin: from.Volume, ver: version{epoch: from.Epoch},
		})
	}
	b.noted = true
	return nil
}

// check says what is wrong with an origin, whatever the disk holds.
func (o *Origin) check(vol model.VolumeID) error {
	if o.Volume == 0 || o.Volume == vol || len(o.Columns) > model.MaxColumns {
		return model.Errorf(model.Invalid, "volume %s cannot begin as %d columns of volume %s",
			vol, len(o.Columns), o.Volume)
	}
	return nil
}

// inherit gives a leaf what it has to inherit. It is in memory and pinned.
func (d *Disk) inherit(k leafKey) error {
	d.mu.Lock()
	x := d.origins.of(k)
	d.mu.Unlock()
	if x == nil {
		return nil
	}
	from, err := d.pinLeaf(leafKey{x.vol, k.column, k.number})
	if err != nil {
		return err
	}
	defer d.unpinLeaves([]*leaf{from})
	const size = leafPages*(maxRecordSize+refsRecSize) + inheritedRecSize
	return <-d.begin(size, func(b *batch) error {
		d.composeInherit(b, k)
		return nil
	})
}

// composeInherit puts what a leaf inherits into the batch. The leaf it inherits from
// is pinned.
func (d *Disk) composeInherit(b *batch, k leafKey) {
	x := d.origins.of(k)
	if x == nil {
		return // it was dropped meanwhile
	}
	from := leafKey{x.vol, k.column, k.number}
	for i := range leafPages {
		page := k.page(i)
		v := visible(d.versions(b, from.page(i)), x.epoch)
		if _, there := find(d.versions(b, page), originEpoch); v == nil || v.mask == 0 || there {
			continue
		}
		heir := *v
		heir.epoch, heir.stamp = originEpoch, originStamp
		known := damageKey{x.vol, madeKey{k.column, page.page, v.epoch}}
		d.share(b, record{pageKey: page, ver: heir, lost: d.damaged[known].bad & v.mask})
	}
	b.add(record{kind: recInherited, pageKey: k.page(0)})
}

// toInherit lists the leaves that have to inherit before the rest of a task is applied:
// those it touches, and those of clones that see what it changes.
func (d *Disk) toInherit(t *task) (out []leafKey) {
	if len(d.origins.columns) == 0 {
		return nil
	}
	last := int64(-1)
	for i := t.next; i < len(t.parts); i++ {
		k, _ := leafOf(t.key(&t.parts[i]))
		if int64(k.number) == last {
			continue
		}
		last = int64(k.number)
		if d.origins.of(k) != nil {
			out = append(out, k)
		}
		out = append(out, d.origins.heirs(k, t.op.Epoch)...)
	}
	return out
}

// mustInherit reports whether a task has to wait until something has inherited.
func (d *Disk) mustInherit(t *task) bool { return len(d.toInherit(t)) > 0 }

// inheritFor has inherited what a task waits for.
func (d *Disk) inheritFor(t *task) error {
	d.mu.Lock()
	leaves := d.toInherit(t)
	d.mu.Unlock()
	return d.inheritLeaves(leaves)
}

// bequeath has all clones inherit some leaves before they are dropped.
func (d *Disk) bequeath(leaves []*leaf) error {
	d.mu.Lock()
	var heirs []leafKey
	for _, l := range leaves {
		heirs = append(heirs, d.origins.heirs(l.key, 0)...)
	}
	d.mu.Unlock()
	return d.inheritLeaves(heirs)
}

// errHeirs is why leaves are not dropped: a clone was made of them meanwhile.
var errHeirs = errors.New("not inherited yet")

// bequeathed returns nil if nobody has to inherit any of these leaves.
func (d *Disk) bequeathed(leaves []*leaf) error {
	for _, l := range leaves {
		if len(d.origins.heirs(l.key, 0)) > 0 {
			return errHeirs
		}
	}
	return nil
}

// inheritLeaves has leaves inherit, many by one batch.
func (d *Disk) inheritLeaves(leaves []leafKey) error {
	for len(leaves) > 0 {
		n := min(inheritTogether, len(leaves))
		done := make(chan error, n)
		d.mu.Lock()
		for _, k := range leaves[:n] {
			d.withLeaf(k, func(_ *leaf, err error) { done <- err })
		}
		d.mu.Unlock()
		var failed error
		for range n {
			failed = cmp.Or(failed, <-done)
		}
		if failed != nil {
			return failed
		}
		leaves = leaves[n:]
	}
	return nil
}

// inheritRange has a column inherit pages from l.From on, as many as limit versions of
// its origin are in, and returns up to which page it has then.
func (d *Disk) inheritRange(l List, to uint64, limit int) (uint64, error) {
	d.mu.Lock()
	x := d.origins.columns[columnKey{l.Volume, l.Column}]
	d.mu.Unlock()
	if x == nil {
		return to, nil
	}
	found, err := d.list(List{Volume: x.vol, Column: l.Column, From: l.From, Max: limit}, to)
	if err != nil {
		return 0, err
	}
	var leaves []leafKey
	d.mu.Lock()
	for i := range found.Versions {
		k := leafKey{l.Volume, l.Column, found.Versions[i].Page / leafPages}
		if n := len(leaves); (n == 0 || leaves[n-1] != k) && d.origins.of(k) != nil {
			leaves = append(leaves, k)
		}
	}
	d.mu.Unlock()
	if err := d.inheritLeaves(leaves); err != nil {
		return 0, err
	}
	if found.Done {
		return to, nil
	}
	return uint64(found.Next), nil
}

// inheritAll is the goroutine that lets clones inherit what nobody has asked for yet,
// one column after the other, and then forgets their origins. While the disk has other
// work it takes at most half of the time, and never so much memory that others have to
// wait for a checkpoint.
func (d *Disk) inheritAll() {
	others := d.requests()
	for {
		k, from, found := d.nextOrigin()
		if !found {
			select {
			case <-d.heirs:
				continue
			case <-d.stop:
				return
			case <-d.failed:
				return
			}
		}
		begun := time.Now()
		if err := d.inheritSome(k, from); err != nil {
			return // the disk is closing or has failed
		}
		pause := time.Duration(0)
		if now := d.requests(); now != others {
			others, pause = now, time.Since(begun)
		}
		for pause > 0 || d.crowded() {
			select {
			case <-time.After(max(pause, inheritNap)):
				pause = 0
			case <-d.stop:
				return
			}
		}
	}
}

// crowded reports whether so much is to be put into the store that a checkpoint is due.
func (d *Disk) crowded() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err == nil && (d.pages.full() || d.journal.full())
}

// nextOrigin returns a column that has not inherited everything, and where to go on.
func (d *Disk) nextOrigin() (k columnKey, from uint32, found bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for have := range d.origins.columns {
		if !found || cmp.Or(cmp.Compare(have.vol, k.vol), cmp.Compare(have.column, k.column)) < 0 {
			k, found = have, true
		}
	}
	if found {
		from = d.origins.columns[k].next
	}
	return k, from, found
}

// inheritSome has some pages of a column inherit, and forgets the origin after the
// last.
func (d *Disk) inheritSome(k columnKey, from uint32) error {
	if err := d.enter(context.Background()); err != nil {
		return err
	}
	defer d.exit()
	const all = math.MaxUint32 + 1
	end, err := d.inheritRange(List{Volume: k.vol, Column: k.column, From: from}, all, inheritChunk)
	if err != nil {
		return err
	}
	if end < all {
		d.mu.Lock()
		defer d.mu.Unlock()
		if x := d.origins.columns[k]; x != nil && x.next == from {
			x.next = uint32(end)
		}
		return nil
	}
	return <-d.begin(originRecSize, func(b *batch) error {
		d.forgetOrigin(b, k)
		return nil
	})
}

// forgetOrigin puts it into the batch that a column has no origin any more.
func (d *Disk) forgetOrigin(b *batch, k columnKey) {
	if d.origins.columns[k] != nil {
		b.add(record{kind: recOrigin, pageKey: pageKey{vol: k.vol, column: k.column}})
	}
}

// disown forgets the origin of a column that is about to be dropped, so that it does
// not inherit only to lose it again; not if others still inherit from it.
func (d *Disk) disown(ctx context.Context, k columnKey, allowed func(rowState) error) error {
	d.mu.Lock()
	useless := d.origins.columns[k] != nil && len(d.origins.clones[k]) == 0
	d.mu.Unlock()
	if !useless {
		return nil
	}
	return d.do(ctx, originRecSize, func(b *batch) error {
		err := allowed(d.stateOf(b, k.vol))
		if err == nil && len(d.origins.clones[k]) == 0 {
			d.forgetOrigin(b, k)
		}
		return err
	})
}

// columnsOf lists the columns the disk has something of, or has to inherit. The mutex
// is held.
func (d *Disk) columnsOf(vol model.VolumeID) []uint32 {
	all := make(map[uint32]struct{})
	if r := d.rows[vol]; r != nil {
		for c := range r.columns {
			all[c] = struct{}{}
		}
	}
	for k := range d.origins.columns {
		if k.vol == vol {
			all[k.column] = struct{}{}
		}
	}
	return slices.Sorted(maps.Keys(all))
}
