package cluster

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// Much of a disk is damaged where nobody reads. A scrub finds and repairs it, and the
// cluster empties the disk by itself: it stays listed, with an alarm, and all that was
// written is read as it was. An operator may let the disk stay, which holds, or take it
// out of the pool.
func TestBadDisk(t *testing.T) {
	t.Parallel()
	c := up(t)
	c.must("volume", "create", "worn", "1G")
	l := newLedger(1 << 20 / block)
	e := c.export("worn", "node1")
	conn, err := dial(e.socket())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { conn.close() }()
	p := make([]byte, 1<<20)
	for at := range l.sent {
		l.sent[at], l.acked[at] = 1, 1
		fill(p[at*block:(at+1)*block], at, 1)
	}
	if err := conn.writeAt(p, 0); err != nil {
		t.Fatal(err)
	}
	worn := get[volume](c, "volume", "show", "worn").Columns[0].Members[0].Disk
	show := func() poolDisk {
		t.Helper()
		i := slices.IndexFunc(c.disks(), func(d poolDisk) bool { return d.ID == worn })
		if i < 0 {
			t.Fatalf("disk %s is not listed", worn)
		}
		return c.disks()[i]
	}
	wreck(t, show().Path, p)
	c.must("disk", "scrub", worn)
	eventually(t, time.Minute, "the disk is retired, and empty", func() bool {
		d := show()
		return d.Drain != nil && d.Drain.Errors >= 100 && d.Columns == 0
	})
	eventually(t, 20*time.Second, "there is an alarm for it", func() bool {
		return strings.Contains(c.must("status"), "disk "+worn+" is retired")
	})
	c.awaitWhole("worn")
	if _, err := l.verify(conn); err != nil {
		t.Fatal(err)
	}

	c.must("disk", "remove", worn, "--cancel")
	eventually(t, time.Minute, "it takes its share again", func() bool {
		d := show()
		return d.Drain == nil && d.Columns > 0
	})
	c.must("disk", "remove", worn, "--wait")
	if slices.ContainsFunc(c.disks(), func(d poolDisk) bool { return d.ID == worn }) {
		t.Error("it is still in the pool")
	}
	if _, err := l.verify(conn); err != nil {
		t.Fatal(err)
	}
}

// wreck flips a bit in each block of a disk's file that is one of those in what.
func wreck(t *testing.T, path string, what []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	blocks := map[string]bool{}
	for at := 0; at < len(what); at += block {
		blocks[string(what[at:at+block])] = true
	}
	found := 0
	buf := make([]byte, 4<<20)
	for off := int64(0); ; off += int64(len(buf)) {
		n, _ := f.ReadAt(buf, off)
		for at := 0; at+block <= n; at += block {
			if !blocks[string(buf[at:at+block])] {
				continue
			}
			if _, err := f.WriteAt([]byte{buf[at+100] ^ 4}, off+int64(at)+100); err != nil {
				t.Fatal(err)
			}
			found++
		}
		if n < len(buf) {
			break
		}
	}
	if found < len(blocks) {
		t.Fatalf("%s holds %d of %d blocks that were written", path, found, len(blocks))
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}
