package server

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
)

// A lane is the way to one disk within a session: a queue of ops with a goroutine
// that hands them over in order, and workers for everything else. So a disk that
// hangs holds up nobody else's requests.
type lane struct {
	session *session
	id      model.DiskID
	logged  atomic.Bool // the first unexpected error of the disk was logged

	mu      sync.Mutex
	queue   []*request // ops not yet handed over
	asleep  bool
	closed  bool
	ops     int // under way, by kind of window
	bytes   int
	reads   int
	readB   int
	workers int
	idle    int // workers that wait for work

	wake chan struct{} // cap 1
	work chan *request // cap windowReads
}

// workersMost bounds how many requests other than ops one client has at one disk
// at a time; more wait.
const workersMost = 32

func newLane(s *session, id model.DiskID) *lane {
	l := &lane{
		session: s, id: id,
		wake: make(chan struct{}, 1),
		work: make(chan *request, windowReads),
	}
	s.wg.Go(l.run)
	return l
}

// push queues a request; the error says that the peer has more under way than it
// may.
func (l *lane) push(r *request) error {
	r.lane = l
	if r.kind != kindApply {
		return l.pushRead(r)
	}
	l.mu.Lock()
	l.ops, l.bytes = l.ops+1, l.bytes+r.weight
	over := l.ops > windowOps || l.bytes > windowBytes
	l.queue = append(l.queue, r)
	wake := l.asleep
	l.asleep = false
	l.mu.Unlock()
	if wake {
		l.wake <- struct{}{}
	}
	if over {
		return errWindow
	}
	return nil
}

var errWindow = model.Errorf(model.Invalid, "the peer has more under way than the protocol allows")

func (l *lane) pushRead(r *request) error {
	l.mu.Lock()
	l.reads, l.readB = l.reads+1, l.readB+r.weight
	over := l.reads > windowReads || l.readB > windowReadBytes
	if !over && l.idle == 0 && l.workers < workersMost {
		l.workers++
		l.session.wg.Go(l.worker)
	} else if l.idle > 0 {
		l.idle--
	}
	l.mu.Unlock()
	if over {
		return errWindow
	}
	l.work <- r // has room for all that may be under way
	return nil
}

// release takes an answered request out of the window.
func (l *lane) release(r *request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.kind == kindApply {
		l.ops, l.bytes = l.ops-1, l.bytes-r.weight
	} else {
		l.reads, l.readB = l.reads-1, l.readB-r.weight
	}
}

// close ends the lane's goroutines once they are done with what they have.
func (l *lane) close() {
	l.mu.Lock()
	l.closed = true
	wake := l.asleep
	l.asleep = false
	l.mu.Unlock()
	if wake {
		l.wake <- struct{}{}
	}
	close(l.work)
}

// run hands ops over in the order they came. Once the session has ended it hands
// over nothing more.
func (l *lane) run() {
	var batch []*request
	for {
		clear(batch)
		if batch = l.take(batch[:0]); batch == nil {
			return
		}
		for _, r := range batch {
			if err := l.allow(r); err != nil {
				r.answer(err)
				continue
			}
			d, err := l.session.server.disk(l.id)
			if err != nil {
				r.answer(err)
				continue
			}
			d.Apply(&r.op, r.done)
		}
	}
}

// allow judges an op right before it is handed over.
func (l *lane) allow(r *request) error {
	if err := l.session.ctx.Err(); err != nil {
		return model.Errorf(model.Unavailable, "the connection has ended: %w", err)
	}
	return l.session.mayHold(l.session.ctx, r.op.Volume, r.op.Generation)
}

func (l *lane) take(empty []*request) []*request {
	for {
		l.mu.Lock()
		if len(l.queue) > 0 {
			full := l.queue
			l.queue = empty
			l.mu.Unlock()
			return full
		}
		if l.closed {
			l.mu.Unlock()
			return nil
		}
		l.asleep = true
		l.mu.Unlock()
		<-l.wake
	}
}

// worker answers requests other than ops until the session ends.
func (l *lane) worker() {
	for r := range l.work {
		if err := l.session.ctx.Err(); err != nil {
			r.answer(err)
		} else {
			r.answer(l.do(r))
		}
		l.mu.Lock()
		l.idle++
		l.mu.Unlock()
	}
}

// do carries out one request; what it found is left in r.
func (l *lane) do(r *request) error {
	ctx := l.session.ctx
	d, err := l.session.server.disk(l.id)
	if err != nil {
		return err
	}
	switch r.kind {
	case kindPrepare:
		return r.doPrepare(ctx, d)
	case kindRead:
		return r.doRead(ctx, d)
	case kindList:
		return r.doList(ctx, d)
	case kindDigest:
		return r.doDigest(ctx, d)
	case kindReadVersion:
		return r.doReadVersion(ctx, d)
	case kindApply, kindBusy, answerBit:
	}
	return errFrame
}

func (r *request) doPrepare(ctx context.Context, d Disk) error {
	if err := r.session.mayHold(ctx, r.prepare.Volume, r.prepare.Generation); err != nil {
		return err
	}
	p, err := d.Prepare(ctx, r.prepare)
	if err != nil {
		return err
	}
	r.data = encodePromise(p)
	return r.checkList()
}

func (r *request) doRead(ctx context.Context, d Disk) error {
	q := r.read
	if err := r.session.mayHold(ctx, q.Volume, q.Generation); err != nil {
		return err
	}
	r.buf = iobuf.Get(q.Count * int(model.BlockSize))
	if cap(r.sums) < q.Count {
		r.sums = make([]uint32, q.Count)
	}
	r.sums, r.data = r.sums[:q.Count], r.buf.Bytes
	return d.Read(ctx, q, r.buf.Bytes, r.sums)
}

func (r *request) doList(ctx context.Context, d Disk) error {
	if err := r.session.mayHold(ctx, r.list.Volume, r.list.Generation); err != nil {
		return err
	}
	listing, err := d.List(ctx, r.list)
	if err != nil {
		return err
	}
	r.data = encodeListing(listing)
	return r.checkList()
}

func (r *request) doDigest(ctx context.Context, d Disk) error {
	if err := r.session.mayHold(ctx, r.list.Volume, r.list.Generation); err != nil {
		return err
	}
	digest, err := d.Digest(ctx, r.list)
	if err != nil {
		return err
	}
	r.data = encodeDigest(digest)
	return nil
}

func (r *request) doReadVersion(ctx context.Context, d Disk) (err error) {
	q := r.version
	if err := r.session.mayHold(ctx, q.volume, q.generation); err != nil {
		return err
	}
	r.buf = iobuf.Get(int(model.PageSize))
	r.found, err = d.ReadVersion(ctx, q.volume, q.generation, q.column, q.page, q.epoch, r.buf.Bytes)
	if _, damaged := errors.AsType[*disk.CorruptError](err); err != nil && !damaged {
		return err
	}
	r.data = compact(r.buf.Bytes, r.found.Mask) // of a damaged one too: its other blocks are right
	return err
}

// checkList refuses an answer that no client would accept.
func (r *request) checkList() error {
	if len(r.data) > maxListData {
		n := len(r.data)
		r.data = nil
		return model.Errorf(model.Internal, "a list of %d bytes is longer than the protocol allows", n)
	}
	return nil
}
