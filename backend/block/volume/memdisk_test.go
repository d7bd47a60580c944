package volume

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/layout"
	"drystone.example/drystone/backend/model"
)

// A memDisk keeps the contract of disk/op.go in memory. What Apply queued is
// applied and answered together after delay, as a group commit is; a crash loses
// what was queued.
type memDisk struct {
	id    model.DiskID
	delay time.Duration

	mu      sync.Mutex
	room    int   // versions; zero: no bound
	growth  int   // versions, up to which it takes more by writes; zero: as room
	down    error // refuses everything
	uncopy  bool  // refuses copies, for a while
	fenced  int   // how many messages were refused for their generation
	volumes map[model.VolumeID]*memVolume
	queue   []memTask
	busy    bool
}

type memTask struct {
	op   *disk.Op
	done func(error)
}

type memVolume struct {
	promise  model.Generation
	last     uint64
	mark     model.Stamp
	versions map[memKey]*memVersion
	made     map[memKey]model.Stamp // by which message, where that is above mark
}

type memKey struct {
	column, page uint32
	epoch        model.Epoch
}

type memVersion struct {
	disk.Version
	data [16][]byte
	rot  uint16 // blocks that were damaged
}

func newMemDisk(id model.DiskID, delay time.Duration) *memDisk {
	return &memDisk{id: id, delay: delay, volumes: map[model.VolumeID]*memVolume{}}
}

func (d *memDisk) volume(id model.VolumeID) *memVolume {
	if d.volumes[id] == nil {
		d.volumes[id] = &memVolume{versions: map[memKey]*memVersion{}, made: map[memKey]model.Stamp{}}
	}
	return d.volumes[id]
}

// check returns the volume if it has promised gen; d.mu is held.
func (d *memDisk) check(id model.VolumeID, gen model.Generation) (*memVolume, error) {
	if d.down != nil {
		return nil, d.down
	}
	if v := d.volume(id); v.promise == gen {
		return v, nil
	}
	d.fenced++
	return nil, model.Errorf(model.Fenced, "disk %s has not promised generation %d", d.id, gen)
}

func (d *memDisk) setDown(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.down = err
}

// bound sets how many versions it takes by writes and in all; zero is no bound.
func (d *memDisk) bound(growth, room int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.growth, d.room = growth, room
}

// refuseCopies has it not take copies, as if they got lost.
func (d *memDisk) refuseCopies(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.uncopy = on
}

// uncertain is how much it would tell the next holder.
func (d *memDisk) uncertain() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.volume(rigVolume).made)
}

func (d *memDisk) Prepare(_ context.Context, p disk.Prepare) (disk.Promise, error) {
	time.Sleep(d.delay)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.down != nil {
		return disk.Promise{}, d.down
	}
	v := d.volume(p.Volume)
	switch {
	case p.Generation < v.promise:
		d.fenced++
		return disk.Promise{}, model.Errorf(model.Fenced, "disk %s has promised generation %d", d.id, v.promise)
	case p.Generation > v.promise:
		v.promise, v.last = p.Generation, p.Last
	default:
		v.last = max(v.last, p.Last)
	}
	out := disk.Promise{Watermark: v.mark}
	for k, s := range v.made {
		if !s.After(v.mark) {
			continue
		}
		have := disk.Version{Page: k.page, Epoch: k.epoch}
		if x := v.versions[k]; x != nil {
			have = x.Version
		}
		out.Uncertain = append(out.Uncertain, disk.ColumnVersion{Column: k.column, Version: have})
	}
	return out, nil
}

func (d *memDisk) Apply(op *disk.Op, done func(error)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.down != nil {
		go done(d.down)
		return
	}
	d.queue = append(d.queue, memTask{op, done})
	if !d.busy {
		d.busy = true
		go d.commit()
	}
}

func (d *memDisk) commit() {
	for {
		time.Sleep(d.delay)
		d.mu.Lock()
		batch, errs := d.queue, make([]error, len(d.queue))
		d.queue = nil
		if len(batch) == 0 {
			d.busy = false
			d.mu.Unlock()
			return
		}
		for i, t := range batch {
			errs[i] = d.apply(t.op)
		}
		d.mu.Unlock()
		for i, t := range batch {
			t.done(errs[i])
		}
	}
}

func (d *memDisk) apply(op *disk.Op) error {
	v, err := d.check(op.Volume, op.Generation)
	switch {
	case err != nil:
		return err
	case op.Number <= v.last:
		return nil
	case op.Prev != v.last:
		return disk.ErrGap
	}
	var data []byte
	if op.Data != nil {
		data = op.Data.Bytes[op.DataOff:][:len(op.Sums)*blockSize]
	}
	for i, s := range op.Sums {
		if op.Lost == 0 && sumOf(data[i*blockSize:(i+1)*blockSize]) != s {
			return model.Errorf(model.Corrupt, "what was sent does not match its sum")
		}
	}
	if d.uncopy && op.Kind == disk.Copy {
		return errDown
	}
	room := d.room
	if op.Kind == disk.Write && d.growth > 0 {
		room = d.growth
	}
	if room > 0 && len(v.versions) >= room && !v.fits(op) {
		return model.Errorf(model.NoSpace, "disk %s is full", d.id)
	}
	v.last = op.Number
	if op.Watermark.After(v.mark) {
		v.mark = op.Watermark
	}
	v.change(op, data)
	maps.DeleteFunc(v.made, func(_ memKey, s model.Stamp) bool { return !s.After(v.mark) })
	return nil
}

// fits reports whether an op needs no new version.
func (v *memVolume) fits(op *disk.Op) bool {
	switch op.Kind {
	case disk.Write:
		for p := op.Block.Page(); p <= (op.Block + layout.Block(op.Count) - 1).Page(); p++ {
			if v.versions[memKey{op.Column, p, op.Epoch}] == nil {
				return false
			}
		}
		return true
	case disk.Copy:
		return v.versions[memKey{op.Column, op.Page, op.Version.Epoch}] != nil
	case disk.Discard, disk.Remove, disk.Mark:
	}
	return true
}

func (v *memVolume) change(op *disk.Op, data []byte) {
	stamp := model.Stamp{Generation: op.Generation, Number: op.Number}
	switch op.Kind {
	case disk.Write:
		for i := range int(op.Count) {
			b := op.Block + layout.Block(i)
			x := v.own(memKey{op.Column, b.Page(), op.Epoch}, true)
			x.set(b.InPage(), slices.Clone(data[i*blockSize:(i+1)*blockSize]), op.Sums[i])
			x.Stamp = stamp
			v.made[memKey{op.Column, b.Page(), op.Epoch}] = stamp
		}
	case disk.Discard:
		pages := map[uint32]bool{}
		for k := range v.versions {
			if k.column == op.Column {
				pages[k.page] = true
			}
		}
		for page := range pages {
			v.discard(op, page, stamp)
		}
	case disk.Copy:
		x := &memVersion{Version: op.Version, rot: op.Lost}
		n := 0
		for i := range 16 {
			if op.Version.Mask>>i&1 != 0 {
				x.data[i] = slices.Clone(data[n*blockSize : (n+1)*blockSize])
				n++
			}
		}
		k := memKey{op.Column, op.Page, op.Version.Epoch}
		v.versions[k], v.made[k] = x, stamp
	case disk.Remove:
		k := memKey{op.Column, op.Page, op.Version.Epoch}
		delete(v.versions, k)
		v.made[k] = stamp
	case disk.Mark:
	}
}

func (v *memVolume) discard(op *disk.Op, page uint32, stamp model.Stamp) {
	first := layout.FirstBlock(page)
	lo, hi := max(op.Block, first), min(op.Block+layout.Block(op.Count), first+16)
	if lo >= hi {
		return
	}
	x := v.own(memKey{op.Column, page, op.Epoch}, false)
	if x == nil {
		return
	}
	for b := lo; b < hi; b++ {
		x.set(b.InPage(), nil, 0)
	}
	x.Stamp = stamp
	v.made[memKey{op.Column, page, op.Epoch}] = stamp
}

func (x *memVersion) set(i int, data []byte, sum uint32) {
	x.data[i], x.Sums[i] = data, sum
	x.rot &^= 1 << i
	if x.Mask &^= 1 << i; data != nil {
		x.Mask |= 1 << i
	}
}

// own returns the version of k, made of the newest older one if there is none.
func (v *memVolume) own(k memKey, create bool) *memVersion {
	if x := v.versions[k]; x != nil {
		return x
	}
	x := &memVersion{}
	if old := v.newest(k); old != nil {
		*x = *old
	} else if !create {
		return nil
	}
	x.Page, x.Epoch = k.page, k.epoch
	v.versions[k] = x
	return x
}

func (v *memVolume) newest(k memKey) (best *memVersion) {
	for have, x := range v.versions {
		if have.column == k.column && have.page == k.page && have.epoch <= k.epoch && (best == nil || have.epoch > best.Epoch) {
			best = x
		}
	}
	return best
}

func (d *memDisk) Read(_ context.Context, r disk.Read, dst []byte, sums []uint32) error {
	time.Sleep(d.delay)
	d.mu.Lock()
	defer d.mu.Unlock()
	v, err := d.check(r.Volume, r.Generation)
	if err != nil {
		return err
	}
	var bad []layout.Block
	for i := range r.Count {
		b := r.Block + layout.Block(i)
		out := dst[i*blockSize : (i+1)*blockSize]
		x := v.newest(memKey{r.Column, b.Page(), r.Epoch})
		switch {
		case x == nil || x.Mask>>b.InPage()&1 == 0:
			clear(out)
			sums[i] = sumOfZeros
		case x.rot>>b.InPage()&1 != 0:
			bad = append(bad, b)
		default:
			copy(out, x.data[b.InPage()])
			sums[i] = x.Sums[b.InPage()]
		}
	}
	if bad != nil {
		return &disk.CorruptError{Volume: r.Volume, Column: r.Column, Blocks: bad}
	}
	return nil
}

func (d *memDisk) List(_ context.Context, l disk.List) (disk.Listing, error) {
	time.Sleep(d.delay)
	d.mu.Lock()
	defer d.mu.Unlock()
	v, err := d.check(l.Volume, l.Generation)
	if err != nil {
		return disk.Listing{}, err
	}
	out := disk.Listing{Done: true}
	for _, x := range v.sorted(l.Column) {
		if x.Page < l.From || l.To != 0 && x.Page >= l.To {
			continue
		}
		if n := len(out.Versions); n >= l.Max && out.Versions[n-1].Page != x.Page {
			out.Next, out.Done = x.Page, false
			break
		}
		out.Versions = append(out.Versions, x.Version)
	}
	return out, nil
}

func (d *memDisk) Digest(ctx context.Context, l disk.List) (out disk.Digest, err error) {
	l.Max = math.MaxInt
	found, err := d.List(ctx, l)
	out.Versions = len(found.Versions)
	out.Sum = sha256.Sum256(fmt.Append(nil, found.Versions))
	return out, err
}

func (v *memVolume) sorted(column uint32) (out []*memVersion) {
	for k, x := range v.versions {
		if k.column == column {
			out = append(out, x)
		}
	}
	slices.SortFunc(out, func(a, b *memVersion) int {
		return cmp.Or(cmp.Compare(a.Page, b.Page), cmp.Compare(a.Epoch, b.Epoch))
	})
	return out
}

func (d *memDisk) ReadVersion(_ context.Context, vol model.VolumeID, gen model.Generation, column, page uint32,
	epoch model.Epoch, dst []byte,
) (disk.Version, error) {
	time.Sleep(d.delay)
	d.mu.Lock()
	defer d.mu.Unlock()
	v, err := d.check(vol, gen)
	if err != nil {
		return disk.Version{}, err
	}
	x := v.versions[memKey{column, page, epoch}]
	if x == nil {
		return disk.Version{}, model.Errorf(model.NotFound, "no such version")
	}
	if x.rot != 0 {
		return disk.Version{}, &disk.CorruptError{Volume: vol, Column: column, Blocks: []layout.Block{layout.FirstBlock(page)}}
	}
	clear(dst)
	for i, b := range x.data {
		copy(dst[i*blockSize:], b)
	}
	return x.Version, nil
}

// versions returns what the disk holds of a column.
func (d *memDisk) versions(vol model.VolumeID, column uint32) (out []disk.Version) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, x := range d.volume(vol).sorted(column) {
		out = append(out, x.Version)
	}
	return out
}

// crash loses what was queued.
func (d *memDisk) crash() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queue = nil
	d.down = model.Errorf(model.Unavailable, "the disk is down")
}

func (d *memDisk) restart() error {
	d.setDown(nil)
	return nil
}

func (d *memDisk) close() error { return nil }

func (d *memDisk) dump(vol model.VolumeID, _ model.Generation, column uint32) ([]disk.Version, error) {
	return d.versions(vol, column), nil
}
