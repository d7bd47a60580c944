package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// bridge makes a bridge of this machine, which all nodes of a development cluster share.
func bridge(t *testing.T, n int) string {
	t.Helper()
	name := fmt.Sprintf("dst%d-%d", os.Getpid(), n)
	for _, args := range [][]string{{"add", name, "type", "bridge"}, {"set", name, "up"}} {
		if out, err := exec.Command("ip", append([]string{"link"}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("ip link %v: %v: %s", args, err, out)
		}
	}
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", name).Run() })
	return name
}

// hears waits until a bridge has had a frame from a card.
func hears(t *testing.T, bridge, mac string) {
	t.Helper()
	eventually(t, time.Minute, bridge+" hears "+mac, func() bool {
		out, err := exec.Command("bridge", "fdb", "show", "br", bridge).Output()
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(strings.Split(string(out), "\n"), func(line string) bool {
			return strings.HasPrefix(line, mac+" ") && !strings.Contains(line, "permanent")
		})
	})
}

// told waits until the guest has said, in its newest word on them, that its cards are
// with the first words and without the others.
func (p *port) told(with, without []string) {
	p.t.Helper()
	var last string
	defer func() {
		if p.t.Failed() {
			p.t.Logf("the guest's last word was %q", last)
		}
	}()
	eventually(p.t, time.Minute, fmt.Sprintf("the guest has %v and not %v", with, without), func() bool {
		p.mu.Lock()
		last = p.cards
		p.mu.Unlock()
		return last != "" && !slices.ContainsFunc(with, func(w string) bool { return !strings.Contains(last, w) }) &&
			!slices.ContainsFunc(without, func(w string) bool { return strings.Contains(last, w) })
	})
}

// A guest has the network cards it is given, of each model, on the bridge and on the
// user-mode network they are joined to. They come, go, lose their cable and change their
// network while it runs, each staying where the guest first found it, and go with it to
// another node.
func TestNICs(t *testing.T) {
	t.Parallel()
	c := up(t)
	br, br2 := bridge(t, 1), bridge(t, 2)
	c.must("network", "create", "lan", "--bridge", br)
	c.must("network", "create", "out", "--user")
	const first, second, third = "02:00:00:00:36:01", "02:00:00:00:36:02", "02:00:00:00:36:03"
	files := filepath.Join("..", "..", "bin", "guest")
	c.must("vm", "create", "g", "--memory", "128M", "--disk", "64M",
		"--nic", "net=lan,mac="+first, "--nic", "net=out,mac="+second,
		"--kernel", filepath.Join(files, "vmlinuz"), "--initrd", filepath.Join(files, "initrd.img"),
		"--append", "console=ttyS0 quiet")
	c.must("vm", "start", "g", "--node", "node1")
	c.awaitVM("g", "running")
	p := c.listen("g")
	p.told([]string{"0000:11:00.0,0x1af4:", "0000:12:00.0,0x1af4:", first + ",1", second + ",1"}, nil)
	hears(t, br, first)
	eventually(t, time.Minute, "the user-mode network gives its guest an address", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return slices.Contains(p.leases, "network card "+second+" has the address 10.0.2.15")
	})

	c.must("vm", "edit", "g", "--set-nic", "mac="+first+",disconnected", "--add-nic", "net=lan,model=e1000")
	p.told([]string{first + ",0", "0000:13:00.0,0x8086:0x100e"}, nil)
	c.must("vm", "edit", "g", "--set-nic", "mac="+first+",connected", "--add-nic", "net=out,model=rtl8139",
		"--remove-nic", second)
	p.told([]string{first + ",1", "0000:12:00.0,0x10ec:0x8139"}, []string{second})
	p.Stop()

	c.must("vm", "migrate", "g", "node2")
	c.awaitVM("g", "running")
	p = c.listen("g")
	c.must("vm", "edit", "g", "--add-nic", "net=lan,mac="+third)
	p.told([]string{"0000:14:00.0,0x1af4:", first + ",1", third + ",1", "0000:12:00.0,0x10ec:0x8139", "0000:13:00.0,0x8086:0x100e"}, nil)
	c.must("network", "edit", "lan", "--bridge", br2)
	hears(t, br2, third)
	c.must("vm", "edit", "g", "--remove-nic", first)
	p.told([]string{third}, []string{first, "0000:11:00.0"})
	if v := get[vm](c, "vm", "show", "g"); v.NodeName != "node2" || v.Status.State != "running" || v.Status.Reason != "" {
		t.Errorf("after all that the machine is %+v", v)
	}

	// A node without the bridge says so, and a running guest stays where it has one.
	c.must("network", "edit", "lan", "--node", "node3=nowhere")
	if r := c.run("vm", "migrate", "g", "node3"); r.status == 0 || !strings.Contains(r.errs, "needs the bridge nowhere") {
		t.Errorf("to a node without the bridge: %v", r)
	}
	c.awaitVM("g", "running")
	c.must("vm", "stop", "g")
	c.awaitVM("g", "stopped")
	c.must("vm", "start", "g", "--node", "node3")
	eventually(t, time.Minute, "the machine says that there is no bridge", func() bool {
		v := get[vm](c, "vm", "show", "g")
		return v.Status.State == "failed" && strings.Contains(v.Status.Reason, "needs the bridge nowhere")
	})
}
