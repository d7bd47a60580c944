package guest

import (
	"bytes"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/proc"
	"drystone.example/drystone/backend/virt"
)

// A machine's whole life on one node: it boots, works, is seen, shuts down, starts
// again over what it had written, loses its power, and is forgotten.
func TestGuestLife(t *testing.T) {
	n := newNode(t, "life", "11111111-2222-4333-8444-555555555511")
	d := n.domain("life", n.newDisk("life", 64<<20))
	n.start(d)
	n.waitEvent(d.ID, virt.Running, "booted")
	n.waitWork(d.ID)
	g := n.guest(d.ID)
	want := virt.Guest{
		VM: d.ID, Revision: 7, Hardware: d.Hardware, State: virt.Running, Reason: "booted", Process: g.Process,
	}
	if diff := cmp.Diff(want, g); diff != "" || g.Process.IsZero() {
		t.Errorf("Guest differs (-want +got), or has no process:\n%s", diff)
	}
	if err := n.hv.Start(t.Context(), d); model.CodeOf(err) != model.Conflict {
		t.Errorf("Start of a running machine = %v, want a conflict", err)
	}
	if err := n.hv.Undefine(t.Context(), d.ID); model.CodeOf(err) != model.Conflict {
		t.Errorf("Undefine of a running machine = %v, want a conflict", err)
	}
	testConsoles(t, n, d.ID)
	testStats(t, n, d)

	if err := n.hv.Shutdown(t.Context(), d.ID); err != nil {
		t.Fatalf("Shutdown: %v", err)
	}
	n.waitEvent(d.ID, virt.Stopped, "shutdown")
	if g := n.guest(d.ID); g.State != virt.Stopped || g.Reason != "shutdown" || !g.Process.IsZero() {
		t.Errorf("Guest after shutdown = %+v", g)
	}
	if _, err := n.hv.DialSerial(t.Context(), d.ID); model.CodeOf(err) != model.Conflict {
		t.Errorf("DialSerial of a stopped machine = %v, want a conflict", err)
	}

	d.Revision = 8
	n.start(d)
	wait(t, guestWait, "the second scan", func() bool {
		return strings.Count(n.log(d.ID), "scanned 32768 sectors errors 0") == 2
	})
	if g := n.guest(d.ID); g.Revision != 8 {
		t.Errorf("revision after the second start = %d, want 8", g.Revision)
	}
	if err := n.hv.Reset(t.Context(), d.ID); err != nil {
		t.Errorf("Reset: %v", err)
	}
	wait(t, guestWait, "the third scan", func() bool {
		return strings.Count(n.log(d.ID), "scanned 32768 sectors errors 0") == 3
	})
	for range 2 { // the second time there is nothing to do
		if err := n.hv.Destroy(t.Context(), d.ID); err != nil {
			t.Errorf("Destroy: %v", err)
		}
	}
	n.waitEvent(d.ID, virt.Stopped, "destroyed")
	testGone(t, n, d.ID)
}

func testConsoles(t *testing.T, n *node, vm model.VMID) {
	t.Helper()
	display, err := n.hv.DialDisplay(t.Context(), vm)
	if err != nil {
		t.Fatalf("DialDisplay: %v", err)
	}
	defer func() { _ = display.Close() }()
	hello := make([]byte, 12)
	if _, err := io.ReadFull(display, hello); err != nil || !bytes.HasPrefix(hello, []byte("RFB 003.")) {
		t.Errorf("the display says %q, %v", hello, err)
	}
	serial, err := n.hv.DialSerial(t.Context(), vm)
	if err != nil {
		t.Fatalf("DialSerial: %v", err)
	}
	defer func() { _ = serial.Close() }()
	if err := serial.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var heard []byte
	for buf := make([]byte, 512); !bytes.Contains(heard, []byte("verified ")); {
		got, err := serial.Read(buf)
		if err != nil {
			t.Fatalf("serial port: %v after %q", err, heard)
		}
		heard = append(heard, buf[:got]...)
	}
}

func testStats(t *testing.T, n *node, d virt.Domain) {
	t.Helper()
	var s virt.Stats
	wait(t, 20*time.Second, "the guest's memory", func() bool {
		all, err := n.hv.Stats(t.Context())
		if err != nil || len(all) != 1 {
			t.Fatalf("Stats = %v, %v; want one", all, err)
		}
		s = all[0]
		return s.Unused > 0
	})
	if s.VM != d.ID || s.CPU < 100*time.Millisecond || s.Memory != d.Memory ||
		s.Resident < 32<<20 || s.Unused >= d.Memory || s.Usable >= d.Memory {
		t.Errorf("Stats = %+v of a machine with %d bytes", s, d.Memory)
	}
}

func testGone(t *testing.T, n *node, vm model.VMID) {
	t.Helper()
	for range 2 {
		if err := n.hv.Undefine(t.Context(), vm); err != nil {
			t.Errorf("Undefine: %v", err)
		}
	}
	if _, err := n.hv.Guest(t.Context(), vm); model.CodeOf(err) != model.NotFound {
		t.Errorf("Guest after Undefine = %v, want not found", err)
	}
	if _, err := os.Stat(n.path("run/vms/" + vm.String())); !os.IsNotExist(err) {
		t.Errorf("the machine's folder is still there: %v", err)
	}
	if log := n.log(vm); log != "" {
		t.Errorf("the serial log is still there: %q", log)
	}
	if all, err := n.hv.Guests(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("Guests = %v, %v; want none", all, err)
	}
}

// Two nodes run guests at the same time, each seen by its own libvirtd only. A
// libvirtd that is killed, its virtlogd with it, and started again finds its guest,
// which has not noticed; and so does the Hypervisor that was connected to it.
func TestGuestOutlivesLibvirtd(t *testing.T) {
	a := newNode(t, "alpha", "11111111-2222-4333-8444-555555555521")
	b := newNode(t, "beta", "11111111-2222-4333-8444-555555555522")
	da := a.domain("same-name", a.newDisk("a", 64<<20))
	db := b.domain("same-name", b.newDisk("b", 64<<20))
	a.start(da)
	b.start(db)
	a.waitWork(da.ID)
	b.waitWork(db.ID)
	for n, want := range map[*node]model.VMID{a: da.ID, b: db.ID} {
		all, err := n.hv.Guests(t.Context())
		if err != nil || len(all) != 1 || all[0].VM != want {
			t.Errorf("Guests = %+v, %v; want only %s", all, err, want)
		}
	}
	before := a.guest(da.ID)
	signal(t, a.lib.Libvirtd, syscall.SIGKILL)
	wait(t, 10*time.Second, "libvirtd to be dead", func() bool { return !a.lib.Libvirtd.Alive() })
	if err := a.hv.Ping(t.Context()); model.CodeOf(err) != model.Unavailable {
		t.Errorf("Ping without libvirtd = %v, want unavailable", err)
	}
	if all, err := a.hv.Stats(t.Context()); err != nil || len(all) != 1 || all[0].CPU == 0 {
		t.Errorf("Stats without libvirtd = %+v, %v; want the CPU's at least", all, err)
	}
	a.startLibvirt("alpha")
	a.waitEvent(0, "", "") // Resync
	wait(t, 20*time.Second, "the guest to be found again", func() bool {
		g, err := a.hv.Guest(t.Context(), da.ID)
		return err == nil && g.State == virt.Running && g.Process == before.Process
	})
	a.waitWork(da.ID)
	b.waitWork(db.ID)
}

func signal(t *testing.T, id proc.ID, sig syscall.Signal) {
	t.Helper()
	h, err := proc.Open(id)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := h.Signal(sig); err != nil {
		t.Fatal(err)
	}
}
