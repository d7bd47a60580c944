package nbd

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// tool runs an outside program to its end; one that is not installed is a
// failure, for then nothing was shown.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is missing; make deps installs it: %v", name, err)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Dir = t.TempDir() // fio leaves files where it runs
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestNbdinfo(t *testing.T) {
	m := newMemory(8 << 20)
	s := start(t, Config{Name: "disk", Device: m})
	var got struct {
		Protocol   string
		Structured bool
		Exports    []struct {
			Name        string      `json:"export-name"`
			Size        int64       `json:"export-size"`
			MultiConn   bool        `json:"can_multi_conn"`
			Flush       bool        `json:"can_flush"`
			FUA         bool        `json:"can_fua"`
			Trim        bool        `json:"can_trim"`
			Zero        bool        `json:"can_zero"`
			DF          bool        `json:"can_df"`
			ReadOnly    bool        `json:"is_read_only"`
			Minimum     json.Number `json:"block_size_minimum"`
			Preferred   json.Number `json:"block_size_preferred"`
			Maximum     json.Number `json:"block_size_maximum"`
			Contexts    []string
			Description string
		}
	}
	out := tool(t, "nbdinfo", "--json", s.URI())
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	if len(got.Exports) != 1 {
		t.Fatalf("%d exports in\n%s", len(got.Exports), out)
	}
	e := got.Exports[0]
	if got.Protocol != "newstyle-fixed" || !got.Structured || e.Name != "disk" ||
		e.Size != 8<<20 || !e.MultiConn || !e.Flush || !e.FUA || !e.Trim || !e.Zero || !e.DF ||
		e.ReadOnly || e.Minimum != "512" || e.Preferred != "4096" || e.Maximum != "33554432" ||
		len(e.Contexts) != 1 || e.Contexts[0] != contextAllocation {
		t.Errorf("nbdinfo saw\n%s", out)
	}
	if list := tool(t, "nbdinfo", "--list", s.URI()); !strings.Contains(list, `export="disk"`) {
		t.Errorf("nbdinfo --list saw\n%s", list)
	}
	m.mu.Lock()
	m.data[3] = true
	m.mu.Unlock()
	var extents []struct {
		Offset, Length int64
		Type           int
	}
	out = tool(t, "nbdinfo", "--map", "--json", s.URI())
	if err := json.Unmarshal([]byte(out), &extents); err != nil || len(extents) != 3 ||
		extents[1].Offset != 3*hole || extents[1].Length != hole || extents[1].Type != 0 {
		t.Errorf("nbdinfo --map saw %v\n%s", err, out)
	}
}

// nbdinfo sees the contexts of a device's own, and what they say.
func TestNbdinfoContexts(t *testing.T) {
	m := newMemory(8 << 20)
	s := start(t, Config{Name: "disk", Device: colours{m}})
	m.mu.Lock()
	m.data[3] = true
	m.mu.Unlock()
	var extents []struct {
		Offset, Length int64
		Type           int
	}
	out := tool(t, "nbdinfo", "--map=test:7", "--json", s.URI())
	if err := json.Unmarshal([]byte(out), &extents); err != nil || len(extents) != 3 ||
		extents[1].Offset != 3*hole || extents[1].Length != hole || extents[1].Type != 7 || extents[2].Type != 0 {
		t.Errorf("nbdinfo --map saw %v\n%s", err, out)
	}
	if out := tool(t, "nbdinfo", s.URI()); !strings.Contains(out, "test:9") || !strings.Contains(out, contextAllocation) {
		t.Errorf("nbdinfo saw\n%s", out)
	}
}

// What goes in by one tool comes out by another, byte by byte, holes included.
func TestCopyTools(t *testing.T) {
	const size = 48 << 20
	m := newMemory(size)
	s := start(t, Config{Device: m})
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from.raw"), filepath.Join(dir, "to.raw")
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(data[5<<20 : 21<<20+512])
	_, _ = rand.NewChaCha8([32]byte{3}).Read(data[40<<20 : 41<<20])
	if err := os.WriteFile(from, data, 0o600); err != nil {
		t.Fatal(err)
	}

	tool(t, "nbdcopy", from, s.URI())
	if !m.holds(data) {
		t.Fatal("nbdcopy brought other data")
	}
	tool(t, "nbdcopy", s.URI(), to)
	if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("nbdcopy took other data away: %v", err)
	}

	if err := m.Discard(t.Context(), 0, size); err != nil {
		t.Fatal(err)
	}
	qcow := filepath.Join(dir, "image.qcow2")
	tool(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", from, qcow)
	tool(t, "qemu-img", "convert", "-n", "--target-is-zero", "-f", "qcow2", "-O", "raw",
		"-W", "-m", "8", qcow, s.URI())
	tool(t, "qemu-img", "compare", "-f", "qcow2", "-F", "raw", qcow, s.URI())
	if !m.holds(data) || m.hasData(0) || !m.hasData(5<<20) {
		t.Fatal("qemu-img convert brought other data, or filled the holes")
	}
}

func TestQemuIO(t *testing.T) {
	m := newMemory(64 << 20)
	s := start(t, Config{Device: m})
	out := tool(t, "qemu-io", "-f", "raw",
		"-c", "write -P 0x5a 1M 3M", "-c", "read -P 0x5a 1M 3M",
		"-c", "write -z -u 2M 64k", "-c", "read -P 0 2M 64k",
		"-c", "write -P 1 512 512", "-c", "read -P 1 512 512", "-c", "read -P 0 0 512",
		"-c", "discard 1M 64k", "-c", "aio_write -P 7 30M 16M", "-c", "aio_write -P 8 50M 1M",
		"-c", "aio_flush", "-c", "flush", "-c", "read -P 7 30M 16M", "-c", "read -P 8 50M 1M",
		s.URI())
	if strings.Contains(out, "failed") || m.flushes.Load() == 0 {
		t.Errorf("%d flushes; qemu-io said\n%s", m.flushes.Load(), out)
	}
}

func TestFio(t *testing.T) {
	s := start(t, Config{Device: newMemory(64 << 20)})
	tool(t, "fio", "--name=verify", "--ioengine=nbd", "--uri="+s.URI(), "--rw=randrw",
		"--bsrange=512-128k", "--blockalign=512", "--iodepth=32", "--size=64m", "--verify=crc32c",
		"--verify_fatal=1", "--randseed=7", "--thread")
	if n := s.Stats(); n.Errors != 0 || n.Reads == 0 || n.Writes == 0 || n.WriteTime == 0 {
		t.Errorf("after fio: %+v", n)
	}
}

// Several connections see each other's finished writes.
func TestManyConnections(t *testing.T) {
	s := start(t, Config{Device: newMemory(8 << 20)})
	var clients []*client
	for range 4 {
		clients = append(clients, connect(t, s, true))
	}
	for i, c := range clients {
		want := bytes.Repeat([]byte{byte(i + 1)}, 4096)
		if g := c.do(cmdWrite, 0, 0, 4096, want); g.err != 0 {
			t.Fatal(g.err)
		}
		for j, other := range clients {
			if g := other.do(cmdRead, 0, 0, 4096, nil); !bytes.Equal(g.data, want) {
				t.Errorf("connection %d does not see what %d wrote", j, i)
			}
		}
	}
	if got := s.Stats().Connections; got != 4 {
		t.Errorf("%d connections, want 4", got)
	}
}
