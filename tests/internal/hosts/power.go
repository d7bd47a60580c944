package hosts

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"drystone.example/drystone/backend/dev/libvirtd"
	"drystone.example/drystone/tests/internal/devcluster"
)

// A machine's namespaces, in unshare's and in nsenter's words.
var (
	whole  = []string{"--net", "--mount", "--uts", "--pid", "--fork", "--kill-child"}
	inside = []string{"--net", "--mount", "--uts", "--pid"}
	net    = []string{"--net"}
)

// boot is what a machine does before its first daemon. Its /run is empty, and libvirt's
// folders are its own. Without control groups in sight libvirt leaves them alone: it would
// ask systemd for them, and there is none.
const boot = `
mount -t proc proc /proc
umount -l /sys/fs/cgroup 2> /dev/null || true
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 tmpfs /run
for place in etc/libvirt var/lib/libvirt var/log/libvirt var/cache/libvirt; do
	mkdir -p "$2/$place" "/$place"
	mount --bind "$2/$place" "/$place"
done
hostname "$1"
ip link set lo up
`

// root is where a machine keeps what is not the node's.
func root(n devcluster.Node) string { return n.Dir + ".root" }

// powerOn makes a machine, plugs its cable in and starts its libvirt.
func (l *Lab) powerOn(t *testing.T, i int) {
	t.Helper()
	n := l.Nodes[i]
	etc := filepath.Join(root(n), "etc/libvirt")
	if err := os.MkdirAll(etc, 0o755); err != nil { //nolint:gosec // QEMU's user passes
		t.Fatal(err)
	}
	uuid := fmt.Sprintf("6c616221-4d1a-4b3c-8d2e-0000000000%02x", i+1) // a machine keeps it
	if err := libvirtd.WriteSettings(etc, uuid); err != nil {
		t.Fatal(err)
	}
	b, err := open(whole, boot, n.Name, root(n))
	if err != nil {
		t.Fatal(err)
	}
	l.boxes[i] = b
	mac := fmt.Sprintf("02:77:00:00:00:%02x", i+1) // that too
	for _, args := range [][]string{
		{"link", "add", n.Name, "type", "veth", "peer", "name", "eth0", "address", mac, "netns", strconv.Itoa(b.pid)},
		{"link", "set", n.Name, "master", "br0", "up"},
	} {
		if _, err := l.bridge.run(net, "ip", args...); err != nil {
			t.Fatal(err)
		}
	}
	l.In(t, n.Name, "ip", "addr", "add", n.Address+"/24", "dev", "eth0")
	l.In(t, n.Name, "ip", "link", "set", "eth0", "up")
	if l.how.Guests {
		l.In(t, n.Name, "virtlogd", "-d")
		l.In(t, n.Name, "libvirtd", "-d")
	}
}

// PowerOff ends everything on a machine at one instant, as if its plug were pulled, and
// returns when nothing is left.
func (l *Lab) PowerOff(t *testing.T, name string) {
	t.Helper()
	i := l.index(t, name)
	l.cut(i)
	l.awaitOff(t, i)
}

// cut pulls a machine's plug and does not wait.
func (l *Lab) cut(i int) {
	if b := l.boxes[i]; b != nil {
		b.kill()
	}
}

func (l *Lab) awaitOff(t *testing.T, i int) {
	t.Helper()
	if l.boxes[i] == nil {
		return
	}
	select {
	case <-l.boxes[i].ended:
	case <-time.After(time.Minute):
		t.Fatalf("something on %s does not end", l.Nodes[i].Name)
	}
	l.boxes[i] = nil
	_, _ = l.bridge.run(net, "ip", "link", "del", l.Nodes[i].Name) // it may be gone with its other end
}

// PowerOn starts a machine that is off, and its daemons.
func (l *Lab) PowerOn(t *testing.T, name string) {
	t.Helper()
	i := l.index(t, name)
	l.powerOn(t, i)
	l.start(t, i)
	l.describe(t, l.Dir, l.Nodes)
}

// FailPower pulls all plugs at one instant and starts all machines again. It calls cut
// when all that runs was killed, and off when nothing of it is left.
func (l *Lab) FailPower(t *testing.T, cut, off func()) {
	t.Helper()
	for i := range l.boxes {
		l.cut(i)
	}
	cut()
	for i := range l.boxes {
		l.awaitOff(t, i)
	}
	off()
	for i := range l.boxes {
		l.powerOn(t, i)
		l.start(t, i)
	}
	l.describe(t, l.Dir, l.Nodes)
}

// Start starts the daemon of a machine that is on, when it has ended.
func (l *Lab) Start(t *testing.T, name string) {
	t.Helper()
	l.start(t, l.index(t, name))
	l.describe(t, l.Dir, l.Nodes)
}

// start starts a node's daemon and finds it.
func (l *Lab) start(t *testing.T, i int) {
	t.Helper()
	n := &l.Nodes[i]
	out, err := os.OpenFile(n.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	// The machine's first process takes it over, as a service manager has it.
	cmd := l.boxes[i].command(inside, "setsid", "--fork", devcluster.Program("drystoned"), "run", "--dir", n.Dir)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	devcluster.Eventually(t, 20*time.Second, "there is a daemon on "+n.Name, func() bool {
		for _, pid := range l.boxes[i].processes("drystoned", "run") {
			if pid != n.PID {
				n.PID = pid
				return true
			}
		}
		return false
	})
}

// Signal sends a signal to a node's daemon.
func (l *Lab) Signal(t *testing.T, name string, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(l.Nodes[l.index(t, name)].PID, s); err != nil {
		t.Fatal(err)
	}
}

// Processes lists the processes of a machine, as this one numbers them, whose command line
// has all these words, each by itself or as the end of a path.
func (l *Lab) Processes(t *testing.T, name string, words ...string) []int {
	t.Helper()
	if b := l.boxes[l.index(t, name)]; b != nil {
		return b.processes(words...)
	}
	return nil
}

// In runs a program on a machine and returns what it prints.
func (l *Lab) In(t *testing.T, name, program string, args ...string) string {
	t.Helper()
	out, err := l.TryIn(t, name, program, args...)
	if err != nil {
		t.Fatalf("on %s: %v", name, err)
	}
	return out
}

// TryIn is In where the program may fail.
func (l *Lab) TryIn(t *testing.T, name, program string, args ...string) (string, error) {
	t.Helper()
	b := l.boxes[l.index(t, name)]
	if b == nil {
		return "", fmt.Errorf("%s is off", name)
	}
	return b.run(inside, program, args...)
}

// Cut loses what one node sends to another from now on.
func (l *Lab) Cut(t *testing.T, from, to string) {
	t.Helper()
	l.In(t, to, "iptables", "-w", "-A", "INPUT", "-s", l.Nodes[l.index(t, from)].Address, "-j", "DROP")
}

// Isolate cuts a node off from all others, both ways.
func (l *Lab) Isolate(t *testing.T, name string) {
	t.Helper()
	for _, n := range l.Nodes {
		if n.Name != name {
			l.Cut(t, name, n.Name)
			l.Cut(t, n.Name, name)
		}
	}
}

// Heal ends every cut.
func (l *Lab) Heal(t *testing.T) {
	t.Helper()
	for i, n := range l.Nodes {
		if l.boxes[i] != nil {
			l.In(t, n.Name, "iptables", "-w", "-F", "INPUT")
		}
	}
}
