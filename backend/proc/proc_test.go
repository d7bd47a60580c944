package proc

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"drystone.example/drystone/backend/model"
)

// child starts a process that sleeps; wait ends when it is dead and reaped.
func child(t *testing.T, args ...string) (*exec.Cmd, ID) {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	id, err := Of(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return cmd, id
}

func TestHandle(t *testing.T) {
	cmd, id := child(t, "sleep", "60")
	h, err := Open(id)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if h.ID() != id || !id.Alive() || h.Dead() {
		t.Errorf("ID = %v, Alive = %v, Dead = %v of a process that runs", h.ID(), id.Alive(), h.Dead())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := h.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait for a process that runs = %v, want the deadline", err)
	}
	if err := h.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := h.Wait(t.Context()); err != nil {
		t.Errorf("Wait = %v", err)
	}
	if id.Alive() || !h.Dead() { // a zombie, until the next line
		t.Errorf("Alive = %v, Dead = %v of a dead process", id.Alive(), h.Dead())
	}
	_ = cmd.Wait()
	if err := h.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("Signal to a dead process = %v, want nil", err)
	}
	if _, err := Open(id); model.CodeOf(err) != model.NotFound {
		t.Errorf("Open of a dead process = %v, want not found", err)
	}
}

// A process that started at another time is another process.
func TestOpenChecksStart(t *testing.T) {
	_, id := child(t, "sleep", "60")
	other := ID{PID: id.PID, Start: id.Start + 1}
	if _, err := Open(other); model.CodeOf(err) != model.NotFound {
		t.Errorf("Open(%v) = %v, want not found", other, err)
	}
	if other.Alive() {
		t.Errorf("%v is alive, but only %v is", other, id)
	}
	if _, err := UsageOf(other); model.CodeOf(err) != model.NotFound {
		t.Errorf("UsageOf(%v) = %v, want not found", other, err)
	}
	for _, none := range []ID{{}, {PID: -1}, {PID: 1 << 30}} {
		if _, err := Open(none); model.CodeOf(err) != model.NotFound {
			t.Errorf("Open(%v) = %v, want not found", none, err)
		}
	}
}

func TestUsage(t *testing.T) {
	id, err := Of(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	before, err := UsageOf(id)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; {
		now, err := UsageOf(id)
		if err != nil {
			t.Fatal(err)
		}
		if now.CPU > before.CPU && now.Resident > 1<<20 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("UsageOf of a busy process went from %+v to %+v", before, now)
		}
	}
}

func TestParseStat(t *testing.T) {
	const rest = " S 1 2 3 4 5 6 7 8 9 10 110 120 13 14 15 16 17 18 190 20 210 22"
	for _, tt := range []struct {
		line string
		want stat
		ok   bool
	}{
		{"7 (qemu)" + rest, stat{'S', 110, 120, 190, 210}, true},
		{"7 (a) b (c) d)" + rest, stat{'S', 110, 120, 190, 210}, true},
		{"7 (qemu) S 1 2", stat{}, false},
		{"", stat{}, false},
		{"7 (x) S 1 2 3 4 5 6 7 8 9 10 x 120 13 14 15 16 17 18 190 20 210", stat{}, false},
	} {
		got, err := parseStat(tt.line)
		if got != tt.want && tt.ok || (err == nil) != tt.ok {
			t.Errorf("parseStat(%q) = %+v, %v; want %+v, ok %v", tt.line, got, err, tt.want, tt.ok)
		}
	}
}

// Only the QEMU of a machine of ours, started by libvirt under its name, is its
// guest, whatever a pid file says.
func TestGuests(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	vm, other := model.NewID[model.VMID](), model.NewID[model.VMID]()
	// bash keeps the words after its script as they are.
	_, id := child(t, "bash", "-c", "sleep 60; true", "qemu",
		"-name", "guest="+GuestPrefix+vm.String()+",debug-threads=on")
	pid := strconv.Itoa(id.PID)
	write(GuestPrefix+vm.String()+".pid", pid+"\n")
	write(GuestPrefix+other.String()+".pid", pid)                            // another machine's
	write(GuestPrefix+model.NewID[model.VMID]().String()+".pid", "")         // being written
	write(GuestPrefix+model.NewID[model.VMID]().String()+".pid", "99999999") // gone
	write("debian.pid", pid)                                                 // not ours
	write(GuestPrefix+"nonsense.pid", pid)
	guests, err := Guests(dir)
	if err != nil || len(guests) != 1 || guests[0] != (Guest{VM: vm, ID: id}) {
		t.Errorf("Guests = %v, %v; want only %v", guests, err, Guest{VM: vm, ID: id})
	}
	if _, err := GuestOf(dir, other); model.CodeOf(err) != model.NotFound {
		t.Errorf("GuestOf of another machine = %v, want not found", err)
	}
	if guests, err := Guests(filepath.Join(dir, "none")); err != nil || len(guests) != 0 {
		t.Errorf("Guests of no folder = %v, %v; want none", guests, err)
	}
}
