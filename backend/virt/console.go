package virt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"drystone.example/drystone/backend/model"
)

// A machine's folder, DIR/ID, is root's; QEMU may pass through it and write only
// below qemu/, so that a QEMU that its guest took over cannot put a link of its
// own where root reads or writes.

func (h *Hypervisor) folder(vm model.VMID) string { return filepath.Join(h.dir, vm.String()) }

func (h *Hypervisor) serialSocket(vm model.VMID) string {
	return filepath.Join(h.folder(vm), "serial.sock")
}

func (h *Hypervisor) serialLog(vm model.VMID) string {
	return filepath.Join(h.folder(vm), "serial.log")
}

func (h *Hypervisor) displaySocket(vm model.VMID) string {
	return filepath.Join(h.folder(vm), "qemu/vnc.sock")
}

// SendSocket is where the QEMU of a machine that leaves finds the other node.
func (h *Hypervisor) SendSocket(vm model.VMID) string {
	return filepath.Join(h.folder(vm), "send.sock")
}

// ReceiveSocket is where the QEMU of a machine that arrives listens.
func (h *Hypervisor) ReceiveSocket(vm model.VMID) string {
	return filepath.Join(h.folder(vm), "qemu/receive.sock")
}

func (h *Hypervisor) makeFolder(vm model.VMID) error {
	if err := os.MkdirAll(h.dir, 0o711); err != nil { //nolint:gosec // QEMU passes
		return fmt.Errorf("make folder: %w", err)
	}
	own := filepath.Join(h.folder(vm), "qemu")
	for _, f := range []struct {
		path     string
		uid, gid int
		mode     os.FileMode
	}{
		{h.folder(vm), 0, h.user.gid, 0o710},
		{own, h.user.uid, h.user.gid, 0o700},
	} {
		if err := os.Mkdir(f.path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("make folder: %w", err)
		}
		if err := os.Lchown(f.path, f.uid, f.gid); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
		if err := os.Chmod(f.path, f.mode); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
	}
	return nil
}

// DialSerial connects to the machine's first serial port. One connection at a
// time is served; a second one waits for the first to close. The code is Conflict
// if the machine is not running.
func (h *Hypervisor) DialSerial(ctx context.Context, vm model.VMID) (net.Conn, error) {
	return dialSocket(ctx, h.serialSocket(vm))
}

// DialDisplay connects to the machine's display, in the RFB (VNC) protocol
// without a password. The code is Conflict if the machine is not running.
func (h *Hypervisor) DialDisplay(ctx context.Context, vm model.VMID) (net.Conn, error) {
	return dialSocket(ctx, h.displaySocket(vm))
}

// dialSocket connects to a socket that QEMU may have replaced by something else:
// the file is held first, looked at, and connected to through the hold.
func dialSocket(ctx context.Context, path string) (net.Conn, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, model.Errorf(model.Conflict, "the machine is not running")
	}
	if err != nil {
		return nil, fmt.Errorf("open console: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("open console: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK || st.Nlink != 1 {
		return nil, model.Errorf(model.Internal, "the machine's console is not a socket")
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", "/proc/self/fd/"+strconv.Itoa(fd))
	if errors.Is(err, unix.ECONNREFUSED) {
		return nil, model.Errorf(model.Conflict, "the machine is not running")
	}
	if err != nil {
		return nil, fmt.Errorf("open console: %w", err)
	}
	return conn, nil
}

// rolledLogs is how many older pieces of a serial log are read; virtlogd keeps
// as many as its settings say, three by default.
const rolledLogs = 3

// SerialLog returns the last bytes, at most limit, of what the machine ever wrote
// to its serial port. The log is virtlogd's: bounded, and kept through restarts of
// the machine, of libvirtd and of the daemon until Undefine. A machine that never
// ran has none, which is no error.
func (h *Hypervisor) SerialLog(vm model.VMID, limit int) ([]byte, error) {
	path := h.serialLog(vm)
	out, err := tail(path, limit)
	for i := 0; err == nil && len(out) < limit && i < rolledLogs; i++ {
		var older []byte
		older, err = tail(path+"."+strconv.Itoa(i), limit-len(out))
		out = append(older, out...)
	}
	if err != nil {
		return nil, fmt.Errorf("read serial log of %s: %w", vm, err)
	}
	return out, nil
}

// tail reads the last bytes of a file; one that is not there is empty.
func tail(path string, limit int) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // in a folder of root
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	from := max(0, info.Size()-int64(limit))
	return io.ReadAll(io.NewSectionReader(f, from, info.Size()-from))
}
