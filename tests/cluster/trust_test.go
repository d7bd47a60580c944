package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"drystone.example/drystone/backend/gossip"
	"drystone.example/drystone/backend/model"
)

// A ca is what `ca show --json` prints.
type ca struct {
	Fingerprint string   `json:"fingerprint"`
	Former      string   `json:"former"`
	Waiting     []string `json:"waiting"`
}

// The gossip key and the certificate authority are replaced while a node is away and
// somebody writes. The node comes back by itself, nobody who knows only the old key is
// heard any more, and who knows only the old root finds the new one by it. Then another
// node comes back elsewhere.
func TestKeysAndRootsAreReplaced(t *testing.T) {
	t.Parallel()
	c := up(t)
	c.must("volume", "create", "load", "1G")
	oldKey, oldRoot := c.file(0, "gossip.key"), c.file(0, "roots.pem")
	secret := bytes.Trim(oldKey, "[] \n")
	token, file := filepath.Join(c.dir, "token"), filepath.Join(c.dir, "old.pem")
	if err := os.WriteFile(file, oldRoot, 0o600); err != nil {
		t.Fatal(err)
	}
	afar := []string{"--server", c.Nodes[0].Address, "--ca", file, "--token-file", token}
	c.login(afar)
	if !c.hears(oldKey, 1) {
		t.Fatal("who has the key is not heard")
	}
	c.kill("node3")
	stop := c.loaded("load")
	c.must("cluster", "rotate-key")
	was := get[ca](c, "ca", "show").Fingerprint
	if now := get[ca](c, "ca", "rotate"); now.Former != was || now.Fingerprint == was {
		t.Errorf("after the rotation began: %+v, it was %s", now, was)
	}
	eventually(t, 20*time.Second, "only node3 is waited for", func() bool {
		now := get[ca](c, "ca", "show")
		return now.Former == was && len(now.Waiting) == 1 && now.Waiting[0] == "node3"
	})
	if r := c.run("ca", "rotate"); r.status != 1 || !strings.Contains(r.errs, "being replaced already") {
		t.Errorf("a second rotation: %v", r)
	}
	if !bytes.Equal(c.file(2, "gossip.key"), oldKey) || !bytes.Equal(c.file(2, "roots.pem"), oldRoot) {
		t.Error("the node that is away was not away")
	}
	c.start("node3")
	eventually(t, 20*time.Second, "nobody trusts the old root", func() bool { return get[ca](c, "ca", "show").Former == "" })
	eventually(t, 20*time.Second, "node3 is seen", func() bool { return c.seen("node3") })
	eventually(t, 20*time.Second, "nobody has the old key or root", func() bool {
		for i := range c.Nodes {
			root := c.file(i, "roots.pem")
			if bytes.Contains(c.file(i, "gossip.key"), secret) || bytes.Contains(root, oldRoot) ||
				!bytes.Equal(root, c.file(0, "roots.pem")) {
				return false
			}
		}
		return true
	})
	if c.hears(oldKey, 2) {
		t.Error("who has the old key is heard")
	}
	c.login(afar)
	c.must(append(afar, "status")...)
	c.moves(1, afar)
	stop()
	c.healthy()
}

// file reads a file of a node's keys.
func (c *cluster) file(i int, name string) []byte {
	c.t.Helper()
	text, err := os.ReadFile(filepath.Join(c.Nodes[i].Dir, "pki", name))
	if err != nil {
		c.t.Fatal(err)
	}
	return text
}

// login logs in from afar.
func (c *cluster) login(afar []string) {
	c.t.Helper()
	cmd := exec.Command(program("drystone"), append([]string{"login", "--user", c.User}, afar...)...)
	cmd.Stdin = strings.NewReader(c.Password + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		c.t.Fatalf("login: %v: %s", err, out)
	}
}

// loaded writes and verifies a volume until the function it returns is called.
func (c *cluster) loaded(name string) (stop func()) {
	c.t.Helper()
	e := c.export(name, "node1")
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for running := true; running && !c.t.Failed(); {
			run := fio(c.t, e.uri, strconv.Itoa(8<<20))
			if err := <-run.done; err != nil {
				c.t.Errorf("fio: %v\n%s", err, run.errs.String())
			}
			run.done <- nil
			select {
			case <-end:
				running = false
			default:
			}
		}
	}()
	return func() {
		c.t.Helper()
		close(end)
		<-ended
		e.stop()
		c.awaitWhole(name)
	}
}

// hears reports whether the nodes take somebody in who has these gossip keys.
func (c *cluster) hears(keys []byte, n int) bool {
	c.t.Helper()
	var raw [][]byte
	if err := json.Unmarshal(keys, &raw); err != nil {
		c.t.Fatal(err)
	}
	var ring []gossip.Key
	var peers []string
	for _, k := range raw {
		ring = append(ring, gossip.Key(k))
	}
	for _, other := range c.Nodes {
		peers = append(peers, netip.AddrPortFrom(netip.MustParseAddr(other.Address), gossip.DefaultPort).String())
	}
	base := netip.MustParseAddr(c.Nodes[0].Address).As4()
	base[3] = byte(200 + n)
	g, err := gossip.Open(gossip.Config{
		Node: model.NewID[model.NodeID](), Name: "stranger", Version: "1", Keys: ring,
		Listen: netip.AddrPortFrom(netip.AddrFrom4(base), gossip.DefaultPort), Peers: func() []string { return peers },
	})
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), 3*time.Second)
	defer cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = g.Run(ctx) // it ends with ctx
	}()
	heard := false
	_ = g.Watch(ctx, func(m gossip.Member) { // as above
		if m.Name != "stranger" && m.Status == gossip.Alive {
			heard = true
			cancel()
		}
	})
	<-ended
	return heard
}

// healthy fails the test unless all is well.
func (c *cluster) healthy() {
	c.t.Helper()
	eventually(c.t, 20*time.Second, "all is well", func() bool {
		r := c.run("status", "--json")
		var s struct {
			Up      int   `json:"nodes_up"`
			Quorum  bool  `json:"quorum"`
			Out     int   `json:"columns_out_of_sync"`
			Missing int   `json:"volumes_unavailable"`
			Alarms  []any `json:"alarms"`
		}
		return r.status == 0 && json.Unmarshal([]byte(r.out), &s) == nil &&
			s.Up == len(c.Nodes) && s.Quorum && s.Out == 0 && s.Missing == 0 && len(s.Alarms) == 0
	})
}

// moves gives a node another address while it is off.
func (c *cluster) moves(i int, afar []string) {
	c.t.Helper()
	n := c.Nodes[i]
	c.kill(n.Name)
	to := n.Address + "1"
	for _, path := range []string{filepath.Join(n.Dir, "node.json"), filepath.Join(c.dir, "cluster.json")} {
		text, err := os.ReadFile(path)
		if err != nil {
			c.t.Fatal(err)
		}
		text = bytes.ReplaceAll(text, []byte(`"address": "`+n.Address+`"`), []byte(`"address": "`+to+`"`))
		if err := os.WriteFile(path, text, 0o600); err != nil {
			c.t.Fatal(err)
		}
	}
	c.start(n.Name)
	eventually(c.t, 30*time.Second, n.Name+" is seen where it is now", func() bool {
		r := c.run("node", "show", n.Name, "--json")
		var now struct {
			Up      bool   `json:"up"`
			Address string `json:"address"`
		}
		return r.status == 0 && json.Unmarshal([]byte(r.out), &now) == nil && now.Up && now.Address == to
	})
	// Its certificate is for where it is.
	eventually(c.t, 20*time.Second, n.Name+" is reached from afar", func() bool {
		return c.run(append(append([]string{}, afar...), "--server", to, "status")...).status == 0
	})
}
