package cluster

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A node was away and comes back with a gossip key that the others do not have, and
// with addresses where nobody is: it has the cluster's again, from the record, and is
// seen by all.
func TestNodeWithOldKeys(t *testing.T) {
	t.Parallel()
	c := up(t)
	c.kill("node3")
	key := filepath.Join(c.Nodes[2].Dir, "pki", "gossip.key")
	want, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	old, err := json.Marshal([][]byte{bytes.Repeat([]byte{7}, 32)})
	if err != nil {
		t.Fatal(err)
	}
	peers := filepath.Join(c.Nodes[2].Dir, "raft", "peers.json")
	for path, text := range map[string][]byte{key: old, peers: []byte("[]")} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, time.Minute, "node3 seems away", func() bool { return !c.seen("node3") })
	c.start("node3")
	eventually(t, time.Minute, "node3 is seen by the others", func() bool { return c.seen("node3") })
	got, err := os.ReadFile(key)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("the node's gossip keys are %s, %v; want the cluster's", got, err)
	}
	var known []struct {
		Address string `json:"address"`
	}
	text, err := os.ReadFile(peers)
	if err == nil {
		err = json.Unmarshal(text, &known)
	}
	if err != nil || len(known) != len(c.Nodes) {
		t.Errorf("the node remembers %s, %v; want %d nodes", text, err, len(c.Nodes))
	}
}

// seen reports whether a node is up, as the first one sees it.
func (c *cluster) seen(name string) bool {
	c.t.Helper()
	r := c.run("node", "show", name, "--json")
	var n struct {
		Up bool `json:"up"`
	}
	return r.status == 0 && json.Unmarshal([]byte(r.out), &n) == nil && n.Up
}
