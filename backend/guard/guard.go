// Package guard keeps the promise that no guest runs twice when the daemon
// cannot: a small separate process holds the node's QEMU processes by pidfd and
// kills them when the node's lease has run out without being renewed.
//
// The daemon tells it which guests there are and until when the lease is good. A
// daemon that is dead, stopped, or stuck does not renew, and the guests are dead
// Margin after the deadline, which is before the leader lets anybody else start
// them. The clock is CLOCK_BOOTTIME, which goes on while the machine sleeps.
//
// The guard does nothing else. On its way to a kill it reads nothing from disk,
// waits for nobody and needs no new memory to speak of; it logs only what it
// killed. It outlives the daemon. It keeps the deadline in a file and finds guests by
// libvirt's pid files, so a guard that starts anew protects what the last one did;
// if it finds guests and no deadline of this boot, the deadline is now.
package guard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/proc"
	"drystone.example/drystone/backend/unixsock"
)

// Margin is how long after the lease's deadline guests are killed. The leader
// waits longer than that.
const Margin = 3 * time.Second

// MaxLease bounds how far ahead a deadline may lie, so that no mistake switches
// the guard off for long.
const MaxLease = time.Minute

// A Boottime is a moment on CLOCK_BOOTTIME in nanoseconds: the machine's uptime
// with its sleep. Zero is no moment.
type Boottime int64

// Now is the present moment.
func Now() Boottime {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0 // the clock has been there since Linux 2.6.39
	}
	return Boottime(ts.Nano())
}

// Add is the moment d later.
func (b Boottime) Add(d time.Duration) Boottime { return b + Boottime(d) }

// Sub is the time from a to b.
func (b Boottime) Sub(a Boottime) time.Duration { return time.Duration(b - a) }

// Config of the guard process.
type Config struct {
	Socket string        // where the daemon finds it; its lock and its memory lie beside
	PIDs   string        // libvirt's folder of pid files; empty: registered guests only
	Margin time.Duration // zero: Margin
	Log    *slog.Logger

	// Shared says that the process has other work, as in a test, so Run leaves its
	// memory and its standing with the kernel's OOM killer as they are.
	Shared bool
}

// takeOverWait bounds how long a guard waits for the one before it, which is
// killed if it does not leave.
const takeOverWait = 10 * time.Second

// Run is the guard process: it takes over from a guard that runs already on the
// same socket, and goes on until ctx ends or the next guard takes over, when it
// returns nil. Guests run on when it ends.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Margin == 0 {
		cfg.Margin = Margin
	}
	if !cfg.Shared {
		harden(cfg.Log)
	}
	before, lock, err := takeOver(ctx, cfg.Socket)
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	defer func() { _ = lock.Close() }()
	mem, deadline, err := openMemory(beside(cfg.Socket, "guard.state"))
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	w, err := newWard(cfg, max(deadline, before.Deadline))
	if err != nil {
		return errors.Join(fmt.Errorf("guard: %w", err), mem.close())
	}
	defer w.close()
	w.adopt(before.Guests)
	l, err := unixsock.Listen(ctx, cfg.Socket, unixsock.Owner{})
	if err != nil {
		return errors.Join(fmt.Errorf("guard: %w", err), mem.close())
	}
	ctx, retire := context.WithCancel(ctx)
	defer retire()
	s := &server{ward: w, mem: mem, retire: retire, conns: make(chan struct{}, maxConns)}
	err = errors.Join(s.serve(ctx, l), mem.close())
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	return nil
}

func beside(socket, name string) string { return filepath.Join(filepath.Dir(socket), name) }

// harden makes sure that a machine short of memory, or with a dead system disk,
// can still run the few pages the guard needs. What is refused is done without.
func harden(log *slog.Logger) {
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		log.Warn("the guard's memory can be swapped out", "err", err)
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0); err != nil {
		log.Warn("the guard can be killed when memory runs out", "err", err)
	}
}

// takeOver becomes the one guard of a socket. It returns what the guard before it
// knew, if it said so, and the lock that says who is the guard.
func takeOver(ctx context.Context, socket string) (Status, *os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, takeOverWait)
	defer cancel()
	path := beside(socket, "guard.lock")
	lock, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // the node's own
	if err != nil {
		return Status{}, nil, fmt.Errorf("open lock: %w", err)
	}
	var before Status
	for {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return before, lock, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return Status{}, nil, errors.Join(fmt.Errorf("take lock: %w", err), lock.Close())
		}
		if s, err := dismiss(ctx, socket); err == nil {
			before = s
		}
		select {
		case <-ctx.Done():
			return Status{}, nil, errors.Join(model.Errorf(model.Unavailable,
				"another guard does not leave: %w", ctx.Err()), lock.Close())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// How long a guard that is asked to leave may take to answer, and then to end.
const (
	answerWait = time.Second
	leaveWait  = 3 * time.Second
)

// dismiss asks the guard on a socket to leave, and kills it if it does not.
func dismiss(ctx context.Context, socket string) (Status, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*leaveWait)
	defer cancel()
	l, err := dial(ctx, socket)
	if err != nil {
		return Status{}, err
	}
	defer l.close()
	pid, err := l.peer()
	if err != nil {
		return Status{}, err
	}
	id, err := proc.Of(pid)
	if err != nil {
		return Status{}, err
	}
	h, err := proc.Open(id)
	if err != nil {
		return Status{}, err
	}
	defer h.Close()
	asked, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	resp, err := l.call(asked, request{Retire: true})
	if err == nil && resp.Status != nil {
		leaving, cancel := context.WithTimeout(ctx, leaveWait)
		defer cancel()
		if pid == os.Getpid() || h.Wait(leaving) == nil { // two in one process: it will
			return *resp.Status, nil
		}
	}
	if err := h.Kill(); err != nil {
		return Status{}, err
	}
	return Status{}, h.Wait(ctx)
}
