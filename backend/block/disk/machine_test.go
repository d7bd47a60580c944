package disk_test

import (
	"context"
	"errors"
	"hash/crc32"
	"maps"
	"math/bits"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/disk/disktest"
	"drystone.example/drystone/backend/block/layout"
	"drystone.example/drystone/backend/model"
)

const (
	cluster      = model.ClusterID(7)
	worldColumns = 2
	worldPages   = 40
	worldEpochs  = 3
)

// A machine drives a disk and a world with the same ops.
type machine struct {
	*world
	drive *disktest.Drive
	d     *disk.Disk
	free  int // places of the raw area, empty
	cuts  int

	cloned  bool // some places may be shared
	deleted map[model.VolumeID]bool
}

func newMachine(t *rapid.T, size model.Bytes) *machine {
	ctx := context.Background()
	m := &machine{
		world: newWorld(), drive: disktest.New(rapid.Uint64().Draw(t, "seed"), size),
		deleted: make(map[model.VolumeID]bool),
	}
	if _, err := m.drive.Format(ctx, cluster); err != nil {
		t.Fatal(err)
	}
	m.open(t)
	m.free = int(m.d.Usage().Size / model.PageSize)
	return m
}

func (m *machine) open(t *rapid.T) {
	d, err := m.drive.Open(context.Background(), disk.Options{Cluster: cluster, MapMemory: 20_000})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	m.d = d
	d.SetFamilies(map[model.VolumeID]model.VolumeID{1: 1, 2: 1, 3: 1}) // volume 4 is alone
}

func volumes() *rapid.Generator[model.VolumeID] {
	return rapid.SampledFrom(everyVolume)
}

func others(vol model.VolumeID) *rapid.Generator[model.VolumeID] {
	return volumes().Filter(func(v model.VolumeID) bool { return v != vol })
}

var everyVolume = []model.VolumeID{1, 2, 3, 4}

// draw makes an op that is the next of its row, most of the time.
func (m *machine) draw(t *rapid.T) *disk.Op {
	vol := volumes().Draw(t, "volume")
	v := m.volume(vol)
	op := &disk.Op{
		Volume: vol, Generation: v.gen, Number: v.last + uint64(rapid.IntRange(1, 3).Draw(t, "step")),
		Prev:   v.last,
		Column: uint32(rapid.IntRange(0, worldColumns-1).Draw(t, "column")),
		Epoch:  model.Epoch(rapid.IntRange(0, worldEpochs-1).Draw(t, "epoch")),
		Kind: rapid.SampledFrom([]disk.Kind{
			disk.Write, disk.Write, disk.Write, disk.Discard, disk.Copy, disk.Remove, disk.Mark,
		}).Draw(t, "kind"),
	}
	if rapid.Bool().Draw(t, "acknowledged") {
		op.Watermark = model.Stamp{
			Generation: v.gen, Number: uint64(rapid.IntRange(0, int(v.last)).Draw(t, "watermark")),
		}
	}
	switch rapid.IntRange(0, 19).Draw(t, "fault") {
	case 0:
		op.Generation = model.Generation(max(0, int(v.gen)+rapid.IntRange(-1, 1).Draw(t, "other generation")))
	case 1:
		op.Number = uint64(rapid.IntRange(1, int(v.last)+1).Draw(t, "repeated"))
	case 2:
		op.Prev += uint64(rapid.IntRange(0, 2).Draw(t, "gap"))
	}
	if op.Generation == 0 {
		op.Generation = 1
	}
	seed := rapid.Uint64().Draw(t, "data")
	switch op.Kind {
	case disk.Write:
		op.Block, op.Count = extent(t, 40)
		op.Data, op.Sums = data(int(op.Count), seed)
	case disk.Discard:
		op.Block, op.Count = extent(t, worldPages*model.BlocksPerPage)
	case disk.Copy, disk.Remove:
		op.Page = uint32(rapid.IntRange(0, worldPages-1).Draw(t, "page"))
		if op.Kind == disk.Copy {
			stamp := model.Stamp{Generation: 1, Number: uint64(rapid.IntRange(1, 99).Draw(t, "stamp"))}
			mask := rapid.Uint16().Draw(t, "mask")
			c := copyOp(op.Generation, op.Number, op.Prev, op.Page, op.Epoch, stamp, mask, seed)
			op.Version, op.Data, op.Sums = c.Version, c.Data, c.Sums
			if rapid.Bool().Draw(t, "as another has it") {
				m.imitate(t, op)
			}
		}
	case disk.Mark:
	}
	return op
}

// imitate makes a Copy of what another volume has in the same column, or of nearly that.
func (m *machine) imitate(t *rapid.T, op *disk.Op) {
	vol := others(op.Volume).Draw(t, "model")
	v := m.volume(vol)
	var all []where
	for _, at := range slices.SortedFunc(maps.Keys(v.versions), order) {
		if at.column == op.Column && v.versions[at].Mask != 0 {
			all = append(all, at)
		}
	}
	if len(all) == 0 || v.gen == 0 {
		return
	}
	at := rapid.SampledFrom(all).Draw(t, "version")
	page := make([]byte, model.PageSize)
	ver, err := m.d.ReadVersion(context.Background(), vol, v.gen, at.column, at.page, at.epoch, page)
	if err != nil { // of a burst, what is to come before this
		return
	}
	c := copyOp(op.Generation, op.Number, op.Prev, at.page, op.Epoch, op.Version.Stamp, ver.Mask, 0)
	op.Page, op.Version, op.Data, op.Sums = c.Page, c.Version, c.Data, c.Sums
	nearly := rapid.IntRange(0, 2).Draw(t, "nearly") == 0
	altered(op, func(b []byte) {
		for left := ver.Mask; left != 0; left &= left - 1 {
			copy(b, page[bits.TrailingZeros16(left)*4096:][:4096])
			b = b[4096:]
		}
	})
	if nearly {
		altered(op, func(b []byte) { b[len(b)-1] ^= 1 })
	}
	m.cloned = true
}

func extent(t *rapid.T, limit int) (layout.Block, uint64) {
	n := rapid.IntRange(1, limit).Draw(t, "count")
	if rapid.IntRange(0, 3).Draw(t, "whole pages") == 0 {
		n = max(n/model.BlocksPerPage, 1) * model.BlocksPerPage
		at := rapid.IntRange(0, worldPages-n/model.BlocksPerPage).Draw(t, "page")
		return layout.FirstBlock(uint32(at)), uint64(n)
	}
	at := rapid.IntRange(0, worldPages*model.BlocksPerPage-n).Draw(t, "block")
	return layout.Block(at), uint64(n)
}

// Apply sends one op and waits.
func (m *machine) Apply(t *rapid.T) { m.send(t, []*disk.Op{m.draw(t)}) }

// Burst sends several ops at once: they are applied in the order they were sent.
func (m *machine) Burst(t *rapid.T) {
	ahead := &machine{world: m.clone(), d: m.d, free: m.free}
	var ops []*disk.Op
	for range rapid.IntRange(2, 8).Draw(t, "burst") {
		op := ahead.draw(t)
		if _, ok := ahead.judge(op); ok {
			ahead.apply(op)
		}
		ops = append(ops, op)
	}
	m.cloned = m.cloned || ahead.cloned
	m.send(t, ops)
}

func (m *machine) send(t *rapid.T, ops []*disk.Op) {
	got := make([]error, len(ops))
	done := make(chan int, len(ops))
	room := m.room()
	for _, op := range ops {
		room -= m.needs(op, len(ops) == 1)
	}
	for i, op := range ops {
		m.d.Apply(op, func(err error) {
			got[i] = err
			done <- i
		})
	}
	for range ops {
		<-done
	}
	for i, op := range ops {
		want, change := m.judge(op)
		if change && model.CodeOf(got[i]) == model.NoSpace && room < 0 && m.needs(op, false) > 0 {
			continue // and nothing has changed, as will be seen
		}
		if !same(got[i], want) || errors.Is(want, disk.ErrGap) != errors.Is(got[i], disk.ErrGap) {
			t.Fatalf("op %d: %v; the answer is %v, want %v", i, op, got[i], want)
		}
		if change {
			m.apply(op)
		}
	}
}

// room is how many places a Write may have that makes the disk fuller.
func (m *machine) room() int {
	kept := max(min(m.free/16, 64), m.free-m.free*model.FullCritical/100) // for the others
	return m.free - kept - int(m.d.Usage().Used/model.PageSize)
}

// needs is how many places an op takes at most. Of one that is alone that is known
// better: a page that has a version in the epoch has its place, unless it is shared.
func (m *machine) needs(op *disk.Op, alone bool) (n int) {
	switch op.Kind {
	case disk.Write:
		for page := op.Block.Page(); page <= (op.Block + layout.Block(op.Count) - 1).Page(); page++ {
			at := where{op.Column, page, op.Epoch}
			if !alone || m.cloned || m.volume(op.Volume).versions[at].Mask == 0 {
				n++
			}
		}
	case disk.Discard:
		n = 2 // at its ends
	case disk.Copy:
		n = min(1, int(op.Version.Mask))
	case disk.Remove, disk.Mark:
	}
	return n
}

// Fill writes whole pages until few places are left, or none.
func (m *machine) Fill(t *rapid.T) {
	vol, e := volumes().Draw(t, "volume"), model.Epoch(rapid.IntRange(0, worldEpochs-1).Draw(t, "epoch"))
	seed, left := rapid.Uint64().Draw(t, "data"), rapid.IntRange(0, 2).Draw(t, "left")
	v := m.volume(vol)
	if v.gen == 0 || m.free > worldPages*worldColumns {
		t.Skip()
	}
	for page := 0; page < worldPages && m.room() > left; page++ {
		b, sums := data(model.BlocksPerPage, seed+uint64(page))
		m.send(t, []*disk.Op{{
			Kind: disk.Write, Volume: vol, Generation: v.gen, Number: v.last + 1, Prev: v.last, Epoch: e,
			Block: layout.FirstBlock(uint32(page)), Count: uint64(model.BlocksPerPage), Data: b, Sums: sums,
		}})
	}
}

// Prepare asks for a promise.
func (m *machine) Prepare(t *rapid.T) {
	vol := volumes().Draw(t, "volume")
	v := m.volume(vol)
	p := disk.Prepare{
		Volume: vol, Generation: model.Generation(max(0, int(v.gen)+rapid.IntRange(-1, 2).Draw(t, "ahead"))),
		Last: uint64(rapid.IntRange(0, 50).Draw(t, "last")),
	}
	if p.Generation == 0 {
		p.Generation = 1
	}
	if rapid.Bool().Draw(t, "a clone") {
		p.Origin = &disk.Origin{
			Volume:  others(vol).Draw(t, "origin"),
			Epoch:   model.Epoch(rapid.IntRange(0, worldEpochs-1).Draw(t, "origin epoch")),
			Columns: rapid.SampledFrom([][]uint32{{0}, {1}, {0, 1}}).Draw(t, "columns"),
		}
		if m.deleted[vol] { // the number of a deleted volume is not used again
			p.Origin = nil
		}
	}
	got, err := m.d.Prepare(context.Background(), p)
	want, refused := m.prepare(p)
	if !same(err, refused) {
		t.Fatalf("%+v: %v, want %v", p, err, refused)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("%+v (-want +got):\n%s", p, diff)
	}
	if p.Origin != nil && err == nil {
		m.cloned = true
	}
}

// Read reads some blocks.
func (m *machine) Read(t *rapid.T) {
	vol := volumes().Draw(t, "volume")
	block, n := extent(t, 64)
	err := m.readEquals(m.d, disk.Read{
		Volume: vol, Generation: m.volume(vol).gen, Block: block, Count: int(n),
		Column: uint32(rapid.IntRange(0, worldColumns-1).Draw(t, "column")),
		Epoch:  model.Epoch(rapid.IntRange(0, worldEpochs-1).Draw(t, "epoch")),
	})
	if err != nil {
		t.Fatal(err)
	}
}

// ReadVersion reads one version.
func (m *machine) ReadVersion(t *rapid.T) {
	vol := volumes().Draw(t, "volume")
	v := m.volume(vol)
	at := where{
		uint32(rapid.IntRange(0, worldColumns-1).Draw(t, "column")),
		uint32(rapid.IntRange(0, worldPages-1).Draw(t, "page")),
		model.Epoch(rapid.IntRange(0, worldEpochs-1).Draw(t, "epoch")),
	}
	dst := make([]byte, model.PageSize)
	got, err := m.d.ReadVersion(context.Background(), vol, v.gen, at.column, at.page, at.epoch, dst)
	want, ok := v.versions[at]
	code := model.Code("")
	switch {
	case v.gen == 0:
		code = model.Fenced
	case !ok:
		code = model.NotFound
	}
	if model.CodeOf(err) != code || got != want {
		t.Fatalf("version %+v: %+v, %v; want %+v, %q", at, got, err, want, code)
	}
	for i := range model.BlocksPerPage {
		sum := crc32.Checksum(dst[i*4096:][:4096], table)
		if code == "" && (want.Mask&(1<<i) != 0 && sum != want.Sums[i] || want.Mask&(1<<i) == 0 && sum != zeroSum) {
			t.Fatalf("version %+v: block %d has sum %08x", at, i, sum)
		}
	}
}

// Drop drops a column, or is refused.
func (m *machine) Drop(t *rapid.T) {
	vol := volumes().Draw(t, "volume")
	column := uint32(rapid.IntRange(0, worldColumns-1).Draw(t, "column"))
	promises := m.volume(vol).promises
	if rapid.IntRange(0, 3).Draw(t, "outdated") == 0 {
		err := m.d.Drop(context.Background(), vol, column, promises+1)
		if model.CodeOf(err) != model.Conflict {
			t.Fatalf("drop with an outdated count: %v", err)
		}
		return
	}
	if err := m.d.Drop(context.Background(), vol, column, promises); err != nil {
		t.Fatalf("drop: %v", err)
	}
	m.drop(vol, column)
}

// DropVolume deletes a volume.
func (m *machine) DropVolume(t *rapid.T) {
	if rapid.IntRange(0, 3).Draw(t, "really") > 0 {
		t.Skip()
	}
	vol := volumes().Draw(t, "volume")
	if err := m.d.DropVolume(context.Background(), vol); err != nil {
		t.Fatalf("drop volume: %v", err)
	}
	delete(m.volumes, vol)
	m.deleted[vol] = true
}

// Checkpoint checkpoints.
func (m *machine) Checkpoint(t *rapid.T) {
	if err := m.d.Checkpoint(); err != nil {
		t.Fatalf("checkpoint: %v", err)
	}
}

// Reopen closes the disk and opens it.
func (m *machine) Reopen(t *rapid.T) {
	if err := m.d.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	m.open(t)
}

// Cut cuts the power: everything was answered, so everything is there.
func (m *machine) Cut(t *rapid.T) {
	m.drive.Crash(rapid.SampledFrom([]int{0, 50, 100}).Draw(t, "percent"))
	_ = m.d.Close() // it may say anything now
	m.open(t)
	m.cuts++
}

// Check compares everything.
func (m *machine) Check(t *rapid.T) {
	for _, vol := range everyVolume {
		if err := m.equals(m.d, vol, worldColumns, worldPages, worldEpochs); err != nil {
			t.Fatal(err)
		}
	}
	used := int(m.d.Usage().Used / model.PageSize)
	if want := m.places(); used < want && !m.cloned || used > want+16 { // some may be waiting to be free
		t.Fatalf("%d places are used, want %d", used, want)
	}
	if u := m.d.Usage(); u.ChecksumErrors != 0 || m.d.Err() != nil {
		t.Fatalf("%d checksum errors, %v", u.ChecksumErrors, m.d.Err())
	}
	if err := m.d.CheckSpace(); err != nil {
		t.Fatal(err)
	}
	m.checkHeld(t)
}

func (m *machine) checkHeld(t *rapid.T) {
	got, err := m.d.Held(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var want []disk.Held
	for id, v := range m.volumes {
		for c := range uint32(worldColumns) {
			if vs := v.list(c); len(vs) > 0 {
				h := disk.Held{Volume: id, Column: c, Promises: v.promises}
				for _, ver := range vs {
					if ver.Mask != 0 {
						h.Bytes += model.PageSize
					}
				}
				want = append(want, h)
			}
		}
	}
	got = slices.DeleteFunc(got, func(h disk.Held) bool { // it has to inherit, but there is nothing
		return h.Bytes == 0 && len(m.volume(h.Volume).list(h.Column)) == 0
	})
	by := func(a, b disk.Held) int {
		return int(a.Volume)*10 + int(a.Column) - int(b.Volume)*10 - int(b.Column)
	}
	slices.SortFunc(got, by)
	slices.SortFunc(want, by)
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("held (-want +got):\n%s", diff)
	}
}

// Empty deletes all volumes: then every place is free, none was counted too often.
func (m *machine) Empty(t *rapid.T) {
	for _, vol := range everyVolume {
		if err := m.d.DropVolume(context.Background(), vol); err != nil {
			t.Fatalf("drop volume: %v", err)
		}
		delete(m.volumes, vol)
	}
	m.cloned = false
	m.Checkpoint(t)
	for _, when := range []string{"before", "after"} {
		if u := m.d.Usage(); u.Used != 0 {
			t.Fatalf("%d bytes are used by nothing %s the disk is opened again", u.Used, when)
		}
		m.Reopen(t)
	}
}

// Whatever is done to a disk, it answers and holds what the simplest model does:
// through checkpoints, restarts and power cuts, nearly empty and full.
func TestDiskIsTheModel(t *testing.T) {
	for name, size := range map[string]model.Bytes{"roomy": 64 << 20, "full": 13 << 20} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				m := newMachine(t, size)
				defer func() { _ = m.d.Close() }()
				m.Prepare(t)
				t.Repeat(map[string]func(*rapid.T){
					"apply": m.Apply, "apply2": m.Apply, "burst": m.Burst, "burst2": m.Burst, "fill": m.Fill,
					"prepare": m.Prepare, "read": m.Read, "readVersion": m.ReadVersion,
					"drop": m.Drop, "dropVolume": m.DropVolume, "checkpoint": m.Checkpoint,
					"reopen": m.Reopen, "cut": m.Cut, "check": m.Check,
				})
				m.Check(t)
				m.Empty(t)
			})
		})
	}
}
