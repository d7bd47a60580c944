package vhost

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"drystone.example/drystone/backend/model"
)

// boot returns a machine that runs on d.
func boot(t *testing.T, d *disk, queues int) (*Server, *vmm) {
	t.Helper()
	s, _ := start(t, d.config())
	v := newVMM(t, s.cfg.Path, queues)
	v.dial()
	v.handshake()
	v.run()
	return s, v
}

func random(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func rangeBody(sector uint64, sectors, flags uint32) []byte {
	le := binary.LittleEndian
	b := le.AppendUint64(nil, sector)
	return le.AppendUint32(le.AppendUint32(b, sectors), flags)
}

func TestEveryRequest(t *testing.T) {
	d := newDisk(16 << 20)
	s, v := boot(t, d, 2)
	for _, q := range v.queues {
		for _, n := range []int{512, 4096, 128 << 10} {
			data := random(byte(q.index), n)
			if st, _ := q.do(blkOut, 3, data, 0); st != statusOK || !d.holds(3*512, data) {
				t.Errorf("queue %d: write of %d: status %d, or other data", q.index, n, st)
			}
			if st, got := q.do(blkIn, 3, nil, uint64(n)); st != statusOK || !bytes.Equal(got, data) {
				t.Errorf("queue %d: read of %d: status %d, or other data", q.index, n, st)
			}
		}
		if st, _ := q.do(blkFlush, 0, nil, 0); st != statusOK {
			t.Errorf("queue %d: flush: status %d", q.index, st)
		}
	}
	q := v.queues[0]
	if got := d.flushes.Load(); got != 2 {
		t.Errorf("%d flushes reached the disk, want 2", got)
	}
	if st, id := q.do(blkGetID, 0, nil, serialSize); st != statusOK ||
		string(bytes.TrimRight(id, "\x00")) != "serial-0123456789" {
		t.Errorf("serial: status %d, %q", st, id)
	}
	for _, kind := range []uint32{blkDiscard, blkWriteZeroes} {
		q.do(blkOut, 0, random(9, 8192), 0)
		list := append(rangeBody(0, 2, 0), rangeBody(8, 8, 0)...)
		if st, _ := q.do(kind, 0, list, 0); st != statusOK || !d.holds(0, make([]byte, 1024)) ||
			d.holds(1024, make([]byte, 512)) || !d.holds(4096, make([]byte, 4096)) {
			t.Errorf("request %d: status %d, or other ranges", kind, st)
		}
	}
	if st, _ := q.do(blkWriteZeroes, 0, rangeBody(0, 8, rangeUnmap), 0); st != statusOK {
		t.Errorf("write zeroes that may unmap: status %d", st)
	}
	eventually(t, "the last request to come back", func() bool { return s.Stats().InFlight == 0 })
	got := s.Stats()
	if got.Reads != 6 || got.Writes != 8 || got.Flushes != 2 || got.Discards != 1 ||
		got.WriteZeroes != 2 || got.ReadBytes != 2*(512+4096+128<<10) || got.Errors != 0 ||
		got.Running != 2 || !got.Connected || got.InFlight != 0 {
		t.Errorf("stats %+v", got)
	}
}

// A refused request costs the guest that request: the next one works.
func TestRequestRefusals(t *testing.T) {
	const sectors = 16 << 20 / 512
	_, v := boot(t, newDisk(sectors*512), 1)
	q := v.queues[0]
	tooMany := bytes.Repeat(rangeBody(0, 1, 0), rangesMax)
	for _, tc := range []struct {
		name   string
		kind   uint32
		sector uint64
		data   []byte
		size   uint64
		want   byte
	}{
		{"read across the end", blkIn, sectors - 1, nil, 1024, statusIOError},
		{"read behind the end", blkIn, 1 << 60, nil, 512, statusIOError},
		{"read at the last address", blkIn, 1<<64 - 1, nil, 512, statusIOError},
		{"read not whole sectors", blkIn, 0, nil, 100, statusIOError},
		{"write across the end", blkOut, sectors - 1, make([]byte, 1024), 0, statusIOError},
		{"write not whole sectors", blkOut, 0, make([]byte, 513), 0, statusIOError},
		{"discard across the end", blkDiscard, 0, rangeBody(sectors-1, 2, 0), 0, statusIOError},
		{"discard too long", blkDiscard, 0, rangeBody(0, 1<<31, 0), 0, statusIOError},
		{"discard with a flag", blkDiscard, 0, rangeBody(0, 1, 1), 0, statusUnsupported},
		{"zeroes with a flag", blkWriteZeroes, 0, rangeBody(0, 1, 2), 0, statusUnsupported},
		{"no ranges", blkDiscard, 0, nil, 0, statusIOError},
		{"half a range", blkDiscard, 0, make([]byte, 8), 0, statusIOError},
		{"too many ranges", blkDiscard, 0, append(tooMany, tooMany[:16]...), 0, statusIOError},
		{"a type there is not", 99, 0, nil, 512, statusUnsupported},
		{"a SCSI command", 2, 0, nil, 512, statusUnsupported},
	} {
		if st, _ := q.do(tc.kind, tc.sector, tc.data, tc.size); st != tc.want {
			t.Errorf("%s: status %d, want %d", tc.name, st, tc.want)
		}
	}
	if st, _ := q.do(blkIn, sectors-1, nil, 512); st != statusOK {
		t.Errorf("the last sector: status %d", st)
	}
}

func TestReadOnly(t *testing.T) {
	d := newDisk(1 << 20)
	cfg := d.config()
	cfg.ReadOnly = true
	s, _ := start(t, cfg)
	v := newVMM(t, s.cfg.Path, 1)
	v.features |= featureReadOnly
	v.dial()
	v.handshake()
	v.run()
	for _, kind := range []uint32{blkOut, blkDiscard, blkWriteZeroes} {
		if st, _ := v.queues[0].do(kind, 0, make([]byte, 512), 0); st != statusIOError {
			t.Errorf("request %d: status %d, want an error", kind, st)
		}
	}
	if st, _ := v.queues[0].do(blkIn, 0, nil, 512); st != statusOK {
		t.Errorf("read: status %d", st)
	}
}

// Windows sends requests of 512 pages and 3 descriptors more.
func TestLongChains(t *testing.T) {
	d := newDisk(16 << 20)
	_, v := boot(t, d, 1)
	q := v.queues[0]
	data := random(1, (chainMax-2)*4096)
	var pages []segment
	for i := 0; i < len(data); i += 4096 {
		at := v.alloc(4096)
		copy(v.at(at, 4096), data[i:])
		pages = append(pages, segment{at, 4096})
	}
	status := v.alloc(1)
	o := q.chain(append([]segment{q.head(blkOut, 8)}, pages...), []segment{{status, 1}}, true)
	q.wait(q.publish(o))
	if st := v.at(status, 1)[0]; st != statusOK || !d.holds(4096, data) {
		t.Fatalf("write of %d descriptors: status %d, or other data", chainMax, st)
	}
	for _, p := range pages {
		clear(v.at(p.guest, 4096))
	}
	o = q.chain([]segment{q.head(blkIn, 8)}, append(pages[:len(pages):len(pages)],
		segment{status, 1}), true)
	q.wait(q.publish(o))
	for i, p := range pages {
		if !bytes.Equal(v.at(p.guest, 4096), data[i*4096:][:4096]) {
			t.Fatalf("page %d of the read is other data", i)
		}
	}
	if want := uint32(len(data) + 1); o.written != want {
		t.Errorf("%d bytes written, want %d", o.written, want)
	}
}

// A request may be cut into descriptors anywhere, the header and the status
// included, and may lie across two memory regions.
func TestOddLayouts(t *testing.T) {
	d := newDisk(1 << 20)
	_, v := boot(t, d, 1)
	q := v.queues[0]
	data := random(2, 1024)
	head := q.head(blkOut, 4)
	at := v.alloc(2048)
	copy(v.at(at, 1024), data)
	status := v.alloc(16)
	for _, indirect := range []bool{false, true} {
		o := q.chain([]segment{
			{head.guest, 7},
			{head.guest + 7, 0},
			{head.guest + 7, 9},
			{at, 1},
			{at + 1, 1023},
		}, []segment{{status, 0}, {status, 1}}, indirect)
		v.at(status, 1)[0] = 0xff
		q.wait(q.publish(o))
		if st := v.at(status, 1)[0]; st != statusOK || !d.holds(2048, data) || o.written != 1 {
			t.Errorf("indirect=%v: status %d, written %d, or other data", indirect, st, o.written)
		}
	}
	// Header and data in one descriptor; data and status in one.
	one := v.alloc(blkHeader + 512)
	copy(v.at(one, blkHeader), v.at(head.guest, blkHeader))
	copy(v.at(one+blkHeader, 512), data[512:])
	o := q.chain([]segment{{one, blkHeader + 512}}, []segment{{status, 1}}, false)
	q.wait(q.publish(o))
	read := v.alloc(513)
	o = q.chain([]segment{q.head(blkIn, 4)}, []segment{{read, 513}}, false)
	q.wait(q.publish(o))
	if b := v.at(read, 513); b[512] != statusOK || !bytes.Equal(b[:512], data[512:]) ||
		o.written != 513 {
		t.Errorf("read with its status behind it: %d, written %d", b[512], o.written)
	}
}

// Without EVENT_IDX and without INDIRECT, flags do the work.
func TestPlainRing(t *testing.T) {
	d := newDisk(1 << 20)
	s, _ := start(t, d.config())
	v := newVMM(t, s.cfg.Path, 1)
	v.features &^= featureEventIdx | featureIndirect
	v.dial()
	v.handshake()
	v.run()
	q := v.queues[0]
	for i := range 3 * ringSize {
		data := random(byte(i), 512)
		if st, _ := q.do(blkOut, uint64(i), data, 0); st != statusOK {
			t.Fatalf("write %d: status %d", i, st)
		}
	}
	status := v.alloc(1)
	q.publish(q.chain([]segment{q.head(blkFlush, 0)}, []segment{{status, 1}}, true))
	eventually(t, "the indirect chain to be refused", func() bool { return s.Stats().Failed == 1 })
}

// A kick that the guest need not send is never missed: the next request follows
// at once on the answer, when the device is about to sleep.
func TestNoKickIsLost(t *testing.T) {
	_, v := boot(t, newDisk(1<<20), 1)
	q := v.queues[0]
	status := v.alloc(1)
	o := q.chain([]segment{q.head(blkFlush, 0)}, []segment{{status, 1}}, false)
	free := q.free
	for i := range 20000 {
		o.done = false
		q.publish(o)
		for began := time.Now(); !o.done; q.collect() {
			if time.Since(began) > 10*time.Second {
				t.Fatalf("request %d is not answered", i)
			}
		}
		q.free = free
	}
}

// Many requests at once on many queues, each to a place of its own, wrap the
// rings many times and all come to their place.
func TestManyAtOnce(t *testing.T) {
	d := newDisk(4 << 20)
	_, v := boot(t, d, 4)
	buf := make(map[*vring][]*op)
	for round := range 60 {
		for _, q := range v.queues {
			if round == 0 {
				for i := range 40 {
					sector := uint64(q.index*40+i) * 8
					buf[q] = append(buf[q], q.request(blkOut, sector, random(byte(sector), 512), 0))
				}
				continue
			}
			for _, o := range buf[q] { // the same memory again
				r := q.chain(again(o), []segment{{o.status, 1}}, false)
				q.publish(r)
			}
		}
		for _, q := range v.queues {
			q.waitAll()
		}
	}
	for _, q := range v.queues {
		for i := range 40 {
			if sector := (q.index*40 + i) * 8; !d.holds(int64(sector)*512, random(byte(sector), 512)) {
				t.Errorf("queue %d: sector %d has other data", q.index, sector)
			}
		}
		if q.completed != 60*40 {
			t.Errorf("queue %d: %d answers, want %d", q.index, q.completed, 60*40)
		}
	}
}

// again returns what the guest sends with o, to send it once more.
func again(o *op) []segment {
	return []segment{{o.data - blkHeader, blkHeader}, {o.data, 512}}
}

// What the device says reaches the guest as an error, and no more.
func TestDeviceErrors(t *testing.T) {
	d := newDisk(1 << 20)
	d.hook = func(_ context.Context, _ string, off, _ int64) error {
		if off == 512 {
			return model.Errorf(model.NoSpace, "full")
		}
		if off == 1024 {
			panic("a bug in the block engine") //nolint:forbidigo // it is what is tested
		}
		return nil
	}
	s, v := boot(t, d, 2)
	if st, _ := v.queues[0].do(blkOut, 1, make([]byte, 512), 0); st != statusIOError {
		t.Errorf("status %d, want an error", st)
	}
	if st, _ := v.queues[0].do(blkOut, 0, make([]byte, 512), 0); st != statusOK {
		t.Errorf("status %d afterwards", st)
	}
	v.queues[0].request(blkOut, 2, make([]byte, 512), 0)
	eventually(t, "the queue to fail", func() bool { return s.Stats().Failed == 1 })
	if !readable(v.queues[0].fault, 5000) {
		t.Error("QEMU was not told")
	}
	if st, _ := v.queues[1].do(blkOut, 0, make([]byte, 512), 0); st != statusOK {
		t.Errorf("the other queue: status %d", st)
	}
}
