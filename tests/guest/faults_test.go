package guest

import (
	"context"
	"log/slog"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"drystone.example/drystone/backend/guard"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/proc"
	"drystone.example/drystone/backend/virt"
)

// What goes wrong with one machine is bounded in time, and does not touch another
// one on the same node.
func TestGuestFaults(t *testing.T) {
	n := newNode(t, "faults", "11111111-2222-4333-8444-555555555531")
	disk := n.newDisk("steady", 64<<20)
	steady := n.domain("steady", disk)
	n.start(steady)
	n.waitWork(steady.ID)
	t.Run("no_start", func(t *testing.T) { testNoStart(t, n, disk) })
	t.Run("hung_disk", func(t *testing.T) { testHungDisk(t, n, disk) })
	t.Run("hung_qemu", func(t *testing.T) { testHungQEMU(t, n, steady.ID) })
	t.Run("disk_returns", func(*testing.T) {
		disk.kill()
		time.Sleep(2 * time.Second) // what the guest is to live through
		disk.start()
		n.waitWork(steady.ID)
	})
	t.Run("lease", func(t *testing.T) { testLease(t, n, steady.ID) })
}

// testNoStart: a machine that cannot start says so and leaves nothing running.
func testNoStart(t *testing.T, n *node, disk *disk) {
	t.Helper()
	for _, tt := range []struct {
		name   string
		change func(*virt.Domain)
		want   model.Code
	}{
		{"no_socket", func(d *virt.Domain) {
			d.Disks = []virt.Disk{{Socket: n.path("run/none.sock")}}
		}, model.Unavailable},
		{"no_kernel", func(d *virt.Domain) { d.Kernel.Path = "/nowhere/vmlinuz" }, model.Unavailable},
		{"no_cpus", func(d *virt.Domain) { d.CPUs = 0 }, model.Invalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := n.domain(tt.name, disk)
			tt.change(&d)
			if err := n.hv.Start(t.Context(), d); model.CodeOf(err) != tt.want {
				t.Errorf("Start = %v, want %s", err, tt.want)
			}
			noProcess(t, n, d.ID)
			if err := n.hv.Undefine(t.Context(), d.ID); err != nil {
				t.Errorf("Undefine: %v", err)
			}
		})
	}
}

func noProcess(t *testing.T, n *node, vm model.VMID) {
	t.Helper()
	if g, err := proc.GuestOf(n.hv.PIDs(), vm); model.CodeOf(err) != model.NotFound {
		t.Errorf("there is a process %v, %v; want none", g.ID, err)
	}
}

// testHungDisk: a back end that accepts and never answers stops QEMU's start, for
// no longer than the caller will wait.
func testHungDisk(t *testing.T, n *node, disk *disk) {
	t.Helper()
	d := n.domain("hung-disk", disk)
	d.Disks[0].Socket = n.path("run/hung.sock")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", d.Disks[0].Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	uid, gid := n.hv.Owner()
	if err := os.Chown(d.Disks[0].Socket, uid, gid); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	began := time.Now()
	err = n.hv.Start(ctx, d)
	if took := time.Since(began); model.CodeOf(err) != model.Unavailable || took > 20*time.Second {
		t.Errorf("Start = %v after %v, want unavailable within 20 s", err, took)
	}
	noProcess(t, n, d.ID)
	if err := n.hv.Undefine(t.Context(), d.ID); err != nil {
		t.Errorf("Undefine: %v", err)
	}
}

// testHungQEMU: a QEMU that does nothing any more holds nobody up, and dies.
func testHungQEMU(t *testing.T, n *node, steady model.VMID) {
	t.Helper()
	d := n.domain("hung", n.newDisk("hung", 64<<20))
	n.start(d)
	n.waitWork(d.ID)
	process := n.guest(d.ID).Process
	signal(t, process, syscall.SIGSTOP)
	within := func(limit time.Duration, what string, f func()) {
		t.Helper()
		began := time.Now()
		f()
		if took := time.Since(began); took > limit {
			t.Errorf("%s took %v, over %v", what, took, limit)
		}
	}
	for range 2 {
		within(3*time.Second, "Stats", func() {
			if all, err := n.hv.Stats(t.Context()); err != nil || len(all) != 2 {
				t.Errorf("Stats = %v, %v; want two", all, err)
			}
		})
	}
	within(4*time.Second, "Reset of the hung one", func() {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if err := n.hv.Reset(ctx, d.ID); model.CodeOf(err) != model.Unavailable {
			t.Errorf("Reset of a hung machine = %v, want unavailable", err)
		}
	})
	within(2*time.Second, "Guests", func() {
		if all, err := n.hv.Guests(t.Context()); err != nil || len(all) != 2 {
			t.Errorf("Guests = %v, %v; want two", all, err)
		}
	})
	within(2*time.Second, "looking at the other", func() {
		if g := n.guest(steady); g.State != virt.Running {
			t.Errorf("the other machine is %s", g.State)
		}
	})
	within(15*time.Second, "Destroy", func() {
		if err := n.hv.Destroy(t.Context(), d.ID); err != nil {
			t.Errorf("Destroy: %v", err)
		}
	})
	if process.Alive() {
		t.Error("the hung QEMU is still there")
	}
	wait(t, 20*time.Second, "libvirt to notice", func() bool {
		return n.guest(d.ID).State == virt.Stopped
	})
	if err := n.hv.Undefine(t.Context(), d.ID); err != nil {
		t.Errorf("Undefine: %v", err)
	}
	n.waitWork(steady)
}

// testLease: a real guest dies by the guard when the lease has run out, though
// libvirt knows nothing of it; libvirt then says that it crashed.
func testLease(t *testing.T, n *node, vm model.VMID) {
	t.Helper()
	process := n.guest(vm).Process
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- guard.Run(ctx, guard.Config{
			Socket: n.path("run/guard.sock"), PIDs: n.hv.PIDs(), Margin: time.Second,
			Log: slog.New(slog.NewTextHandler(testWriter{t}, nil)), Shared: true,
		})
	}()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("guard: %v", err)
		}
	}()
	c := guard.NewClient(n.path("run/guard.sock"))
	defer func() { _ = c.Close() }()
	deadline := guard.Now().Add(2 * time.Second)
	wait(t, 5*time.Second, "the guard", func() bool { return c.Renew(t.Context(), deadline) == nil })
	// Not registered: the guard finds it by itself.
	wait(t, 10*time.Second, "the guest to be killed", func() bool { return !process.Alive() })
	if late := guard.Now().Sub(deadline); late < time.Second || late > 2*time.Second {
		t.Errorf("the guest died %v after the deadline, want 1 s", late)
	}
	n.waitEvent(vm, virt.Stopped, "failed")
	if g := n.guest(vm); g.State != virt.Stopped && g.State != virt.Crashed {
		t.Errorf("Guest = %+v, want it stopped", g)
	}
}
