package cluster

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

var howManyClones = flag.Int("clones", 16, "how many clones of one image are written at the same time")

// The image that clones are made of, and where fio writes in some of them.
const (
	imageSize   = 4 << 30
	imageBlocks = 48 << 20 / block
	fioOffset   = 1 << 30
	fioSize     = 24 << 20
)

// A twin is a clone and what it must hold: of each block of the image the write that was
// acknowledged last. The image is write 1; no two clones have a write in common.
type twin struct {
	name  string
	place int // among the clones
	conn  *client
	wrote map[int]uint64
}

// write writes random blocks until stop is closed. Every write must succeed: the node
// that serves the clone does not die.
func (w *twin) write(stop <-chan struct{}) error {
	rng := rand.New(rand.NewPCG(uint64(w.place), 7))
	p := make([]byte, block)
	for n := uint64(2); ; n++ {
		select {
		case <-stop:
			return nil
		case <-time.After(20 * time.Millisecond):
		}
		at := rng.IntN(imageBlocks)
		number := uint64(w.place+1)<<32 | n
		fill(p, at, number)
		if err := w.conn.writeAt(p, int64(at)*block); err != nil {
			return fmt.Errorf("%s: write block %d: %w", w.name, at, err)
		}
		w.wrote[at] = number
	}
}

// verify reads all blocks of the image.
func (w *twin) verify() error {
	const chunk = 64
	p := make([]byte, chunk*block)
	for at := 0; at < imageBlocks; at += chunk {
		if err := w.conn.readAt(p, int64(at)*block); err != nil {
			return fmt.Errorf("%s: read block %d: %w", w.name, at, err)
		}
		for i := range chunk {
			want := uint64(1)
			if own, ok := w.wrote[at+i]; ok {
				want = own
			}
			if got, err := number(p[i*block:][:block], at+i); err != nil || got != want {
				return fmt.Errorf("%s: block %d holds write %x, want %x: %w", w.name, at+i, got, want, err)
			}
		}
	}
	return nil
}

// pages is how many pages it wrote to.
func (w *twin) pages() int {
	seen := map[int]bool{}
	for at := range w.wrote {
		seen[at/16] = true
	}
	return len(seen)
}

// Many clones of one image are written at the same time. Meanwhile the image is deleted
// and a node dies and comes back. Each clone holds the image with its own writes over it
// and nobody else's; a clone of a clone's snapshot holds what that had; all together they
// take the image and what differs; and with the last of them everything is free again.
func TestClones(t *testing.T) {
	t.Parallel()
	c := up(t, "--storage-only")
	c.must("image", "upload", sourceImage(t), "--name", "base")
	const base = 2 * imageBlocks * block // of all pages both copies
	onlyBase := func() bool { return c.poolUsed() == base }
	eventually(t, 30*time.Second, "the image is all there is", onlyBase)
	twins := c.makeTwins(*howManyClones)
	time.Sleep(5 * time.Second) // what is asked of the disks may be a little old
	eventually(t, 30*time.Second, "clones take nothing", onlyBase)
	var exports []*export
	for i, w := range twins {
		e := c.export(w.name, []string{"node1", "node3"}[i%2]) // node2 dies
		conn, err := dial(e.socket())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.close()
		w.conn = conn
		exports = append(exports, e)
	}
	stop := make(chan struct{})
	failed := make(chan error, len(twins))
	for _, w := range twins {
		go func() { failed <- w.write(stop) }()
	}
	verified := []*fioRun{c.fioBeside(exports[0]), c.fioBeside(exports[1])}
	time.Sleep(2 * time.Second)
	c.must("volume", "delete", "base", "--yes")
	time.Sleep(2 * time.Second)
	c.kill("node2")
	time.Sleep(6 * time.Second)
	c.start("node2")
	for _, f := range verified {
		f.wait()
	}
	close(stop)
	for range twins {
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
	}
	c.verifyTwins(twins)

	c.must("snapshot", "create", twins[0].name, "then")
	then := maps.Clone(twins[0].wrote)
	p := make([]byte, block)
	fill(p, 3, 99)
	if err := twins[0].conn.writeAt(p, 3*block); err != nil {
		t.Fatal(err)
	}
	twins[0].wrote[3] = 99
	c.must("volume", "clone", twins[0].name+"@then", "of-a-clone")
	e := c.export("of-a-clone", "node2")
	conn, err := dial(e.socket())
	if err != nil {
		t.Fatal(err)
	}
	c.verifyTwins([]*twin{{name: "of-a-clone", conn: conn, wrote: then}, twins[0]})
	conn.close()
	e.stop()

	differs := 1 // the page written after the snapshot
	for _, w := range twins {
		c.awaitWhole(w.name)
		differs += w.pages()
	}
	most := base + int64(differs)*2*(64<<10) + 2*2*fioSize
	eventually(t, 2*time.Minute, fmt.Sprintf("all takes at most %d bytes", most), func() bool {
		return c.poolUsed() <= most
	})
	t.Logf("%d clones of %d bytes with %d pages that differ take %d bytes", len(twins), base, differs, c.poolUsed())
	for _, e := range exports {
		e.stop()
	}
	for _, w := range append(twins, &twin{name: "of-a-clone"}) {
		c.awaitFree(w.name)
		c.must("volume", "delete", w.name, "--yes")
	}
	eventually(t, 2*time.Minute, "all space is free", func() bool { return c.poolUsed() == 0 })
}

// Clones whose columns move to a new disk, and off one that leaves the pool, take there
// what they took where they were: the image once, and what differs. They hold what they
// held.
func TestClonesMove(t *testing.T) {
	t.Parallel()
	c := up(t, "--storage-only", "--disks", "1")
	c.must("image", "upload", sourceImage(t), "--name", "base")
	twins := c.makeTwins(10)
	p := make([]byte, block)
	for i, w := range twins {
		e := c.export(w.name, "node1")
		conn, err := dial(e.socket())
		if err != nil {
			t.Fatal(err)
		}
		at, number := i*16, uint64(i+2)
		fill(p, at, number)
		if err := conn.writeAt(p, int64(at)*block); err != nil {
			t.Fatal(err)
		}
		w.wrote[at] = number
		conn.close()
		e.stop()
	}
	most := int64(2*imageBlocks*block + len(twins)*2*(64<<10))
	taken := func(when string) {
		t.Helper()
		time.Sleep(5 * time.Second) // what is asked of the disks may be a little old
		settled := func() bool { used := c.poolUsed(); return used > most*9/10 && used < most*11/10 }
		eventually(t, time.Minute, fmt.Sprintf("%s all takes about %d bytes", when, most), settled)
		t.Logf("%s %d clones take %d bytes, want about %d", when, len(twins), c.poolUsed(), most)
	}
	taken("before")
	added := get[poolDisk](c, "disk", "add", filepath.Join(c.Nodes[0].Dir, "second"), "--node", "node1", "--size", "2G", "--sparse")
	eventually(t, 3*time.Minute, "the new disk has some of it", func() bool {
		moves := get[struct {
			Moves struct {
				Left int `json:"left"`
			} `json:"moves"`
		}](c, "pool", "show").Moves
		return moves.Left == 0 && c.disk(added.ID).Columns > 0
	})
	taken("with a new disk")
	c.must("disk", "remove", c.Nodes[0].Disks[0].ID, "--wait")
	taken("without an old one")
	for _, w := range twins {
		e := c.export(w.name, "node2")
		conn, err := dial(e.socket())
		if err != nil {
			t.Fatal(err)
		}
		w.conn = conn
		c.verifyTwins([]*twin{w})
		conn.close()
		e.stop()
	}
}

// sourceImage makes an image whose first blocks are each write 1; the rest is a hole.
func sourceImage(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	path, qcow := filepath.Join(dir, "base.raw"), filepath.Join(dir, "base.qcow2")
	b := make([]byte, imageBlocks*block)
	for at := range imageBlocks {
		fill(b[at*block:][:block], at, 1)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, imageSize); err != nil {
		t.Fatal(err)
	}
	tool(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", path, qcow)
	return qcow
}

// makeTwins clones the image, several at a time.
func (c *cluster) makeTwins(n int) []*twin {
	c.t.Helper()
	twins := make([]*twin, n)
	began := time.Now()
	var wait sync.WaitGroup
	room := make(chan struct{}, 4)
	failed := make(chan result, n)
	for i := range twins {
		twins[i] = &twin{name: fmt.Sprintf("twin%d", i), place: i, wrote: map[int]uint64{}}
		wait.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			if r := c.run("volume", "clone", "base", twins[i].name); r.status != 0 {
				failed <- r
			}
		})
	}
	wait.Wait()
	close(failed)
	for r := range failed {
		c.t.Errorf("clone: %v", r)
	}
	if c.t.Failed() {
		c.t.FailNow()
	}
	c.t.Logf("%d clones took %v", n, time.Since(began).Round(time.Millisecond))
	return twins
}

func (c *cluster) verifyTwins(twins []*twin) {
	c.t.Helper()
	for _, w := range twins {
		if err := w.verify(); err != nil {
			c.t.Fatal(err)
		}
	}
}

// fioBeside writes and verifies a part of a clone that the image has nothing in.
func (c *cluster) fioBeside(e *export) *fioRun {
	c.t.Helper()
	return fio(c.t, e.uri, strconv.Itoa(fioSize), "--offset="+strconv.Itoa(fioOffset))
}

// poolUsed is what all disks have in use, each copy counted.
func (c *cluster) poolUsed() int64 {
	c.t.Helper()
	var used int64
	for _, d := range get[struct {
		Items []struct {
			Used int64 `json:"used_bytes"`
		} `json:"items"`
	}](c, "disk", "list").Items {
		used += d.Used
	}
	return used
}
