package uring

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"drystone.example/drystone/backend/must"
)

// The bounds of what is under way in the kernel at one time. More requests wait
// in the ring's queue.
const (
	depth   = 256 // requests in a ring; a power of two
	workers = 8   // plain calls where there is no ring
)

// ErrClosed refuses requests after Close.
var ErrClosed = errors.New("the ring is closed")

// A Ring does the I/O of one file. Its methods may be called at the same time.
type Ring struct {
	file   *os.File
	fd     int
	kernel *kernelRing // nil: plain calls

	underway atomic.Int64 // requests begun and not done

	mu     sync.Mutex
	more   sync.Cond // the queue has grown, or the ring is closing
	idle   sync.Cond // the last request is done
	queue  []*Request
	broken error // why no further request is taken
	closed bool

	tasks sync.WaitGroup
}

// Options choose how a Ring works.
type Options struct {
	Plain bool // never use io_uring
}

// Open makes a ring for f, which it owns from then on, also when it fails.
func Open(f *os.File, o Options) (*Ring, error) {
	r := &Ring{file: f, fd: int(f.Fd())}
	r.more.L, r.idle.L = &r.mu, &r.mu
	if !o.Plain {
		k, err := newKernelRing(depth)
		switch {
		case err == nil:
			r.kernel = k
		case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
			// Not there, or forbidden by a sandbox: plain calls do the same.
		default:
			return nil, errors.Join(fmt.Errorf("set up io_uring: %w", err), f.Close())
		}
	}
	if r.kernel == nil {
		for range workers {
			r.tasks.Go(r.work)
		}
		return r, nil
	}
	r.tasks.Go(r.submit)
	r.tasks.Go(r.complete)
	return r, nil
}

// Native reports whether the kernel's ring is used.
func (r *Ring) Native() bool { return r.kernel != nil }

// Do carries a request out and waits for it.
func (r *Ring) Do(q *Request) error {
	r.underway.Add(1)
	if q.wait == nil {
		q.wait = make(chan error, 1)
	}
	wait := q.wait
	r.enqueue(q)
	err := <-wait
	q.wait = nil
	return err
}

// Start begins a request and returns; Done is called when it is done, by a
// goroutine of the ring.
func (r *Ring) Start(q *Request) {
	must.That(q.Done != nil, "a request nobody waits for")
	q.wait = nil
	r.underway.Add(1)
	r.enqueue(q)
}

// Close waits for the requests under way, then closes the file. A lock on it (flock)
// ends with it: the kernel, or a process that is being started, may hold on to the file
// itself for a moment longer.
func (r *Ring) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return ErrClosed
	}
	r.closed = true
	for r.underway.Load() > 0 {
		r.idle.Wait()
	}
	r.more.Broadcast()
	r.mu.Unlock()
	var err error
	if r.kernel != nil {
		err = r.kernel.event.Close() // wakes complete
	}
	r.tasks.Wait()
	if r.kernel != nil {
		err = errors.Join(err, r.kernel.close())
	}
	return errors.Join(err, r.unlock(), r.file.Close())
}

func (r *Ring) unlock() error {
	if err := unix.Flock(r.fd, unix.LOCK_UN); err != nil {
		return fmt.Errorf("unlock: %w", err)
	}
	return nil
}

// ended takes n requests off those under way.
func (r *Ring) ended(n int64) {
	if r.underway.Add(-n) == 0 {
		r.mu.Lock()
		if r.closed {
			r.idle.Broadcast()
		}
		r.mu.Unlock()
	}
}

// done hands out the outcome of one queued request.
func (r *Ring) done(q *Request, err error) {
	q.finish(err)
	r.ended(1)
}

func (r *Ring) enqueue(q *Request) {
	q.prepare()
	r.mu.Lock()
	err := r.broken
	if r.closed {
		err = ErrClosed
	}
	if err == nil {
		r.queue = append(r.queue, q)
	}
	r.mu.Unlock()
	if err != nil {
		go r.done(q, err) // Done must not run inside Start
		return
	}
	r.more.Signal()
}

// await returns when requests are queued, or the ring is closing; r.mu is held.
func (r *Ring) await() {
	for len(r.queue) == 0 && (!r.closed || r.underway.Load() > 0) {
		r.more.Wait()
	}
}

// gather waits as take does, and then lets those who are about to begin a request
// begin it: one call submits them all, and the device hears of them once. A lone
// request does not wait for others.
func (r *Ring) gather(into []*Request, limit int) []*Request {
	r.mu.Lock()
	r.await()
	r.mu.Unlock()
	if r.underway.Load() > 1 {
		runtime.Gosched()
	}
	return r.take(into, limit)
}

// take waits for queued requests and moves up to limit of them to into. None
// means that the ring is closing.
func (r *Ring) take(into []*Request, limit int) []*Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.await()
	n := min(limit, len(r.queue))
	into = append(into[:0], r.queue[:n]...)
	rest := copy(r.queue, r.queue[n:])
	clear(r.queue[rest:])
	r.queue = r.queue[:rest]
	return into
}

// work carries out queued requests by plain calls.
func (r *Ring) work() {
	var one []*Request
	for {
		if one = r.take(one, 1); len(one) == 0 {
			return
		}
		r.done(one[0], r.plain(one[0]))
	}
}

// plain carries a prepared request out in the calling goroutine.
func (r *Ring) plain(q *Request) error {
	if q.Kind == Sync {
		return ignoringEINTR(func() error { return unix.Fdatasync(r.fd) })
	}
	for q.left > 0 {
		n, err := r.transfer(q)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
		case err != nil:
			return err
		case n == 0:
			return io.ErrUnexpectedEOF
		default:
			q.advance(n)
		}
	}
	return nil
}

func ignoringEINTR(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// submit moves queued requests into the kernel's ring.
func (r *Ring) submit() {
	k := r.kernel
	var batch []*Request
	for {
		if batch = r.gather(batch, depth); len(batch) == 0 {
			return
		}
		put := 0
		for i, q := range batch {
			slot, ok := k.tryFree()
			if !ok { // all are in the kernel: let go of what was put, then wait for one
				if !r.enter(batch[i-put:i], batch[i:]) {
					batch = nil
					break
				}
				put = 0
				slot = <-k.free
			}
			k.put(slot, r.fd, q)
			put++
		}
		if len(batch) > 0 {
			r.enter(batch[len(batch)-put:], nil)
		}
	}
}

// enter tells the kernel of the entries put for the given requests. If it will
// not take them, the ring is broken: they and the rest fail, and so does
// everything after them.
func (r *Ring) enter(put, rest []*Request) bool {
	taken, err := r.kernel.enter(len(put))
	if err == nil {
		return true
	}
	r.mu.Lock()
	r.broken = fmt.Errorf("submit to io_uring: %w", err)
	late := r.queue
	r.queue = nil
	r.mu.Unlock()
	for _, list := range [][]*Request{put[taken:], rest, late} {
		for _, q := range list {
			r.done(q, r.broken)
		}
	}
	return false
}

// complete hands out what the kernel has finished. The poller reports each new
// completion as an edge, so nothing is ever read from the eventfd.
func (r *Ring) complete() {
	conn, err := r.kernel.event.SyscallConn()
	if err != nil {
		return // closed
	}
	_ = conn.Read(func(uintptr) bool { // until it is closed
		r.reap()
		return false
	})
}

// reap hands out all that is finished now.
func (r *Ring) reap() {
	for {
		q, res, ok := r.kernel.reap()
		if !ok {
			return
		}
		switch {
		case res == -int32(unix.EINTR) || res == -int32(unix.EAGAIN):
			r.again(q)
		case res < 0:
			r.done(q, unix.Errno(-res))
		case q.Kind == Sync:
			r.done(q, nil)
		case res == 0 && q.left > 0:
			r.done(q, io.ErrUnexpectedEOF)
		case q.advance(int(res)):
			r.done(q, nil)
		default:
			r.again(q)
		}
	}
}

// again queues what is left of a request.
func (r *Ring) again(q *Request) {
	r.mu.Lock()
	err := r.broken
	if err == nil {
		r.queue = append(r.queue, q)
	}
	r.mu.Unlock()
	if err != nil {
		r.done(q, err)
		return
	}
	r.more.Signal()
}
