package uring

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"drystone.example/drystone/backend/must"
)

// The part of the kernel's interface used here (io_uring(7)).
const (
	opReadv   = 1
	opWritev  = 2
	opFsync   = 3
	opRead    = 22
	opWrite   = 23
	datasync  = 1 // IORING_FSYNC_DATASYNC
	regEvent  = 4 // IORING_REGISTER_EVENTFD
	mapSQEs   = 0x10000000
	singleMap = 1 // IORING_FEAT_SINGLE_MMAP, Linux 5.4
	// coopTasks is IORING_SETUP_COOP_TASKRUN, Linux 5.19: a completion does not
	// interrupt the thread that submitted, but waits until it next enters the kernel,
	// which is soon: at the latest with the next tick of the clock.
	coopTasks = 1 << 8
)

type sqOffsets struct {
	head, tail, mask, entries, flags, dropped, array, _ uint32
	_                                                   uint64
}

type cqOffsets struct {
	head, tail, mask, entries, overflow, cqes, flags, _ uint32
	_                                                   uint64
}

type ringParams struct {
	sqEntries, cqEntries, flags, sqCPU, sqIdle, features, wqFd uint32
	_                                                          [3]uint32
	sq                                                         sqOffsets
	cq                                                         cqOffsets
}

type submission struct {
	op        uint8
	_         uint8  // flags
	_         uint16 // priority
	fd        int32
	off, addr uint64
	len, rw   uint32
	user      uint64
	_         [3]uint64
}

type completion struct {
	user uint64
	res  int32
	_    uint32 // flags
}

// A kernelRing is the memory shared with the kernel. put and enter are called by
// one goroutine, reap by another.
type kernelRing struct {
	fd     int
	shared []byte
	sqeMem []byte

	sqTail         *uint32
	cqHead, cqTail *uint32
	sqMask, cqMask uint32
	array          []uint32
	sqes           []submission
	cqes           []completion

	event *os.File // readable when there are completions

	free    chan uint32 // slots not in use
	pending []atomic.Pointer[Request]
}

func newKernelRing(entries uint32) (*kernelRing, error) {
	p := ringParams{flags: coopTasks}
	fd, errno := ringSetup(entries, &p)
	if errno == unix.EINVAL {
		p = ringParams{}
		fd, errno = ringSetup(entries, &p)
	}
	if errno != 0 {
		return nil, errno
	}
	k := &kernelRing{fd: fd}
	if err := k.setUp(&p); err != nil {
		return nil, errors.Join(err, k.close())
	}
	return k, nil
}

func ringSetup(entries uint32, p *ringParams) (fd int, errno unix.Errno) {
	got, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries),
		uintptr(unsafe.Pointer(p)), 0) //nolint:gosec // as the kernel's interface wants it
	return int(got), errno
}

func (k *kernelRing) setUp(p *ringParams) (err error) {
	if p.features&singleMap == 0 {
		return fmt.Errorf("kernel too old for one mapping: %w", unix.ENOSYS)
	}
	size := max(int(p.sq.array+p.sqEntries*4),
		int(p.cq.cqes+p.cqEntries*uint32(unsafe.Sizeof(completion{}))))
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	if k.shared, err = unix.Mmap(k.fd, 0, size, prot, flags); err != nil {
		return fmt.Errorf("map ring: %w", err)
	}
	size = int(p.sqEntries) * int(unsafe.Sizeof(submission{}))
	if k.sqeMem, err = unix.Mmap(k.fd, mapSQEs, size, prot, flags); err != nil {
		return fmt.Errorf("map submissions: %w", err)
	}
	at := func(off uint32) *uint32 { return &table[uint32](k.shared, off, 1)[0] }
	k.sqTail, k.cqHead, k.cqTail = at(p.sq.tail), at(p.cq.head), at(p.cq.tail)
	k.sqMask, k.cqMask = *at(p.sq.mask), *at(p.cq.mask)
	k.array = table[uint32](k.shared, p.sq.array, p.sqEntries)
	k.sqes = table[submission](k.sqeMem, 0, p.sqEntries)
	k.cqes = table[completion](k.shared, p.cq.cqes, p.cqEntries)

	evfd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("make eventfd: %w", err)
	}
	k.event = os.NewFile(uintptr(evfd), "io_uring")
	fd32 := int32(evfd)
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(k.fd), regEvent,
		uintptr(unsafe.Pointer(&fd32)), 1, 0, 0) //nolint:gosec // as above
	if errno != 0 {
		return errors.Join(fmt.Errorf("register eventfd: %w", errno), k.event.Close())
	}
	k.free = make(chan uint32, p.sqEntries)
	k.pending = make([]atomic.Pointer[Request], p.sqEntries)
	for i := range p.sqEntries {
		k.free <- i
	}
	return nil
}

// table is n entries of the memory shared with the kernel, which has aligned them.
func table[T any](mem []byte, off, n uint32) []T {
	first := (*T)(unsafe.Pointer(&mem[off])) //nolint:gosec // see the comment
	return unsafe.Slice(first, n)            //nolint:gosec // see the comment
}

// close gives the ring back. Nothing may be under way.
func (k *kernelRing) close() error {
	var errs []error
	for _, m := range [][]byte{k.sqeMem, k.shared} {
		if m != nil {
			errs = append(errs, unix.Munmap(m))
		}
	}
	return errors.Join(append(errs, unix.Close(k.fd))...)
}

func (k *kernelRing) tryFree() (slot uint32, ok bool) {
	select {
	case slot = <-k.free:
		return slot, true
	default:
		return 0, false
	}
}

// put writes a request into a slot of the submission queue; enter tells the
// kernel. There are as many slots as entries, so there is always room.
func (k *kernelRing) put(slot uint32, fd int, q *Request) {
	tail := *k.sqTail
	i := tail & k.sqMask
	s := submission{fd: int32(fd), user: uint64(slot)}
	switch q.Kind {
	case Sync:
		s.op, s.rw = opFsync, datasync
	case Read, Write:
		read, write := uint8(opRead), uint8(opWrite)
		s.addr, s.len = address(q.iov[0].Base), uint32(q.iov[0].Len)
		if len(q.iov) > 1 {
			read, write = opReadv, opWritev
			s.addr, s.len = address(&q.iov[0]), uint32(len(q.iov))
		}
		s.op, s.off = read, uint64(q.at)
		if q.Kind == Write {
			s.op, s.rw = write, q.flags()
		}
	default:
		must.That(false, "request of kind %d", q.Kind)
	}
	k.sqes[i] = s
	k.array[i] = i
	k.pending[slot].Store(q) // the last touch of q before the kernel has it
	atomic.StoreUint32(k.sqTail, tail+1)
}

// address is what the kernel is told; pending keeps the memory alive, and Go does
// not move what lies in the heap.
func address[T any](p *T) uint64 {
	return uint64(uintptr(unsafe.Pointer(p))) //nolint:gosec // see the comment
}

func (q *Request) flags() uint32 {
	if q.Durable {
		return unix.RWF_DSYNC
	}
	return 0
}

// enter submits n entries and returns how many the kernel took.
func (k *kernelRing) enter(n int) (taken int, err error) {
	for taken < n {
		// Submitting does not wait, so the scheduler need not know of the call: told
		// of it, it would hand the processor on and wake threads to take it.
		got, _, errno := unix.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(k.fd),
			uintptr(n-taken), 0, 0, 0, 0)
		if errno == unix.EAGAIN || errno == unix.EBUSY { // short of memory for a moment
			runtime.Gosched()
			continue
		}
		if errno != 0 && errno != unix.EINTR {
			return taken, errno
		}
		if errno == 0 {
			taken += int(got)
		}
	}
	return taken, nil
}

// reap takes one completion, if there is one.
func (k *kernelRing) reap() (q *Request, res int32, ok bool) {
	head := *k.cqHead
	if head == atomic.LoadUint32(k.cqTail) {
		return nil, 0, false
	}
	c := k.cqes[head&k.cqMask]
	atomic.StoreUint32(k.cqHead, head+1)
	slot := uint32(c.user)
	q = k.pending[slot].Swap(nil)
	must.That(q != nil, "a completion for slot %d, which is free", slot)
	k.free <- slot
	return q, c.res, true
}

// transfer makes one plain call for what is left of a request.
func (r *Ring) transfer(q *Request) (int, error) {
	trap := uintptr(unix.SYS_PWRITEV2)
	flags := q.flags()
	if q.Kind == Read {
		trap, flags = unix.SYS_PREADV2, 0
	}
	n, _, errno := unix.Syscall6(trap, uintptr(r.fd),
		uintptr(unsafe.Pointer(&q.iov[0])), //nolint:gosec // the vectors of preadv2 and pwritev2
		uintptr(len(q.iov)), uintptr(q.at), 0, uintptr(flags))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
