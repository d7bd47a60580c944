package vhost

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"drystone.example/drystone/backend/model"
)

// batchMax is how many chains are taken from a ring at once.
const batchMax = 32

// Flags and offsets of the split ring.
const (
	availNoInterrupt = 1 << 0
	usedNoNotify     = 1 << 0
	ringFlags        = 0
	ringIndex        = 2
	ringEntries      = 4
)

// ringSetup is what QEMU said about a ring before it started.
type ringSetup struct {
	num               uint16
	base              uint16 // the next chain to take, if no record of requests says better
	desc, avail, used uint64 // addresses in QEMU
	log               bool   // log writes to the used ring
	usedGuest         uint64 // where it is in the guest, for the log
}

// A ring is one life of a queue: from ENABLE until GET_VRING_BASE or the end of
// the connection. One goroutine takes chains from it; workers carry them out and
// put them into the used ring themselves.
//
// Locks are taken in this order: mem.mu, then mu.
type ring struct {
	srv      *Server
	mem      *memory
	queue    *queue
	index    int
	setup    ringSetup
	features uint64

	ctx    context.Context // ends when the ring is halted
	cancel context.CancelFunc
	wait   []*ring       // whose requests must be back before ours begin
	idle   chan struct{} // closed when the ring is halted and all requests are back
	dev    Device        // set by the ring's goroutine before its first request
	batch  []*request    // the goroutine's own
	kick   atomic.Pointer[eventFD]

	mu       sync.Mutex // guards what follows
	enabled  bool
	halted   bool  // for good
	detached bool  // nothing of the guest is touched any more; set with mem.mu held for writing
	failed   error // no more chains are taken
	starved  bool  // the goroutine waits for a request to come back
	pending  int   // requests taken and not back
	free     []*request
	made     int
	again    []uint16 // chains to carry out again

	version   uint64 // of mem.regions, which the three below are of
	desc      []byte
	avail     []byte
	used      []byte
	inflight  inflightQueue
	counter   uint64
	nextAvail uint16
	nextUsed  uint16
	usedFlags uint16
	signalled uint16 // nextUsed when the guest was last considered for an interrupt
	armed     bool   // signalled is right
}

// locate finds the ring in the guest's memory again if that has moved. The
// caller holds both locks.
func (r *ring) locate() error {
	if r.version == r.mem.version {
		return nil
	}
	s, n := &r.setup, uint64(r.setup.num)
	if s.desc%16 != 0 || s.avail%2 != 0 || s.used%4 != 0 {
		return model.Errorf(model.Invalid, "a ring that is not aligned")
	}
	var err error
	if r.desc, err = r.mem.atUser(s.desc, n*descSize); err != nil {
		return err
	}
	if r.avail, err = r.mem.atUser(s.avail, ringEntries+2*n+2); err != nil {
		return err
	}
	if r.used, err = r.mem.atUser(s.used, ringEntries+8*n+2); err != nil {
		return err
	}
	r.version = r.mem.version
	return nil
}

// open reads where the ring stands and what an earlier process left unanswered.
func (r *ring) open() (err error) {
	r.mem.mu.RLock()
	defer r.mem.mu.RUnlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	defer caught(&err, debug.SetPanicOnFault(true))
	r.version = r.mem.version - 1
	if err := r.locate(); err != nil {
		return err
	}
	if r.inflight, err = r.mem.inflight.queue(r.index, r.setup.num); err != nil {
		return err
	}
	r.nextUsed = load16(r.used, ringIndex)
	r.nextAvail = r.setup.base
	r.again, r.counter = r.inflight.recover(r.setup.num, r.nextUsed)
	if r.inflight != nil {
		r.nextAvail = r.nextUsed + uint16(len(r.again))
	}
	return nil
}

// run takes chains until the ring is halted.
func (r *ring) run() {
	defer func() {
		if p := recover(); p != nil {
			r.fail(fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
		}
	}()
	for _, o := range r.wait {
		select {
		case <-o.idle:
		case <-r.ctx.Done():
			return
		}
	}
	r.wait = nil
	var err error
	if r.dev, err = r.srv.holder.device(r.ctx); err != nil {
		return
	}
	for {
		sleep, err := r.take()
		if err != nil {
			r.fail(err)
		}
		for _, q := range r.batch {
			r.srv.pool.start(q)
		}
		r.batch = r.batch[:0]
		if sleep && !r.awaitKick() || !r.srv.limit.wait(r.ctx) {
			return
		}
	}
}

// awaitKick reports false once the ring is halted.
func (r *ring) awaitKick() bool {
	kick := r.kick.Load()
	if r.ctx.Err() != nil {
		return false
	}
	if err := kick.wait(); err != nil && r.kick.Load() == kick {
		return false // closed, and not because there is another one
	}
	return r.ctx.Err() == nil
}

// take fills r.batch with chains that can be started, as far as the limits let it. It
// reports sleep if there are no more for now; the next kick, or a request that comes
// back, wakes.
func (r *ring) take() (sleep bool, err error) {
	r.mem.mu.RLock()
	defer r.mem.mu.RUnlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	defer caught(&err, debug.SetPanicOnFault(true))
	if !r.enabled || r.halted || r.failed != nil {
		return true, nil
	}
	if err := r.locate(); err != nil {
		return true, err
	}
	for len(r.again) > 0 && len(r.batch) < batchMax {
		if !r.srv.limit.open() {
			return false, nil
		}
		q := r.request()
		if q == nil {
			return true, nil
		}
		head := r.again[0]
		r.again = r.again[1:]
		r.srv.stats.resubmitted.Add(1)
		if err := r.begin(q, head); err != nil {
			return true, err
		}
	}
	ready, err := r.ready()
	for ; ready > 0 && err == nil && len(r.batch) < batchMax && r.srv.limit.open(); ready-- {
		q := r.request()
		if q == nil {
			return true, nil
		}
		slot := uint64(r.nextAvail % r.setup.num)
		head := load16(r.avail, ringEntries+2*slot)
		if head >= r.setup.num {
			return true, model.Errorf(model.Invalid, "chain %d of %d", head, r.setup.num)
		}
		r.inflight.begin(head, r.counter)
		r.counter++
		r.nextAvail++
		err = r.begin(q, head)
	}
	return err != nil || (len(r.batch) == 0 && ready == 0), err
}

// ready returns how many chains the guest has made available. If there are none
// it asks for a kick and looks once more.
func (r *ring) ready() (uint16, error) {
	n := load16(r.avail, ringIndex) - r.nextAvail
	if n == 0 {
		r.askForKick()
		n = load16(r.avail, ringIndex) - r.nextAvail
	}
	if n > r.setup.num {
		return 0, model.Errorf(model.Invalid, "%d chains in a ring of %d", n, r.setup.num)
	}
	if n > 0 && r.features&featureEventIdx == 0 && r.usedFlags&usedNoNotify == 0 {
		r.usedFlags |= usedNoNotify
		r.storeUsed()
	}
	return n, nil
}

// askForKick tells the guest that the next chain needs a kick.
func (r *ring) askForKick() {
	if r.features&featureEventIdx != 0 {
		store16(r.used, ringEntries+8*uint64(r.setup.num), r.nextAvail)
		r.logUsed(ringEntries+8*uint64(r.setup.num), 2)
	} else {
		r.usedFlags &^= usedNoNotify
	}
	r.storeUsed() // with the barrier that the second look needs
}

// storeUsed writes the flags and the index of the used ring.
func (r *ring) storeUsed() {
	store32(r.used, ringFlags, uint32(r.usedFlags)|uint32(r.nextUsed)<<16)
	r.logUsed(ringFlags, 4)
}

// logUsed logs a write to the used ring. A log that is too short fails the next
// touch of data as well, so that it is enough to see it there.
func (r *ring) logUsed(off, n uint64) {
	if r.setup.log {
		_ = r.mem.dirty(r.setup.usedGuest+off, n)
	}
}

// request returns a request that is not in use, or nil, remembering that the
// next one that comes back must wake the goroutine.
func (r *ring) request() *request {
	if n := len(r.free); n > 0 {
		q := r.free[n-1]
		r.free = r.free[:n-1]
		return q
	}
	if r.made < depthMax {
		r.made++
		return &request{ring: r}
	}
	r.starved = true
	return nil
}

// begin reads the chain at head into q and puts it into the batch.
func (r *ring) begin(q *request, head uint16) error {
	q.head, q.began = head, time.Now()
	if err := q.parse(r); err != nil {
		r.free = append(r.free, q)
		return err
	}
	r.srv.limit.charge(q)
	r.pending++
	r.srv.stats.inFlight.Add(1)
	r.batch = append(r.batch, q)
	return nil
}

// finish puts an answered request into the used ring and interrupts the guest if
// it wants that. It reports false if the ring was detached meanwhile: the
// request then counts as not carried out.
func (r *ring) finish(q *request, status byte, written uint32) (ok bool, err error) {
	interrupt := false
	defer func() {
		if interrupt {
			r.queue.call.Load().signal()
		}
	}()
	r.mem.mu.RLock()
	defer r.mem.mu.RUnlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	defer caught(&err, debug.SetPanicOnFault(true))
	if r.detached || r.failed != nil {
		return false, nil
	}
	if err := r.locate(); err != nil {
		return false, err
	}
	if err := r.mem.scatter([]byte{status}, q.in, q.inSize-1); err != nil {
		return false, err
	}
	r.inflight.ending(q.head)
	at := ringEntries + 8*uint64(r.nextUsed%r.setup.num)
	binary.LittleEndian.PutUint32(r.used[at:], uint32(q.head))
	binary.LittleEndian.PutUint32(r.used[at+4:], written)
	r.logUsed(at, 8)
	r.nextUsed++
	r.storeUsed()
	r.inflight.ended(q.head, r.nextUsed)
	interrupt = r.wantsInterrupt()
	return true, nil
}

// wantsInterrupt says whether the guest asked to hear of what was just used.
func (r *ring) wantsInterrupt() bool {
	if r.features&featureEventIdx == 0 {
		return load16(r.avail, ringFlags)&availNoInterrupt == 0
	}
	event := load16(r.avail, ringEntries+2*uint64(r.setup.num))
	before, armed := r.signalled, r.armed
	r.signalled, r.armed = r.nextUsed, true
	return !armed || r.nextUsed-event-1 < r.nextUsed-before
}

// back takes a request back, answered or not.
func (r *ring) back(q *request) {
	r.mu.Lock()
	r.pending--
	r.free = append(r.free, q)
	wake := r.starved
	r.starved = false
	r.settle()
	r.mu.Unlock()
	r.srv.stats.inFlight.Add(-1)
	if wake {
		r.kick.Load().signal()
	}
}

// settle closes idle once nothing can reach the Device any more. The caller
// holds mu.
func (r *ring) settle() {
	if r.halted && r.pending == 0 && !r.isIdle() {
		close(r.idle)
		r.srv.holder.want(0, -1)
	}
}

func (r *ring) isIdle() bool {
	select {
	case <-r.idle:
		return true
	default:
		return false
	}
}

// enable lets chains be taken, or not. When it returns after false, none is.
func (r *ring) enable(on bool) {
	r.mu.Lock()
	r.enabled = on
	r.mu.Unlock()
	if on {
		r.kick.Load().signal()
	}
}

// halt stops taking chains for good. Those taken go on.
func (r *ring) halt() {
	r.mu.Lock()
	first := !r.halted
	r.halted = true
	r.settle()
	r.mu.Unlock()
	if first {
		r.cancel()
		r.srv.holder.want(-1, 0)
		r.srv.stats.running.Add(-1)
		r.kick.Load().signal()
	}
}

// detach leaves what is still in flight unanswered: when it returns, nothing of
// this ring touches the guest's memory. It returns where the ring stood and how
// many requests were left.
func (r *ring) detach() (next uint16, left int) {
	r.mem.mu.Lock()
	defer r.mem.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.detached = true
	if r.failed != nil {
		r.srv.stats.failed.Add(-1)
	}
	return r.nextAvail, r.pending + len(r.again)
}

// fail stops taking chains because the guest, or we, broke something. The guest
// can reset its device, which starts a new ring.
func (r *ring) fail(err error) {
	r.mu.Lock()
	first := r.failed == nil && !r.detached
	if first {
		r.failed = err
		r.srv.stats.failed.Add(1)
	}
	r.mu.Unlock()
	if first {
		r.srv.log.Error("vhost queue failed", "queue", r.index, "err", err)
		r.queue.fault.Load().signal()
	}
}

// setLog turns the log of writes to the used ring on or off.
func (r *ring) setLog(on bool, guest uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.setup.log, r.setup.usedGuest = on, guest
}
