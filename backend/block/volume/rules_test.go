package volume

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
)

// The rules one by one, each in the smallest situation in which leaving it out does
// harm (tests/bugs leaves them out). What they do together is for the simulation.

// A gate is the way to a disk. Shut, it holds what is applied, in order.
type gate struct {
	Disk

	mu    sync.Mutex
	shut  bool
	held  []func()
	sent  []disk.Op                 // the heads of all that came
	reads int                       // how many were asked for
	flip  bool                      // damages what is read
	after func(v disk.Version) bool // of ReadVersion: the answer waits for a second
	late  func(dst []byte)          // of Read: before it is answered
}

// gates puts one before each disk of a rig.
func (r *rig) gates() map[model.DiskID]*gate {
	out := map[model.DiskID]*gate{}
	for id, d := range r.disks {
		out[id] = &gate{Disk: d}
		r.pool.wrap[id] = out[id]
	}
	return out
}

func (g *gate) Apply(op *disk.Op, done func(error)) {
	g.mu.Lock()
	g.sent = append(g.sent, *op)
	if g.shut {
		g.held = append(g.held, func() { g.Disk.Apply(op, done) })
		g.mu.Unlock()
		return
	}
	g.mu.Unlock()
	g.Disk.Apply(op, done)
}

func (g *gate) Read(ctx context.Context, r disk.Read, dst []byte, sums []uint32) error {
	g.mu.Lock()
	g.reads++
	flip, late := g.flip, g.late
	g.mu.Unlock()
	err := g.Disk.Read(ctx, r, dst, sums)
	if late != nil {
		late(dst)
		clear(sums)
	}
	if flip {
		dst[len(dst)-1] ^= 1
	}
	return err
}

func (g *gate) ReadVersion(ctx context.Context, vol model.VolumeID, gen model.Generation, column, page uint32,
	epoch model.Epoch, dst []byte,
) (disk.Version, error) {
	v, err := g.Disk.ReadVersion(ctx, vol, gen, column, page, epoch, dst)
	if g.after != nil && g.after(v) {
		time.Sleep(time.Second)
	}
	return v, err
}

// slowOnce lets the next answer of ReadVersion wait, and says when it does.
func (g *gate) slowOnce() (waits <-chan struct{}) {
	begun := make(chan struct{})
	var once sync.Once
	g.after = func(disk.Version) (slow bool) {
		once.Do(func() {
			slow = true
			close(begun)
		})
		return slow
	}
	return begun
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
}

// open lets what was held through.
func (g *gate) open() {
	g.mu.Lock()
	held := g.held
	g.shut, g.held = false, nil
	g.mu.Unlock()
	for _, f := range held {
		f()
	}
}

// lose opens it and drops what was held, as a broken connection does.
func (g *gate) lose() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut, g.held = false, nil
}

// writes returns the writes that came.
func (g *gate) writes() (out []disk.Op) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, op := range g.sent {
		if op.Kind == disk.Write {
			out = append(out, op)
		}
	}
	return out
}

// A pending request tells when it ends, and how.
type pending chan error

func begin(f func() error) pending {
	p := make(pending, 1)
	go func() { p <- f() }()
	return p
}

func beginWrite(t *testing.T, v *Volume, off int64, data []byte) pending {
	t.Helper()
	return begin(func() error { return writeErr(t.Context(), v, off, data) })
}

// ended reports whether it has, within d.
func (p pending) ended(d time.Duration) (bool, error) {
	select {
	case err := <-p:
		return true, err
	case <-time.After(d):
		return false, nil
	}
}

func (p pending) wantOpen(t *testing.T, d time.Duration, why string) {
	t.Helper()
	if ended, err := p.ended(d); ended {
		t.Fatalf("it ended (%v) %s", err, why)
	}
}

func (p pending) want(t *testing.T, d time.Duration) {
	t.Helper()
	if ended, err := p.ended(d); !ended || err != nil {
		t.Fatalf("ended within %v: %v, %v", d, ended, err)
	}
}

// state returns a member's state in the record.
func (r *rig) state(column int, id model.DiskID) model.Member {
	m, _ := r.record.get().Columns[column].Member(id)
	return m
}

func (r *rig) down(id model.DiskID) {
	r.disks[id].setDown(model.Errorf(model.Unavailable, "connection lost"))
	r.pool.setReach(id, Away)
}

func (r *rig) up(id model.DiskID) {
	r.disks[id].setDown(nil)
	r.pool.setReach(id, Up)
}

func (r *rig) whole(t *testing.T) {
	t.Helper()
	eventually(t, "all members are active", time.Minute, func() bool {
		rec := r.record.get()
		return !slices.ContainsFunc(rec.Columns, func(c model.Column) bool {
			return c.Count(model.Active) != rec.Copies
		})
	})
}

func (r *register) setHang(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hang = on
}

// A write that one member does not answer is answered when the record says that this
// is none any more, and not before, however long that takes.
func TestAnswerWaitsForTheDrop(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 16<<20, []int{0, 1})
		g := r.gates()
		v := r.open(t)
		g[2].close()
		r.record.setHang(true)
		w := beginWrite(t, v, 0, pattern(4096, 0, 1))
		w.wantOpen(t, 20*time.Second, "though nobody dropped the silent member")
		r.record.setHang(false)
		w.want(t, 20*time.Second)
		if m := r.state(0, 2); m.State != model.Stale {
			t.Errorf("the write was answered while the silent member is %s", m.State)
		}
		g[2].open()
		r.close(t, v)
	})
}

// What a holder left on one of two members is on both, or on neither, before the next
// one serves.
func TestTakeoverSettlesHalfWrites(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 16<<20, []int{0, 1})
		g := r.gates()
		v := r.open(t)
		write(t, v, 0, pattern(65536, 0, 1))
		g[2].close()
		half := []pending{
			beginWrite(t, v, 4096, pattern(4096, 0, 2)), beginWrite(t, v, 2*65536, pattern(65536, 0, 3)),
		}
		time.Sleep(time.Second)
		v.shut(errClosed) // it dies
		for _, w := range half {
			if err := <-w; err == nil {
				t.Error("a write was answered that one member has")
			}
		}
		g[2].lose()
		v = r.open(t)
		r.wantSame(t)
		r.close(t, v)
	})
}

// No message says that a write is acknowledged which is not.
func TestWatermarkIsAcknowledged(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 16<<20, []int{0, 1})
		g := r.gates()
		v := r.open(t)
		g[2].close()
		first := beginWrite(t, v, 0, pattern(4096, 0, 1))
		time.Sleep(100 * time.Millisecond)
		second := beginWrite(t, v, 65536, pattern(4096, 0, 2))
		time.Sleep(100 * time.Millisecond)
		sent := g[1].writes()
		if len(sent) != 2 {
			t.Fatalf("%d writes were sent", len(sent))
		}
		for _, op := range sent {
			if op.Watermark.Number >= sent[0].Number {
				t.Errorf("number %d says that all up to %d is acknowledged; %d is not",
					op.Number, op.Watermark.Number, sent[0].Number)
			}
		}
		g[2].open()
		first.want(t, time.Second)
		second.want(t, time.Second)
		r.close(t, v)
	})
}

// A takeover that dies when it has settled one of two halves leaves the other for the
// next one to find: its own messages claim nothing.
func TestTakeoverThatFailsHalfWay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 3, 2, 16<<20, []int{0, 1}, []int{0, 2})
		g := r.gates()
		v := r.open(t)
		g[2].close()
		one := beginWrite(t, v, 0, pattern(4096, 0, 1)) // only disk 1 gets it
		time.Sleep(100 * time.Millisecond)
		g[1].close()
		two := beginWrite(t, v, 1<<20, pattern(4096, 0, 2)) // only disk 3
		time.Sleep(100 * time.Millisecond)
		v.shut(errClosed)
		_, _ = <-one, <-two
		g[1].lose()
		g[2].lose()
		g[2].close() // it promises, and gets nothing more
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if _, err := Open(ctx, r.record.acquire(), r.cfg); err == nil {
			t.Fatal("a takeover ended that cannot have")
		}
		cancel()
		g[2].lose()
		v = r.open(t)
		r.wantSame(t)
		r.close(t, v)
	})
}

// A member that is being filled is not read, also when the only other one is busy.
func TestOnlyActiveMembersAreRead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 4, 2, 16<<20, []int{1, 2})
		g := r.gates()
		r.cfg.FillRate = 1 << 16 // a page a second
		r.cfg.Grace = 0
		r.pool.spare = []model.DiskID{4}
		v := r.open(t)
		data := pattern(32*65536, 0, 1)
		write(t, v, 0, data)
		r.disks[3].setDown(model.Errorf(model.Unavailable, "connection lost"))
		r.pool.setReach(3, Failed)
		write(t, v, 0, data[:4096])
		eventually(t, "the substitute joins", time.Minute, func() bool { return r.state(0, 4).State == model.Joining })
		var reads sync.WaitGroup
		for i := range 64 {
			reads.Go(func() {
				time.Sleep(time.Duration(i) * 10 * time.Microsecond)
				wantRead(t, v, 65536, data[65536:])
			})
		}
		reads.Wait()
		if m := r.state(0, 4); m.State != model.Joining {
			t.Fatalf("the substitute is %s by now", m.State)
		}
		if n := g[4].reads; n != 0 {
			t.Errorf("%d reads from a member that is being filled", n)
		}
		r.close(t, v)
	})
}

// A volume waits for its last active member; a stale one is no help.
func TestStaleIsNoSource(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 16<<20, []int{0, 1})
		v := r.open(t)
		write(t, v, 0, pattern(4096, 0, 1))
		r.down(2)
		data := pattern(4096, 0, 2)
		write(t, v, 0, data)
		v.shut(errClosed)
		r.down(1)
		r.up(2)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if _, err := Open(ctx, r.record.acquire(), r.cfg); model.CodeOf(err) != model.Unavailable {
			t.Errorf("opened without an active member: %v", err)
		}
		cancel()
		r.up(1)
		v = r.open(t)
		wantRead(t, v, 0, data)
		r.whole(t)
		r.close(t, v)
		r.wantSame(t)
	})
}

// A page that the filler has read is not written before the joining member has it:
// what was read would come over what was written.
func TestFillBesideWrites(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 16<<20, []int{0, 1})
		g := r.gates()
		v := r.open(t)
		r.down(2)
		write(t, v, 0, pattern(65536, 0, 1))
		reading := g[1].slowOnce()
		r.up(2)
		<-reading
		data := pattern(4096, 0, 2)
		write(t, v, 8192, data)
		r.whole(t)
		wantRead(t, v, 8192, data)
		r.wantSame(t)
		r.close(t, v)
	})
}

// A page that both have alike when they are compared, and that is written to before the
// walk has passed it, is copied after all.
func TestWriteBesideTheComparison(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 16<<20, []int{0, 1})
		g := r.gates()
		v := r.open(t)
		write(t, v, 65536, pattern(4096, 0, 1)) // both have it
		r.down(2)
		write(t, v, 0, pattern(65536, 0, 2))
		reading := g[1].slowOnce()
		r.up(2)
		<-reading // both were listed, and the first page is being copied
		data := pattern(4096, 0, 3)
		write(t, v, 65536, data)
		r.whole(t)
		wantRead(t, v, 65536, data)
		r.wantSame(t)
		r.close(t, v)
	})
}

// A write is sent to a joining member as far as that has reached its pages, and does
// not wait for it otherwise. What was written over both, and beside what is compared,
// is the same on all in the end.
func TestWriteOverReachedAndUnreached(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 16<<20, []int{0, 1})
		r.cfg.FillRate = 1 << 16 // a page a second
		g := r.gates()
		v := r.open(t)
		r.down(2)
		const pages = 32
		write(t, v, 0, pattern(pages*65536, 0, 1))
		r.up(2)
		eventually(t, "it joins", time.Minute, func() bool { return r.state(0, 2).State == model.Joining })
		time.Sleep(4 * time.Second)
		g[2].close()
		before := len(g[2].writes())
		far := pattern(4096, 0, 2)
		beginWrite(t, v, 100*65536, far).want(t, 10*time.Millisecond) // a page that was not reached
		all := pattern(pages*65536-8192, 0, 3)
		w := beginWrite(t, v, 4096, all)
		w.wantOpen(t, time.Second, "over pages of which some were reached")
		g[2].open()
		if err := <-w; err != nil {
			t.Fatal(err)
		}
		sent := 0
		for _, op := range g[2].writes()[before:] {
			sent += int(op.Count)
		}
		if sent == 0 || sent >= len(all)/4096 {
			t.Errorf("%d blocks of %d were sent to the joining member, want some", sent, len(all)/4096)
		}
		r.whole(t)
		r.wantSame(t)
		wantRead(t, v, 4096, all)
		wantRead(t, v, 100*65536, far)
		r.close(t, v)
	})
}

// A member that comes back with writes which no other has, and nobody was told of,
// loses them: one over a block that all have, and one where nobody has anything.
func TestReturnsOneWriteAhead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 16<<20, []int{0, 1})
		g := r.gates()
		v := r.open(t)
		data := pattern(4096, 0, 1)
		write(t, v, 0, data)
		g[1].close()
		ahead := []pending{
			beginWrite(t, v, 0, pattern(4096, 0, 2)), beginWrite(t, v, 4*65536, pattern(65536, 0, 3)),
		}
		time.Sleep(time.Second)
		v.shut(errClosed)
		for _, w := range ahead {
			if err := <-w; err == nil {
				t.Error("a write was answered that one member has")
			}
		}
		g[1].lose()
		r.down(2)
		v = r.open(t)
		wantRead(t, v, 0, data)
		r.up(2)
		r.whole(t)
		r.wantSame(t)
		wantRead(t, v, 0, data)
		r.close(t, v)
	})
}

// A member that goes away again while it is filled has what it had when it went the
// first time, and no more.
func TestDropWhileJoining(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 16<<20, []int{0, 1})
		r.cfg.FillRate = 1 << 16
		v := r.open(t)
		r.down(2)
		data := pattern(32*65536, 0, 1)
		write(t, v, 0, data)
		was := r.state(0, 2)
		r.up(2)
		eventually(t, "it joins", time.Minute, func() bool { return r.state(0, 2).State == model.Joining })
		time.Sleep(3 * time.Second)
		r.down(2)
		write(t, v, 100*65536, data[:4096])
		eventually(t, "it is what it was before it joined", time.Minute, func() bool { return r.state(0, 2) == was })
		r.up(2)
		r.whole(t)
		r.wantSame(t)
		wantRead(t, v, 0, data)
		r.close(t, v)
	})
}

// What is read from a disk that is no active member any more when it answers is not
// used: it may have freed the column, and say that there is nothing.
func TestReadFromADroppedMember(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 16<<20, []int{0, 1})
		g := r.gates()
		v := r.open(t)
		data := pattern(4096, 0, 1)
		write(t, v, 0, data)
		for id := range g {
			g[id].mu.Lock()
			g[id].late = func(dst []byte) {
				r.down(id)
				write(t, v, 65536, data) // it is dropped
				for _, o := range g {
					o.mu.Lock()
					o.late = nil
					o.mu.Unlock()
				}
				clear(dst)
			}
			g[id].mu.Unlock()
		}
		wantRead(t, v, 0, data)
		for id := range g {
			r.up(id)
		}
		r.whole(t)
		r.close(t, v)
	})
}

// A read of a block that is being written waits until that is settled.
func TestReadWaitsForTheWrite(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 16<<20, []int{0, 1})
		g := r.gates()
		v := r.open(t)
		g[2].close()
		data := pattern(8192, 0, 1)
		w := beginWrite(t, v, 0, data)
		time.Sleep(100 * time.Millisecond)
		got := iobuf.Aligned(4096)
		read := begin(func() error { return v.ReadAt(t.Context(), got, 4096) })
		read.wantOpen(t, time.Second, "beside a write that only one member has")
		wantRead(t, v, 8192, make([]byte, 4096)) // others do not wait
		g[2].open()
		w.want(t, time.Second)
		read.want(t, time.Second)
		wantRead(t, v, 0, data)
		r.close(t, v)
	})
}

// A write to a block that is being written is sent when that has ended.
func TestWritesToABlockTakeTurns(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 16<<20, []int{0, 1})
		g := r.gates()
		v := r.open(t)
		g[2].close()
		one := beginWrite(t, v, 0, pattern(8192, 0, 1))
		time.Sleep(100 * time.Millisecond)
		two := beginWrite(t, v, 4096, pattern(8192, 0, 2))
		two.wantOpen(t, time.Second, "while one that it overlaps was under way")
		if n := len(g[1].writes()); n != 1 {
			t.Errorf("%d writes that overlap fly together", n)
		}
		g[2].open()
		one.want(t, time.Second)
		two.want(t, time.Second)
		r.close(t, v)
	})
}

// A cut is not even proposed while a write is in flight.
func TestCutWaitsForWrites(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 16<<20, []int{0, 1})
		g := r.gates()
		v := r.open(t)
		g[2].close()
		w := beginWrite(t, v, 0, pattern(4096, 0, 1))
		time.Sleep(100 * time.Millisecond)
		proposed := 0
		commit := func(context.Context, []model.Volume) ([]model.Volume, error) {
			proposed++
			r.record.mu.Lock()
			defer r.record.mu.Unlock()
			r.record.rec.Epoch++
			r.record.rec.Revision++
			return []model.Volume{cloneRecord(r.record.rec)}, nil
		}
		if err := Cut(t.Context(), []*Volume{v}, commit); model.CodeOf(err) != model.Unavailable || proposed != 0 {
			t.Errorf("Cut beside a write in flight: %v, proposed %d times", err, proposed)
		}
		g[2].open()
		w.want(t, time.Second)
		if err := Cut(t.Context(), []*Volume{v}, commit); err != nil || proposed != 1 {
			t.Errorf("Cut: %v, proposed %d times", err, proposed)
		}
		r.close(t, v)
	})
}

// While nobody knows whether a cut was recorded, no write begins; those after it are
// of the new epoch.
func TestCutWithoutAnAnswer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 16<<20, []int{0, 1})
		g := r.gates()
		v := r.open(t)
		answer := time.Now().Add(20 * time.Second)
		cut := begin(func() error {
			return Cut(t.Context(), []*Volume{v}, func(context.Context, []model.Volume) ([]model.Volume, error) {
				r.record.mu.Lock()
				defer r.record.mu.Unlock()
				if r.record.rec.Epoch == 1 { // recorded by the first proposal, whose answer is lost
					r.record.rec.Epoch++
					r.record.rec.Revision++
				}
				if time.Now().Before(answer) {
					return nil, model.Errorf(model.Unavailable, "no leader")
				}
				return []model.Volume{cloneRecord(r.record.rec)}, nil
			})
		})
		time.Sleep(time.Second)
		w := beginWrite(t, v, 0, pattern(4096, 0, 1))
		w.wantOpen(t, 10*time.Second, "while the cut was not decided")
		cut.want(t, time.Minute)
		w.want(t, time.Second)
		for _, op := range g[1].writes() {
			if op.Epoch != 2 {
				t.Errorf("a write after the cut is of epoch %d", op.Epoch)
			}
		}
		r.close(t, v)
	})
}

// The last active member stays what it is, however long it is silent: the write waits.
func TestLastCopyIsKept(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 16<<20, []int{0, 1})
		v := r.open(t)
		r.down(2)
		write(t, v, 0, pattern(4096, 0, 1))
		r.down(1)
		data := pattern(4096, 0, 2)
		w := beginWrite(t, v, 0, data)
		w.wantOpen(t, time.Minute, "with no member that has it")
		if m := r.state(0, 1); m.State != model.Active {
			t.Errorf("the last member is %s", m.State)
		}
		r.up(1)
		w.want(t, 10*time.Second)
		wantRead(t, v, 0, data)
		r.close(t, v)
	})
}

// A block that is damaged between a disk and the reader is not returned.
func TestDamageOnTheWay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 3, 2, 16<<20, []int{1, 2})
		g := r.gates()
		v := r.open(t)
		data := pattern(65536, 0, 1)
		write(t, v, 0, data)
		for _, id := range []model.DiskID{2, 3} {
			g[id].flip = true
			wantRead(t, v, 0, data)
			g[id].flip = false
			time.Sleep(2 * time.Second)
		}
		g[2].flip, g[3].flip = true, true
		if err := v.ReadAt(t.Context(), iobuf.Aligned(4096), 0); model.CodeOf(err) != model.Corrupt {
			t.Errorf("a read that is damaged whoever answers: %v", err)
		}
		r.close(t, v)
	})
}

// What was discarded while a member was away does not come back with it.
func TestTombstoneOutlivesTheAbsent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 16<<20, []int{0, 1})
		v := r.open(t)
		write(t, v, 0, pattern(4*65536, 0, 1))
		time.Sleep(10 * time.Second) // everybody knows that it is acknowledged
		r.down(2)
		write(t, v, 100*65536, pattern(4096, 0, 2))
		if err := v.Discard(t.Context(), 0, 4*65536); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		r.up(2)
		r.whole(t)
		r.wantSame(t)
		wantRead(t, v, 0, make([]byte, 4*65536))
		time.Sleep(time.Minute)
		r.wantSame(t)
		r.close(t, v)
	})
}
