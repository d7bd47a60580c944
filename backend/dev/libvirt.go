package dev

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
	"time"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/proc"
)

// A Libvirt is a libvirtd with its virtlogd of one node of a development cluster.
// They live in a mount and a UTS namespace of their own, in which libvirt's
// folders are the node's, and outlive the process that started them. The
// machine's own libvirtd, its folders and its guests are not touched.
//
// Guests run as QEMUUser, so that user must be able to pass every folder above
// the node's, and to open the sockets it is given.
type Libvirt struct {
	URI  string // for virt.Config and `virsh -c`
	PIDs string // the folder of its guests' pid files, for the guard
	Log  string // libvirtd's own log

	Libvirtd proc.ID
	Virtlogd proc.ID
}

// QEMUUser is whom guests run as. The package of libvirt makes it.
const QEMUUser = "libvirt-qemu"

// libvirtStartWait bounds a start. The first one probes what QEMU can do, which
// takes seconds on a slow machine.
const libvirtStartWait = 60 * time.Second

// libvirtStopWait bounds the end of everything.
const libvirtStopWait = 60 * time.Second

// LibvirtInstalled returns nil if everything a Libvirt needs is on this machine,
// or says what is missing. The code is Unavailable.
func LibvirtInstalled() error {
	var missing []string
	for _, program := range []string{"libvirtd", "virtlogd", "qemu-system-x86_64"} {
		if _, err := lookProgram(program); err != nil {
			missing = append(missing, program)
		}
	}
	if _, err := user.Lookup(QEMUUser); err != nil {
		missing = append(missing, "user "+QEMUUser)
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

// StartLibvirt starts the libvirtd of the node whose folder is dir, or returns
// the one that runs already. name becomes its host name, uuid its host UUID. It
// needs root, and returns when libvirtd answers. Guests that outlived an earlier
// libvirtd of the node are found again.
func StartLibvirt(ctx context.Context, dir, name, uuid string) (*Libvirt, error) {
	ctx, cancel := context.WithTimeout(ctx, libvirtStartWait)
	defer cancel()
	if err := LibvirtInstalled(); err != nil {
		return nil, err
	}
	p, err := libvirtPaths(dir)
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
func (p paths) launch(ctx context.Context, name string, s libvirtState) (libvirtState, error) {
	if s.Libvirtd.Alive() { // without its virtlogd it cannot start a guest
		if err := stop(ctx, s.Libvirtd); err != nil {
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
	log, err := os.OpenFile(out, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return proc.ID{}, fmt.Errorf("start %s: %w", filepath.Base(program), err)
	}
	defer log.Close()
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

// StopLibvirt ends the guests and the daemons of the node whose folder is dir,
// whoever started them. Guests lose their power. If nothing runs there that is no
// error.
func StopLibvirt(ctx context.Context, dir string) error {
	p, err := libvirtPaths(dir)
	if err != nil {
		return err
	}
	s, err := p.load()
	if err != nil {
		return err
	}
	// libvirtd first, so that no guest starts behind our back.
	ctx, cancel := context.WithTimeout(ctx, libvirtStopWait)
	defer cancel()
	return errors.Join(
		stop(ctx, s.Libvirtd), endGuests(ctx, p.pids), stop(ctx, s.Virtlogd))
}

func endGuests(ctx context.Context, pids string) error {
	guests, err := proc.Guests(pids)
	errs := []error{err}
	for _, g := range guests {
		if err := kill(ctx, g.ID); err != nil {
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

// libvirtState is what is remembered of a node's daemons, in libvirt/state.json.
type libvirtState struct {
	Libvirtd proc.ID `json:"libvirtd"`
	Virtlogd proc.ID `json:"virtlogd"`
}

func (p paths) load() (s libvirtState, err error) {
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

func (p paths) save(s libvirtState) error {
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
