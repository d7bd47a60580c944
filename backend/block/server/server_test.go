package server_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/server"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/wire/wiretest"
)

// apply sends an op and waits for its answer.
func apply(d server.Disk, op *disk.Op) error {
	done := make(chan error, 1)
	d.Apply(op, func(err error) { done <- err })
	return <-done
}

func quietLog(t *testing.T) {
	t.Helper()
	old := slog.Default()
	slog.SetDefault(slog.New(slog.DiscardHandler))
	t.Cleanup(func() { slog.SetDefault(old) })
}

// Every method gives over the wire what the disk gives when it is called.
func TestRemoteIsLikeTheDisk(t *testing.T) {
	quietLog(t)
	r := newRig(t, nil, server.Config{})
	d := newMemDisk(t)
	r.server.Add(5, d)
	remote := r.client.Disk(store, 5)
	ctx := t.Context()

	w := &writes{volume: 9}
	data, sums := payload(4, 3)
	if err := apply(remote, w.next(100, data, sums)); err != nil {
		t.Fatalf("Apply: %v", err)
	}
	want, wantSums := make([]byte, 6*4096), make([]uint32, 6)
	got, gotSums := bytes.Repeat([]byte{1}, 6*4096), make([]uint32, 6)
	q := disk.Read{Volume: 9, Generation: 1, Column: 3, Block: 99, Count: 6, Epoch: 2}
	if err := errors.Join(d.Read(ctx, q, want, wantSums), remote.Read(ctx, q, got, gotSums)); err != nil {
		t.Fatalf("Read: %v", err)
	}
	if !bytes.Equal(got, want) || !cmp.Equal(gotSums, wantSums) || !bytes.Equal(got[4096:5*4096], data.Bytes) {
		t.Error("Read over the wire differs")
	}

	p := disk.Prepare{
		Volume: 9, Generation: 7, Last: 33, Origin: &disk.Origin{Volume: 8, Epoch: 2, Columns: []uint32{1, 5}},
	}
	wantP, _ := d.Prepare(ctx, p)
	gotP, err := remote.Prepare(ctx, p)
	if diff := cmp.Diff(wantP, gotP); err != nil || diff != "" {
		t.Errorf("Prepare: %v %s", err, diff)
	}
	l := disk.List{Volume: 9, Generation: 7, Column: 2, From: 11, To: 500, Max: 300}
	wantL, _ := d.List(ctx, l)
	wantD, _ := d.Digest(ctx, l)
	if gotD, err := remote.Digest(ctx, l); err != nil || gotD != wantD {
		t.Errorf("Digest = %v, %v, want %v", gotD, err, wantD)
	}
	gotL, err := remote.List(ctx, l)
	if diff := cmp.Diff(wantL, gotL); err != nil || diff != "" {
		t.Errorf("List: %v %s", err, diff)
	}
	for _, mask := range []uint32{0, 1, 0x8001, 0xffff, 0x0ff0} {
		wantPage, gotPage := make([]byte, 64<<10), bytes.Repeat([]byte{7}, 64<<10)
		wantV, _ := d.ReadVersion(ctx, 9, 7, mask, 4, 2, wantPage)
		gotV, err := remote.ReadVersion(ctx, 9, 7, mask, 4, 2, gotPage)
		if diff := cmp.Diff(wantV, gotV); err != nil || diff != "" || !bytes.Equal(wantPage, gotPage) {
			t.Errorf("ReadVersion with mask %x: %v %s", mask, err, diff)
		}
	}
}

func TestErrorsCross(t *testing.T) {
	quietLog(t)
	r := newRig(t, nil, server.Config{})
	r.server.Add(5, newMemDisk(t))
	remote := r.client.Disk(store, 5)
	ctx := t.Context()
	dst, sums := make([]byte, 4*4096), make([]uint32, 4)

	if err := remote.Read(ctx, disk.Read{Volume: 1, Column: 100, Count: 4}, dst, sums); model.CodeOf(err) != model.Internal {
		t.Errorf("unknown failure: %v; want internal", err)
	}
	if _, err := remote.ReadVersion(ctx, 1, 1, 404, 0, 0, make([]byte, 64<<10)); model.CodeOf(err) != model.NotFound {
		t.Errorf("absent version: %v; want not_found", err)
	}
	w := &writes{volume: 2}
	data, dataSums := payload(1, 1)
	if err := apply(remote, w.next(7, data, dataSums)); err != nil {
		t.Fatal(err)
	}
	_ = w.next(0, nil, nil) // lost
	if err := apply(remote, w.next(8, data, dataSums)); !errors.Is(err, disk.ErrGap) {
		t.Errorf("gap: %v; want disk.ErrGap", err)
	}
	w.number = 1
	if err := apply(remote, w.next(8, data, []uint32{1})); model.CodeOf(err) != model.Corrupt {
		t.Errorf("wrong sum: %v; want corrupt", err)
	}

	// Damaged blocks: the others come all the same.
	err := remote.Read(ctx, disk.Read{Volume: 2, Column: 101, Block: 7, Count: 4}, dst, sums)
	corrupt, ok := errors.AsType[*disk.CorruptError](err)
	if !ok || model.CodeOf(err) != model.Corrupt {
		t.Fatalf("damaged blocks: %v; want *disk.CorruptError", err)
	}
	if diff := cmp.Diff(&disk.CorruptError{Volume: 2, Column: 101, Blocks: []blockNo{7, 8}}, corrupt); diff != "" {
		t.Error(diff)
	}
	if !bytes.Equal(dst[:4096], data.Bytes) || sums[0] != dataSums[0] {
		t.Error("the blocks that are right did not come")
	}

	page := make([]byte, 64<<10)
	v, err := remote.ReadVersion(ctx, 1, 1, 7, 0, 666, page)
	if _, ok := errors.AsType[*disk.CorruptError](err); !ok || v.Mask != 7 || page[0] != 1 || page[2*4096] != 3 {
		t.Errorf("damaged version: %v, mask %x; want *disk.CorruptError and its blocks", err, v.Mask)
	}
	if _, err := remote.ReadVersion(ctx, 1, 1, 7, 0, 0, page); err != nil {
		t.Errorf("after a damaged version: %v", err)
	}

	for name, err := range map[string]error{
		"no blocks":      remote.Read(ctx, disk.Read{Volume: 1}, nil, nil),
		"short buffer":   remote.Read(ctx, disk.Read{Volume: 1, Count: 2}, dst[:4096], sums[:2]),
		"missing sums":   apply(remote, &disk.Op{Kind: disk.Write, Volume: 1, Number: 1, Count: 1, Data: data}),
		"too long":       apply(remote, &disk.Op{Kind: disk.Write, Volume: 1, Number: 1, Count: 1 << 20, Data: data}),
		"page too short": func() error { _, err := remote.ReadVersion(ctx, 1, 1, 1, 1, 1, dst[:4096]); return err }(),
	} {
		if model.CodeOf(err) != model.Invalid {
			t.Errorf("%s: %v; want invalid", name, err)
		}
	}
}

// However many volumes write at once, each one's ops arrive in order, each once.
func TestOrder(t *testing.T) {
	r := newRig(t, nil, server.Config{})
	d := newMemDisk(t)
	r.server.Add(5, d)
	remote := r.client.Disk(store, 5)
	const volumes, each = 4, 1500
	var wg sync.WaitGroup
	for v := range volumes {
		wg.Go(func() {
			w := &writes{volume: model.VolumeID(v + 1)}
			small, smallSums := payload(1, byte(v))
			large, largeSums := payload(9, byte(v)) // takes the path without a copy
			var done sync.WaitGroup
			for i := range each {
				op := w.next(uint64(i), small, smallSums)
				if i%7 == 0 {
					w.number--
					op = w.next(uint64(i), large, largeSums)
				}
				done.Add(1)
				remote.Apply(op, func(err error) {
					defer done.Done()
					if err != nil {
						t.Errorf("volume %d, number %d: %v", v, op.Number, err)
					}
				})
			}
			done.Wait()
		})
	}
	wg.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.applied) != volumes*each {
		t.Errorf("%d ops applied, want %d", len(d.applied), volumes*each)
	}
}

// The node dies in the midst of writes: each is answered once, those that may be
// lost with unavailable, and sent again in order none is lost or applied twice.
func TestNodeDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := wiretest.NewNet()
		n.Delay("holder", "store", 300*time.Microsecond)
		n.Delay("store", "holder", 300*time.Microsecond)
		r := newRig(t, n, server.Config{})
		d := newMemDisk(t)
		r.server.Add(5, d)
		remote := r.client.Disk(store, 5)
		data, sums := payload(1, 1)
		w := &writes{volume: 1}
		const total = 400
		var ops []*disk.Op
		for range total {
			ops = append(ops, w.next(w.number, data, sums))
		}
		next, deaths := 0, 0
		for next < total {
			end := min(next+60, total)
			var mu sync.Mutex
			answers := map[int][]error{}
			var done sync.WaitGroup
			for i := next; i < end; i++ {
				done.Add(1)
				remote.Apply(ops[i], func(err error) {
					mu.Lock()
					answers[i] = append(answers[i], err)
					mu.Unlock()
					done.Done()
				})
			}
			if deaths < 5 {
				deaths++
				time.Sleep(time.Duration(deaths) * 400 * time.Microsecond)
				n.Kill("store")
				r.halt()
				r.start()
			}
			done.Wait()
			for i := next; i < end; i++ {
				if len(answers[i]) != 1 {
					t.Fatalf("op %d was answered %d times", i, len(answers[i]))
				}
				if err := answers[i][0]; err != nil {
					if model.CodeOf(err) != model.Unavailable {
						t.Fatalf("op %d: %v; want unavailable", i, err)
					}
					break // send again from here
				}
				next++
			}
			time.Sleep(time.Second)
		}
		for i, number := range d.applied {
			if number != uint64(i+1) {
				t.Fatalf("number %d was applied as %d", number, i+1)
			}
		}
	})
}

// A cut network is noticed in about two seconds; a node without a process at once,
// by an error that says so.
func TestHowSoonItIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := wiretest.NewNet()
		r := newRig(t, n, server.Config{})
		r.server.Add(5, newMemDisk(t))
		remote := r.client.Disk(store, 5)
		w := &writes{volume: 1}
		data, sums := payload(1, 1)
		write := func() error { return apply(remote, w.next(1, data, sums)) }
		if err := write(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		for _, cut := range [][2]string{{"holder", "store"}, {"store", "holder"}} {
			n.Cut(cut[0], cut[1])
			begin := time.Now()
			err := write()
			if took := time.Since(begin); model.CodeOf(err) != model.Unavailable || took < 2*time.Second || took > 3*time.Second {
				t.Errorf("%v cut: %v after %v", cut, err, took)
			}
			n.Heal(cut[0], cut[1])
			time.Sleep(5 * time.Second)
			w.number = 1 // what was lost is sent again
			if err := write(); err != nil {
				t.Errorf("after the cut: %v", err)
			}
			w.number = 2
		}
		n.Kill("store")
		r.halt()
		synctest.Wait() // the reset has come
		for range 20 {
			begin := time.Now()
			err := write()
			if !errors.Is(err, syscall.ECONNREFUSED) || model.CodeOf(err) != model.Unavailable || time.Since(begin) > 100*time.Millisecond {
				t.Errorf("no process: %v after %v", err, time.Since(begin))
			}
			time.Sleep(100 * time.Millisecond)
		}
		r.start()
		time.Sleep(2 * time.Second)
		w.number = 2
		if err := write(); err != nil {
			t.Errorf("after its start: %v", err)
		}
	})
}

// A disk that hangs, in Apply, in a write or in a read, holds up no other disk,
// and does not break the connection however long it takes.
func TestHungDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, wiretest.NewNet(), server.Config{})
		hung, good := newMemDisk(t), newMemDisk(t)
		r.server.Add(5, hung)
		r.server.Add(6, good)
		bad, other := r.client.Disk(store, 5), r.client.Disk(store, 6)
		data, sums := payload(1, 1)
		first, second := &writes{volume: 1}, &writes{volume: 2}
		hung.hold(true)
		answer := make(chan error, 3)
		bad.Apply(first.next(1, data, sums), func(err error) { answer <- err })
		synctest.Wait()
		release := hung.block()
		bad.Apply(first.next(2, data, sums), func(err error) { answer <- err })
		for range 60 {
			time.Sleep(time.Second)
			if err := apply(other, second.next(1, data, sums)); err != nil {
				t.Fatalf("the other disk: %v", err)
			}
		}
		select {
		case err := <-answer:
			t.Fatalf("a hung disk has answered %v", err)
		default:
		}
		time.Sleep(time.Minute) // nothing but the hung requests
		hung.hold(false)
		release()
		for range 2 {
			if err := <-answer; err != nil {
				t.Errorf("after it hung: %v", err)
			}
		}
	})
}

// While nothing is asked, nothing is sent.
func TestIdleIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := wiretest.NewNet()
		r := newRig(t, n, server.Config{})
		r.server.Add(5, newMemDisk(t))
		remote := r.client.Disk(store, 5)
		w := &writes{volume: 1}
		data, sums := payload(1, 1)
		if err := apply(remote, w.next(1, data, sums)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		before := n.Sent()
		time.Sleep(24 * time.Hour)
		if after := n.Sent(); after != before {
			t.Errorf("%d bytes were sent in an idle day", after-before)
		}
		if err := apply(remote, w.next(2, data, sums)); err != nil {
			t.Errorf("after an idle day: %v", err)
		}
	})
}

func TestDisksComeAndGo(t *testing.T) {
	r := newRig(t, nil, server.Config{})
	remote := r.client.Disk(store, 5)
	ctx := t.Context()
	read := func() error {
		return remote.Read(ctx, disk.Read{Volume: 1, Count: 1}, make([]byte, 4096), make([]uint32, 1))
	}
	w := &writes{volume: 1}
	data, sums := payload(1, 1)
	for range 3 {
		if err := read(); model.CodeOf(err) != model.Unavailable {
			t.Errorf("Read of no disk: %v; want unavailable", err)
		}
		if err := apply(remote, w.next(1, data, sums)); model.CodeOf(err) != model.Unavailable {
			t.Errorf("Apply to no disk: %v; want unavailable", err)
		}
		w.number = 0
		r.server.Add(5, newMemDisk(t))
		if err := errors.Join(read(), apply(remote, w.next(1, data, sums))); err != nil {
			t.Errorf("with the disk: %v", err)
		}
		w.number = 0
		r.server.Remove(5)
	}
}

// The window of a volume and of a disk bound what is under way; whoever comes
// later waits, other volumes do not, and nothing is lost.
func TestWindows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, wiretest.NewNet(), server.Config{})
		d := newMemDisk(t)
		r.server.Add(5, d)
		remote := r.client.Disk(store, 5)
		d.hold(true)
		var mu sync.Mutex
		sent, answered := map[int]int{}, 0
		flood := func(v, n, blocks int) {
			data, sums := payload(blocks, 1)
			w := &writes{volume: model.VolumeID(v)}
			for range n {
				remote.Apply(w.next(1, data, sums), func(err error) {
					if err != nil {
						t.Errorf("volume %d: %v", v, err)
					}
					mu.Lock()
					answered++
					mu.Unlock()
				})
				mu.Lock()
				sent[v]++
				mu.Unlock()
			}
		}
		go flood(1, 2000, 1)
		synctest.Wait()
		if sent[1] != 512 {
			t.Errorf("one volume has %d ops under way, want 512", sent[1])
		}
		go flood(2, 20, 256)
		synctest.Wait()
		if sent[2] != 8 {
			t.Errorf("another has %d MiB under way, want 8", sent[2])
		}
		go flood(3, 2000, 1)
		synctest.Wait()
		if sum := sent[1] + sent[2] + sent[3]; sum != 1024 {
			t.Errorf("a disk has %d ops under way, want 1024", sum)
		}
		time.Sleep(time.Minute)
		d.hold(false)
		synctest.Wait()
		time.Sleep(time.Second)
		if answered != 4020 {
			t.Errorf("%d ops answered, want 4020", answered)
		}
	})
}

// A read whose context ends returns at once and its memory is the caller's.
func TestReadCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, wiretest.NewNet(), server.Config{})
		d := newMemDisk(t)
		r.server.Add(5, d)
		remote := r.client.Disk(store, 5)
		d.hold(true)
		ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
		defer cancel()
		begin := time.Now()
		dst := make([]byte, 4096)
		err := remote.Read(ctx, disk.Read{Volume: 1, Count: 1}, dst, make([]uint32, 1))
		if model.CodeOf(err) != model.Unavailable || time.Since(begin) != 700*time.Millisecond {
			t.Errorf("Read: %v after %v", err, time.Since(begin))
		}
		dst[0] = 1 // the race detector would see a late writer
		d.hold(false)
		if err := remote.Read(t.Context(), disk.Read{Volume: 1, Count: 1}, dst, make([]uint32, 1)); err != nil {
			t.Errorf("the next one: %v", err)
		}
	})
}

// Reads cancelled at every moment of their life do no harm.
func TestCancelStorm(t *testing.T) {
	r := newRig(t, nil, server.Config{})
	r.server.Add(5, newMemDisk(t))
	remote := r.client.Disk(store, 5)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			dst, sums := make([]byte, 64*4096), make([]uint32, 64)
			for j := range 100 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i*j)*time.Microsecond)
				err := remote.Read(ctx, disk.Read{Volume: 1, Count: 64}, dst, sums)
				if err != nil && model.CodeOf(err) != model.Unavailable {
					t.Errorf("Read: %v", err)
				}
				cancel()
				clear(dst)
			}
		})
	}
	wg.Wait()
	if err := remote.Read(t.Context(), disk.Read{Volume: 1, Count: 1}, make([]byte, 4096), make([]uint32, 1)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// A peer that may not hold a volume is refused everything about it, others are
// not, and it is asked once for each generation.
func TestMayHold(t *testing.T) {
	var mu sync.Mutex
	asked := map[model.VolumeID]int{}
	r := newRig(t, nil, server.Config{
		MayHold: func(_ context.Context, peer model.NodeID, vol model.VolumeID, _ model.Generation) error {
			mu.Lock()
			defer mu.Unlock()
			asked[vol]++
			if peer != holder || vol == 13 {
				return model.Errorf(model.Fenced, "node %s does not hold volume %s", peer, vol)
			}
			return nil
		},
	})
	d := newMemDisk(t)
	r.server.Add(5, d)
	remote := r.client.Disk(store, 5)
	data, sums := payload(1, 1)
	for _, c := range []struct {
		volume model.VolumeID
		want   model.Code
	}{{1, ""}, {13, model.Fenced}} {
		w := &writes{volume: c.volume}
		_, prepared := remote.Prepare(t.Context(), disk.Prepare{Volume: c.volume, Generation: 1})
		_, listed := remote.List(t.Context(), disk.List{Volume: c.volume, Generation: 1, Max: 1})
		_, version := remote.ReadVersion(t.Context(), c.volume, 1, 1, 1, 1, make([]byte, 64<<10))
		for name, err := range map[string]error{
			"Prepare": prepared, "List": listed, "ReadVersion": version,
			"Apply": apply(remote, w.next(1, data, sums)),
			"Read":  remote.Read(t.Context(), disk.Read{Volume: c.volume, Generation: 1, Count: 1}, make([]byte, 4096), make([]uint32, 1)),
		} {
			if got := model.CodeOf(err); got != c.want {
				t.Errorf("%s of volume %s: %v; want %q", name, c.volume, err, c.want)
			}
		}
	}
	if asked[1] != 1 {
		t.Errorf("asked %d times for one volume and generation", asked[1])
	}
	if _, ok := d.last[13]; ok {
		t.Error("a refused op was applied")
	}
}

// Close answers what is under way, and nothing is left running (the bubble would
// not end).
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, wiretest.NewNet(), server.Config{})
		d := newMemDisk(t)
		r.server.Add(5, d)
		remote := r.client.Disk(store, 5)
		d.hold(true)
		data, sums := payload(1, 1)
		w := &writes{volume: 1}
		answers := make(chan error, 2000)
		waiting := make(chan struct{})
		go func() {
			defer close(waiting)
			for range 600 { // more than fits: the last ones wait in Apply
				remote.Apply(w.next(1, data, sums), func(err error) { answers <- err })
			}
		}()
		read := make(chan error, 1)
		go func() {
			read <- remote.Read(t.Context(), disk.Read{Volume: 1, Count: 1}, make([]byte, 4096), make([]uint32, 1))
		}()
		synctest.Wait()
		r.client.Close()
		<-waiting
		for range 600 {
			if err := <-answers; model.CodeOf(err) != model.Unavailable {
				t.Fatalf("Apply at Close: %v; want unavailable", err)
			}
		}
		if err := <-read; model.CodeOf(err) != model.Unavailable {
			t.Errorf("Read at Close: %v; want unavailable", err)
		}
		if err := apply(remote, w.next(1, data, sums)); model.CodeOf(err) != model.Unavailable {
			t.Errorf("Apply after Close: %v; want unavailable", err)
		}
	})
}

// What a client sends is not read from the caller's buffer after done, so that
// the buffer can be used again at once, also when the connection breaks.
func TestBufferIsFreeAfterDone(t *testing.T) {
	r := newRig(t, nil, server.Config{})
	r.server.Add(5, newMemDisk(t))
	remote := r.client.Disk(store, 5)
	w := &writes{volume: 1}
	for round := range 30 {
		ops := make(chan struct{}, 16)
		for range 16 {
			data, sums := payload(40, 1)
			op := w.next(1, data, sums)
			remote.Apply(op, func(error) {
				clear(data.Bytes) // the race detector would see a late reader
				*op = disk.Op{}
				data.Release()
				ops <- struct{}{}
			})
		}
		if round%3 == 2 {
			r.wire.Drop(store)
		}
		for range 16 {
			<-ops
		}
	}
}
