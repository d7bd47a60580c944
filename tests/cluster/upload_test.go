package cluster

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"drystone.example/drystone/tests/internal/devcluster"
)

// An image of 2 GiB comes whole though who sends it is killed, and then the node that
// receives it: what the node had is not sent again, and what comes out is the file, byte
// for byte. What is hostile is refused in a sentence and leaves nothing.
func TestUploads(t *testing.T) {
	t.Parallel()
	c := up(t, "--storage-only", "--disks", "1")

	c.part("interrupted twice", func(t *testing.T) {
		t.Helper()
		const size = 2 << 30
		path := sparseImage(t, size)
		g := openGate(t, c.Nodes[1])
		upload := func() (*exec.Cmd, *bytes.Buffer) {
			cmd := exec.Command(program("drystone"), "image", "upload", path, "--name", "large")
			cmd.Env = append(os.Environ(), "DRYSTONE_DIR="+g.dir)
			said := new(bytes.Buffer)
			cmd.Stdout, cmd.Stderr = said, said
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			return cmd, said
		}

		full := g.pass(600 << 20)
		cmd, _ := upload()
		<-full
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		g.cut()
		if at := sentOf(c, "node2"); at < 500<<20 || at > 600<<20 {
			t.Errorf("of 600 MiB that arrived %d bytes count", at)
		}

		full = g.pass(700 << 20)
		cmd, said := upload()
		<-full
		c.kill("node2")
		g.cut()
		g.pass(size) // more than is left
		c.start("node2")
		if err := cmd.Wait(); err != nil {
			t.Fatalf("the upload did not go on: %v\n%s", err, said)
		}
		if most := int64(size + 256<<20); g.total() > most {
			t.Errorf("%d bytes were sent for a file of %d", g.total(), size)
		}
		c.compare("large", "node3", path)
		c.awaitFree("large")
		c.must("volume", "delete", "large", "--yes")
	})

	c.part("hostile", func(t *testing.T) {
		t.Helper()
		before := snapshot(c)
		for want, path := range hostileImages(t) {
			r := c.run("image", "upload", path, "--name", "bad")
			if r.status != 1 || !strings.Contains(r.errs, want) || strings.Contains(r.errs, "/") {
				t.Errorf("want it refused with %q: %v", want, r)
			}
		}
		if left := c.must("image", "uploads"); !strings.Contains(left, "Nothing") {
			t.Errorf("what was refused is kept: %s", left)
		}
		if after := snapshot(c); after != before {
			t.Errorf("a hostile image left something:\n%s\nbefore:\n%s", after, before)
		}
		for _, n := range c.Nodes {
			left, err := filepath.Glob(filepath.Join(n.Dir, "scratch", "*", "*"))
			files, err2 := filepath.Glob(filepath.Join(n.Dir, "scratch", "image-*"))
			if err != nil || err2 != nil || len(left)+len(files) > 0 {
				t.Errorf("left on %s: %v %v", n.Name, left, files)
			}
		}
	})
}

// sentOf is how much of the one upload a node has.
func sentOf(c *cluster, node string) int64 {
	c.t.Helper()
	var list struct {
		Items []struct {
			Offset int64 `json:"offset_bytes"`
		} `json:"items"`
	}
	dir := filepath.Join(c.t.TempDir(), "one")
	for _, n := range c.Nodes {
		if n.Name == node {
			writeClusterFile(c.t, dir, n.Dir)
		}
	}
	one := devcluster.Cluster{Dir: dir}
	if err := json.Unmarshal([]byte(one.Must(c.t, "image", "uploads", "--json")), &list); err != nil {
		c.t.Fatal(err)
	}
	if len(list.Items) != 1 {
		c.t.Fatalf("there are %d uploads, not one", len(list.Items))
	}
	return list.Items[0].Offset
}

// sparseImage has something else in each MiB, and little on the disk.
func sparseImage(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "large.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.NewChaCha8([32]byte{2})
	block := make([]byte, 4096)
	for at := int64(0); at < size; at += 1 << 20 {
		_, _ = random.Read(block)
		if _, err := f.WriteAt(block, at+int64(block[0])*4096); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// A gate stands before the socket of a node's API and lets so many bytes pass to it.
type gate struct {
	dir string // of a cluster that has only this node

	mu    sync.Mutex    // guards the rest
	full  chan struct{} // is closed when nothing is left; nil: it is
	left  int64
	moved int64
	cuts  int
	more  *sync.Cond
	conns []net.Conn
}

func openGate(t *testing.T, n node) *gate {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "gate-") //nolint:usetesting // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{dir: dir}
	g.more = sync.NewCond(&g.mu)
	writeClusterFile(t, dir, filepath.Join(dir, "n"))
	if err := os.MkdirAll(filepath.Join(dir, "n", "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "n", "run", "api.sock"))
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() { g.forward(from, filepath.Join(n.Dir, "run", "api.sock")) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		g.cut()
		work.Wait()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return g
}

func (g *gate) forward(from net.Conn, socket string) {
	defer func() { _ = from.Close() }()
	to, err := net.Dial("unix", socket)
	if err != nil {
		return
	}
	defer func() { _ = to.Close() }()
	g.mu.Lock()
	g.conns = append(g.conns, from, to)
	g.mu.Unlock()
	var back sync.WaitGroup
	defer back.Wait()
	back.Go(func() { // ends with either
		_, _ = io.Copy(from, to)
		_ = from.Close()
	})
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && g.take(int64(n)) {
			_, err = to.Write(buf[:n])
		}
		if err != nil {
			_ = to.Close()
			return
		}
	}
}

// take waits until n bytes may pass; small requests may always.
func (g *gate) take(n int64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if n < 4096 {
		return true
	}
	if g.left < n && g.full != nil {
		close(g.full)
		g.full = nil
	}
	for times := g.cuts; g.left < n; g.more.Wait() {
		if g.cuts != times {
			return false
		}
	}
	g.left -= n
	g.moved += n
	return true
}

// pass lets so many bytes pass from now on; what it returns is closed when more want to.
func (g *gate) pass(n int64) (full <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left, g.full = n, make(chan struct{})
	g.more.Broadcast()
	return g.full
}

// cut breaks what is connected.
func (g *gate) cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.conns {
		_ = c.Close()
	}
	g.conns = nil
	g.cuts++
	g.more.Broadcast()
}

func (g *gate) total() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.moved
}

// writeClusterFile makes a folder that --dir takes for a cluster of one node.
func writeClusterFile(t *testing.T, dir, nodeDir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`{"nodes": [{"name": "one", "dir": %q}]}`, nodeDir)
	if err := os.WriteFile(filepath.Join(dir, "cluster.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// hostileImages are files that do harm to who believes them, each with a part of the
// sentence it is refused with.
func hostileImages(t *testing.T) map[string]string {
	t.Helper()
	dir := t.TempDir()
	backed := filepath.Join(dir, "backed.qcow2")
	tool(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw", backed)
	huge := filepath.Join(dir, "huge.qcow2")
	tool(t, "qemu-img", "create", "-q", "-f", "qcow2", huge, "64M")
	f, err := os.OpenFile(huge, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(binary.BigEndian.AppendUint64(nil, 1<<60), 24); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		"refers to another file": backed,
		"image":                  huge,
		"is compressed":          bombOVA(t, dir),
	}
}

// bombOVA has a disk that says it is compressed, and would be 1 TiB.
func bombOVA(t *testing.T, dir string) string {
	t.Helper()
	const descriptor = `<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
<References><File ovf:id="f" ovf:href="d.vmdk.gz" ovf:compression="gzip"/></References>
<DiskSection><Disk ovf:diskId="d" ovf:fileRef="f" ovf:capacity="1099511627776"/></DiskSection></Envelope>`
	raw := filepath.Join(dir, "zeros")
	if err := os.WriteFile(raw, make([]byte, 64<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	tool(t, "gzip", raw)
	packed, err := os.ReadFile(raw + ".gz")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, data := range map[string][]byte{"m.ovf": []byte(descriptor), "d.vmdk.gz": packed} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(data)), Format: tar.FormatUSTAR}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "bomb.ova")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
