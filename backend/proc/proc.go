// Package proc names processes so that one is never confused with a later one
// that got the same number, and ends them for sure.
//
// A process is its number and the time it started. A Handle holds it by pidfd:
// what is done through it happens to that process or to none. Nothing here
// starts a process.
package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"drystone.example/drystone/backend/model"
)

// An ID is one process of this boot of the machine.
type ID struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks after boot, as /proc/PID/stat has it
}

// IsZero reports whether id names no process.
func (id ID) IsZero() bool { return id == ID{} }

func (id ID) String() string { return fmt.Sprintf("%d@%d", id.PID, id.Start) }

// Of says which process has a number now. The code is NotFound if none has, or
// if it is dead and only waits to be reaped.
func Of(pid int) (ID, error) {
	s, err := readStat(pid)
	if err != nil {
		return ID{}, err
	}
	return ID{PID: pid, Start: s.start}, nil
}

// Alive reports whether the process still runs.
func (id ID) Alive() bool {
	now, err := Of(id.PID)
	return err == nil && now == id
}

// A Handle holds a process. It is safe for concurrent use but for Close, which
// comes last.
type Handle struct {
	id   ID
	file *os.File // a pidfd, on the poller: readable once the process is dead
}

// Open takes hold of a process. The code is NotFound if it is not running any
// more, also if its number belongs to another one by now.
func Open(id ID) (*Handle, error) {
	fd, err := unix.PidfdOpen(id.PID, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil, model.Errorf(model.NotFound, "there is no process %s", id)
	}
	if err != nil {
		return nil, fmt.Errorf("open process %s: %w", id, err)
	}
	h := &Handle{id: id, file: os.NewFile(uintptr(fd), "pidfd")}
	// Only now, while the number is held, does looking at it prove anything.
	if !id.Alive() {
		h.Close()
		return nil, model.Errorf(model.NotFound, "there is no process %s", id)
	}
	return h, nil
}

// ID says which process is held.
func (h *Handle) ID() ID { return h.id }

// Signal sends a signal; to a dead process that is no error. It never blocks.
func (h *Handle) Signal(sig syscall.Signal) error {
	var err error
	raw, rawErr := h.file.SyscallConn()
	if rawErr != nil {
		return fmt.Errorf("signal process %s: %w", h.id, rawErr)
	}
	if e := raw.Control(func(fd uintptr) {
		err = unix.PidfdSendSignal(int(fd), sig, nil, 0)
	}); e != nil {
		err = e
	}
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal process %s: %w", h.id, err)
	}
	return nil
}

// Kill is Signal with SIGKILL.
func (h *Handle) Kill() error { return h.Signal(syscall.SIGKILL) }

// Dead reports whether the process is dead. It never blocks.
func (h *Handle) Dead() bool {
	dead := false
	raw, err := h.file.SyscallConn()
	if err != nil {
		return true
	}
	if err := raw.Control(func(fd uintptr) { dead = readable(fd) }); err != nil {
		return true // closed: whoever asks has let go of it
	}
	return dead
}

func readable(fd uintptr) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return err == nil && n > 0
}

// Wait returns nil once the process is dead, or the context's error.
func (h *Handle) Wait(ctx context.Context) error {
	raw, err := h.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("wait for process %s: %w", h.id, err)
	}
	if err := h.file.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("wait for process %s: %w", h.id, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = h.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	err = raw.Read(readable)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("wait for process %s: %w", h.id, ctx.Err())
	default:
		return fmt.Errorf("wait for process %s: %w", h.id, err)
	}
}

// Close lets go of the process; it runs on.
func (h *Handle) Close() { _ = h.file.Close() }

// stat is the part of /proc/PID/stat in use.
type stat struct {
	state      byte
	user, sys  uint64 // clock ticks
	start      uint64
	rssInPages int64
}

func readStat(pid int) (stat, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return stat{}, model.Errorf(model.NotFound, "there is no process %d", pid)
	}
	if err != nil {
		return stat{}, fmt.Errorf("look at process %d: %w", pid, err)
	}
	s, err := parseStat(string(b))
	if err != nil {
		return stat{}, fmt.Errorf("look at process %d: %w", pid, err)
	}
	if s.state == 'Z' || s.state == 'X' {
		return stat{}, model.Errorf(model.NotFound, "process %d is dead", pid)
	}
	return s, nil
}

// parseStat reads a line of /proc/PID/stat. The second field is the command's
// name in parentheses and may hold anything, so counting starts after the last.
func parseStat(line string) (s stat, err error) {
	end := strings.LastIndexByte(line, ')')
	fields := strings.Fields(line[end+1:])
	if end < 0 || len(fields) < 22 || len(fields[0]) != 1 {
		return stat{}, model.Errorf(model.Internal, "the kernel's line %q is not understood", line)
	}
	s.state = fields[0][0]
	if s.user, err = strconv.ParseUint(fields[11], 10, 64); err != nil {
		return stat{}, fmt.Errorf("user time: %w", err)
	}
	if s.sys, err = strconv.ParseUint(fields[12], 10, 64); err != nil {
		return stat{}, fmt.Errorf("system time: %w", err)
	}
	if s.start, err = strconv.ParseUint(fields[19], 10, 64); err != nil {
		return stat{}, fmt.Errorf("start time: %w", err)
	}
	if s.rssInPages, err = strconv.ParseInt(fields[21], 10, 64); err != nil {
		return stat{}, fmt.Errorf("resident pages: %w", err)
	}
	return s, nil
}

// ticksPerSecond is USER_HZ, the unit of times in /proc. It is 100 on every
// architecture Go runs on.
const ticksPerSecond = 100

// A Usage is what a process has used and occupies.
type Usage struct {
	CPU      time.Duration // of all its threads, since its start
	Resident model.Bytes   // memory, with what it shares
}

// UsageOf looks at a process; it costs one small read and never waits for the
// process. The code is NotFound if it is not running any more.
func UsageOf(id ID) (Usage, error) {
	s, err := readStat(id.PID)
	if err != nil {
		return Usage{}, err
	}
	if s.start != id.Start {
		return Usage{}, model.Errorf(model.NotFound, "there is no process %s", id)
	}
	return Usage{
		CPU:      time.Duration(s.user+s.sys) * (time.Second / ticksPerSecond),
		Resident: model.Bytes(s.rssInPages * int64(os.Getpagesize())),
	}, nil
}
