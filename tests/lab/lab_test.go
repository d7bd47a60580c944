package lab

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drystone.example/drystone/tests/internal/devcluster"
	"drystone.example/drystone/tests/internal/hosts"
)

var all = flag.Bool("lab.all", false, "everything, not only what is short")

// A lab is the hosts, and the test or part of one that uses them now.
type lab struct {
	*hosts.Lab
	t *testing.T
}

func newLab(t *testing.T) *lab {
	t.Helper()
	return &lab{hosts.New(t, hosts.How{Guests: true}), t}
}

// part runs a part of a test in the lab.
func (l *lab) part(name string, f func()) {
	l.t.Helper()
	whole := l.t
	if whole.Failed() {
		return // what follows stands on it
	}
	whole.Run(name, func(t *testing.T) {
		l.t = t
		defer func() { l.t = whole }()
		f()
	})
}

func (l *lab) must(args ...string) { l.t.Helper(); l.Must(l.t, args...) }

func (l *lab) eventually(within time.Duration, what string, yes func() bool) {
	l.t.Helper()
	devcluster.Eventually(l.t, within, what, yes)
}

// makeGuest makes a machine whose guest verifies its disk, and starts it on a node.
func (l *lab) makeGuest(name, node string) {
	l.t.Helper()
	l.MakeGuest(l.t, name, "128M", "256M")
	l.must("vm", "start", name, "--node", node)
	l.AwaitVM(l.t, name, "running")
}

// qemus lists the processes of all guests on a host, or of one by its name, as libvirt's
// command line has it.
func (l *lab) qemus(node string) []int {
	l.t.Helper()
	return l.Processes(l.t, node, "qemu-system-x86_64")
}

// others names the nodes but one.
func (l *lab) others(name string) (names []string) {
	for _, n := range l.Nodes {
		if n.Name != name {
			names = append(names, n.Name)
		}
	}
	return names
}

// look asks for a machine; ok says that there was an answer.
func look(c *devcluster.Cluster, name string) (v devcluster.VM, ok bool) {
	r := c.Run("vm", "show", name, "--json")
	return v, r.Status == 0 && json.Unmarshal([]byte(r.Out), &v) == nil
}

// generation is what the record says of the volume of a machine's only disk.
func (l *lab) generation(c *devcluster.Cluster, vm string) (generation int64, ok bool) {
	l.t.Helper()
	r := c.Run("volume", "show", vm+"-disk1", "--json")
	var v struct {
		Generation int64 `json:"generation"`
	}
	return v.Generation, r.Status == 0 && json.Unmarshal([]byte(r.Out), &v) == nil
}

// awaitWhole waits until all members of a machine's disk are active.
func (l *lab) awaitWhole(vm string) {
	l.t.Helper()
	l.eventually(3*time.Minute, "the disk of "+vm+" is whole", func() bool {
		r := l.Run("volume", "show", vm+"-disk1", "--json")
		var v struct {
			Columns []struct {
				Members []struct {
					State string `json:"state"`
				} `json:"members"`
			} `json:"columns"`
		}
		if r.Status != 0 || json.Unmarshal([]byte(r.Out), &v) != nil || len(v.Columns) == 0 {
			return false
		}
		for _, col := range v.Columns {
			for _, m := range col.Members {
				if m.State != "active" {
					return false
				}
			}
			if len(col.Members) != 2 {
				return false
			}
		}
		return true
	})
}

// now is the time since the machine was started, as the kernel tells of processes.
func now(t *testing.T) time.Duration {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

// born is when a process was started, on the clock of now, by the kernel's word, which
// has it in hundredths of a second.
func born(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest) // from the third on
	if len(fields) < 20 {
		return 0, fmt.Errorf("process %d says %q", pid, text)
	}
	ticks, err := strconv.ParseInt(fields[19], 10, 64)
	return time.Duration(ticks) * 10 * time.Millisecond, err
}

// A death is when a process was seen to be dead, which is after it died.
type death struct {
	pid   int
	ended chan struct{}
	at    time.Duration // once ended
}

// watchDeath tells when a process that lives has died. The wait ends with the test's lab.
func watchDeath(t *testing.T, pid int) *death {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	d := &death{pid: pid, ended: make(chan struct{})}
	go func() {
		defer func() { _ = unix.Close(fd) }()
		for {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
			if n == 1 && err == nil {
				break
			}
			if err != nil && err != syscall.EINTR { //nolint:errorlint // a number
				return
			}
		}
		d.at = now(t)
		close(d.ended)
	}()
	return d
}

// seen reports whether the process was seen to be dead, and when.
func (d *death) seen() (time.Duration, bool) {
	select {
	case <-d.ended:
		return d.at, true
	default:
		return 0, false
	}
}
