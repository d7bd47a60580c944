package virt

import (
	"context"
	"net"

	"drystone.example/drystone/backend/model"
)

// A Hypervisor speaks to one libvirtd. It is safe for concurrent use.
type Hypervisor struct {
	cfg    Config
	events chan Event
}

var errSoon = model.Errorf(model.Unavailable, "not built yet")

// New makes a Hypervisor; it does not connect yet. It settles Auto by trying KVM
// once.
func New(cfg Config) (*Hypervisor, error) {
	return &Hypervisor{cfg: cfg, events: make(chan Event, 64)}, nil
}

// Accelerator says what guests will run on: KVM or TCG.
func (h *Hypervisor) Accelerator() Accelerator { return h.cfg.Accelerator }

// Run keeps listening for events, through every restart of libvirtd, until ctx
// ends. The other methods do not need it.
func (h *Hypervisor) Run(ctx context.Context) error { return errSoon }

// Events delivers what Run hears. One reader.
func (h *Hypervisor) Events() <-chan Event { return h.events }

// Ping says whether libvirtd answers.
func (h *Hypervisor) Ping(ctx context.Context) error { return errSoon }

// Start defines the machine, replacing a stopped one of the same ID, and boots
// it. It returns when the guest's CPUs run. Conflict: it is running already. After
// any other error there is no QEMU of it left running.
func (h *Hypervisor) Start(ctx context.Context, d Domain) error { return errSoon }

// Shutdown asks the guest to shut down, by its agent if it has one and by the
// power button, and returns at once; an event tells when it did. Conflict: it is
// not running.
func (h *Hypervisor) Shutdown(ctx context.Context, vm model.VMID) error { return errSoon }

// Reset is the reset button. Conflict: it is not running.
func (h *Hypervisor) Reset(ctx context.Context, vm model.VMID) error { return errSoon }

// Destroy pulls the plug: it returns nil once the machine's QEMU is dead, also
// if there was none. If libvirt cannot end it in time the process is killed.
func (h *Hypervisor) Destroy(ctx context.Context, vm model.VMID) error { return errSoon }

// Undefine makes libvirt forget a stopped machine and removes its folder. A machine
// that is not there is no error. Conflict: it is running.
func (h *Hypervisor) Undefine(ctx context.Context, vm model.VMID) error { return errSoon }

// Guest says what libvirt knows of a machine.
func (h *Hypervisor) Guest(ctx context.Context, vm model.VMID) (Guest, error) {
	return Guest{}, errSoon
}

// Guests lists the machines that are ours, running or stopped.
func (h *Hypervisor) Guests(ctx context.Context) ([]Guest, error) { return nil, errSoon }

// Stats looks at all running machines at once. What libvirt does not answer in
// time is left zero, so it takes at most a second and fails only if the machines
// cannot be listed.
func (h *Hypervisor) Stats(ctx context.Context) ([]Stats, error) { return nil, errSoon }

// DialSerial connects to the machine's first serial port. One connection at a
// time is served; a second one waits for the first to close.
func (h *Hypervisor) DialSerial(ctx context.Context, vm model.VMID) (net.Conn, error) {
	return nil, errSoon
}

// DialDisplay connects to the machine's display, in the RFB (VNC) protocol
// without a password.
func (h *Hypervisor) DialDisplay(ctx context.Context, vm model.VMID) (net.Conn, error) {
	return nil, errSoon
}

// SerialLog returns the last bytes, at most limit, of what the machine ever wrote
// to its serial port; the log is bounded, outlives daemons and restarts, and ends
// with Undefine.
func (h *Hypervisor) SerialLog(vm model.VMID, limit int) ([]byte, error) { return nil, errSoon }
