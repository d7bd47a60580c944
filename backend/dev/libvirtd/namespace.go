package libvirtd

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/proc"
)

// inNamespace runs f on a thread that has a mount and a UTS namespace of its own,
// in which the binds are done and the host has a name. Processes that f starts are
// in it. The namespaces end with the last such process.
func inNamespace(binds []bind, hostname string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with the goroutine
		done <- func() error {
			if err := enterNamespace(binds, hostname); err != nil {
				return err
			}
			return f()
		}()
	}()
	return <-done
}

func enterNamespace(binds []bind, hostname string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWUTS); err != nil {
		return fmt.Errorf("make namespaces: %w", err)
	}
	// What is mounted outside later appears here too; nothing done here shows outside.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("separate mounts: %w", err)
	}
	// Without control groups in sight libvirt leaves them alone: it would ask
	// systemd for them, and there may be none.
	err := unix.Unmount("/sys/fs/cgroup", unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("hide control groups: %w", err)
	}
	for _, b := range binds {
		if err := unix.Mount(b.from, b.to, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("show %s at %s: %w", b.from, b.to, err)
		}
	}
	if err := unix.Sethostname([]byte(hostname)); err != nil {
		return fmt.Errorf("name the host: %w", err)
	}
	return nil
}

// fromPIDFile says which process wrote a pid file, if it runs and is the program.
func fromPIDFile(path, program string) (proc.ID, error) {
	b, err := os.ReadFile(path) //nolint:gosec // the node's own
	if err != nil {
		return proc.ID{}, fmt.Errorf("read pid file: %w", err)
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(b)))
	if err != nil {
		return proc.ID{}, fmt.Errorf("read pid file: %w", err)
	}
	id, err := proc.Of(pid)
	if err != nil {
		return proc.ID{}, err
	}
	name, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	if err != nil {
		return proc.ID{}, fmt.Errorf("read process name: %w", err)
	}
	if string(bytes.TrimSpace(name)) != program || !id.Alive() {
		return proc.ID{}, model.Errorf(model.NotFound, "process %d is not %s", pid, program)
	}
	return id, nil
}
