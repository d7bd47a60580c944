package cluster

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A listener keeps the lines that a guest says on its serial port.
type listener struct {
	t *testing.T

	mu    sync.Mutex // guards lines
	lines []string
}

// hearsSay listens to a machine until the test ends or stop is called.
func (c *cluster) hearsSay(name string) (l *listener, stop func()) {
	c.t.Helper()
	l = &listener{t: c.t}
	cmd := exec.Command(program("drystone"), "vm", "console", name, "--serial")
	cmd.Env = append(os.Environ(), "DRYSTONE_DIR="+c.dir)
	in, err := cmd.StdinPipe() // kept open: the end of input leaves the console
	if err != nil {
		c.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { // ends with the console
		defer close(done)
		l.follow(out)
	}()
	stop = sync.OnceFunc(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		<-done
		_ = cmd.Wait()
	})
	c.t.Cleanup(stop)
	return l, stop
}

func (l *listener) follow(out io.Reader) {
	for s := bufio.NewScanner(out); s.Scan(); {
		l.mu.Lock()
		l.lines = append(l.lines, s.Text())
		l.mu.Unlock()
	}
}

// await waits until the newest line that matches also says this.
func (l *listener) await(match, says string) {
	l.t.Helper()
	var newest string
	defer func() {
		if l.t.Failed() {
			l.t.Logf("the newest such line is %q", newest)
		}
	}()
	eventually(l.t, 2*time.Minute, "the guest says "+says, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, line := range slices.Backward(l.lines) {
			if strings.Contains(line, match) {
				newest = line
				return strings.Contains(line, says)
			}
		}
		return false
	})
}

// disc makes an ISO with one file and uploads it.
func (c *cluster) disc(name, label, text string, more ...string) {
	c.t.Helper()
	dir := c.t.TempDir()
	content := filepath.Join(dir, "content")
	if err := os.Mkdir(content, 0o700); err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(content, "readme.txt"), []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
	for _, file := range more { // the one it starts from
		data, err := os.ReadFile(file)
		if err != nil {
			c.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(content, "boot.bin"), data, 0o600); err != nil {
			c.t.Fatal(err)
		}
	}
	iso := filepath.Join(dir, name+".iso")
	args := []string{"-quiet", "-J", "-V", label, "-o", iso}
	if len(more) > 0 {
		args = append(args, "-b", "boot.bin", "-no-emul-boot", "-boot-load-size", "4")
	}
	if out, err := exec.Command("genisoimage", append(args, content)...).CombinedOutput(); err != nil {
		c.t.Fatalf("genisoimage: %v: %s", err, out)
	}
	c.must("image", "upload", iso, "--name", name)
}

func TestDrives(t *testing.T) {
	t.Parallel()
	c := up(t)
	c.disc("one", "ONE", "the first disc")
	c.disc("two", "TWO", "the second disc")
	c.part("a CD", func(*testing.T) { testCD(c) })
	c.part("a disk on SATA", func(*testing.T) { testSATA(c) })
}

// A guest reads the discs in its drives and what cloud-init is given, as does another on
// another node at the same time; it sees a disc change, is there no more, and goes on
// reading when it has moved. A disc in a drive is not deleted.
func testCD(c *cluster) {
	files := filepath.Join("..", "..", "bin", "guest")
	seed := filepath.Join(c.t.TempDir(), "user-data")
	if err := os.WriteFile(seed, []byte("#cloud-config\nhostname: anna\n"), 0o600); err != nil {
		c.t.Fatal(err)
	}
	for _, name := range []string{"g", "h"} {
		c.must("vm", "create", name, "--memory", "128M", "--disk", "64M", "--cdrom", "one,bus=scsi", "--user-data", seed,
			"--kernel", filepath.Join(files, "vmlinuz"), "--initrd", filepath.Join(files, "initrd.img"), "--append", "console=ttyS0 quiet")
	}
	c.must("vm", "start", "g", "--node", "node1")
	c.awaitVM("g", "running")
	g, stop := c.hearsSay("g")
	g.await("discs:", "sr0=ONE:the first disc; sr1=cidata:instance-id: ")
	g.await("discs:", "local-hostname: g #cloud-config hostname: anna")
	c.must("vm", "start", "h", "--node", "node2")
	c.awaitVM("h", "running")
	h, stopH := c.hearsSay("h")
	h.await("discs:", "sr0=ONE:the first disc;")
	stopH()

	c.must("vm", "edit", "g", "--cdrom", "two")
	g.await("discs:", "sr0=TWO:the second disc;")
	c.must("vm", "edit", "g", "--eject")
	g.await("discs:", "sr0=none;")
	c.must("vm", "edit", "g", "--cdrom", "one", "--user-data", seed, "--meta-data", seed)
	g.await("discs:", "sr0=ONE:the first disc; sr1=cidata:#cloud-config hostname: anna #cloud-config")
	stop()
	if r := c.run("volume", "delete", "one", "--yes"); r.status == 0 || !strings.Contains(r.errs, `is in a cd-rom drive of the vm`) {
		c.t.Errorf("to delete an image that is read: %v", r)
	}

	c.must("vm", "migrate", "g", "node3")
	c.awaitVM("g", "running")
	g, stop = c.hearsSay("g")
	defer stop()
	c.must("vm", "edit", "g", "--cdrom", "two")
	g.await("discs:", "sr0=TWO:the second disc;")
	if v := get[vm](c, "vm", "show", "g"); v.NodeName != "node3" || v.Status.Reason != "" {
		c.t.Errorf("after all that the machine is %+v", v)
	}
	for _, name := range []string{"g", "h"} {
		c.must("vm", "stop", name)
		c.awaitVM(name, "stopped")
		c.must("vm", "delete", name, "--yes")
	}
	c.must("volume", "delete", "one", "--yes")
}

// assemble makes the program that counts on a disk, or that which only says its name.
func assemble(t *testing.T, label string, disk bool) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "guest", "boot", "boot.S"))
	if err != nil {
		t.Fatal(err)
	}
	source := strings.Replace(string(text), ".asciz LABEL", ".asciz "+strconv.Quote(label), 1)
	if disk {
		source = ".set DISK, 1\n" + source
	}
	dir := t.TempDir()
	path := func(end string) string { return filepath.Join(dir, "boot"+end) }
	if err := os.WriteFile(path(".S"), []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"as", "--32", "-o", path(".o"), path(".S")},
		{"ld", "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", "-o", path(".bin"), path(".o")},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	return path(".bin")
}

var counted = regexp.MustCompile(`disk n=([0-9a-f]{8})`)

// counts waits until the program on a machine's disk has counted beyond a number, and
// returns the newest one. Each number is more than that before, for it is one more than what
// the disk held.
func (c *cluster) counts(name string, beyond uint64) (newest uint64) {
	c.t.Helper()
	l, stop := c.hearsSay(name)
	defer stop()
	eventually(c.t, 2*time.Minute, "the guest counts beyond "+strconv.FormatUint(beyond, 10), func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, line := range slices.Backward(l.lines) {
			if m := counted.FindStringSubmatch(line); m != nil {
				newest, _ = strconv.ParseUint(m[1], 16, 32)
				return newest > beyond
			}
		}
		return false
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	last := int64(-1)
	for _, line := range l.lines {
		if strings.Contains(line, "BAD") || strings.Contains(line, "ERROR") {
			c.t.Errorf("the guest says %q", line)
		}
		if m := counted.FindStringSubmatch(line); m != nil {
			n, _ := strconv.ParseInt(m[1], 16, 64)
			if n <= last { // what it wrote was not there; a line may be missing where the serial port's log ends
				c.t.Errorf("the guest counts %d after %d", n, last)
			}
			last = n
		}
	}
	return newest
}

// A machine starts from a disk on SATA, which its BIOS knows, and counts there: one on,
// each time, also when it migrates, and from where it was, at least, when its node dies.
// With another boot order it starts from a CD.
func testSATA(c *cluster) {
	raw := filepath.Join(c.t.TempDir(), "counter.raw")
	program, err := os.ReadFile(assemble(c.t, "disk n=", true))
	if err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(raw, append(program, make([]byte, 8<<20-len(program))...), 0o600); err != nil {
		c.t.Fatal(err)
	}
	c.must("image", "upload", raw, "--name", "counter", "--format", "raw")
	c.disc("starter", "STARTER", "starts", assemble(c.t, "from the cd", false))
	c.must("vm", "create", "s", "--memory", "64M", "--disk", "counter,bus=sata", "--cdrom", "starter")
	c.must("vm", "start", "s", "--node", "node1")
	c.awaitVM("s", "running")
	n := c.counts("s", 20)
	for _, to := range []string{"node2", "node1", "node2"} {
		c.must("vm", "migrate", "s", to)
		n = c.counts("s", n)
	}
	if holder := get[volume](c, "volume", "show", "s-disk1").HolderName; holder != "node2" {
		c.t.Errorf("the disk is held by %q", holder)
	}
	c.pullThePlug("node2")
	eventually(c.t, 2*time.Minute, "it is placed elsewhere", func() bool {
		now := get[vm](c, "vm", "show", "s")
		return now.NodeName != "node2" && now.NodeName != "" && now.Status.State == "running"
	})
	l, stop := c.hearsSay("s")
	l.await("disk n=", "disk n=")
	stop()
	if now := c.counts("s", n); now <= n {
		c.t.Errorf("after its node's death the guest counts %d; it was at %d", now, n)
	}
	c.start("node2")
	c.must("vm", "stop", "s")
	c.awaitVM("s", "stopped")
	c.must("vm", "edit", "s", "--boot", "cdrom1,disk1")
	c.must("vm", "start", "s", "--node", "node1")
	c.awaitVM("s", "running")
	l, stop = c.hearsSay("s")
	defer stop()
	l.await("from the", "from the cd")
}
