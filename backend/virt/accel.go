package virt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"drystone.example/drystone/backend/model"
)

// An Accelerator is what runs a guest's code.
type Accelerator string

// The accelerators, complete. Auto is KVM where it really runs guests, else TCG:
// /dev/kvm may be there and still not run any (nested virtualisation).
const (
	Auto Accelerator = "auto"
	KVM  Accelerator = "kvm"
	TCG  Accelerator = "tcg"
)

// ParseAccelerator reads a setting.
func ParseAccelerator(s string) (Accelerator, error) {
	switch a := Accelerator(s); a {
	case Auto, KVM, TCG:
		return a, nil
	default:
		return "", model.Errorf(model.Invalid, "the accelerator is auto, kvm or tcg, not %q", s)
	}
}

// probeWait is how long a machine of one instruction may take to run.
const probeWait = 5 * time.Second

// probeExit is the status QEMU ends with when the guest writes 1 to the port of
// its isa-debug-exit device.
const probeExit = 1<<1 | 1

// ProbeKVM returns nil if KVM runs guests here, or says why not. It boots a machine
// whose firmware does nothing but switch it off, which takes a fraction of a second.
func ProbeKVM(ctx context.Context) error { return probe(ctx, KVM) }

func probe(ctx context.Context, a Accelerator) error {
	if a == KVM {
		f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
		if err != nil {
			return model.Errorf(model.Unavailable, "kvm cannot be used: %w", err)
		}
		_ = f.Close()
	}
	dir, err := os.MkdirTemp("", "drystone-probe")
	if err != nil {
		return fmt.Errorf("probe %s: %w", a, err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	firmware := filepath.Join(dir, "firmware")
	if err := os.WriteFile(firmware, probeFirmware(), 0o600); err != nil {
		return fmt.Errorf("probe %s: %w", a, err)
	}
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	//nolint:gosec // every argument is ours
	out, err := exec.CommandContext(ctx, "qemu-system-x86_64",
		"-machine", "q35,accel="+string(a), "-m", "2", "-nodefaults", "-no-user-config",
		"-display", "none", "-no-reboot", "-bios", firmware,
		"-device", "isa-debug-exit,iobase=0xf4,iosize=4").CombinedOutput()
	exit, ended := errors.AsType[*exec.ExitError](err)
	if ended && exit.ExitCode() == probeExit {
		return nil
	}
	return model.Errorf(model.Unavailable, "%s does not run guests: %w: %.300s", a, err, out)
}

// probeFirmware is 64 KiB that end at 4 GiB; the CPU starts 16 bytes before.
func probeFirmware() []byte {
	b := make([]byte, 64<<10)
	copy(b[len(b)-16:], []byte{
		0xb0, 0x01, // mov al, 1
		0xe6, 0xf4, // out 0xf4, al
		0xf4, // hlt
	})
	return b
}
