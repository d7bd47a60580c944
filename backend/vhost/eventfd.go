package vhost

import (
	"errors"
	"os"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"drystone.example/drystone/backend/model"
)

// An eventFD is one of QEMU's, for kicks or for interrupts. It is safe for
// concurrent use, and closing it ends a wait.
type eventFD struct {
	f   *os.File
	raw syscall.RawConn
	// Made once, so that signal and wait allocate nothing. Neither call waits, so the
	// scheduler is not told of them.
	poke, take func(fd uintptr) bool
	count      [8]byte // of wait, which one goroutine calls
}

// newEventFD takes fd over. What is not an eventfd is refused: it could block
// whoever reads it.
func newEventFD(fd int) (*eventFD, error) {
	name, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err == nil && name != "anon_inode:[eventfd]" {
		err = model.Errorf(model.Invalid, "%q is not an eventfd", name)
	}
	if err == nil {
		err = unix.SetNonblock(fd, true) // as QEMU has it too
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	e := &eventFD{f: os.NewFile(uintptr(fd), "eventfd")} // non-blocking: the poller has it
	if e.raw, err = e.f.SyscallConn(); err != nil {
		return nil, errors.Join(err, e.f.Close())
	}
	one := [8]byte{1}
	e.poke = func(fd uintptr) bool { // full means that a signal is pending anyway
		_, _, _ = unix.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(&one)), 8) //nolint:gosec // write(2)
		return true
	}
	e.take = func(fd uintptr) bool {
		_, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&e.count)), 8) //nolint:gosec // read(2)
		return errno != unix.EAGAIN
	}
	return e, nil
}

// signal adds one, without waiting. A nil eventFD has nobody behind it.
func (e *eventFD) signal() {
	if e != nil {
		_ = e.raw.Write(e.poke) // an error means closed
	}
}

// wait waits until somebody signals, or returns an error once it is closed.
func (e *eventFD) wait() error {
	return e.raw.Read(e.take)
}

func (e *eventFD) close() error {
	if e == nil {
		return nil
	}
	return e.f.Close()
}
