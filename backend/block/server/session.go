package server

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"math/bits"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/sock"
)

// A session is one connection of a client, seen from the server. One goroutine
// reads, one writes; each disk that is asked for has a lane.
type session struct {
	server *Server
	peer   model.NodeID
	conn   net.Conn
	out    *outbox
	wg     sync.WaitGroup // lanes and their workers

	ctx    context.Context //nolint:containedctx // ends with the session; lanes and workers use it
	cancel context.CancelFunc
	lanes  map[model.DiskID]*lane // only the reader's

	underWay  atomic.Int64 // requests not yet answered
	armed     atomic.Bool  // the busy timer is running
	busy      *time.Timer
	lastFrame atomic.Int64 // when the last answer was put, Unix nanoseconds

	mu   sync.Mutex
	held map[model.VolumeID]model.Generation // what MayHold has allowed
}

const (
	heldMost = 4096
	// strayDisks is for how many disks that are not here a client may have full
	// windows under way.
	strayDisks = 16
)

func newSession(ctx context.Context, s *Server, peer model.NodeID, conn net.Conn) *session {
	one := &session{
		server: s,
		peer:   peer,
		conn:   conn,
		lanes:  map[model.DiskID]*lane{},
		held:   map[model.VolumeID]model.Generation{},
	}
	one.out = newOutbox(func() bool { return one.underWay.Load() > 1 })
	one.ctx, one.cancel = context.WithCancel(ctx)
	one.busy = time.AfterFunc(time.Hour, one.stillBusy)
	one.busy.Stop()
	return one
}

// run reads until the connection or ctx ends, and returns when nothing of the
// session runs any more but what a disk still has.
func (s *session) run() error {
	defer context.AfterFunc(s.ctx, s.end)()
	var writer sync.WaitGroup
	writer.Go(func() {
		_ = s.out.run(s.conn) // the reader has the better error
		s.end()
	})
	err := s.read()
	s.end()
	for _, l := range s.lanes {
		l.close()
	}
	s.wg.Wait()
	writer.Wait()
	s.busy.Stop()
	return err
}

// end makes everything stop soon; it does not wait.
func (s *session) end() {
	s.cancel()
	s.out.close()
	if a, ok := s.conn.(interface{ Abort() }); ok {
		a.Abort()
		return
	}
	_ = s.conn.Close()
}

// stillBusy tells the client, while requests are under way and no answer goes
// out, that it is the disk that takes its time and not the network.
func (s *session) stillBusy() {
	if s.underWay.Load() == 0 {
		s.armed.Store(false)
		if s.underWay.Load() > 0 {
			s.arm()
		}
		return
	}
	if time.Since(time.Unix(0, s.lastFrame.Load())) >= busyEvery*9/10 {
		s.out.put(busyFrame{})
	}
	if s.ctx.Err() == nil {
		s.busy.Reset(busyEvery)
	}
}

func (s *session) arm() {
	if s.armed.CompareAndSwap(false, true) {
		s.busy.Reset(busyEvery)
	}
}

type busyFrame struct{}

func (busyFrame) frame(b []byte) (out, data []byte) {
	at := len(b)
	b = begin(b)
	finish(b, at, header{kind: kindBusy | answerBit})
	return b, nil
}

func (busyFrame) sent() {}

// A request is one frame that came, and then its answer. Requests are reused.
type request struct {
	session *session
	lane    *lane
	id      uint64
	disk    model.DiskID
	kind    kind
	weight  int // bytes against the window

	op      disk.Op // of an Apply
	done    func(error)
	prepare disk.Prepare
	read    disk.Read
	list    disk.List
	version versionQuery

	err    error
	status status
	sums   []uint32      // of a Read
	found  disk.Version  // of a ReadVersion
	buf    *iobuf.Buffer // of a Read or ReadVersion
	data   []byte        // what is sent as data
}

var requests sync.Pool

func newRequest() *request {
	r, ok := requests.Get().(*request)
	if !ok {
		r = &request{}
		r.done = r.answer
	}
	return r
}

// read takes frames until the connection ends or the peer breaks the rules.
func (s *session) read() error {
	in := bufio.NewReaderSize(s.conn, headerSize+maxMeta)
	for {
		b, err := in.Peek(headerSize)
		if err != nil {
			return err
		}
		h, err := parseHeader(b)
		if err != nil {
			return err
		}
		if b, err = in.Peek(headerSize + h.meta); err != nil {
			return err
		}
		if err := checkFrame(b); err != nil {
			return err
		}
		if err := s.accept(in, h, b[headerSize:]); err != nil {
			return err
		}
		sock.Yield(in)
	}
}

// accept decodes one request and hands it to its lane. The meta is valid until
// the reader moves on.
func (s *session) accept(in *bufio.Reader, h header, meta []byte) error {
	r := newRequest()
	r.session, r.id, r.disk, r.kind = s, h.id, h.disk, h.kind
	if err := r.decode(h, meta); err != nil {
		return err
	}
	if _, err := in.Discard(headerSize + h.meta); err != nil {
		return err
	}
	if h.data > 0 {
		r.op.Data = iobuf.Get(h.data)
		if _, err := io.ReadFull(in, r.op.Data.Bytes); err != nil {
			return err
		}
	}
	if s.underWay.Add(1) > int64((len(s.lanes)+strayDisks)*(windowOps+windowReads)) {
		return errWindow
	}
	s.arm()
	l, err := s.lane(h.disk)
	if err != nil {
		r.answer(err)
		return nil
	}
	return l.push(r)
}

// decode reads the meta into the request and sets what it weighs.
func (r *request) decode(h header, meta []byte) (err error) {
	if h.status != 0 || h.data > maxData || h.data > 0 && h.kind != kindApply {
		return errFrame
	}
	switch h.kind {
	case kindApply:
		r.weight = h.data
		err = decodeOp(meta, h.data, &r.op)
	case kindPrepare:
		r.prepare, err = decodePrepare(meta)
	case kindRead:
		r.read, err = decodeRead(meta)
		r.weight = r.read.Count * int(model.BlockSize)
	case kindList, kindDigest:
		r.list, err = decodeList(meta)
		r.weight = listWeight(r.list)
	case kindReadVersion:
		r.version, err = decodeVersionQuery(meta)
		r.weight = int(model.PageSize)
	case kindBusy, answerBit:
		err = errFrame
	default:
		err = errFrame
	}
	return err
}

// listWeight is what a List counts against the window.
func listWeight(l disk.List) int { return max(l.Max, 1) * versionMost }

// lane returns where the requests for a disk queue up.
func (s *session) lane(id model.DiskID) (*lane, error) {
	if l := s.lanes[id]; l != nil {
		return l, nil
	}
	if _, err := s.server.disk(id); err != nil {
		return nil, err // no lane for what a peer made up
	}
	l := newLane(s, id)
	s.lanes[id] = l
	return l, nil
}

// mayHold asks once whether the peer may speak for a volume.
func (s *session) mayHold(ctx context.Context, vol model.VolumeID, gen model.Generation) error {
	ask := s.server.cfg.MayHold
	if ask == nil {
		return nil
	}
	s.mu.Lock()
	known, ok := s.held[vol]
	s.mu.Unlock()
	if ok && known == gen {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, stallAfter)
	defer cancel()
	if err := ask(ctx, s.peer, vol, gen); err != nil {
		return err
	}
	s.mu.Lock()
	if len(s.held) >= heldMost {
		clear(s.held)
	}
	s.held[vol] = gen
	s.mu.Unlock()
	return nil
}

// answer queues the reply; the disk calls it when an op is durable or refused.
// After it the request is the writer's.
func (r *request) answer(err error) {
	s := r.session
	if r.kind == kindApply && r.op.Data != nil {
		r.op.Data.Release()
		r.op.Data = nil
	}
	r.err, r.status = err, statusOf(err)
	if r.status == statusInternal && r.lane != nil && r.lane.logged.CompareAndSwap(false, true) {
		slog.ErrorContext(s.ctx, "disk refused a request", "disk", r.disk, "node", s.peer, "err", err)
	}
	s.lastFrame.Store(time.Now().UnixNano())
	if !s.out.put(r) {
		r.settle()
	}
}

// frame implements outgoing: the answer.
func (r *request) frame(b []byte) (out, data []byte) {
	at := len(b)
	b = begin(b)
	if r.status != statusOK {
		b = appendError(b, r.status, r.err)
	}
	if r.status == statusOK || r.status == statusBlocks {
		switch r.kind {
		case kindRead:
			b = appendSums(b, r.sums)
			data = r.data
		case kindReadVersion:
			b = appendVersion(b, &r.found)
			data = r.data
		case kindPrepare, kindList, kindDigest:
			data = r.data
		case kindApply, kindBusy, answerBit:
		}
	}
	// What is answered no longer counts: the client counts the other way round,
	// so that it never has more under way by its own books than by ours.
	r.settleCounts()
	finish(b, at, header{data: len(data), id: r.id, disk: r.disk, kind: r.kind | answerBit, status: r.status})
	return b, data
}

// sent implements outgoing: the request may be used again.
func (r *request) sent() { r.recycle() }

// settle drops an answer that cannot be sent any more.
func (r *request) settle() {
	r.settleCounts()
	r.recycle()
}

func (r *request) settleCounts() {
	r.session.underWay.Add(-1)
	if r.lane != nil {
		r.lane.release(r)
	}
}

func (r *request) recycle() {
	if r.buf != nil {
		r.buf.Release()
	}
	*r = request{done: r.done, op: disk.Op{Sums: r.op.Sums[:0]}, sums: r.sums[:0]}
	requests.Put(r)
}

// compact moves the present blocks of a page to the front and returns them.
func compact(page []byte, mask uint16) []byte {
	const size = int(model.BlockSize)
	n := 0
	for m := mask; m != 0; m &= m - 1 {
		i := bits.TrailingZeros16(m)
		copy(page[n*size:(n+1)*size], page[i*size:(i+1)*size])
		n++
	}
	return page[:n*size]
}
