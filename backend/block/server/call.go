package server

import (
	"context"
	"io"
	"math/bits"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/model"
)

// A call is one request under way. It ends when it has been written and answered,
// or when its link has; then its done is called. Calls are reused.
type call struct {
	remote *Remote
	link   *link
	id     uint64
	kind   kind
	weight int

	op      *disk.Op
	done    func(error) // of an Apply
	prepare disk.Prepare
	read    disk.Read
	list    disk.List
	version versionQuery
	dst     []byte
	sums    []uint32

	promise disk.Promise
	listing disk.Listing
	digest  disk.Digest
	found   disk.Version

	ended chan error // of all but Apply; cap 1

	// Guarded by the peer's mu.
	written   bool
	answered  bool
	filling   bool // the reader is writing into dst
	over      bool // finish has been or will be called
	abandoned bool // nobody waits for it any more; set only before it is over
	err       error
}

// newCall takes a call from the client's pool: a pool of the whole process would
// carry channels from one bubble of a test into another.
func newCall(r *Remote, k kind) *call {
	c, ok := r.peer.client.calls.Get().(*call)
	if !ok {
		c = &call{ended: make(chan error, 1)}
	}
	c.remote, c.kind = r, k
	return c
}

func (c *call) free() {
	pool := &c.remote.peer.client.calls
	*c = call{ended: c.ended}
	pool.Put(c)
}

// take enters the call into the books and gives it its number; peer.mu is held.
func (c *call) take() {
	p := c.remote.peer
	c.link = p.link
	c.link.lastID++
	c.id = c.link.lastID
	if c.kind != kindApply {
		c.remote.reads.add(c.weight)
		return
	}
	c.remote.ops.add(c.weight)
	c.remote.volume(c.op.Volume).add(c.weight)
}

// release takes it out of the books; peer.mu is held.
func (c *call) release() {
	if c.kind != kindApply {
		c.remote.reads.drop(c.weight)
		return
	}
	c.remote.ops.drop(c.weight)
	c.remote.volume(c.op.Volume).drop(c.weight)
}

// frame implements outgoing.
func (c *call) frame(b []byte) (out, data []byte) {
	at := len(b)
	b = begin(b)
	switch c.kind {
	case kindApply:
		b = appendOp(b, c.op)
		if c.weight > 0 {
			data = c.op.Data.Bytes[c.op.DataOff : c.op.DataOff+c.weight]
		}
	case kindPrepare:
		b = appendPrepare(b, c.prepare)
	case kindRead:
		b = appendRead(b, c.read)
	case kindList, kindDigest:
		b = appendList(b, c.list)
	case kindReadVersion:
		b = appendVersionQuery(b, c.version)
	case kindBusy, answerBit:
	}
	finish(b, at, header{data: len(data), id: c.id, disk: c.remote.id, kind: c.kind})
	return b, data
}

// sent implements outgoing. The answer can have overtaken it: a long frame is on
// its way before the last of it is handed over.
func (c *call) sent() {
	p := c.remote.peer
	p.mu.Lock()
	c.written = true
	over := c.answered
	if over {
		c.link.close(c)
	}
	p.mu.Unlock()
	if over {
		c.finish(c.err)
	}
}

// finish tells whoever asked, if anybody still waits. The call is no link's any
// more.
func (c *call) finish(err error) {
	switch {
	case c.kind == kindApply:
		done := c.done
		c.free()
		done(err)
	case c.abandoned: // was so before the call ended
		c.free()
	default:
		c.ended <- err
	}
}

// Apply sends an op and calls done exactly once, possibly before it returns. It
// waits only while the disk's or the volume's window is full, at most until the
// link breaks. The caller keeps op and its data unchanged until done. done runs on
// the goroutines of the connection, so it must not block, and must not call Apply:
// it could wait for room that only they can make.
func (r *Remote) Apply(op *disk.Op, done func(error)) {
	n := dataBlocks(op)
	if n > maxBlocks || len(op.Sums) != n {
		done(model.Errorf(model.Invalid, "an op has at most %d blocks and a sum for each", maxBlocks))
		return
	}
	c := newCall(r, kindApply)
	c.op, c.done, c.weight = op, done, n*int(model.BlockSize)
	if err := r.peer.send(context.Background(), c); err != nil {
		c.free()
		done(err)
	}
}

// ask sends a call and waits for its answer. If the context ends first nothing
// of the call touches the caller's memory any more, and the link frees the call
// when its answer comes. Otherwise collect takes from it what was found.
func (r *Remote) ask(ctx context.Context, c *call, collect func(*call)) error {
	if err := r.peer.send(ctx, c); err != nil {
		c.free()
		return err
	}
	select {
	case err := <-c.ended:
		collect(c)
		c.free()
		return err
	case <-ctx.Done():
	}
	p := r.peer
	p.mu.Lock()
	if !c.filling && !c.answered && !c.over {
		c.abandoned = true
		p.mu.Unlock()
		return model.Errorf(model.Unavailable, "no answer from node %s in time: %w", p.node, ctx.Err())
	}
	p.mu.Unlock()
	err := <-c.ended // soon: the answer is coming in, or the link breaks
	collect(c)
	c.free()
	return err
}

// Prepare implements volume.Disk.
func (r *Remote) Prepare(ctx context.Context, p disk.Prepare) (out disk.Promise, err error) {
	c := newCall(r, kindPrepare)
	c.prepare = p
	err = r.ask(ctx, c, func(c *call) { out = c.promise })
	return out, err
}

// Read fills dst and sums. The sums come from the disk, which has verified them;
// TLS guards the way.
func (r *Remote) Read(ctx context.Context, q disk.Read, dst []byte, sums []uint32) error {
	if q.Count < 1 || q.Count > maxBlocks || len(dst) != q.Count*int(model.BlockSize) || len(sums) != q.Count {
		return model.Errorf(model.Invalid, "a read has 1 to %d blocks and a sum for each", maxBlocks)
	}
	c := newCall(r, kindRead)
	c.read, c.dst, c.sums, c.weight = q, dst, sums, len(dst)
	return r.ask(ctx, c, func(*call) {})
}

// List implements volume.Disk. It asks for at most 65536 versions.
func (r *Remote) List(ctx context.Context, l disk.List) (out disk.Listing, err error) {
	c := newCall(r, kindList)
	l.Max = min(l.Max, maxListed)
	c.list, c.weight = l, listWeight(l)
	err = r.ask(ctx, c, func(c *call) { out = c.listing })
	return out, err
}

// Digest implements volume.Disk.
func (r *Remote) Digest(ctx context.Context, l disk.List) (out disk.Digest, err error) {
	c := newCall(r, kindDigest)
	l.Max = 1
	c.list, c.weight = l, listWeight(l)
	err = r.ask(ctx, c, func(c *call) { out = c.digest })
	return out, err
}

// ReadVersion implements volume.Disk; dst is model.PageSize long.
func (r *Remote) ReadVersion(ctx context.Context, vol model.VolumeID, gen model.Generation,
	column, page uint32, epoch model.Epoch, dst []byte,
) (out disk.Version, err error) {
	if len(dst) != int(model.PageSize) {
		return out, model.Errorf(model.Invalid, "a page has %d bytes, not %d", model.PageSize, len(dst))
	}
	c := newCall(r, kindReadVersion)
	c.version = versionQuery{volume: vol, generation: gen, column: column, page: page, epoch: epoch}
	c.dst, c.weight = dst, len(dst)
	err = r.ask(ctx, c, func(c *call) { out = c.found })
	return out, err
}

// receive reads the data of the answer to c, whose meta is given, and returns
// what the caller gets. The second error ends the link.
func (c *call) receive(in io.Reader, h header, meta []byte) (result, broken error) {
	r := reader{b: meta, ok: true}
	result = r.readError(h.status)
	if result != nil && h.status != statusBlocks {
		if !r.done() || h.data != 0 {
			return nil, errFrame
		}
		return result, nil
	}
	switch c.kind {
	case kindApply:
		if !r.done() || h.data != 0 {
			return nil, errFrame
		}
	case kindRead:
		got := r.sums(c.sums[:0], len(c.sums))
		if !r.done() || len(got) != len(c.sums) || h.data != len(c.dst) {
			return nil, errFrame
		}
		if _, err := io.ReadFull(in, c.dst); err != nil {
			return nil, err
		}
	case kindReadVersion:
		if c.found = r.version(); !r.done() {
			return nil, errFrame
		}
		broken = readPage(in, c.dst, c.found.Mask, h.data)
	case kindPrepare, kindList, kindDigest:
		if !r.done() {
			return nil, errFrame
		}
		broken = c.receiveList(in, h.data)
	case kindBusy, answerBit:
		return nil, errFrame
	}
	return result, broken
}

// readPage reads the present blocks of a page to their places; the others become
// zeros.
func readPage(in io.Reader, dst []byte, mask uint16, data int) error {
	const size = int(model.BlockSize)
	if data != bits.OnesCount16(mask)*size {
		return errFrame
	}
	for i := range model.BlocksPerPage {
		block := dst[i*size : (i+1)*size]
		if mask&(1<<i) == 0 {
			clear(block)
		} else if _, err := io.ReadFull(in, block); err != nil {
			return err
		}
	}
	return nil
}

func (c *call) receiveList(in io.Reader, n int) (err error) {
	data := make([]byte, n)
	if _, err := io.ReadFull(in, data); err != nil {
		return err
	}
	switch c.kind { //nolint:exhaustive // receive has seen to it
	case kindPrepare:
		c.promise, err = decodePromise(data)
	case kindDigest:
		c.digest, err = decodeDigest(data)
	default:
		c.listing, err = decodeListing(data)
	}
	return err
}

// begun notes that a link has something to wait for again; peer.mu is held.
func (l *link) begun() {
	l.heard.Store(time.Now().UnixNano())
	if l.armed.CompareAndSwap(false, true) {
		l.watch.Reset(busyEvery)
	}
}
