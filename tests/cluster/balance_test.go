package cluster

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A poolDisk as `disk list --json` prints it.
type poolDisk struct {
	ID      string `json:"id"`
	Node    string `json:"node_name"`
	Path    string `json:"path"`
	State   string `json:"state"`
	Used    int64  `json:"used_bytes"`
	Columns int    `json:"columns"`
	Error   string `json:"error"`
	Drain   *struct {
		Errors int64 `json:"errors"`
	} `json:"drain"`
}

func (c *cluster) disks() []poolDisk {
	c.t.Helper()
	return get[struct {
		Items []poolDisk `json:"items"`
	}](c, "disk", "list").Items
}

// movingSize is how much fio writes while data moves.
const movingSize = 96 << 20

// With fio writing and verifying, data moves: a fourth node takes its share by itself,
// gives it back when its disk is to leave the pool, and a disk whose file was removed
// is rebuilt on others, without anybody's doing.
func TestDataMoves(t *testing.T) {
	t.Parallel()
	c := up(t)
	c.must("volume", "create", "load", "1G")
	e := c.export("load", "node1")
	loaded := func(f func()) {
		t.Helper()
		run := fio(t, e.uri, strconv.Itoa(movingSize))
		f()
		if stall := run.wait(); stall > stallMax {
			t.Errorf("a request took %v, want at most %v", stall, stallMax)
		}
		c.awaitWhole("load")
	}
	var fourth string
	loaded(func() { fourth = c.addNode("node4") })
	if t.Failed() {
		return
	}
	loaded(func() {
		c.must("disk", "remove", fourth, "--wait")
		for _, d := range c.disks() {
			if d.ID == fourth {
				t.Errorf("a disk that was emptied is still in the pool: %+v", d)
			}
		}
	})
	lost := c.disks()[0]
	for _, d := range c.disks() {
		if d.Node == "node2" {
			lost = d
		}
	}
	loaded(func() {
		if err := os.Remove(lost.Path); err != nil {
			t.Fatal(err)
		}
		eventually(t, time.Minute, "the disk without a file has failed and is a member of nothing", func() bool {
			for _, d := range c.disks() {
				if d.ID == lost.ID {
					return d.State == "failed" && d.Columns == 0
				}
			}
			return false
		})
	})
	e.stop()
	c.awaitFree("load")
}

// addNode lets another node join, with a disk, and waits until that has its share of
// all columns. It returns the disk.
func (c *cluster) addNode(name string) (disk string) {
	c.t.Helper()
	token := get[struct {
		Token string `json:"token"`
	}](c, "token", "create").Token
	first := c.Nodes[0].Address
	address := first[:strings.LastIndex(first, ".")] + "." + strconv.Itoa(len(c.Nodes)+1)
	dir := filepath.Join(c.dir, name)
	c.must("join", first, token, "--name", name, "--address", address, "--node-dir", dir, "--libvirt", "")
	c.daemon(dir)
	eventually(c.t, time.Minute, name+" is up", func() bool { return c.seen(name) })
	added := get[poolDisk](c, "disk", "add", filepath.Join(dir, "disk"), "--node", name, "--size", "2G", "--sparse")
	share := 0
	for _, d := range c.disks() {
		share += d.Columns
	}
	share /= len(c.disks())
	eventually(c.t, time.Minute, "the new disk has its share of "+strconv.Itoa(share)+" columns", func() bool {
		d := get[poolDisk](c, "disk", "show", added.ID)
		moves := get[struct {
			Moves struct {
				Left int `json:"left"`
			} `json:"moves"`
		}](c, "pool", "show").Moves
		return d.Columns >= share-2 && moves.Left == 0
	})
	return added.ID
}

// daemon runs a node's daemon until the test ends, however that ends.
func (c *cluster) daemon(dir string) {
	c.t.Helper()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(program("drystoned"), "run", "--dir", dir)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // the daemon dies with the thread that started it
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
}
