package dev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/node"
	"drystone.example/drystone/backend/proc"
)

// stopTime is how long a daemon has to let its volumes go before it is killed.
const stopTime = 20 * time.Second

// daemonPath finds drystoned: beside this program, else on the path.
func daemonPath() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find drystoned: %w", err)
	}
	beside := filepath.Join(filepath.Dir(self), "drystoned")
	if _, err := os.Stat(beside); err == nil {
		return beside, nil
	}
	path, err := exec.LookPath("drystoned")
	if err != nil {
		return "", model.Errorf(model.NotFound, "drystoned is neither beside %s nor on the path", self)
	}
	return path, nil
}

// spawn starts a node's daemon as a process of its own session that outlives
// the caller, its output appended to the node's log.
func spawn(dir node.Dir, log string) (proc.ID, error) {
	path, err := daemonPath()
	if err != nil {
		return proc.ID{}, err
	}
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600) //nolint:gosec // in the node's folder
	if err != nil {
		return proc.ID{}, fmt.Errorf("open log: %w", err)
	}
	defer func() { _ = out.Close() }()
	cmd := exec.Command(path, "run", "--dir", string(dir)) //nolint:gosec,noctx // our own program; it outlives us
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return proc.ID{}, fmt.Errorf("start drystoned: %w", err)
	}
	id, err := proc.Of(cmd.Process.Pid)
	if err != nil {
		return proc.ID{}, fmt.Errorf("drystoned ended at once; see %s: %w", log, err)
	}
	// The child belongs to init once this process is gone; until then nobody
	// but us can reap it, and a zombie would look alive to others.
	go func() { _ = cmd.Wait() }()
	return id, nil
}

// stop ends a process, politely at first.
func stop(ctx context.Context, id proc.ID) error {
	h, err := proc.Open(id)
	if model.CodeOf(err) == model.NotFound {
		return nil
	}
	if err != nil {
		return fmt.Errorf("stop process %s: %w", id, err)
	}
	defer h.Close()
	if err := h.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop process %s: %w", id, err)
	}
	polite, cancel := context.WithTimeout(ctx, stopTime)
	defer cancel()
	err = h.Wait(polite)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return kill(ctx, id)
	}
	return err
}

// kill ends a process as a power failure would.
func kill(ctx context.Context, id proc.ID) error {
	h, err := proc.Open(id)
	if model.CodeOf(err) == model.NotFound {
		return nil
	}
	if err != nil {
		return fmt.Errorf("kill process %s: %w", id, err)
	}
	defer h.Close()
	if err := h.Signal(syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill process %s: %w", id, err)
	}
	return h.Wait(ctx)
}
