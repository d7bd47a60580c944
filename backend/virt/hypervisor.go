package virt

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"github.com/digitalocean/go-libvirt"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/proc"
)

// User is whom guests run as; the package of libvirt makes it.
const User = "libvirt-qemu"

// How long libvirt may take. QEMU is waited for in all but the first.
const (
	quickWait    = 5 * time.Second
	monitorWait  = 10 * time.Second
	startWait    = 30 * time.Second
	destroyWait  = 5 * time.Second
	killWait     = 10 * time.Second
	statsWait    = time.Second
	retryMin     = 100 * time.Millisecond
	retryMax     = 5 * time.Second
	eventBacklog = 64
)

// A Hypervisor speaks to one libvirtd. It is safe for concurrent use; calls about
// one machine that change it are the caller's to put in order.
type Hypervisor struct {
	dir    string
	socket string
	pids   string // libvirt's folder of pid files
	accel  Accelerator
	user   struct{ uid, gid int }
	log    *slog.Logger
	idle   idle
	events chan Event
}

// New makes a Hypervisor; it does not connect yet. It settles Auto by trying KVM
// once, which may take five seconds. The code is Unavailable if libvirt is not
// installed.
func New(cfg Config) (*Hypervisor, error) {
	socket, err := socketOf(cfg.URI)
	if err != nil {
		return nil, err
	}
	if _, err := ParseAccelerator(string(cfg.Accelerator)); err != nil {
		return nil, err
	}
	h := &Hypervisor{
		dir:    cfg.Dir,
		socket: socket,
		pids:   filepath.Join(filepath.Dir(socket), "qemu"),
		accel:  cfg.Accelerator,
		log:    cfg.Log,
		idle:   idle{sessions: make(chan *session, maxIdle)},
		events: make(chan Event, eventBacklog),
	}
	if !filepath.IsAbs(h.dir) || len(h.displaySocket(0)) > maxSocketPath {
		return nil, model.Errorf(model.Invalid,
			"the machines' folder %q is not an absolute path short enough for sockets (%d bytes)",
			h.dir, maxSocketPath-len(h.displaySocket(0))+len(h.dir))
	}
	u, err := user.Lookup(User)
	if err != nil {
		return nil, model.Errorf(model.Unavailable, "libvirt is not installed: %w", err)
	}
	if h.user.uid, err = strconv.Atoi(u.Uid); err != nil {
		return nil, fmt.Errorf("user %s: %w", User, err)
	}
	if h.user.gid, err = strconv.Atoi(u.Gid); err != nil {
		return nil, fmt.Errorf("user %s: %w", User, err)
	}
	if h.accel == Auto {
		h.accel = KVM
		if err := ProbeKVM(context.Background()); err != nil {
			h.accel = TCG
			h.log.Info("guests run without hardware support, slowly", "err", err)
		}
	}
	return h, nil
}

// Close ends the connections. Guests run on.
func (h *Hypervisor) Close() {
	for {
		select {
		case s := <-h.idle.sessions:
			s.close()
		default:
			return
		}
	}
}

// Accelerator says what guests run on: KVM or TCG.
func (h *Hypervisor) Accelerator() Accelerator { return h.accel }

// PIDs is the folder in which libvirt keeps its guests' pid files, for the guard.
func (h *Hypervisor) PIDs() string { return h.pids }

// Owner says as whom QEMU opens the sockets of its disks.
func (h *Hypervisor) Owner() (uid, gid int) { return h.user.uid, h.user.gid }

// Ping returns nil if libvirtd answers.
func (h *Hypervisor) Ping(ctx context.Context) error {
	return h.do(ctx, quickWait, func(l *libvirt.Libvirt) error {
		_, err := l.ConnectGetLibVersion()
		return err
	})
}

// Start defines the machine, replacing a stopped one of the same ID, and boots
// it. It returns when the guest's CPUs run. Conflict: it is running already. After
// any other error there is no QEMU of it left running, unless the error's text
// says so.
func (h *Hypervisor) Start(ctx context.Context, d Domain) error {
	if err := d.validate(); err != nil {
		return text(err, "start machine %s", d.ID)
	}
	if g, err := proc.GuestOf(h.pids, d.ID); err == nil {
		return model.Errorf(model.Conflict, "machine %s runs already, as process %s", d.ID, g.ID)
	}
	if err := d.ready(); err != nil {
		return text(err, "start machine %s", d.ID)
	}
	if err := h.makeFolder(d.ID); err != nil {
		return text(err, "start machine %s", d.ID)
	}
	doc, err := h.xml(d)
	if err != nil {
		return err
	}
	err = h.do(ctx, startWait, func(l *libvirt.Libvirt) error {
		dom, err := l.DomainDefineXMLFlags(doc, 0)
		if err != nil {
			return err
		}
		_, err = l.DomainCreateWithFlags(dom, 0)
		return err
	})
	if err == nil || model.CodeOf(err) == model.Conflict {
		return text(err, "start machine %s", d.ID)
	}
	// Whatever came of it, also if ctx has ended: there must be none.
	if e := h.Destroy(context.WithoutCancel(ctx), d.ID); e != nil {
		return fmt.Errorf("start machine %s: %w; and what came of it may be running: %w", d.ID, err, e)
	}
	return text(err, "start machine %s", d.ID)
}

// ready says which disk nothing serves. QEMU would wait for it, and libvirt for QEMU.
func (d Domain) ready() error {
	if d.Firmware != nil {
		if err := d.Firmware.ready(); err != nil {
			return err
		}
	}
	for i, disk := range d.Disks {
		info, err := os.Stat(disk.Socket)
		if err != nil || info.Mode().Type() != os.ModeSocket {
			return model.Errorf(model.Unavailable, "nothing serves disk %d at %s", i, disk.Socket)
		}
	}
	for i, c := range d.CDROMs {
		if c.Socket == "" {
			continue
		}
		info, err := os.Stat(c.Socket)
		if err != nil || info.Mode().Type() != os.ModeSocket {
			return model.Errorf(model.Unavailable, "nothing serves cd-rom drive %d at %s", i, c.Socket)
		}
	}
	return nil
}

// Shutdown asks the guest to shut down, by its agent if it has one, else by the
// power button, and returns at once; an event tells when it did. Conflict: it is
// not running.
func (h *Hypervisor) Shutdown(ctx context.Context, vm model.VMID) error {
	return text(h.do(ctx, monitorWait, func(l *libvirt.Libvirt) error {
		return l.DomainShutdownFlags(domain(vm), 0)
	}), "shut machine %s down", vm)
}

// Reset is the reset button. Conflict: it is not running.
func (h *Hypervisor) Reset(ctx context.Context, vm model.VMID) error {
	return text(h.do(ctx, monitorWait, func(l *libvirt.Libvirt) error {
		return l.DomainReset(domain(vm), 0)
	}), "reset machine %s", vm)
}

// Destroy pulls the plug: it returns nil once the machine's QEMU is dead, also
// if there was none. If libvirt cannot end it in time, or does not answer at all, the
// process is killed. Only a process that the kernel cannot end (stuck in a device)
// makes it fail, with Unavailable, after at most 15 seconds.
func (h *Hypervisor) Destroy(ctx context.Context, vm model.VMID) error {
	err := h.do(ctx, destroyWait, func(l *libvirt.Libvirt) error {
		return l.DomainDestroyFlags(domain(vm), 0)
	})
	switch model.CodeOf(err) { //nolint:exhaustive // whatever else it was, look at the process
	case "", model.NotFound, model.Conflict:
		err = nil
	}
	g, missing := proc.GuestOf(h.pids, vm)
	if model.CodeOf(missing) == model.NotFound {
		return nil
	}
	if missing != nil {
		return text(missing, "destroy machine %s", vm)
	}
	h.log.Warn("killing a guest that libvirt did not end", "vm", vm, "pid", g.PID, "err", err)
	if err := kill(ctx, g.ID); err != nil {
		return model.Errorf(model.Unavailable, "destroy machine %s: %w", vm, err)
	}
	return nil
}

// kill ends a process and waits until it is dead.
func kill(ctx context.Context, id proc.ID) error {
	p, err := proc.Open(id)
	if model.CodeOf(err) == model.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	defer p.Close()
	if err := p.Kill(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, killWait)
	defer cancel()
	return p.Wait(ctx)
}

// Undefine makes libvirt forget a stopped machine and removes its folder with its
// serial log. A machine that is not there is no error. Conflict: it is running.
func (h *Hypervisor) Undefine(ctx context.Context, vm model.VMID) error {
	if g, err := proc.GuestOf(h.pids, vm); err == nil {
		return model.Errorf(model.Conflict, "machine %s runs, as process %s", vm, g.ID)
	}
	const everything = libvirt.DomainUndefineManagedSave |
		libvirt.DomainUndefineSnapshotsMetadata | libvirt.DomainUndefineNvram |
		libvirt.DomainUndefineCheckpointsMetadata
	err := h.do(ctx, quickWait, func(l *libvirt.Libvirt) error {
		state, _, err := l.DomainGetState(domain(vm), 0)
		if err != nil {
			return err
		}
		if stateOf(state) != Stopped && stateOf(state) != Crashed {
			return libvirt.Error{
				Code: uint32(libvirt.ErrOperationInvalid), Message: "domain is running",
			}
		}
		return l.DomainUndefineFlags(domain(vm), everything)
	})
	if err != nil && model.CodeOf(err) != model.NotFound {
		return text(err, "undefine machine %s", vm)
	}
	if err := os.RemoveAll(h.folder(vm)); err != nil {
		return fmt.Errorf("undefine machine %s: %w", vm, err)
	}
	return nil
}

// domain names a machine to libvirt, which looks at the UUID only.
func domain(vm model.VMID) libvirt.Domain {
	return libvirt.Domain{Name: domainName(vm), UUID: domainUUID(vm), ID: -1}
}
