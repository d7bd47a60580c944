package vhost

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// guestModules is what Debian's cloud kernel needs for the disk, in order.
var guestModules = []string{
	"drivers/virtio/virtio_ring.ko", "drivers/virtio/virtio.ko",
	"drivers/virtio/virtio_pci_legacy_dev.ko", "drivers/virtio/virtio_pci_modern_dev.ko",
	"drivers/virtio/virtio_pci.ko", "drivers/block/virtio_blk.ko",
}

// guestMemory is not a multiple of 256 KiB. Where it is one, QEMU before 9.0 that
// emulates its CPUs forgets, when it has copied a page while the guest runs, to watch
// for the next write to it, and the guest arrives with pieces of old memory (cured there
// by "physmem: Fix migration dirty bitmap coherency with TCG memory access").
const guestMemory = "196616K"

// A guest is a real Linux in a real QEMU.
type guest struct {
	t    *testing.T
	cmd  *exec.Cmd
	in   io.Writer // its serial console
	qmp  net.Conn
	says *bufio.Reader

	mu    sync.Mutex // guards lines
	lines []string
	exit  chan struct{}
}

// bootGuest starts QEMU on a back end's socket.
func bootGuest(t *testing.T, b *backend, args ...string) *guest {
	t.Helper()
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Fatalf("qemu-system-x86_64 is missing; make deps installs it: %v", err)
	}
	kernels, _ := filepath.Glob("/boot/vmlinuz-*-cloud-amd64")
	if len(kernels) == 0 {
		t.Fatal("no /boot/vmlinuz-*-cloud-amd64; make deps installs linux-image-cloud-amd64")
	}
	kernel := kernels[len(kernels)-1]
	dir := t.TempDir()
	initrd := filepath.Join(dir, "initrd")
	buildInitrd(t, strings.TrimPrefix(filepath.Base(kernel), "vmlinuz-"), initrd)
	monitor := filepath.Join(dir, "qmp")
	g := &guest{t: t, exit: make(chan struct{})}
	g.cmd = exec.Command(qemu, append([]string{
		"-accel", "tcg", "-M", "q35,memory-backend=mem", "-smp", "2", "-m", guestMemory,
		"-object", "memory-backend-memfd,id=mem,size=" + guestMemory + ",share=on",
		"-chardev", "socket,id=disk,path=" + b.socket + ",reconnect=1",
		"-device", "vhost-user-blk-pci,chardev=disk,num-queues=2",
		"-kernel", kernel, "-initrd", initrd, "-append", "console=ttyS0 quiet panic=-1",
		"-nodefaults", "-display", "none", "-serial", "stdio",
		"-qmp", "unix:" + monitor + ",server=on,wait=off",
	}, args...)...)
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := g.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if g.in, err = g.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	g.cmd.Stderr = t.Output()
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go g.listen(out)
	t.Cleanup(func() {
		_ = g.cmd.Process.Kill()
		<-g.exit
	})
	eventually(t, "QEMU's monitor", func() bool {
		g.qmp, err = net.Dial("unix", monitor)
		return err == nil
	})
	t.Cleanup(func() { _ = g.qmp.Close() })
	g.says = bufio.NewReader(g.qmp)
	g.command("qmp_capabilities")
	return g
}

func (g *guest) listen(out io.Reader) {
	for in := bufio.NewScanner(out); in.Scan(); {
		g.mu.Lock()
		g.lines = append(g.lines, strings.TrimRight(in.Text(), "\r"))
		g.mu.Unlock()
	}
	_ = g.cmd.Wait() // killed, or powered off
	close(g.exit)
}

// command runs a monitor command, with arguments in JSON if there are any, and
// returns what QEMU says to it.
func (g *guest) command(name string, args ...string) json.RawMessage {
	g.t.Helper()
	_ = g.qmp.SetDeadline(time.Now().Add(20 * time.Second))
	_, err := fmt.Fprintf(g.qmp, `{"execute": %q, "arguments": {%s}}`+"\n", name,
		strings.Join(args, ","))
	if err != nil {
		g.t.Fatalf("%s: %v", name, err)
	}
	for {
		line, err := g.says.ReadBytes('\n')
		if err != nil {
			g.t.Fatalf("%s: %v", name, err)
		}
		var said struct{ Return, Error json.RawMessage }
		if err := json.Unmarshal(line, &said); err != nil {
			g.t.Fatalf("%s: %v in %s", name, err, line)
		}
		if said.Error != nil {
			g.t.Fatalf("%s: %s", name, said.Error)
		}
		if said.Return != nil {
			return said.Return
		}
	}
}

// count returns how many lines of the console begin with a prefix.
func (g *guest) count(prefix string) (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, l := range g.lines {
		if strings.HasPrefix(l, prefix) {
			n++
		}
	}
	return n
}

// rounds waits until the guest has verified n rounds more.
func (g *guest) rounds(n int) {
	g.t.Helper()
	want := g.count("guest: round ") + n
	g.wait(fmt.Sprintf("%d rounds", n), func() bool { return g.count("guest: round ") >= want })
}

// wait fails with the console if the guest sees an error or takes too long.
func (g *guest) wait(what string, ok func() bool) {
	g.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		wrong := ""
		select {
		case <-g.exit:
			wrong = "QEMU ended"
		default:
		}
		if g.count("guest: error") > 0 {
			wrong = "the guest saw an error"
		}
		if time.Now().After(deadline) {
			wrong = "a minute has passed"
		}
		if wrong != "" {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.t.Fatalf("waiting for %s: %s\n%s", what, wrong,
				strings.Join(g.lines[max(0, len(g.lines)-30):], "\n"))
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// finish lets the guest check everything and power off.
func (g *guest) finish() {
	g.t.Helper()
	if _, err := io.WriteString(g.in, "done\n"); err != nil {
		g.t.Fatal(err)
	}
	g.wait("the last check", func() bool { return g.count("guest: verified") > 0 })
	select {
	case <-g.exit:
	case <-time.After(10 * time.Second):
		g.t.Error("the guest does not power off")
	}
}

// buildInitrd packs guesttest and the drivers of a kernel.
func buildInitrd(t *testing.T, release, path string) {
	t.Helper()
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "init"),
		"./guesttest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build guesttest: %v\n%s", err, out)
	}
	var names []string
	files := map[string][]byte{}
	for _, m := range guestModules {
		b, err := os.ReadFile(filepath.Join("/lib/modules", release, "kernel", m))
		if errors.Is(err, os.ErrNotExist) {
			t.Fatalf("the kernel has no %s; make deps installs linux-image-cloud-amd64", m)
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, filepath.Base(m))
		files["modules/"+filepath.Base(m)] = b
	}
	files["modules/order"] = []byte(strings.Join(names, " "))
	init, err := os.ReadFile(filepath.Join(dir, "init"))
	if err != nil {
		t.Fatal(err)
	}
	files["init"] = init
	var cpio bytes.Buffer
	for _, d := range []string{"dev", "proc", "sys", "modules"} {
		cpioEntry(&cpio, d, 0o40755, nil)
	}
	for name, b := range files {
		cpioEntry(&cpio, name, 0o100755, b)
	}
	cpioEntry(&cpio, "TRAILER!!!", 0, nil)
	if err := os.WriteFile(path, cpio.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// cpioEntry appends a file in the format the kernel unpacks ("newc").
func cpioEntry(w *bytes.Buffer, name string, mode int, data []byte) {
	fmt.Fprintf(w, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", 0, mode, 0, 0, 1,
		0, len(data), 0, 0, 0, 0, len(name)+1, 0)
	w.WriteString(name + "\x00")
	w.Write(make([]byte, -w.Len()&3))
	w.Write(data)
	w.Write(make([]byte, -w.Len()&3))
}

// A guest that is moved under load from one back end to another and back, with the
// dirty log on, has at each the memory that it had where it was, byte for byte, and
// goes on.
func TestGuestMoves(t *testing.T) {
	here := newBackend(t, 32<<20)
	there := newBackend(t, 32<<20)
	there.kill()
	there.file = here.file
	there.start()
	g := bootGuest(t, here)
	g.rounds(3)
	for range moves {
		here, there = there, here
		g = g.move(here)
		g.rounds(3)
	}
	g.finish()
}

// moves is how often TestGuestMoves moves.
const moves = 4

// move moves a guest to a QEMU on another back end.
func (g *guest) move(b *backend) *guest {
	g.t.Helper()
	socket := filepath.Join(g.t.TempDir(), "move")
	to := bootGuest(g.t, b, "-S", "-incoming", "unix:"+socket)
	g.command("migrate", fmt.Sprintf(`"uri": "unix:%s"`, socket))
	status := func(g *guest, command string) string {
		var got struct{ Status string }
		if err := json.Unmarshal(g.command(command), &got); err != nil {
			g.t.Fatal(err)
		}
		return got.Status
	}
	g.wait("the guest to have moved", func() bool {
		got := status(g, "query-migrate")
		if got == "failed" {
			g.t.Fatal("the migration failed")
		}
		return got == "completed"
	})
	to.wait("the guest to have arrived", func() bool { return status(to, "query-status") != "inmigrate" })
	before, after := g.memory(), to.memory()
	for at := 0; at < len(before); at += logPage {
		if !bytes.Equal(before[at:at+logPage], after[at:at+logPage]) {
			g.t.Errorf("the memory at %#x is not what it was", at)
		}
	}
	g.command("quit")
	<-g.exit
	to.command("cont")
	return to
}

// memory reads the guest's memory.
func (g *guest) memory() []byte {
	g.t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", g.cmd.Process.Pid)
	files, err := os.ReadDir(dir)
	if err != nil {
		g.t.Fatal(err)
	}
	for _, f := range files {
		path := filepath.Join(dir, f.Name())
		if to, err := os.Readlink(path); err != nil || !strings.HasPrefix(to, "/memfd:memory-backend-memfd") {
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			g.t.Fatal(err)
		}
		return b
	}
	g.t.Fatal("QEMU has no memory")
	return nil
}

// A Linux guest writes and verifies while its back end is killed, ended and
// started again, while QEMU is stopped and its back end with it, and through a
// reset.
func TestGuest(t *testing.T) {
	b := newBackend(t, 32<<20)
	g := bootGuest(t, b)
	g.wait("the disk", func() bool { return g.count("guest: serial=drystone-test queues=2") == 1 })
	g.rounds(3)

	t.Log("killed while running")
	b.kill()
	b.start()
	g.rounds(3)

	t.Log("ended and started while running")
	b.end()
	b.start()
	g.rounds(3)

	t.Log("killed while stopped")
	g.command("stop")
	b.kill()
	b.start()
	time.Sleep(1500 * time.Millisecond) // QEMU reconnects after one second, and says nothing
	g.command("cont")
	g.rounds(3)

	t.Log("reset")
	g.command("system_reset")
	g.wait("the disk after the reset", func() bool { return g.count("guest: serial=") == 2 })
	g.rounds(2)
	g.finish()
}
