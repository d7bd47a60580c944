package meta

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"drystone.example/drystone/backend/meta/command"
)

// While a node is away the addresses of all others change. It knows none of them any
// more, and has them again over the wire: whoever leads finds it where it is, and
// what the record says it remembers.
func TestAddressesChangeMeanwhile(t *testing.T) {
	bubble(t, 3, func(c *cluster) {
		t := c.t
		away := c.others(c.leader())[0]
		away.stop()
		rest := c.others(nil)
		for _, n := range rest {
			moved := n.name + "-moved"
			c.must(c.leader(), command.NodeUpdate{Node: n.id, Address: moved})
			n.stop()
			n.name = moved
			n.start()
			c.leader()
		}
		away.start()
		for range 600 {
			if away.Lease().Valid() {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		if _, err := away.View(t.Context()); err != nil {
			t.Fatalf("a minute after its return the node reads nothing: %v", err)
		}
		want := map[string]string{away.id.String(): away.name}
		for _, n := range rest {
			want[n.id.String()] = n.name
			if got, err := away.Address(n.id); err != nil || got != n.name {
				t.Errorf("the node has %q, %v for %s", got, err, n.name)
			}
		}
		time.Sleep(time.Second) // it is written down beside
		text, err := os.ReadFile(filepath.Join(away.dir, "raft", peersFile))
		var kept []peer
		if err == nil {
			err = json.Unmarshal(text, &kept)
		}
		if err != nil || len(kept) != len(want) {
			t.Fatalf("the node remembers %v, %v", kept, err)
		}
		for _, p := range kept {
			if want[p.ID.String()] != p.Address {
				t.Errorf("the node remembers %s at %q", p.ID, p.Address)
			}
		}
	})
}
