package cluster

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// sees waits until the guest's newest word on its disks is these, as name,bytes.
func (p *port) sees(disks string) {
	p.t.Helper()
	var last string
	defer func() {
		if p.t.Failed() {
			p.t.Logf("the guest's last word was %q", last)
		}
	}()
	eventually(p.t, time.Minute, fmt.Sprintf("the guest has the disks %q", disks), func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		last = p.disks
		return last == "disks: "+disks
	})
}

// Disks come and go while a guest runs and verifies another, grow under it, and go with
// it to another node. One that goes is given back by the guest first; what the guest does
// not give back stays its own, and nobody else can have it.
func TestDisks(t *testing.T) {
	t.Parallel()
	c := up(t)
	files := filepath.Join("..", "..", "bin", "guest")
	c.must("vm", "create", "g", "--memory", "128M", "--disk", "256M", "--disk", "32M",
		"--kernel", filepath.Join(files, "vmlinuz"), "--initrd", filepath.Join(files, "initrd.img"),
		"--append", "console=ttyS0 quiet")
	c.must("volume", "create", "spare", "64M")
	c.must("vm", "start", "g", "--node", "node1")
	c.awaitVM("g", "running")
	p := c.listen("g")
	p.sees("vda,268435456 vdb,33554432")

	c.must("vm", "edit", "g", "--add-disk", "spare")
	p.sees("vda,268435456 vdb,33554432 vdc,67108864")
	if r := c.run("volume", "delete", "spare", "--yes"); r.status == 0 {
		t.Errorf("the volume of a disk in use was deleted: %v", r)
	}
	c.must("volume", "resize", "spare", "96M")
	p.sees("vda,268435456 vdb,33554432 vdc,100663296")
	c.must("volume", "resize", "g-disk1", "320M")
	p.sees("vda,335544320 vdb,33554432 vdc,100663296")

	out := c.must("vm", "edit", "g", "--remove-disk", "g-disk2", "--add-disk", "48M")
	if !strings.Contains(out, "the volume g-disk2 is no disk of g any more; it stays") {
		t.Errorf("removing a disk said %q", out)
	}
	p.sees("vda,335544320 vdb,50331648 vdc,100663296")
	c.awaitFree("g-disk2")
	c.must("volume", "delete", "g-disk2", "--yes")
	p.Stop()

	c.must("vm", "migrate", "g", "node2")
	c.awaitVM("g", "running")
	c.must("vm", "edit", "g", "--remove-disk", "spare")
	p = c.listen("g")
	p.sees("vda,335544320 vdb,50331648")
	c.must("vm", "edit", "g", "--add-disk", "spare")
	p.sees("vda,335544320 vdb,50331648 vdc,100663296")
	seen := c.progresses("g", 0)
	c.progresses("g", seen+200)
	if v := get[vm](c, "vm", "show", "g"); v.NodeName != "node2" || v.Status.State != "running" || v.Status.Reason != "" {
		t.Errorf("after all that the machine is %+v", v)
	}

	// A machine without a system gives nothing back.
	c.must("vm", "create", "deaf", "--memory", "64M", "--disk", "32M", "--disk", "32M")
	c.must("vm", "start", "deaf")
	c.awaitVM("deaf", "running")
	r := c.run("vm", "edit", "deaf", "--remove-disk", "deaf-disk2")
	if r.status == 0 || !strings.Contains(r.errs, "the guest has not given the disk back") {
		t.Errorf("a machine that gives nothing back: %v", r)
	}
	if r := c.run("volume", "delete", "deaf-disk2", "--yes"); r.status == 0 {
		t.Errorf("the volume of a disk that was not given back was deleted: %v", r)
	}
	if r := c.run("vm", "edit", "g", "--add-disk", "deaf-disk2"); r.status == 0 {
		t.Errorf("a disk that was not given back became another machine's: %v", r)
	}
	c.must("vm", "stop", "deaf")
	c.awaitVM("deaf", "stopped")
	c.must("vm", "edit", "deaf", "--remove-disk", "deaf-disk2")
	c.must("vm", "edit", "g", "--add-disk", "deaf-disk2")
}
