package cluster

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Who reads a snapshot need not know who holds its volume: over one connection it
// reads the same through a holder elsewhere, after that holder was killed, beside one
// that takes the volume for itself, and after that has let go. It keeps nobody from
// using the volume, and is told when the snapshot goes with it.
func TestSnapshotIsReadThroughHolders(t *testing.T) {
	t.Parallel()
	c := up(t, "--storage-only")
	const blocks = 256
	c.must("volume", "create", "kept", "64M")
	holder := c.export("kept", "node1")
	v := dialed(t, holder)
	write := func(v *client, value uint64) {
		t.Helper()
		p := make([]byte, block)
		for i := range blocks {
			fill(p, i*60, value)
			if err := v.writeAt(p, int64(i*60*block)); err != nil {
				t.Fatalf("write %d of block %d: %v", value, i*60, err)
			}
		}
	}
	reads := func(v *client, value uint64, when string) {
		t.Helper()
		p := make([]byte, block)
		for i := range blocks {
			err := v.readAt(p, int64(i*60*block))
			if err != nil {
				t.Fatalf("%s: read block %d: %v", when, i*60, err)
			}
			if n, err := number(p, i*60); err != nil || n != value {
				t.Fatalf("%s: block %d is of write %d, %v, want %d", when, i*60, n, err, value)
			}
		}
	}
	write(v, 1)
	c.must("snapshot", "create", "kept", "one")
	write(v, 2)
	served := c.ExportSnapshot(t, "kept@one", "node2")
	snap := dialed(t, &export{served, served.URI})
	reads(snap, 1, "through the holder")

	c.kill("node1")
	reads(snap, 1, "after the holder was killed")
	other := c.ExportSnapshot(t, "kept@one", "node3")
	reads(dialed(t, &export{other, other.URI}), 1, "through another reader")
	c.start("node1")
	c.awaitWhole("kept")

	taken := c.export("kept", "node3")
	v = dialed(t, taken)
	reads(v, 2, "who took the volume")
	write(v, 3)
	reads(snap, 1, "beside who took it")
	taken.stop()
	reads(snap, 1, "after that was let go")

	c.must("volume", "delete", "kept", "--yes")
	if err := served.Ended(t); err == nil || !strings.Contains(err.Error(), "there is no") {
		t.Errorf("with the volume deleted the export ended with %v", err)
	}
}

// The disks of a machine are cut at one moment: of two that are written in turn, each
// after the other has answered, no snapshot has the second ahead of the first, nor more
// than one write behind. Where they are used on different nodes, none is cut.
func TestVMIsCutAtOneMoment(t *testing.T) {
	t.Parallel()
	c := up(t, "--storage-only")
	const first, second = "pair-disk1", "pair-disk2"
	c.must("vm", "create", "pair", "--disk", "16M", "--disk", "16M")
	type cut struct {
		Items []struct {
			Volume string `json:"volume_name"`
			Group  string `json:"group"`
		} `json:"items"`
	}
	unheld := get[cut](c, "vm", "snapshot", "pair", "unheld")
	if len(unheld.Items) != 2 || unheld.Items[0].Group == "" || unheld.Items[0].Group != unheld.Items[1].Group {
		t.Fatalf("cut while nobody held them: %+v", unheld)
	}
	one := c.export(first, "node2")
	other := c.export(second, "node3")
	if r := c.run("vm", "snapshot", "pair", "apart"); r.status == 0 || !strings.Contains(r.errs, "different nodes") {
		t.Errorf("cut while two nodes held them: %v", r)
	}
	other.stop()
	c.awaitFree(second)
	c.must("vm", "snapshot", "pair", "half") // one is held, one is not
	other = c.export(second, "node2")

	disks := []*client{dialed(t, one), dialed(t, other)}
	stop, done := make(chan struct{}), make(chan error, 1)
	var written atomic.Uint64
	go func() { // ends with stop
		p := make([]byte, block)
		for n := uint64(1); ; n++ {
			for _, d := range disks {
				fill(p, 0, n)
				if err := d.writeAt(p, 0); err != nil {
					done <- err
					return
				}
			}
			written.Store(n)
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
		}
	}()
	const cuts = 5
	for i := range cuts {
		goal := written.Load() + 10
		eventually(t, time.Minute, "ten more writes are done", func() bool { return written.Load() >= goal })
		c.must("vm", "snapshot", "pair", fmt.Sprintf("s%d", i))
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatalf("write: %v", err)
	}
	before := uint64(0)
	for i := range cuts {
		var got [2]uint64
		for j, name := range []string{first, second} {
			served := c.ExportSnapshot(t, fmt.Sprintf("%s@s%d", name, i), "node1")
			p := make([]byte, block)
			if err := dialed(t, &export{served, served.URI}).readAt(p, 0); err != nil {
				t.Fatalf("read %s@s%d: %v", name, i, err)
			}
			n, err := number(p, 0)
			if err != nil {
				t.Fatal(err)
			}
			got[j] = n
			served.Stop()
		}
		if got[0] != got[1] && got[0] != got[1]+1 || got[1] < before {
			t.Errorf("snapshot %d has write %d of the first disk and %d of the second, after %d", i, got[0], got[1], before)
		}
		before = got[0]
	}
	if before < 10*cuts {
		t.Errorf("the last snapshot has write %d of %d", before, written.Load())
	}
	if r := c.run("vm", "snapshot", "pair", "s0"); r.status == 0 {
		t.Errorf("a name that is taken: %v", r)
	}
}

// dialed connects to an export until the test ends.
func dialed(t *testing.T, e *export) *client {
	t.Helper()
	v, err := dial(e.socket())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.close)
	return v
}
