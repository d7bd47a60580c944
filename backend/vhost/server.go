package vhost

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/unixsock"
)

// A Config says what to serve and where.
type Config struct {
	Path  string         // of the socket
	Owner unixsock.Owner // who may connect: the user QEMU runs as

	// State is the path of a small file that keeps what QEMU negotiated, for a
	// QEMU that reconnects and does not say it again. It should be on a tmpfs.
	State string

	Serial   string // what the guest sees as the disk's serial, of 20 bytes at most
	Size     int64  // in bytes, until a Device says otherwise
	ReadOnly bool
	Queues   int // the most QEMU may ask for; zero means 64

	// Acquire takes the disk when QEMU enables the first ring. Requests wait for
	// it; its ctx ends when nobody needs the disk any more, and after an error it
	// is called again, once a second. Release gives the disk back after the last
	// request has returned from it. They are never called at the same time.
	Acquire func(ctx context.Context) (Device, error)
	Release func()

	Log *slog.Logger // nil discards
}

// The bounds of a Server.
const (
	queuesDefault = 64
	queuesMax     = 256
	depthMax      = 128              // requests in flight per queue
	heldMax       = 64 << 20         // bytes of buffers in use, for reads and for writes each
	parkAfter     = 5 * time.Second  // how long GET_VRING_BASE waits for a stalled device
	drainMax      = 10 * time.Second // for the last requests, when closing
	handshakeMax  = 2 * time.Second  // for QEMU to end its handshake, when closing
	acquirePause  = time.Second
	acceptPause   = 100 * time.Millisecond
)

// A Server is one disk's back end: one socket, one QEMU at a time.
type Server struct {
	cfg    Config
	log    *slog.Logger
	l      *unixsock.Listener
	state  *stateFile
	times  times
	size   atomic.Int64
	grown  chan struct{} // Resize was called
	holder *holder
	pool   *pool
	held   *semaphore.Weighted // of heldMax, for writes: they may wait for room on a disk for long
	reads  *semaphore.Weighted // of heldMax, for reads, which therefore never wait for those
	stats  counters
	limit  limiter

	ctx    context.Context // of the Device calls
	cancel context.CancelFunc
	rings  sync.WaitGroup // goroutines of rings

	mu  sync.Mutex // guards what follows
	old []*ring    // stopped rings whose requests are not all back
}

// times are the waits of a Server; tests shorten them.
type times struct {
	park, drain, handshake, acquire time.Duration
}

// Listen opens the socket. QEMU may connect from then on and is answered once
// Run is called, which must be soon: it blocks meanwhile.
func Listen(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.Queues == 0 {
		cfg.Queues = queuesDefault
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		cfg: cfg, log: log.With("socket", cfg.Path),
		times: times{
			park: parkAfter, drain: drainMax, handshake: handshakeMax, acquire: acquirePause,
		},
		grown: make(chan struct{}, 1),
		held:  semaphore.NewWeighted(heldMax),
		reads: semaphore.NewWeighted(heldMax),
	}
	s.size.Store(cfg.Size)
	s.holder = newHolder(s)
	s.pool = &pool{work: make(chan *request), max: cfg.Queues * depthMax}
	var err error
	if s.state, err = openState(cfg.State); err != nil {
		return nil, err
	}
	if s.l, err = unixsock.Listen(ctx, cfg.Path, cfg.Owner); err != nil {
		return nil, errors.Join(err, s.state.close())
	}
	return s, nil
}

func (c *Config) validate() error {
	var errs []error
	if c.Acquire == nil || c.Release == nil {
		errs = append(errs, model.Errorf(model.Invalid, "a back end needs Acquire and Release"))
	}
	if c.Size < int64(model.SectorSize) || c.Size%int64(model.SectorSize) != 0 {
		errs = append(errs, model.Errorf(model.Invalid, "%d bytes are not whole sectors", c.Size))
	}
	if len(c.Serial) > serialSize {
		errs = append(errs, model.Errorf(model.Invalid, "the serial %q has more than %d bytes",
			c.Serial, serialSize))
	}
	if c.Queues < 1 || c.Queues > queuesMax {
		errs = append(errs, model.Errorf(model.Invalid, "%d queues: 1 to %d are possible",
			c.Queues, queuesMax))
	}
	return errors.Join(errs...)
}

// URI is how the socket is named to people.
func (s *Server) URI() string { return "vhost-user:" + s.l.Path() }

// Run serves one QEMU after another until ctx ends. It then fetches no more
// requests, answers those in flight for up to ten seconds, leaves the rest for
// the next process to carry out again, and hangs up. When it returns, no call to
// the Device is under way and the Device is released.
func (s *Server) Run(ctx context.Context) error {
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer s.cancel()
	var holding sync.WaitGroup
	held, release := context.WithCancel(context.WithoutCancel(ctx))
	holding.Go(func() { s.holder.run(held) })
	stop := context.AfterFunc(ctx, s.closing)

	s.accept(ctx)

	stop()
	abort := time.AfterFunc(s.times.drain, s.cancel)
	s.rings.Wait()
	s.pool.close()
	abort.Stop()
	release()
	holding.Wait()
	return errors.Join(s.l.Close(), s.state.close())
}

// closing lets nobody new connect; who did already is still answered.
func (s *Server) closing() {
	if err := s.l.Unpublish(); err != nil {
		s.log.Warn("vhost socket not removed", "err", err)
	}
	_ = s.l.SetDeadline(time.Now().Add(acceptPause))
}

// accept serves connections, one at a time: QEMU blocks in its next question if
// a second one comes, but a connection that was accepted and dropped would be
// dead for good.
func (s *Server) accept(ctx context.Context) {
	for {
		nc, err := s.l.AcceptUnix()
		if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() && ctx.Err() != nil {
			return
		}
		if err != nil { // out of descriptors, most likely: others may give some back
			s.log.Warn("vhost connection not accepted", "err", err)
			time.Sleep(acceptPause)
			continue
		}
		newSession(s, nc).run(ctx)
	}
}

// Resize tells the guest that the disk has now size bytes, at once if it is
// running and otherwise when it starts. It does not wait for the guest.
func (s *Server) Resize(size int64) {
	if s.size.Swap(size) == size {
		return
	}
	select {
	case s.grown <- struct{}{}:
	default:
	}
}

// retire remembers a stopped ring until its last request is back.
func (s *Server) retire(r *ring) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.old[:0]
	for _, o := range append(s.old, r) {
		if !o.isIdle() {
			kept = append(kept, o)
		}
	}
	s.old = kept
}

// retired returns the stopped rings that may have requests in the Device.
func (s *Server) retired() []*ring {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*ring(nil), s.old...)
}
