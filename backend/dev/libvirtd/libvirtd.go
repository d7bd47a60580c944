// Package libvirtd runs a libvirtd for each node of a development cluster, so that
// several nodes on one machine each have their own guests, host name and identity, as
// on machines of their own.
//
// Each lives with its virtlogd in a mount and a UTS namespace of its own, in which
// libvirt's folders are the node's; it outlives the process that started it. The
// machine's own libvirtd, its folders and its guests are not touched. Guests run as
// User, which must be able to pass every folder above the node's and to open the
// sockets it is given.
package libvirtd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/proc"
)

// A Daemon is the libvirtd of one node.
type Daemon struct {
	URI  string // for virt.Config and `virsh -c`
	PIDs string // the folder of its guests' pid files, for the guard
	Log  string // its own log

	Libvirtd proc.ID
	Virtlogd proc.ID
}

// User is whom guests run as. The package of libvirt makes it.
const User = "libvirt-qemu"

// startWait bounds a start. The first one probes what QEMU can do, which
// takes seconds on a slow machine.
const startWait = 60 * time.Second

// stopWait bounds the end of everything; politeWait how long a daemon may take to
// end by itself.
const (
	stopWait   = 60 * time.Second
	politeWait = 10 * time.Second
)

// Installed returns nil if everything it takes is on this machine,
// or says what is missing. The code is Unavailable.
func Installed() error {
	var missing []string
	for _, program := range []string{"libvirtd", "virtlogd", "qemu-system-x86_64"} {
		if _, err := lookProgram(program); err != nil {
			missing = append(missing, program)
		}
	}
	if _, err := user.Lookup(User); err != nil {
		missing = append(missing, "user "+User)
	}
	if len(missing) > 0 {
		return model.Errorf(model.Unavailable,
			"guests need libvirt and qemu; not on this machine: %s", strings.Join(missing, ", "))
	}
	return nil
}

// lookProgram finds a program also where root's search path often does not look.
func lookProgram(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	path := filepath.Join("/usr/sbin", name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("look for %s: %w", name, err)
	}
	return path, nil
}

// Start starts the libvirtd of the node whose folder is dir, or returns
// the one that runs already. name becomes its host name, uuid its host UUID. It
// needs root, and returns when libvirtd answers. Guests that outlived an earlier
// libvirtd of the node are found again.
func Start(ctx context.Context, dir, name, uuid string) (*Daemon, error) {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	if err := Installed(); err != nil {
		return nil, err
	}
	p, err := placesOf(dir)
	if err != nil {
		return nil, err
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	s, err := p.load()
	if err != nil {
		return nil, err
	}
	if s.Libvirtd.Alive() && s.Virtlogd.Alive() {
		if err := waitSocket(ctx, p.socket, s.Libvirtd); err != nil {
			return nil, fmt.Errorf("libvirtd of %s: %w", name, err)
		}
		return p.result(s), nil
	}
	if err := p.prepare(uuid); err != nil {
		return nil, err
	}
	s, err = p.launch(ctx, name, s)
	if err != nil {
		return nil, fmt.Errorf("start libvirtd of %s: %w", name, err)
	}
	if err := waitSocket(ctx, p.socket, s.Libvirtd); err != nil {
		return nil, fmt.Errorf("libvirtd of %s: %w", name, err)
	}
	return p.result(s), nil
}

// launch starts what of the two daemons does not run, and records both.
func (p places) launch(ctx context.Context, name string, s state) (state, error) {
	if s.Libvirtd.Alive() { // without its virtlogd it cannot start a guest
		if err := end(ctx, s.Libvirtd); err != nil {
			return s, err
		}
	}
	logd, err := lookProgram("virtlogd")
	if err != nil {
		return s, err
	}
	libvirtd, err := lookProgram("libvirtd")
	if err != nil {
		return s, err
	}
	err = inNamespace(p.binds(), name, func() error {
		if !s.Virtlogd.Alive() {
			if s.Virtlogd, err = daemon(ctx, p.out, p.pidFile("virtlogd"),
				logd, "-f", p.config("virtlogd")); err != nil {
				return err
			}
			if err := p.save(s); err != nil {
				return err
			}
		}
		s.Libvirtd, err = daemon(ctx, p.out, p.pidFile("libvirtd"),
			libvirtd, "-f", p.config("libvirtd"))
		return err
	})
	if err != nil {
		return s, err
	}
	return s, p.save(s)
}

// daemon runs a program that puts itself into the background, and says which
// process it became.
func daemon(ctx context.Context, out, pidFile, program string, args ...string) (proc.ID, error) {
	//nolint:gosec // the node's own file
	log, err := os.OpenFile(out, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return proc.ID{}, fmt.Errorf("start %s: %w", filepath.Base(program), err)
	}
	defer func() { _ = log.Close() }()
	//nolint:gosec // the program and the paths are ours
	cmd := exec.CommandContext(ctx, program, append(args, "-d", "-p", pidFile)...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, "/"
	if err := cmd.Run(); err != nil {
		return proc.ID{}, fmt.Errorf("start %s (its words are in %s): %w",
			filepath.Base(program), out, err)
	}
	for {
		id, err := fromPIDFile(pidFile, filepath.Base(program))
		if err == nil {
			return id, nil
		}
		select {
		case <-ctx.Done():
			return proc.ID{}, fmt.Errorf("wait for %s: %w: %w", filepath.Base(program), ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Stop ends the guests and the daemons of the node whose folder is dir,
// whoever started them. Guests lose their power. If nothing runs there that is no
// error.
func Stop(ctx context.Context, dir string) error {
	p, err := placesOf(dir)
	if err != nil {
		return err
	}
	s, err := p.load()
	if err != nil {
		return err
	}
	// libvirtd first, so that no guest starts behind our back.
	ctx, cancel := context.WithTimeout(ctx, stopWait)
	defer cancel()
	return errors.Join(
		end(ctx, s.Libvirtd), endGuests(ctx, p.pids), end(ctx, s.Virtlogd))
}

func endGuests(ctx context.Context, pids string) error {
	guests, err := proc.Guests(pids)
	errs := []error{err}
	for _, g := range guests {
		if err := signal(ctx, g.ID, syscall.SIGKILL); err != nil {
			errs = append(errs, fmt.Errorf("end guest %s: %w", g.VM, err))
		}
	}
	return errors.Join(errs...)
}

// waitSocket returns once something answers at a socket, or its process is gone.
func waitSocket(ctx context.Context, path string, id proc.ID) error {
	var d net.Dialer
	for {
		conn, err := d.DialContext(ctx, "unix", path)
		if err == nil {
			return conn.Close()
		}
		if !id.Alive() {
			return model.Errorf(model.Unavailable, "process %s has ended", id)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w: %w", path, ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// state is what is remembered of a node's daemons, in libvirt/state.json.
type state struct {
	Libvirtd proc.ID `json:"libvirtd"`
	Virtlogd proc.ID `json:"virtlogd"`
}

func (p places) load() (s state, err error) {
	b, err := os.ReadFile(p.state)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("read libvirt's state: %w", err)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("read libvirt's state %s: %w", p.state, err)
	}
	return s, nil
}

func (p places) save(s state) error {
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("write libvirt's state: %w", err)
	}
	if err := os.WriteFile(p.state+".new", b, 0o600); err != nil {
		return fmt.Errorf("write libvirt's state: %w", err)
	}
	if err := os.Rename(p.state+".new", p.state); err != nil {
		return fmt.Errorf("write libvirt's state: %w", err)
	}
	return nil
}

// end asks a process to end and, if it does not in time, kills it. One that is not
// there is no error.
func end(ctx context.Context, id proc.ID) error {
	polite, cancel := context.WithTimeout(ctx, politeWait)
	defer cancel()
	if err := signal(polite, id, syscall.SIGTERM); err == nil || ctx.Err() != nil {
		return err
	}
	return signal(ctx, id, syscall.SIGKILL)
}

// signal sends a signal that ends a process and waits until it is dead.
func signal(ctx context.Context, id proc.ID, sig syscall.Signal) error {
	h, err := proc.Open(id)
	if model.CodeOf(err) == model.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	defer h.Close()
	if err := h.Signal(sig); err != nil {
		return err
	}
	return h.Wait(ctx)
}
