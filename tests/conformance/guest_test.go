package conformance

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"drystone.example/drystone/tests/internal/devcluster"
)

// guest has a guest judge its disks, while a node dies and comes back: fio verifies
// one, fsx works on ext4 and on xfs on two others. They are unmounted cleanly, and then
// fsck finds no fault in them.
func (s *suite) guest(t *testing.T) {
	image := t.TempDir()
	build, err := filepath.Abs("../guest/judge/build.sh")
	if err != nil {
		t.Fatal(err)
	}
	tool(t, build, image)
	var sockets []string
	var exports []*devcluster.Export
	for i, name := range []string{"judged", "ext4", "xfs"} {
		s.volume(t, name, "512M")
		e := s.c.Export(t, "vhost", name, fmt.Sprintf("node%d", i%2+1))
		exports, sockets = append(exports, e), append(sockets, filepath.Join(s.c.Dir, fmt.Sprintf("%s-node%d.sock", name, i%2+1)))
	}
	g := boot(t, image, sockets, "judge.fio=32m judge.steps=1500")
	g.await(t, time.Minute, "judge: begins")
	g.await(t, 3*time.Minute, "judge: ext4-mount is right")
	s.c.Must(t, "dev", "kill", "node3", "--dir", s.c.Dir)
	time.Sleep(8 * time.Second)
	s.c.Must(t, "dev", "start", "node3", "--dir", s.c.Dir)
	g.await(t, 20*time.Minute, "judge: ends")
	g.ended(t)
	said := g.said()
	for _, what := range []string{"fio", "ext4-fsx", "ext4-umount", "xfs-fsx", "xfs-umount"} {
		if !strings.Contains(said, "judge: "+what+" is right") {
			t.Errorf("of %s the guest did not say that it is right", what)
		}
	}
	if strings.Contains(said, "WRONG") || t.Failed() {
		t.Fatalf("the guest said:\n%s", said)
	}
	for _, e := range exports {
		e.Stop()
	}
	s.fsck(t, "ext4", 4096+8, "e2fsck", "-fn")
	s.fsck(t, "xfs", 512+20, "xfs_repair", "-n")
}

// fsck brings a volume into a file, where a checker must find no fault, and one when
// a byte is flipped.
func (s *suite) fsck(t *testing.T, volume string, at int64, checker ...string) {
	t.Helper()
	e := s.nbd(t, volume, "node3")
	file := filepath.Join(t.TempDir(), volume)
	tool(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", e.URI, file)
	e.Stop()
	args := append(checker[1:], file)
	tool(t, checker[0], args...)
	flip(t, file, at)
	if out, err := try(t, checker[0], args...); err == nil {
		t.Errorf("%s did not see a byte that differs: %s", checker[0], out)
	}
}

// A guest is a machine under QEMU without KVM, and what it says on its serial port.
type guest struct {
	exit chan error

	mu   sync.Mutex // guards text
	text strings.Builder
}

// boot starts a guest with vhost-user disks.
func boot(t *testing.T, image string, disks []string, words string) *guest {
	t.Helper()
	args := []string{
		"-accel", "tcg", "-M", "q35,memory-backend=mem", "-smp", "2", "-m", "768",
		"-object", "memory-backend-memfd,id=mem,size=768M,share=on",
		"-kernel", filepath.Join(image, "vmlinuz"), "-initrd", filepath.Join(image, "initrd.img"),
		"-append", fmt.Sprintf("console=ttyS0 quiet panic=-1 judge.seed=%d %s", *seed, words),
		"-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot",
	}
	for i, socket := range disks {
		args = append(args, "-chardev", fmt.Sprintf("socket,id=disk%d,path=%s", i, socket),
			"-device", fmt.Sprintf("vhost-user-blk-pci,chardev=disk%d", i))
	}
	cmd := exec.Command("qemu-system-x86_64", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	g := &guest{exit: make(chan error, 1)}
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v; make deps installs QEMU", err)
	}
	go func() {
		g.follow(out)
		g.exit <- cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		g.exit <- <-g.exit
	})
	return g
}

func (g *guest) follow(out io.Reader) {
	for in := bufio.NewScanner(out); in.Scan(); {
		g.mu.Lock()
		g.text.WriteString(strings.TrimRight(in.Text(), "\r") + "\n")
		g.mu.Unlock()
	}
}

// said is all that a guest has said.
func (g *guest) said() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.text.String()
}

// await waits until the guest says something.
func (g *guest) await(t *testing.T, within time.Duration, what string) {
	t.Helper()
	for end := time.Now().Add(within); !strings.Contains(g.said(), what); time.Sleep(200 * time.Millisecond) {
		if len(g.exit) > 0 || time.Now().After(end) {
			t.Fatalf("the guest did not say %q:\n%s", what, g.said())
		}
	}
}

// ended waits until the machine is off.
func (g *guest) ended(t *testing.T) {
	t.Helper()
	select {
	case err := <-g.exit:
		g.exit <- err
		if err != nil {
			t.Errorf("QEMU: %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("the guest is not off a minute after it ended")
	}
}
