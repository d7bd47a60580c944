package disk_test

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"math/bits"
	"slices"

	"github.com/google/go-cmp/cmp"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/layout"
	"drystone.example/drystone/backend/model"
)

// A world is what a disk should hold, in the simplest form: maps.
type world struct {
	volumes map[model.VolumeID]*volume
}

type volume struct {
	promised  bool
	gen       model.Generation
	last      uint64
	watermark model.Stamp
	promises  uint64
	versions  map[where]disk.Version
	uncertain map[where]model.Stamp // the op that made it
}

type where struct {
	column, page uint32
	epoch        model.Epoch
}

func newWorld() *world { return &world{volumes: make(map[model.VolumeID]*volume)} }

func (w *world) volume(id model.VolumeID) *volume {
	v := w.volumes[id]
	if v == nil {
		v = &volume{versions: make(map[where]disk.Version), uncertain: make(map[where]model.Stamp)}
		w.volumes[id] = v
	}
	return v
}

func (w *world) clone() *world {
	out := newWorld()
	for id, v := range w.volumes {
		c := *v
		c.versions, c.uncertain = maps.Clone(v.versions), maps.Clone(v.uncertain)
		out.volumes[id] = &c
	}
	return out
}

// places is how many pages of the raw area the versions take.
func (w *world) places() (n int) {
	for _, v := range w.volumes {
		for _, ver := range v.versions {
			if ver.Mask != 0 {
				n++
			}
		}
	}
	return n
}

func (v *volume) visible(column, page uint32, e model.Epoch) (disk.Version, bool) {
	for ; ; e-- {
		if ver, ok := v.versions[where{column, page, e}]; ok {
			return ver, true
		}
		if e == 0 {
			return disk.Version{}, false
		}
	}
}

// judge says how an op must be answered: by an error's code, or by nothing; apply
// tells whether it changes anything.
func (w *world) judge(op *disk.Op) (want error, apply bool) {
	v := w.volume(op.Volume)
	switch {
	case op.Generation != v.gen:
		return model.Errorf(model.Fenced, "fenced"), false
	case op.Number <= v.last:
		return nil, false
	case op.Prev != v.last:
		return disk.ErrGap, false
	}
	return nil, true
}

func (w *world) apply(op *disk.Op) {
	v := w.volume(op.Volume)
	stamp := model.Stamp{Generation: op.Generation, Number: op.Number}
	v.last = op.Number
	for b := op.Block; b < op.Block+layout.Block(op.Count); b++ {
		at := where{op.Column, b.Page(), op.Epoch}
		ver, ok := v.visible(op.Column, b.Page(), op.Epoch)
		bit := uint16(1) << b.InPage()
		switch op.Kind {
		case disk.Write:
			ver.Mask |= bit
			ver.Sums[b.InPage()] = op.Sums[b-op.Block]
		case disk.Discard:
			if !ok || ver.Mask&bit == 0 {
				continue
			}
			ver.Mask &^= bit
			ver.Sums[b.InPage()] = 0
		case disk.Copy, disk.Remove, disk.Mark: // have no count
		}
		ver.Page, ver.Epoch, ver.Stamp = at.page, op.Epoch, stamp
		v.versions[at], v.uncertain[at] = ver, stamp
	}
	at := where{op.Column, op.Page, op.Epoch}
	switch op.Kind {
	case disk.Copy:
		ver := op.Version
		i := 0
		for left := ver.Mask; left != 0; left &= left - 1 {
			ver.Sums[bits.TrailingZeros16(left)] = op.Sums[i]
			i++
		}
		v.versions[at], v.uncertain[at] = ver, stamp
	case disk.Remove:
		if _, ok := v.versions[at]; ok {
			delete(v.versions, at)
			v.uncertain[at] = stamp
		}
	case disk.Write, disk.Discard, disk.Mark:
	}
	if op.Watermark.After(v.watermark) {
		v.watermark = op.Watermark
	}
	v.settle()
}

func (v *volume) settle() {
	maps.DeleteFunc(v.uncertain, func(_ where, s model.Stamp) bool { return !s.After(v.watermark) })
}

// prepare returns the promise the disk must give, or how it must refuse.
func (w *world) prepare(p disk.Prepare) (disk.Promise, error) {
	v := w.volume(p.Volume)
	begins := p.Origin != nil && v.promises == 0
	switch {
	case p.Generation < v.gen:
		return disk.Promise{}, model.Errorf(model.Fenced, "fenced")
	case begins && w.volume(p.Origin.Volume).promises == 0:
		return disk.Promise{}, model.Errorf(model.Conflict, "never there")
	case p.Generation == v.gen:
		v.last = max(v.last, p.Last)
	default:
		v.gen, v.last = p.Generation, p.Last
	}
	if o := p.Origin; begins {
		for _, c := range o.Columns {
			v.inherit(w.volume(o.Volume), c, o.Epoch)
		}
	}
	v.promised = true
	v.promises++
	out := disk.Promise{Watermark: v.watermark}
	for _, at := range slices.SortedFunc(maps.Keys(v.uncertain), order) {
		ver, ok := v.versions[at]
		if !ok {
			ver = disk.Version{Page: at.page, Epoch: at.epoch}
		}
		out.Uncertain = append(out.Uncertain, disk.ColumnVersion{Column: at.column, Version: ver})
	}
	return out, nil
}

// inherit makes a column what another volume's was in an epoch.
func (v *volume) inherit(from *volume, column uint32, e model.Epoch) {
	for at := range from.versions {
		if at.column != column {
			continue
		}
		ver, ok := from.visible(column, at.page, e)
		if ok && ver.Mask != 0 {
			ver.Epoch, ver.Stamp = 0, model.Stamp{Number: 1}
			v.versions[where{column, at.page, 0}] = ver
		}
	}
}

func order(a, b where) int {
	for _, d := range []int64{
		int64(a.column) - int64(b.column), int64(a.page) - int64(b.page), int64(a.epoch) - int64(b.epoch),
	} {
		if d != 0 {
			return int(d)
		}
	}
	return 0
}

func (w *world) drop(vol model.VolumeID, column uint32) {
	v := w.volume(vol)
	in := func(at where) bool { return at.column == column }
	maps.DeleteFunc(v.versions, func(at where, _ disk.Version) bool { return in(at) })
	maps.DeleteFunc(v.uncertain, func(at where, _ model.Stamp) bool { return in(at) })
}

// list returns the versions of a column in order.
func (v *volume) list(column uint32) []disk.Version {
	var out []disk.Version
	for _, at := range slices.SortedFunc(maps.Keys(v.versions), order) {
		if at.column == column {
			out = append(out, v.versions[at])
		}
	}
	return out
}

var zeroSum = crc32.Checksum(make([]byte, 4096), table)

// readEquals reads some blocks and compares them with the world.
func (w *world) readEquals(d *disk.Disk, r disk.Read) error {
	v := w.volume(r.Volume)
	dst, sums := make([]byte, r.Count*4096), make([]uint32, r.Count)
	err := d.Read(context.Background(), r, dst, sums)
	if r.Generation != v.gen || v.gen == 0 {
		if model.CodeOf(err) != model.Fenced {
			return fmt.Errorf("read by generation %d, promised is %d: %w", r.Generation, v.gen, err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %+v: %w", r, err)
	}
	for i := range r.Count {
		b := r.Block + layout.Block(i)
		want := zeroSum
		if ver, ok := v.visible(r.Column, b.Page(), r.Epoch); ok && ver.Mask&(1<<b.InPage()) != 0 {
			want = ver.Sums[b.InPage()]
		}
		if got := crc32.Checksum(dst[i*4096:][:4096], table); got != want || sums[i] != want {
			return fmt.Errorf("block %d of column %d in epoch %d: sum %08x, said to be %08x, want %08x",
				b, r.Column, r.Epoch, got, sums[i], want)
		}
	}
	return nil
}

// listed lists a column, a few versions at a time.
func listed(d *disk.Disk, l disk.List) ([]disk.Version, error) {
	var out []disk.Version
	for {
		got, err := d.List(context.Background(), l)
		if err != nil {
			return nil, err
		}
		out = append(out, got.Versions...)
		if got.Done {
			return out, nil
		}
		if got.Next <= l.From && len(got.Versions) > 0 {
			return nil, errors.New("a listing that does not go on")
		}
		l.From = got.Next
	}
}

// equals compares all that the disk holds of a volume with the world.
func (w *world) equals(d *disk.Disk, vol model.VolumeID,
	columns, pages uint32, epochs model.Epoch,
) error {
	v := w.volume(vol)
	if v.gen == 0 {
		return nil // it would refuse to tell
	}
	for c := range columns {
		got, err := listed(d, disk.List{Volume: vol, Generation: v.gen, Column: c, Max: 7})
		if err != nil {
			return fmt.Errorf("list: %w", err)
		}
		if diff := cmp.Diff(v.list(c), got); diff != "" {
			return fmt.Errorf("column %d is listed otherwise (-want +got):\n%s", c, diff)
		}
		for e := range epochs {
			for p := uint32(0); p < pages; p += 8 {
				err := w.readEquals(d, disk.Read{
					Volume: vol, Generation: v.gen, Column: c, Block: layout.FirstBlock(p),
					Count: 8 * model.BlocksPerPage, Epoch: e,
				})
				if err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// same compares two errors by their codes.
func same(got, want error) bool {
	return (got == nil) == (want == nil) && model.CodeOf(got) == model.CodeOf(want)
}
