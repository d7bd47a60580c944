package nbd

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/unixsock"
)

// A Config says what to serve and where.
type Config struct {
	Path     string         // of the socket
	Owner    unixsock.Owner // who may connect
	Name     string         // of the export; the empty name means it too
	Device   Device
	ReadOnly bool
	// Resumes says that clients connect again and ask once more for what was not
	// answered, as QEMU does for a guest. Then what is in flight when the Server closes
	// is broken off without an answer, which the guest would have to take for a disk's.
	Resumes bool
	Log     *slog.Logger // nil discards
}

// The bounds of a Server.
const (
	connectionsMax = 16
	depthMax       = 128              // requests in flight per connection
	payloadMax     = 32 << 20         // bytes of one request
	heldMax        = payloadMax       // bytes in flight per connection
	handshakeMax   = 10 * time.Second // from connect to the first request
	drainMax       = 10 * time.Second // for the last requests, when closing
	acceptPause    = 100 * time.Millisecond
)

// A Server listens on one socket and serves one Device.
type Server struct {
	cfg   Config
	log   *slog.Logger
	l     *unixsock.Listener
	drain time.Duration // drainMax but in tests
	stats counters
}

// Listen opens the socket. Clients may connect from then on and are served once
// Run is called, which must be: it also closes the socket.
func Listen(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.Device == nil {
		return nil, model.Errorf(model.Invalid, "an export needs a device")
	}
	if len(cfg.Name) > nameMax {
		return nil, model.Errorf(model.Invalid, "an export's name has at most %d bytes", nameMax)
	}
	l, err := unixsock.Listen(ctx, cfg.Path, cfg.Owner)
	if err != nil {
		return nil, err
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Server{cfg: cfg, log: log.With("socket", cfg.Path), l: l, drain: drainMax}, nil
}

// URI is the address clients use.
func (s *Server) URI() string { return "nbd+unix:///" + s.cfg.Name + "?socket=" + s.l.Path() }

// Run serves until ctx ends. It then takes no more requests, lets those in
// flight finish and be answered for up to ten seconds, and cancels the rest; with
// Resumes it cancels them at once, and none of the cancelled is answered.
// When it returns, no call to the Device is under way.
func (s *Server) Run(ctx context.Context) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	stop := context.AfterFunc(ctx, func() {
		if err := s.l.Close(); err != nil {
			s.log.Warn("nbd socket not closed cleanly", "err", err)
		}
	})
	defer stop()
	places := make(chan struct{}, connectionsMax)
	for {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		nc, err := s.l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil { // out of descriptors, most likely: others may give some back
			s.log.Warn("nbd connection not accepted", "err", err)
			<-places
			select {
			case <-time.After(acceptPause):
			case <-ctx.Done():
			}
			continue
		}
		conns.Go(func() {
			defer func() { <-places }()
			s.serve(ctx, nc)
		})
	}
}

// Stats returns what was done so far.
func (s *Server) Stats() Stats { return s.stats.snapshot() }

// Stats counts since the Server was made.
type Stats struct {
	Connections           int // open now
	InFlight              int // requests now
	Reads, Writes         uint64
	Flushes               uint64
	Discards, WriteZeroes uint64
	ReadBytes, WriteBytes uint64
	ReadTime, WriteTime   time.Duration // summed over finished requests
	Errors                uint64        // requests answered with an error
}

type counters struct {
	connections, inFlight atomic.Int64
	reads, writes         atomic.Uint64
	flushes               atomic.Uint64
	discards, zeroes      atomic.Uint64
	readBytes, writeBytes atomic.Uint64
	readTime, writeTime   atomic.Int64
	errors                atomic.Uint64
}

func (c *counters) snapshot() Stats {
	return Stats{
		Connections: int(c.connections.Load()), InFlight: int(c.inFlight.Load()),
		Reads: c.reads.Load(), Writes: c.writes.Load(), Flushes: c.flushes.Load(),
		Discards: c.discards.Load(), WriteZeroes: c.zeroes.Load(),
		ReadBytes: c.readBytes.Load(), WriteBytes: c.writeBytes.Load(),
		ReadTime: time.Duration(c.readTime.Load()), WriteTime: time.Duration(c.writeTime.Load()),
		Errors: c.errors.Load(),
	}
}
