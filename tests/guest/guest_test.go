// Package guest tests real machines: QEMU under libvirt, running the demo guest
// that this folder builds. It needs root and the packages that guests need, and
// fails without them.
package guest

import (
	"context"
	"fmt"
	"io"
	"log/slog"
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

	"drystone.example/drystone/backend/dev/libvirtd"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/virt"
)

// image builds the demo guest once for all tests.
var image = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "drystone-image")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // QEMU's user reads it
		return dir, err
	}
	out, err := exec.Command("./build.sh", dir).CombinedOutput()
	if err != nil {
		return dir, fmt.Errorf("build.sh: %w: %s", err, out)
	}
	return dir, nil
})

var built atomicFlag

// atomicFlag says whether image was used, so that TestMain does not build it only
// to remove it.
type atomicFlag struct {
	sync.Mutex
	set bool
}

func TestMain(m *testing.M) {
	m.Run()
	built.Lock()
	defer built.Unlock()
	if built.set {
		dir, _ := image()
		_ = os.RemoveAll(dir)
	}
}

// A node is a folder with a libvirtd of its own and a Hypervisor that speaks to it.
type node struct {
	t    *testing.T
	dir  string
	uuid string
	lib  *libvirtd.Daemon
	hv   *virt.Hypervisor
}

func newNode(t *testing.T, name, uuid string) *node {
	t.Helper()
	if err := libvirtd.Installed(); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "drystone-"+name) //nolint:usetesting // QEMU's user passes
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, dir: dir, uuid: uuid}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := libvirtd.Stop(ctx, dir); err != nil {
			t.Errorf("Stop: %v", err)
		}
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "libvirt/log/libvirtd.log"))
			t.Logf("libvirtd of %s said:\n%s", name, log)
			serials, _ := filepath.Glob(filepath.Join(dir, "run/vms/*/serial.log"))
			for _, path := range serials {
				log, _ := os.ReadFile(path)
				t.Logf("%s:\n%s", path, log)
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	n.startLibvirt(name)
	if err := os.MkdirAll(n.path("run"), 0o755); err != nil {
		t.Fatal(err)
	}
	n.hv, err = virt.New(virt.Config{
		URI: n.lib.URI, Dir: n.path("run/vms"), Accelerator: virt.TCG,
		Log: slog.New(slog.NewTextHandler(testWriter{t}, nil)),
	})
	if err != nil {
		t.Fatalf("virt.New: %v", err)
	}
	t.Cleanup(n.hv.Close)
	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	running.Go(func() {
		if err := n.hv.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	return n
}

// testWriter sends a log into the test's.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func (n *node) startLibvirt(name string) {
	n.t.Helper()
	var err error
	if n.lib, err = libvirtd.Start(n.t.Context(), n.dir, name, n.uuid); err != nil {
		n.t.Fatalf("Start: %v", err)
	}
}

func (n *node) path(rel string) string { return filepath.Join(n.dir, rel) }

// A disk is a file behind qemu-storage-daemon's vhost-user-blk export.
type disk struct {
	n      *node
	file   string
	socket string
	cmd    *exec.Cmd
	life   io.Closer // its end is the end
}

func (n *node) newDisk(name string, size int64) *disk {
	n.t.Helper()
	d := &disk{n: n, file: n.path(name + ".raw"), socket: n.path("run/" + name + ".sock")}
	if err := os.WriteFile(d.file, nil, 0o600); err != nil {
		n.t.Fatal(err)
	}
	if err := os.Truncate(d.file, size); err != nil {
		n.t.Fatal(err)
	}
	d.start()
	n.t.Cleanup(d.kill)
	return d
}

func (d *disk) start() {
	t := d.n.t
	t.Helper()
	_ = os.Remove(d.socket)
	// The shell kills it when its input ends: at kill, or when this process is dead.
	d.cmd = exec.Command("sh", "-c", `"$@" & read -r _; kill -KILL $!; wait`, "sh",
		"qemu-storage-daemon",
		"--blockdev", "driver=file,node-name=f,discard=unmap,filename="+d.file,
		"--export", "type=vhost-user-blk,id=e,node-name=f,writable=on,num-queues=2,"+
			"addr.type=unix,addr.path="+d.socket)
	d.cmd.Stderr = testWriter{t}
	var err error
	if d.life, err = d.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatalf("start a disk: %v", err)
	}
	uid, gid := d.n.hv.Owner()
	wait(t, 10*time.Second, "the disk's socket", func() bool {
		return os.Chown(d.socket, uid, gid) == nil
	})
}

func (d *disk) kill() {
	_ = d.life.Close()
	_ = d.cmd.Wait()
}

// guestWait is how long a guest may take to boot and work: seconds on an idle
// machine, minutes on a busy one.
const guestWait = 3 * time.Minute

// wait polls until ok, or fails the test.
func wait(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v for %s", limit, what)
		}
	}
}

// domain describes a machine that runs the demo guest on a disk.
func (n *node) domain(name string, d *disk, more ...string) virt.Domain {
	n.t.Helper()
	dir, err := image()
	built.Lock()
	built.set = true
	built.Unlock()
	if err != nil {
		n.t.Fatal(err)
	}
	words := []string{"console=ttyS0", "quiet", "panic=5", "drystone.rate=100", "drystone.area=16M"}
	return virt.Domain{
		ID: model.NewID[model.VMID](), Name: name, Revision: 7, Hardware: virt.Hardware, CPUs: 1, Memory: 128 << 20,
		Disks: []virt.Disk{{Socket: d.socket}},
		Kernel: &virt.Kernel{
			Path: filepath.Join(dir, "vmlinuz"), Initrd: filepath.Join(dir, "initrd.img"),
			Append: strings.Join(slices.Concat(words, more), " "),
		},
	}
}

// progress is the last line the verifier in a guest printed.
type progress struct{ verified, writes, reads, errors int }

var progressLine = regexp.MustCompile(
	`verified (\d+) writes (\d+) reads (\d+) errors (\d+) longest_stall [\d.]+\r\n`)

func (n *node) log(vm model.VMID) string {
	n.t.Helper()
	b, err := n.hv.SerialLog(vm, 64<<10)
	if err != nil {
		n.t.Fatalf("SerialLog: %v", err)
	}
	return string(b)
}

func (n *node) progress(vm model.VMID) progress {
	n.t.Helper()
	log := n.log(vm)
	if strings.Contains(log, "VERIFY ERROR") {
		n.t.Fatalf("the guest found an error:\n%s", log)
	}
	lines := progressLine.FindAllStringSubmatch(log, -1)
	if len(lines) == 0 {
		return progress{}
	}
	var p progress
	for i, field := range []*int{&p.verified, &p.writes, &p.reads, &p.errors} {
		*field, _ = strconv.Atoi(lines[len(lines)-1][i+1])
	}
	return p
}

// waitWork waits until the guest has verified more than before.
func (n *node) waitWork(vm model.VMID) progress {
	n.t.Helper()
	before := n.progress(vm)
	var now progress
	wait(n.t, guestWait, "the guest to verify", func() bool {
		now = n.progress(vm)
		return now.verified > before.verified && now.writes > before.writes
	})
	return now
}

func (n *node) start(d virt.Domain) {
	n.t.Helper()
	if err := n.hv.Start(n.t.Context(), d); err != nil {
		n.t.Fatalf("Start: %v", err)
	}
}

func (n *node) guest(vm model.VMID) virt.Guest {
	n.t.Helper()
	g, err := n.hv.Guest(n.t.Context(), vm)
	if err != nil {
		n.t.Fatalf("Guest: %v", err)
	}
	return g
}

// waitEvent waits for an event of a machine, past others.
func (n *node) waitEvent(vm model.VMID, state virt.State, reason string) {
	n.t.Helper()
	limit := time.After(time.Minute)
	for {
		select {
		case e := <-n.hv.Events():
			if e.VM == vm && e.State == state && e.Reason == reason {
				return
			}
		case <-limit:
			n.t.Fatalf("no event %s %s of machine %s", state, reason, vm)
		}
	}
}
