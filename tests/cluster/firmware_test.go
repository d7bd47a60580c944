package cluster

import (
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// makeUEFI makes a machine whose guest notes each of its boots in the NVRAM and says how
// many it found there.
func (c *cluster) makeUEFI(name, firmware string, more ...string) {
	c.t.Helper()
	files := filepath.Join("..", "..", "bin", "guest")
	c.must(append([]string{
		"vm", "create", name, "--cpus", "1", "--memory", "256M", "--disk", "1G", "--firmware", firmware,
		"--kernel", filepath.Join(files, "vmlinuz"), "--initrd", filepath.Join(files, "initrd.img"),
		"--append", "console=ttyS0 quiet",
	}, more...)...)
}

// remembers waits until a guest says that it found so many boots, and has noted this one.
func (c *cluster) remembers(name string, boots int, secure bool) {
	c.t.Helper()
	c.awaitVM(name, "running")
	p := c.listen(name)
	flag := "0"
	if secure {
		flag = "1"
	}
	n := strconv.Itoa(boots)
	eventually(c.t, 3*time.Minute, name+" remembers "+n+" boots", func() bool {
		said := p.says("uefi: ")
		return strings.Contains(said, "boots before: "+n+", secure boot:   "+flag) && strings.Contains(said, "boot "+n+" is noted")
	})
	p.Stop()
}

// What a guest has its firmware remember is there through the death of the daemon while the
// guest writes again, a live migration, and the death of its node; a snapshot of the
// machine has it, and is not lost for other firmware.
func TestFirmwareRemembers(t *testing.T) {
	t.Parallel()
	c := up(t)
	c.makeUEFI("f", "uefi")
	c.must("vm", "start", "f", "--node", "node2")
	c.remembers("f", 0, false)

	c.kill("node2")
	c.start("node2")
	c.awaitVM("f", "running")
	c.must("vm", "reset", "f")
	c.remembers("f", 1, false)

	c.must("vm", "edit", "f", "--add-disk", "16M") // what serves its NVRAM stays as it is
	c.must("vm", "migrate", "f", "node3")
	c.must("vm", "reset", "f")
	c.remembers("f", 2, false)

	c.pullThePlug("node3")
	c.runsElsewhere("f", "node3", func() {})
	c.remembers("f", 3, false)
	c.start("node3")
	c.awaitWhole("f-nvram")

	c.must("vm", "snapshot", "f", "kept")
	c.must("vm", "reset", "f")
	c.remembers("f", 4, false)
	c.must("vm", "stop", "f")
	c.awaitVM("f", "stopped")
	c.must("snapshot", "revert", "f-nvram@kept", "--yes")
	other := "node1" // which has not seen this boot before
	if get[vm](c, "vm", "show", "f").NodeName == other {
		other = "node2"
	}
	c.must("vm", "start", "f", "--node", other)
	c.remembers("f", 4, false)
	c.must("vm", "stop", "f")
	c.awaitVM("f", "stopped")

	if r := c.run("vm", "edit", "f", "--firmware", "bios"); r.status == 0 || !strings.Contains(r.errs, "snapshots") {
		t.Errorf("an NVRAM with a snapshot was given up: %v", r)
	}
	archive := filepath.Join(t.TempDir(), "f.tar")
	c.must("vm", "export", "f", "--to", archive)
	if left := c.must("snapshot", "list", "f-nvram"); strings.Contains(left, "export") {
		t.Errorf("the export left a snapshot: %s", left)
	}
	if said := c.must("vm", "import", archive, "--name", "copy"); !strings.Contains(said, "NVRAM") {
		t.Errorf("that the NVRAM is a new one is not said: %s", said)
	}
	if shown := c.must("vm", "show", "copy"); !strings.Contains(shown, "uefi") {
		t.Errorf("the copy has lost its firmware: %s", shown)
	}
}

// Other firmware begins with an NVRAM of its own; with secure boot the guest sees that, and
// what it has the firmware remember goes with it to another node. The NVRAM is no disk, and
// is deleted with its machine, but not a clone of it, with which another machine begins.
func TestFirmwareIsChanged(t *testing.T) {
	t.Parallel()
	c := up(t)
	c.makeUEFI("f", "uefi")
	c.must("vm", "start", "f", "--node", "node1")
	c.remembers("f", 0, false)
	c.must("vm", "stop", "f")
	c.awaitVM("f", "stopped")
	c.must("volume", "clone", "f-nvram", "copy")
	if r := c.run("vm", "create", "x", "--disk", "1G", "--volume", "copy"); r.status == 0 {
		t.Errorf("an NVRAM became a disk: %v", r)
	}
	c.must("vm", "edit", "f", "--firmware", "uefi-secure")
	c.must("vm", "start", "f", "--node", "node1")
	c.remembers("f", 0, true)
	c.must("vm", "migrate", "f", "node2")
	c.must("vm", "reset", "f")
	c.remembers("f", 1, true)
	c.must("vm", "stop", "f")
	c.awaitVM("f", "stopped")
	c.must("vm", "delete", "f", "--yes")
	c.makeUEFI("g", "uefi", "--nvram", "copy")
	c.must("vm", "start", "g", "--node", "node3")
	c.remembers("g", 1, false)
	c.must("vm", "stop", "g")
	c.awaitVM("g", "stopped")
	c.must("vm", "delete", "g", "--yes", "--keep-disks")
	c.must("volume", "delete", "g-disk1", "--yes")
	left := get[struct {
		Items []volume `json:"items"`
	}](c, "volume", "list")
	if len(left.Items) != 1 || left.Items[0].Name != "copy" {
		t.Errorf("after the machine was deleted there is %+v, want the clone of its NVRAM", left.Items)
	}
}
