package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	snapKept = 64 << 20  // in the snapshot that stays
	snapLoad = 256 << 20 // written after it was cut
)

// sum is the digest of the beginning of a volume, exported from a node.
func (c *cluster) sum(name, node string) string {
	c.t.Helper()
	e := c.export(name, node)
	defer c.awaitFree(name)
	defer e.stop()
	conn, err := dial(e.socket())
	if err != nil {
		c.t.Fatal(err)
	}
	defer conn.close()
	h := sha256.New()
	p := make([]byte, 1<<20)
	for at := int64(0); at < snapLoad+snapKept; at += int64(len(p)) {
		if err := conn.readAt(p, at); err != nil {
			c.t.Fatalf("read %s at %d: %v", name, at, err)
		}
		h.Write(p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// awaitSettled waits until nothing is freed or reverted any more, and a volume takes
// so much.
func (c *cluster) awaitSettled(name string, want int64) {
	c.t.Helper()
	type shown struct {
		Used    int64 `json:"used_bytes"`
		Tending any   `json:"tending"`
	}
	var last shown
	defer func() { c.t.Logf("%s takes %d MiB, tending %v", name, last.Used>>20, last.Tending) }()
	eventually(c.t, 2*time.Minute, fmt.Sprintf("%s takes %d bytes and nothing is left to do", name, want), func() bool {
		last = get[shown](c, "volume", "show", name)
		return last.Tending == nil && last.Used == want
	})
}

// With fio writing and verifying, snapshots come and go, and a node dies and comes
// back: no error, the snapshot that stays does not change, and what only the others
// kept is free again. Then the volume is reverted, back and forth.
func TestSnapshotsUnderLoad(t *testing.T) {
	t.Parallel()
	c := up(t)
	c.must("volume", "create", "snap", "1G")
	e := c.export("snap", "node1")
	conn, err := dial(e.socket())
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 1<<20)
	for at := 0; at < snapKept; at += len(p) {
		for b := 0; b < len(p); b += block {
			fill(p[b:b+block], (at+b)/block, 1)
		}
		if err := conn.writeAt(p, int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	conn.close()
	e.stop()
	c.awaitFree("snap")
	kept := c.sum("snap", "node2")
	c.must("snapshot", "create", "snap", "kept")

	e = c.export("snap", "node1")
	f := fio(t, e.uri, strconv.Itoa(snapLoad))
	down, before, cuts := false, "", 0
	for i := 0; f.running() && i < 40; i++ {
		name := fmt.Sprintf("s%d", i)
		switch r := c.run("snapshot", "create", "snap", name); {
		case r.status == 0:
			if before != "" {
				c.must("snapshot", "delete", "snap@"+before)
			}
			before = name
			cuts++
		case !strings.Contains(r.errs, "nothing was cut"): // writes may wait for a node that died
			t.Errorf("a snapshot under load: %v", r)
		}
		switch i {
		case 2:
			c.kill("node2")
			down = true
		case 6:
			c.start("node2")
			down = false
		}
		time.Sleep(500 * time.Millisecond)
	}
	t.Logf("%d snapshots were cut under load", cuts)
	if stall := f.wait(); stall > stallMax {
		t.Errorf("a request took %v, want at most %v", stall, stallMax)
	}
	if down {
		c.start("node2")
	}
	if r := c.run("snapshot", "revert", "snap@kept"); r.status == 0 || !strings.Contains(r.errs, "in use") {
		t.Errorf("reverting a volume that is exported: %v", r)
	}
	e.stop()
	c.awaitFree("snap")
	c.awaitWhole("snap")
	now := c.sum("snap", "node3")
	for _, s := range c.snapshots("snap") {
		if s != "kept" {
			c.must("snapshot", "delete", "snap@"+s)
		}
	}
	c.awaitSettled("snap", snapKept+snapLoad)

	c.must("snapshot", "revert", "snap@kept", "--snapshot", "after")
	if got := c.sum("snap", "node1"); got != kept {
		t.Errorf("reverted to the kept snapshot the volume has the sum %s, want %s", got, kept)
	}
	c.must("snapshot", "revert", "snap@after", "--no-snapshot")
	if got := c.sum("snap", "node2"); got != now {
		t.Errorf("reverted to what it was the volume has the sum %s, want %s", got, now)
	}
	if got := c.snapshots("snap"); len(got) != 2 {
		t.Errorf("the snapshots are %v", got)
	}
	c.must("snapshot", "delete", "snap@kept")
	c.must("snapshot", "delete", "snap@after")
	c.awaitSettled("snap", snapLoad)
	if got := c.sum("snap", "node1"); got != now {
		t.Errorf("with its snapshots deleted the volume has the sum %s, want %s", got, now)
	}
}

// snapshots lists the names of a volume's snapshots.
func (c *cluster) snapshots(name string) (names []string) {
	c.t.Helper()
	type snap struct {
		Name string `json:"name"`
	}
	list := get[struct {
		Items []snap `json:"items"`
	}](c, "snapshot", "list", name)
	for _, s := range list.Items {
		names = append(names, s.Name)
	}
	return names
}
