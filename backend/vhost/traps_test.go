package vhost

import (
	"bytes"
	"testing"
	"time"
)

// What QEMU 7.2 does not forgive a back end (docs/VHOST.md), by QEMU itself: one that is
// replaced before the guest has run, and between a reset and the driver, hears no
// handshake; and while the disk hangs the monitor answers, the guest can be stopped and
// go on, and nothing is lost.
func TestGuestTraps(t *testing.T) {
	b := newBackend(t, 32<<20)
	b.hold(true)
	replace := func() {
		b.kill()
		b.start()
		time.Sleep(1500 * time.Millisecond) // QEMU reconnects after one second, and says nothing
	}
	g := bootGuest(t, b, "-S")
	t.Log("killed before the guest ran")
	replace()
	g.command("cont")

	t.Log("its disk hangs")
	g.wait("a request that hangs", b.holding)
	g.command("query-status")
	g.command("stop") // who waited for the disk would not answer
	g.command("query-status")
	t.Log("killed while a request is parked")
	replace()
	g.command("cont")
	g.command("query-status")
	b.hold(false)
	g.wait("the disk", func() bool { return g.count("guest: serial=drystone-test queues=2") == 1 })
	g.rounds(3)

	t.Log("killed between a reset and the driver")
	g.command("stop")
	g.command("system_reset")
	replace()
	g.command("cont")
	g.wait("the disk after the reset", func() bool { return g.count("guest: serial=") == 2 })
	g.rounds(2)
	g.finish()
}

// Windows cuts a request into as many descriptors as it has pages and more, also of single
// sectors, and its boot loader moves single sectors wherever they lie: each is what it
// was, whoever writes beside it.
func TestWindows(t *testing.T) {
	d := newDisk(16 << 20)
	_, v := boot(t, d, 2)
	q := v.queues[0]
	for _, c := range []struct {
		name     string
		pieces   int
		indirect bool
	}{
		{"indirect", chainMax - 2, true},
		{"in the ring", ringSize - 2, false},
	} {
		data := random(1, c.pieces*512)
		var pieces []segment
		for i := 0; i < len(data); i += 512 { // each in a page of its own, not at its begin
			at := v.alloc(4096) + 512
			copy(v.at(at, 512), data[i:])
			pieces = append(pieces, segment{at, 512})
		}
		status := v.alloc(1)
		done := func(o *op) bool {
			v.at(status, 1)[0] = 0xff
			q.wait(q.publish(o))
			return v.at(status, 1)[0] == statusOK
		}
		if !done(q.chain(append([]segment{q.head(blkOut, 9)}, pieces...), []segment{{status, 1}}, c.indirect)) ||
			!d.holds(9*512, data) {
			t.Fatalf("%s: a write of %d sectors failed, or wrote other data", c.name, c.pieces)
		}
		for _, p := range pieces {
			clear(v.at(p.guest, 512))
		}
		if !done(q.chain([]segment{q.head(blkIn, 9)}, append(pieces[:len(pieces):len(pieces)], segment{status, 1}), c.indirect)) {
			t.Fatalf("%s: a read of %d sectors failed", c.name, c.pieces)
		}
		for i, p := range pieces {
			if !bytes.Equal(v.at(p.guest, 512), data[i*512:][:512]) {
				t.Fatalf("%s: sector %d of the read is other data", c.name, i)
			}
		}
	}

	const from, sectors = 4099, 64 // not at a page's begin
	data := random(2, sectors*512)
	for i := range uint64(sectors) {
		v.queues[i%2].request(blkOut, from+i, data[i*512:][:512], 0)
	}
	for _, q := range v.queues {
		q.waitAll()
	}
	for i := range uint64(sectors) {
		if st, got := v.queues[(i+1)%2].do(blkIn, from+i, nil, 512); st != statusOK || !bytes.Equal(got, data[i*512:][:512]) {
			t.Fatalf("sector %d: status %d, or other data", from+i, st)
		}
	}
}
