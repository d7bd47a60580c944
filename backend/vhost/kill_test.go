package vhost

import (
	"bytes"
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

// The first request hangs, the next fifteen are answered, the back end is killed:
// a ring position alone would now say that the first was answered and the last
// was not. The next process carries out exactly what is open.
func TestKillOutOfOrder(t *testing.T) {
	b := newBackend(t, 1<<20)
	v := newVMM(t, b.socket, 2)
	v.dial()
	v.handshake()
	v.run()
	for range 3 {
		b.hold(true)
		var open []*op
		for _, q := range v.queues {
			open = append(open, q.request(blkOut, 0, random(77, 512), 0))
			for i := range 15 {
				q.wait(q.request(blkOut, uint64(q.index*100+i+1), random(byte(i), 512), 0))
			}
		}
		b.kill()
		b.hold(false)
		for _, q := range v.queues { // the guest goes on meanwhile
			for i := range 5 {
				open = append(open, q.request(blkOut, uint64(q.index*100+50+i), random(88, 512), 0))
			}
		}
		for _, o := range open {
			if o.q.collect(); o.done {
				t.Fatal("answered by nobody")
			}
		}
		b.start()
		v.reconnect()
		for _, q := range v.queues {
			q.waitAll()
		}
		for i, o := range open {
			if st := v.at(o.status, 1)[0]; st != statusOK {
				t.Errorf("request %d after the kill: status %d", i, st)
			}
		}
		disk, err := os.ReadFile(b.file)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []int{0, 50, 54, 150, 154} {
			want := random(88, 512)
			if at == 0 {
				want = random(77, 512)
			}
			if !bytes.Equal(disk[at*512:][:512], want) {
				t.Errorf("sector %d was not written", at)
			}
			clear(disk[at*512:][:512])
		}
		if err := os.WriteFile(b.file, disk, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, q := range v.queues {
		if want := 3 * 21; q.completed != want {
			t.Errorf("queue %d: %d answers, want %d", q.index, q.completed, want)
		}
	}
}

// Killed at any moment under load: every request is answered once, and what was
// answered is there.
func TestKillAnytime(t *testing.T) {
	const sectors, kills = 512, 12
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	b := newBackend(t, sectors*512)
	v := newVMM(t, b.socket, 2)
	v.dial()
	v.handshake()
	v.run()
	top := v.next
	wrote := map[uint64]byte{}
	open := 0
	for range kills {
		v.next = top
		for _, q := range v.queues {
			q.waitAll()
		}
		busy := map[uint64]bool{}
		write := func() {
			q := v.queues[rnd.IntN(2)]
			sector := uint64(rnd.IntN(sectors))
			if q.collect(); busy[sector] || len(q.free) < 3 || v.next > lowSize-8192 {
				return // one write of a sector at a time, as a guest would
			}
			busy[sector] = true
			wrote[sector] = byte(rnd.IntN(256))
			q.request(blkOut, sector, random(wrote[sector], 512), 0)
		}
		moment := time.Now().Add(time.Duration(rnd.IntN(30)) * time.Millisecond)
		for n := 0; n < 60 || time.Now().Before(moment); n++ {
			write()
		}
		_ = b.cmd.Process.Kill() // it dies while the guest goes on
		for range 60 {
			write()
		}
		b.kill()
		for _, q := range v.queues {
			q.collect()
			open += len(q.waiting)
		}
		b.start()
		v.reconnect()
	}
	for _, q := range v.queues {
		q.waitAll()
	}
	disk, err := os.ReadFile(b.file)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d requests were open at the kills", open)
	for sector, fill := range wrote {
		if !bytes.Equal(disk[sector*512:][:512], random(fill, 512)) {
			t.Errorf("sector %d was answered and has other data", sector)
		}
	}
	if len(wrote) < sectors/4 || open == 0 {
		t.Errorf("%d sectors written, %d open: the test showed little", len(wrote), open)
	}
}
