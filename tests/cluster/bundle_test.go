package cluster

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A machine leaves the cluster as files and comes back as it was: as qcow2 with a
// description and as an OVA, when it is off and from a snapshot, by a download and by a
// folder of the node that its configuration names. Nothing is left of it, and nothing is
// made of an archive that was damaged.
func TestMachineAsFiles(t *testing.T) {
	t.Parallel()
	c := up(t, "--storage-only", "--disks", "1")
	raw, qcow := makeImage(t)
	dir := t.TempDir()
	c.must("network", "create", "lan", "--user")
	c.must("network", "create", "gone", "--user")
	c.must("image", "upload", qcow, "--name", "base")
	c.must("vm", "create", "m", "--disk", "base", "--disk", "64M", "--cpus", "3", "--memory", "768M",
		"--tag", "blue", "--description", "what <it> is & was", "--nic", "net=lan", "--nic", "net=gone,model=e1000")
	archive := filepath.Join(dir, "m.tar")

	c.part("qcow2", func(t *testing.T) {
		t.Helper()
		c.must("vm", "export", "m", "--to", archive)
		if left := c.must("snapshot", "list", "m-disk1"); strings.Contains(left, "export") {
			t.Errorf("a snapshot is left: %s", left)
		}
		was := get[machine](c, "vm", "show", "m")
		c.must("vm", "delete", "m", "--yes")
		c.must("network", "delete", "gone")
		said := c.must("vm", "import", archive)
		if !strings.Contains(said, `"gone"`) {
			t.Errorf("that a network is not there is not said: %s", said)
		}
		is := get[machine](c, "vm", "show", "m")
		if len(is.NICs) != 1 || is.NICs[0] != was.NICs[0] {
			t.Errorf("network cards %+v, want %+v", is.NICs, was.NICs[:1])
		}
		if is.CPUs != 3 || is.Memory != 768<<20 || is.Description != was.Description || len(is.Tags) != 1 || len(is.Disks) != 2 {
			t.Errorf("the machine is %+v, and was %+v", is, was)
		}
		c.compare("m-disk1", "node2", raw)
	})

	c.part("ova of a snapshot", func(t *testing.T) {
		t.Helper()
		c.awaitFree("m-disk1")
		c.must("vm", "snapshot", "m", "then")
		e := c.export("m-disk1", "node2")
		tool(t, "qemu-io", "-f", "raw", "-c", "write -P 7 0 2M", e.uri)
		e.stop()
		ova := filepath.Join(dir, "m.ova")
		c.must("vm", "export", "m@then", "--format", "ova", "--to", ova)
		c.must("vm", "import", ova, "--name", "old")
		old := get[machine](c, "vm", "show", "old")
		if old.CPUs != 3 || old.Memory != 768<<20 || old.Description != "what <it> is & was" || len(old.NICs) != 1 || len(old.Disks) != 2 {
			t.Errorf("the OVA became %+v", old)
		}
		c.compare("old-disk1", "node3", raw)
		if r := c.run("vm", "export", "m@never", "--to", ova); r.status != 1 || !strings.Contains(r.errs, "never") {
			t.Errorf("a snapshot that there is not: %v", r)
		}
		c.must("vm", "delete", "old", "--yes")
	})

	c.part("a folder of the node", func(t *testing.T) {
		t.Helper()
		share := filepath.Join(dir, "share")
		if err := os.Mkdir(share, 0o700); err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(share, "m")
		if r := c.run("vm", "export", "m", "--to", "node:"+to); r.status != 1 || !strings.Contains(r.errs, "export_dirs") {
			t.Errorf("a folder that nobody allowed: %v", r)
		}
		allow(c, share)
		c.must("vm", "export", "m@then", "--to", "node:"+to)
		tool(t, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, filepath.Join(to, "m-disk1.qcow2"))
		text, err := os.ReadFile(filepath.Join(to, "machine.json"))
		if err != nil || !bytes.Contains(text, []byte(`"snapshot": "then"`)) {
			t.Errorf("the description is %s (%v)", text, err)
		}
		for _, bad := range []string{to, filepath.Join(share, ".x"), "/etc/cron.d/x", share + "/../x"} {
			if r := c.run("vm", "export", "m", "--to", "node:"+bad, "--format", "ova"); r.status != 1 {
				t.Errorf("%s: %v", bad, r)
			}
		}
		if left, err := os.ReadDir(share); err != nil || len(left) != 1 {
			t.Errorf("in the folder are %v (%v)", left, err)
		}
	})

	c.part("damaged", func(t *testing.T) {
		t.Helper()
		before := snapshot(c)
		whole, err := os.ReadFile(archive)
		if err != nil {
			t.Fatal(err)
		}
		other := bytes.Clone(whole)
		other[2<<20] ^= 1
		for name, data := range map[string][]byte{"a flipped bit": other, "cut short": whole[:len(whole)-8192]} {
			path := filepath.Join(dir, "bad.tar")
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			if r := c.run("vm", "import", path, "--name", "bad"); r.status != 1 || !strings.Contains(r.errs, "archive") {
				t.Errorf("%s: %v", name, r)
			}
		}
		if after := snapshot(c); after != before {
			t.Errorf("a damaged archive left something:\n%s\nbefore:\n%s", after, before)
		}
	})
}

// A machine that runs is exported from a snapshot and goes on meanwhile; without one it is
// refused, and nothing is left of the attempt.
func TestRunningMachineAsFiles(t *testing.T) {
	t.Parallel()
	c := up(t)
	c.makeGuest("g", "node1")
	seen := c.goesOn("g", 0)
	archive := filepath.Join(t.TempDir(), "g.tar")
	if r := c.run("vm", "export", "g", "--to", archive); r.status != 1 || !strings.Contains(r.errs, "is on") {
		t.Errorf("a machine that runs: %v", r)
	}
	if left := c.must("snapshot", "list", "g-disk1"); strings.Contains(left, "export") {
		t.Errorf("a snapshot is left: %s", left)
	}
	c.must("vm", "snapshot", "g", "then")
	c.must("vm", "export", "g@then", "--to", archive)
	c.must("vm", "import", archive, "--name", "again")
	c.goesOn("g", seen)
	e := c.export("again-disk1", "node3")
	defer e.stop()
	s := c.ExportSnapshot(t, "g-disk1@then", "node2")
	defer s.Stop()
	tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", e.uri, s.URI)
}

// A machine as `vm show --json` prints it.
type machine struct {
	CPUs        int      `json:"cpus"`
	Memory      int64    `json:"memory_bytes"`
	Description string   `json:"description"`
	Tags        []string `json:"tags"`
	Disks       []struct {
		Name string `json:"name"`
	} `json:"disks"`
	NICs []struct {
		MAC     string `json:"mac"`
		Model   string `json:"model"`
		Network string `json:"network_name"`
	} `json:"nics"`
}

// allow has every node export to a folder.
func allow(c *cluster, dir string) {
	c.t.Helper()
	for _, n := range c.Nodes {
		path := filepath.Join(n.Dir, "node.json")
		text, err := os.ReadFile(path)
		if err != nil {
			c.t.Fatal(err)
		}
		var config map[string]any
		if err := json.Unmarshal(text, &config); err != nil {
			c.t.Fatal(err)
		}
		config["export_dirs"] = []string{dir}
		if text, err = json.Marshal(config); err != nil {
			c.t.Fatal(err)
		}
		c.kill(n.Name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			c.t.Fatal(err)
		}
		c.start(n.Name)
	}
}
