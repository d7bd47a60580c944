package cluster

import (
	"strings"
	"testing"
)

// Who reads a snapshot need not know who holds its volume: over one connection it
// reads the same through a holder elsewhere, after that holder was killed, beside one
// that takes the volume for itself, and after that has let go. It keeps nobody from
// using the volume, and is told when the snapshot goes with it.
func TestSnapshotIsReadThroughHolders(t *testing.T) {
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
