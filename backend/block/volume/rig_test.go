package volume

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
)

// A rig is a small pool in one bubble: disks, a record and a lease, each as good
// or as bad as the test wants.
type rig struct {
	disks  map[model.DiskID]*memDisk
	order  []model.DiskID
	record *register
	lease  *switchLease
	pool   *rigPool
	cfg    Config
}

const rigVolume = model.VolumeID(77)

// newRig makes n disks and a volume with columns of the given members, by index.
func newRig(t *testing.T, n, copies int, size model.Bytes, columns ...[]int) *rig {
	t.Helper()
	r := &rig{disks: map[model.DiskID]*memDisk{}, lease: newLease()}
	r.pool = &rigPool{rig: r, reach: map[model.DiskID]Reach{}, wrap: map[model.DiskID]Disk{}}
	for i := range n {
		id := model.DiskID(i + 1)
		r.disks[id] = newMemDisk(id, 100*time.Microsecond)
		r.order = append(r.order, id)
	}
	rec := model.Volume{ID: rigVolume, Size: size, Copies: copies, Revision: 1, Epoch: 1}
	for _, c := range columns {
		var col model.Column
		for _, i := range c {
			col.Members = append(col.Members, model.Member{Disk: r.order[i], State: model.Active})
		}
		rec.Columns = append(rec.Columns, col)
	}
	r.record = &register{rec: rec}
	r.cfg = Default()
	r.cfg.Disks, r.cfg.Record, r.cfg.Lease = r.pool, r.record, r.lease
	r.cfg.Log = slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		r.cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	return r
}

// open acquires the volume and opens it.
func (r *rig) open(t *testing.T) *Volume {
	t.Helper()
	v, err := Open(t.Context(), r.record.acquire(), r.cfg)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { v.shut(errClosed) }) // also where the test has failed
	return v
}

func (r *rig) close(t *testing.T, v *Volume) {
	t.Helper()
	if err := v.Close(t.Context()); err != nil {
		t.Fatalf("Close: %v", err)
	}
}

// A register is the record in an atomic register, as raft is seen from afar.
type register struct {
	mu     sync.Mutex
	rec    model.Volume
	hang   bool // no quorum
	lose   bool // the answer is lost, the change is made
	times  int
	before func()             // runs before a change is made
	after  func(model.Volume) // runs when it is made, before the answer
	snaps  []model.Snapshot
}

func (r *register) acquire() model.Volume {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rec.Generation++
	r.rec.Revision++
	return cloneRecord(r.rec)
}

func (r *register) get() model.Volume {
	r.mu.Lock()
	defer r.mu.Unlock()
	return cloneRecord(r.rec)
}

// changes is how often members were changed.
func (r *register) changes() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.times
}

func cloneRecord(rec model.Volume) model.Volume {
	cols := make([]model.Column, len(rec.Columns))
	for i := range cols {
		cols[i].Members = append([]model.Member(nil), rec.Columns[i].Members...)
	}
	rec.Columns = cols
	return rec
}

func (r *register) Volume(context.Context, model.VolumeID) (model.Volume, error) { return r.get(), nil }

func (r *register) ChangeMembers(ctx context.Context, _ model.VolumeID, gen model.Generation, rev model.Revision,
	changes []model.MemberChange,
) (model.Volume, error) {
	rec, err := r.change(ctx, gen, rev, changes)
	if err == nil && r.after != nil {
		r.after(cloneRecord(rec))
	}
	return rec, err
}

func (r *register) change(ctx context.Context, gen model.Generation, rev model.Revision,
	changes []model.MemberChange,
) (model.Volume, error) {
	time.Sleep(5 * time.Millisecond)
	for r.stuck() {
		select {
		case <-ctx.Done():
			return model.Volume{}, model.Errorf(model.Unavailable, "no quorum")
		case <-time.After(10 * time.Millisecond):
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.before != nil {
		r.before()
	}
	r.times++
	if r.rec.Generation != gen || r.rec.Revision != rev {
		return cloneRecord(r.rec), model.Errorf(model.Conflict, "the record is at revision %d", r.rec.Revision)
	}
	r.rec = applyChanges(r.rec, changes)
	if r.lose {
		r.lose = false
		return model.Volume{}, model.Errorf(model.Unavailable, "the answer was lost")
	}
	return cloneRecord(r.rec), nil
}

func (r *register) Kept(context.Context, model.VolumeID) (model.Volume, []model.Epoch, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return cloneRecord(r.rec), r.rec.KeptEpochs(r.snaps, nil), nil
}

func (r *register) Tended(_ context.Context, _ model.VolumeID, gen model.Generation, done model.Tended,
) (model.Volume, error) {
	time.Sleep(5 * time.Millisecond)
	r.mu.Lock()
	defer r.mu.Unlock()
	var err error
	r.rec, err = applyTended(r.rec, gen, done)
	return cloneRecord(r.rec), err
}

// applyTended is what the state machine does with a model.Tended.
func applyTended(rec model.Volume, gen model.Generation, done model.Tended) (model.Volume, error) {
	other := model.Errorf(model.Conflict, "there is something else to do")
	switch {
	case rec.Generation != gen:
		return rec, model.Errorf(model.Fenced, "the record is at generation %d", rec.Generation)
	case done.Trimmed != 0 && rec.Trim.Since == done.Trimmed:
		rec.Trim = model.Trim{}
	case done.Rests != 0 && rec.Trim.Since == done.Rests:
		rec.Trim.Rests = true
	case done.Begun != 0 && rec.Revert.Began == done.Begun:
		rec.Revert.Running = true
	case done.Reverted != 0 && rec.Revert.Began == done.Reverted:
		rec.Size, rec.Revert = rec.Revert.Size, model.Revert{}
		rec.Trim = model.Trim{Since: rec.Revision + 1}
	case done.Trimmed != 0 && rec.Trim.Since == 0, done.Reverted != 0 && !rec.Revert.Due():
		return rec, nil
	default:
		return rec, other
	}
	rec.Revision++
	return rec, nil
}

func (r *register) stuck() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.hang
}

// applyChanges is what the state machine does with a MemberChange.
func applyChanges(rec model.Volume, changes []model.MemberChange) model.Volume {
	rec = cloneRecord(rec)
	rec.Revision++
	for _, ch := range changes {
		members := rec.Columns[ch.Column].Members
		kept := members[:0:0]
		found := false
		for _, m := range members {
			if m.Disk == ch.Disk {
				found = true
				if ch.State == "" {
					continue
				}
				m.State, m.Cutoff = ch.State, ch.Cutoff
			}
			kept = append(kept, m)
		}
		if !found && ch.State != "" {
			kept = append(kept, model.Member{Disk: ch.Disk, State: ch.State, Cutoff: ch.Cutoff})
		}
		rec.Columns[ch.Column].Members = kept
	}
	return rec
}

// A switchLease is valid while it is on.
type switchLease struct {
	mu sync.Mutex
	on chan struct{} // closed: valid
}

func newLease() *switchLease {
	l := &switchLease{on: make(chan struct{})}
	close(l.on)
	return l
}

func (l *switchLease) now() chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.on
}

func (l *switchLease) Valid() bool {
	select {
	case <-l.now():
		return true
	default:
		return false
	}
}

func (l *switchLease) Wait(ctx context.Context) error {
	select {
	case <-l.now():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *switchLease) set(valid bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.on:
		if !valid {
			l.on = make(chan struct{})
		}
	default:
		if valid {
			close(l.on)
		}
	}
}

// A rigPool finds the rig's disks; the first is local.
type rigPool struct {
	rig   *rig
	mu    sync.Mutex
	reach map[model.DiskID]Reach
	wrap  map[model.DiskID]Disk
	spare []model.DiskID
	nodes map[model.DiskID]model.NodeID // const while the volume is open
}

func (p *rigPool) Disk(id model.DiskID) (Disk, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w := p.wrap[id]; w != nil {
		return w, false, nil
	}
	d := p.rig.disks[id]
	if d == nil {
		return nil, false, model.Errorf(model.NotFound, "no disk %s", id)
	}
	return d, id == 1, nil
}

func (p *rigPool) Reach(id model.DiskID) Reach {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reach[id]
}

func (p *rigPool) setReach(id model.DiskID, r Reach) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reach[id] = r
}

// Node is the disk's own, unless the test has put it elsewhere.
func (p *rigPool) Node(id model.DiskID) model.NodeID {
	if n, elsewhere := p.nodes[id]; elsewhere {
		return n
	}
	return model.NodeID(id)
}

func (p *rigPool) Substitute(_ model.Volume, _ int, avoid []model.DiskID) model.DiskID {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range p.spare {
		ok := p.reach[id] == Up
		for _, a := range avoid {
			ok = ok && a != id
		}
		if ok {
			return id
		}
	}
	return 0
}

// pattern fills n bytes so that each block says what wrote it and where it lies.
func pattern(n int, off int64, tag uint64) []byte {
	p := iobuf.Aligned(n)
	for at := 0; at+16 <= n; at += 16 {
		binary.LittleEndian.PutUint64(p[at:], tag)
		binary.LittleEndian.PutUint64(p[at+8:], uint64(off)+uint64(at))
	}
	return p
}

func write(t *testing.T, v *Volume, off int64, data []byte) {
	t.Helper()
	if err := writeErr(t.Context(), v, off, data); err != nil {
		t.Fatalf("WriteAt(%d bytes, %d): %v", len(data), off, err)
	}
}

func writeErr(ctx context.Context, v *Volume, off int64, data []byte) error {
	b := iobuf.Get(len(data))
	copy(b.Bytes, data)
	defer b.Release()
	return v.WriteAt(ctx, b, off)
}

func wantRead(t *testing.T, v *Volume, off int64, want []byte) {
	t.Helper()
	got := iobuf.Aligned(len(want))
	if err := v.ReadAt(t.Context(), got, off); err != nil {
		t.Fatalf("ReadAt(%d bytes, %d): %v", len(want), off, err)
	}
	if !bytes.Equal(got, want) {
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("ReadAt(%d bytes, %d): byte %d is %#x, want %#x", len(want), off, i, got[i], want[i])
			}
		}
	}
}

// wantSame fails unless all active members of every column hold the same.
func (r *rig) wantSame(t *testing.T) {
	t.Helper()
	rec := r.record.get()
	for c, col := range rec.Columns {
		var first *memDisk
		for _, m := range col.Members {
			if m.State != model.Active {
				continue
			}
			d := r.disks[m.Disk]
			if first == nil {
				first = d
				continue
			}
			a, b := first.versions(rec.ID, uint32(c)), d.versions(rec.ID, uint32(c))
			if what := firstDifference(a, b); what != "" {
				t.Fatalf("column %d, disks %s and %s: %s", c, first.id, d.id, what)
			}
		}
	}
}

// eventually runs the bubble until ok.
func eventually(t *testing.T, what string, within time.Duration, ok func() bool) {
	t.Helper()
	for began := time.Now(); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > within {
			t.Fatalf("not within %v: %s", within, what)
		}
	}
}

// bubble runs a test in virtual time.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(func() { time.Sleep(time.Minute) }) // the disks fall asleep, also where f has failed
		f(t)
	})
}
