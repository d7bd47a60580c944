package cluster

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"drystone.example/drystone/tests/internal/devcluster"
)

// An image becomes a volume; a machine that is made from it has a copy of its own,
// which outlives it. An image that is damaged leaves nothing behind. A volume that is
// exported by vhost-user is a disk to a QEMU that nobody of ours started.
func TestImagesAndExports(t *testing.T) {
	t.Parallel()
	c := up(t, "--storage-only", "--disks", "1")
	raw, qcow := makeImage(t)

	c.part("image", func(*testing.T) {
		c.must("image", "upload", qcow, "--name", "base")
		c.compare("base", "node2", raw)
		c.awaitUsed("base", 5<<20)
		c.must("vm", "create", "m", "--disk", "base", "--disk", "64M")
		c.must("volume", "delete", "base", "--yes")
		c.compare("m-disk1", "node3", raw)
		c.awaitUsed("m-disk1", 5<<20)
		c.awaitUsed("m-disk2", 0)
		c.must("vm", "delete", "m", "--yes")
	})

	c.part("formats", func(t *testing.T) {
		t.Helper()
		for format, path := range otherFormats(t, raw) {
			c.must("image", "upload", path, "--name", format)
			c.compare(format, "node2", raw)
			c.awaitFree(format)
			c.must("volume", "delete", format, "--yes")
		}
	})

	c.part("damaged", func(t *testing.T) {
		t.Helper()
		before := snapshot(c)
		for name, hurt := range map[string]func(b []byte) []byte{
			"cut short":     func(b []byte) []byte { return b[:len(b)/2] },
			"needs another": func(b []byte) []byte { return b },
			"2^60 bytes":    func(b []byte) []byte { return append(binary.BigEndian.AppendUint64(b[:24:24], 1<<60), b[32:]...) },
			// All clusters that the first table names lie far outside the file.
			"bad table": func(b []byte) []byte {
				return append(b[:3<<16:3<<16], bytes.Repeat([]byte{0x7f}, len(b)-3<<16)...)
			},
		} {
			b, err := os.ReadFile(qcow)
			if err != nil {
				t.Fatal(err)
			}
			bad := filepath.Join(t.TempDir(), "bad.qcow2")
			if err := os.WriteFile(bad, hurt(b), 0o600); err != nil {
				t.Fatal(err)
			}
			if name == "needs another" {
				tool(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw", bad)
			}
			r := c.run("image", "upload", bad, "--name", "bad")
			if r.status != 1 || !strings.Contains(r.errs, "image") || strings.Contains(r.errs, "internal error") {
				t.Errorf("%s: %v", name, r)
			}
		}
		if left := c.must("image", "uploads"); !strings.Contains(left, "Nothing") {
			t.Errorf("what was refused is kept: %s", left)
		}
		if after := snapshot(c); after != before {
			t.Errorf("a damaged image left something:\n%s\nbefore:\n%s", after, before)
		}
	})

	c.part("vhost", func(t *testing.T) {
		t.Helper()
		c.must("volume", "create", "v", "256M")
		e := c.exportBy("vhost", "v", "node2")
		socket, ok := strings.CutPrefix(e.uri, "vhost-user:")
		if !ok {
			t.Fatalf("the export is ready at %q", e.uri)
		}
		verifyIn(t, socket)
		e.stop()
		c.awaitFree("v")
	})
}

// makeImage makes a disk of 32 MiB with 5 MiB of data, raw and as qcow2.
func makeImage(t *testing.T) (raw, qcow string) {
	t.Helper()
	dir := t.TempDir()
	raw, qcow = filepath.Join(dir, "d.raw"), filepath.Join(dir, "d.qcow2")
	b := make([]byte, 32<<20)
	random := rand.NewChaCha8([32]byte{1})
	for _, mib := range []int{0, 1, 9, 10, 31} {
		_, _ = random.Read(b[mib<<20:][:1<<20])
	}
	if err := os.WriteFile(raw, b, 0o600); err != nil {
		t.Fatal(err)
	}
	tool(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow)
	return raw, qcow
}

// otherFormats is a disk in the formats that strangers bring it in, each in a file whose
// name says nothing.
func otherFormats(t *testing.T, raw string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	out := map[string]string{}
	convert := func(name, format, options string) {
		out[name] = filepath.Join(dir, name+".img")
		tool(t, "qemu-img", "convert", "-f", "raw", "-O", format, "-o", options, raw, out[name])
	}
	convert("vhd", "vpc", "subformat=dynamic,force_size")
	convert("vhdx", "vhdx", "subformat=dynamic")
	convert("vmdk", "vmdk", "subformat=streamOptimized")
	descriptor := `<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
<References><File ovf:id="f" ovf:href="vmdk.img"/></References>
<DiskSection><Disk ovf:diskId="d" ovf:fileRef="f" ovf:capacity="33554432"/></DiskSection></Envelope>`
	if err := os.WriteFile(filepath.Join(dir, "m.ovf"), []byte(descriptor), 0o600); err != nil {
		t.Fatal(err)
	}
	out["ova"] = filepath.Join(dir, "ova.img")
	tool(t, "tar", "--format=ustar", "-C", dir, "-cf", out["ova"], "m.ovf", "vmdk.img")
	return out
}

func tool(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// compare fails unless a volume, read from a node, is what a file has.
func (c *cluster) compare(name, node, raw string) {
	c.t.Helper()
	e := c.export(name, node)
	defer e.stop()
	tool(c.t, "qemu-img", "compare", "-f", "raw", "-F", "raw", raw, e.uri)
}

// verifyIn boots the demo guest on a vhost-user disk and waits until it has verified
// some of what it wrote.
func verifyIn(t *testing.T, socket string) {
	t.Helper()
	files := filepath.Join("..", "..", "bin", "guest")
	cmd := exec.Command("qemu-system-x86_64", "-accel", "tcg", "-M", "q35,memory-backend=mem", "-m", "256",
		"-uuid", "6472790a-5354-4f4e-8000-000000000001",
		"-object", "memory-backend-memfd,id=mem,size=256M,share=on",
		"-chardev", "socket,id=disk,path="+socket, "-device", "vhost-user-blk-pci,chardev=disk",
		"-kernel", filepath.Join(files, "vmlinuz"), "-initrd", filepath.Join(files, "initrd.img"),
		"-append", "console=ttyS0 quiet verifier.area=64M", "-nodefaults", "-display", "none", "-serial", "stdio")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &devcluster.Port{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.Follow(out, nil)
	}()
	defer func() {
		_ = cmd.Process.Kill()
		<-done
		_ = cmd.Wait()
	}()
	eventually(t, 90*time.Second, "the guest verifies its disk", func() bool {
		return p.Now().Blocks > 1000
	})
	if now := p.Now(); now.Errors != 0 || len(now.Bad) > 0 {
		t.Errorf("the guest's verifier found %d errors: %v", now.Errors, now.Bad)
	}
}
