package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Bad input is refused with one clear sentence and the right status, and changes
// nothing.
func TestBadInput(t *testing.T) {
	t.Parallel()
	c := up(t)
	other := up(t, "--nodes", "1")
	c.must("volume", "create", "taken", "64M")
	before := snapshot(c)

	junk := filepath.Join(t.TempDir(), "junk.qcow2")
	if err := os.WriteFile(junk, []byte("this is not an image"), 0o600); err != nil {
		t.Fatal(err)
	}
	used := strings.TrimSpace(get[struct {
		Token string `json:"token"`
	}](c, "token", "create").Token)
	foreign := get[struct {
		Token string `json:"token"`
	}](other, "token", "create").Token
	server := c.Nodes[0].Address
	join := func(token string) []string {
		return []string{"join", server, token, "--node-dir", filepath.Join(c.dir, "x"), "--name", "x", "--address", "127.0.99.1"}
	}
	c.run(append([]string{"token", "delete"}, tokenID(used))...)

	for _, tc := range []struct {
		name   string
		args   []string
		status int
		says   string
	}{
		{"size-not-a-size", []string{"volume", "create", "a", "many"}, 2, "many"},
		{"size-unaligned", []string{"volume", "create", "a", "1048577"}, 1, "multiple of 512"},
		{"size-too-small", []string{"volume", "create", "a", "512"}, 1, "too small"},
		{"copies", []string{"volume", "create", "a", "1G", "--copies", "5"}, 1, "copies"},
		{"name-taken", []string{"volume", "create", "taken", "1G"}, 1, "taken"},
		{"name-bad", []string{"volume", "create", "a/b", "1G"}, 1, "a/b"},
		{"volume-unknown", []string{"volume", "show", "nosuch"}, 1, "nosuch"},
		{"volume-shrink", []string{"volume", "resize", "taken", "32M"}, 1, "shrink"},
		{"vm-unknown", []string{"vm", "start", "nosuch"}, 1, "nosuch"},
		{"node-unknown", []string{"volume", "export", "taken", "--node", "nosuch", "--nbd", filepath.Join(c.dir, "x.sock")}, 1, "nosuch"},
		{"image-corrupt", []string{"image", "upload", junk, "--name", "junk"}, 1, "image"},
		{"token-used", join(used), 1, "token"},
		{"token-foreign", join(foreign), 1, "does not belong"},
		{"token-garbage", join("dry1-nonsense"), 1, "token"},
		{"usage", []string{"volume", "create"}, 2, "arg"},
		{"disk-there", []string{"disk", "add", c.Nodes[0].Disks[0].Path, "--node", "node1"}, 1, "already"},
		{"disk-no-room", []string{"disk", "add", filepath.Join(c.dir, "huge"), "--node", "node1", "--size", "512T"}, 1, "no room"},
		{"disk-sparse-no-size", []string{"disk", "add", filepath.Join(c.dir, "huge"), "--node", "node1", "--sparse"}, 1, "size"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := c.run(tc.args...)
			said := strings.TrimSpace(r.errs)
			if r.status != tc.status || !strings.Contains(strings.ToLower(said), tc.says) {
				t.Errorf("want status %d and %q in what it says; got %v", tc.status, tc.says, r)
			}
			if strings.Contains(said, "goroutine") || strings.Contains(said, "internal error") {
				t.Errorf("not a sentence for a person: %s", said)
			}
		})
	}
	if left, err := filepath.Glob(filepath.Join(c.dir, "huge*")); err != nil || len(left) > 0 {
		t.Errorf("a disk that was refused left %v, %v", left, err)
	}
	if after := snapshot(c); after != before {
		t.Errorf("something changed:\n%s\nbefore:\n%s", after, before)
	}
}

func tokenID(token string) string {
	parts := strings.Split(token, "-")
	if len(parts) < 3 {
		return token
	}
	return parts[2]
}

// snapshot is what a person sees of the cluster that bad input could change.
func snapshot(c *cluster) string {
	return c.must("volume", "list", "--json") + c.must("vm", "list", "--json") + c.must("image", "list", "--json") +
		strings.Join(diskIDs(c), " ")
}

// diskIDs lists the disks of the pool; how full they are may change by itself.
func diskIDs(c *cluster) (ids []string) {
	for _, d := range get[struct {
		Items []struct {
			ID string `json:"id"`
		} `json:"items"`
	}](c, "disk", "list").Items {
		ids = append(ids, d.ID)
	}
	return ids
}
