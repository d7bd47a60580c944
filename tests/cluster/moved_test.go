package cluster

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A disk is plugged into another node while both are off: it comes back there with all
// it had, and the copies of each column get apart again. An image of it is not used, be
// it beside the disk or in its stead, and neither is another cluster's disk.
func TestDiskIsMoved(t *testing.T) {
	t.Parallel()
	c := up(t)
	c.must("cluster", "set", "balance", "off")
	c.must("volume", "create", "moved", "1G")
	l := newLedger(64 << 20 / block)
	c.write("moved", l)
	c.awaitFree("moved")

	at := c.Nodes[1].Disks[0].Path
	id := c.Nodes[1].Disks[0].ID
	before := c.disk(id)
	to := filepath.Join(c.Nodes[2].Dir, "disks", "from-node2")
	image := filepath.Join(c.dir, "image")
	c.kill("node2")
	c.kill("node3")
	moveDisk(t, at, to)
	copyDisk(t, to, image)
	c.start("node3")
	c.start("node2")
	c.awaitDisk(id, "node3", to, "online")
	if now := c.disk(id); now.Columns != before.Columns {
		t.Errorf("the disk came back as %+v, it was %+v", now, before)
	}
	// Nobody holds the volume: what the disk has it had before.
	eventually(t, 20*time.Second, "the disk has what it had", func() bool { return c.disk(id).Used >= before.Used*9/10 })

	c.part("serves", func(*testing.T) {
		c.kill("node1") // what it had a copy of is read from the disk that moved, too
		verifyFrom(c.t, c, "moved", "node2", l)
		c.start("node1")
		c.awaitWhole("moved")
		c.write("moved", l)
	})
	c.part("copies-apart", func(*testing.T) {
		c.must("cluster", "set", "balance", "on")
		eventually(c.t, 2*time.Minute, "no column has two copies on one node", func() bool {
			v := get[volume](c, "volume", "show", "moved")
			return v.whole() && !slices.ContainsFunc(v.Columns, func(col column) bool {
				return col.Members[0].Node == col.Members[1].Node
			})
		})
		c.write("moved", l)
		verifyFrom(c.t, c, "moved", "node3", l)
	})
	c.part("image-beside", func(*testing.T) { c.imageBeside(id, to) })
	c.part("older-image", func(*testing.T) { c.olderImage(id, to, image) })
	c.must("cluster", "set", "rebuild-after", "5s")
	c.awaitWhole("moved")
	verifyFrom(t, c, "moved", "node1", l)
}

// imageBeside plugs an image of a disk in use into another node, and takes it away.
func (c *cluster) imageBeside(id, path string) {
	c.t.Helper()
	twin := filepath.Join(c.Nodes[0].Dir, "disks", "image")
	copyDisk(c.t, path, twin)
	c.kill("node1")
	c.start("node1")
	alarm := func() bool {
		return strings.Contains(c.run("status").out, "disk "+id+" is there twice")
	}
	eventually(c.t, time.Minute, "an alarm says that the disk is there twice", alarm)
	c.awaitDisk(id, "node3", path, "online")
	removeDisk(c.t, twin)
	eventually(c.t, time.Minute, "the alarm is over", func() bool { return !alarm() })
}

// olderImage puts an image in the place of a disk that was opened again since the
// image was made.
func (c *cluster) olderImage(id, path, image string) {
	c.t.Helper()
	c.kill("node3")
	c.start("node3") // claims it as it is now
	c.awaitDisk(id, "node3", path, "online")
	c.kill("node3")
	removeDisk(c.t, path)
	moveDisk(c.t, image, path)
	old := superblocks(c.t, path)
	c.start("node3")
	c.awaitDisk(id, "node3", path, "offline")
	if why := c.disk(id).Error; !strings.Contains(why, "older image") {
		c.t.Errorf("the disk is offline because %q", why)
	}
	if !bytes.Equal(superblocks(c.t, path), old) {
		c.t.Error("an image that was refused was written to")
	}
}

// A disk of another cluster is refused, in the place of a disk and by `disk add`, and
// nothing on it changes.
func TestForeignDisk(t *testing.T) {
	t.Parallel()
	c, other := up(t), up(t, "--nodes", "1")
	foreign := other.Nodes[0].Disks[0].Path
	other.kill("node1")
	mine := c.Nodes[0].Disks[0]
	c.kill("node1")
	removeDisk(t, mine.Path)
	copyDisk(t, foreign, mine.Path)
	was := superblocks(t, mine.Path)
	c.start("node1")
	c.awaitDisk(mine.ID, "node1", mine.Path, "offline")
	if why := c.disk(mine.ID).Error; !strings.Contains(why, "belongs to cluster") {
		t.Errorf("the disk is offline because %q", why)
	}
	text, err := os.ReadFile(c.Nodes[0].Log)
	if err != nil || !strings.Contains(string(text), "disk is of another cluster and is left alone") {
		t.Errorf("the log does not say so, %v:\n%s", err, tail(string(text), 20))
	}
	second := mine.Path + "-2"
	copyDisk(t, foreign, second)
	if r := c.run("disk", "add", second, "--node", "node1"); r.status != 1 || !strings.Contains(r.errs, "disk here already") {
		t.Errorf("adding another cluster's disk: %v", r)
	}
	for _, path := range []string{mine.Path, second} {
		if !bytes.Equal(superblocks(t, path), was) {
			t.Errorf("%s was written to", path)
		}
	}
}

// write writes a volume through node1 for a while.
func (c *cluster) write(name string, l *ledger) {
	c.t.Helper()
	e := c.export(name, "node1")
	conn, err := dial(e.socket())
	if err != nil {
		c.t.Fatal(err)
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() { l.load(conn, 16, stop); close(ended) }()
	time.Sleep(3 * time.Second)
	close(stop)
	<-ended
	conn.close()
	e.stop()
}

func (c *cluster) disk(id string) poolDisk {
	c.t.Helper()
	return get[poolDisk](c, "disk", "show", id)
}

func (c *cluster) awaitDisk(id, node, path, state string) {
	c.t.Helper()
	eventually(c.t, time.Minute, "disk "+id+" is "+state+" on "+node, func() bool {
		d := c.disk(id)
		return d.Node == node && d.Path == path && d.State == state
	})
}

// moveDisk moves a disk in a file, with its map.
func moveDisk(t *testing.T, from, to string) {
	t.Helper()
	for _, suffix := range []string{"", ".map"} {
		if err := os.Rename(from+suffix, to+suffix); err != nil {
			t.Fatal(err)
		}
	}
}

func copyDisk(t *testing.T, from, to string) {
	t.Helper()
	for _, suffix := range []string{"", ".map"} {
		if out, err := exec.Command("cp", "-a", "--sparse=always", from+suffix, to+suffix).CombinedOutput(); err != nil {
			t.Fatalf("cp: %v: %s", err, out)
		}
	}
}

func removeDisk(t *testing.T, path string) {
	t.Helper()
	for _, p := range []string{path, path + ".map"} {
		if err := os.RemoveAll(p); err != nil {
			t.Fatal(err)
		}
	}
}

// superblocks is the beginning of a disk: both superblocks, and some of the journal.
func superblocks(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	p := make([]byte, 8<<20)
	if _, err := f.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}
