package server

import (
	"context"
	"log/slog"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/model"
)

// A Disk is what a Server serves and what a Remote stands for; *disk.Disk is one.
type Disk interface {
	Prepare(ctx context.Context, p disk.Prepare) (disk.Promise, error)
	Apply(op *disk.Op, done func(error))
	Read(ctx context.Context, r disk.Read, dst []byte, sums []uint32) error
	List(ctx context.Context, l disk.List) (disk.Listing, error)
	Digest(ctx context.Context, l disk.List) (disk.Digest, error)
	ReadVersion(ctx context.Context, vol model.VolumeID, gen model.Generation, column, page uint32,
		epoch model.Epoch, dst []byte) (disk.Version, error)
}

// A Config says who may do what.
type Config struct {
	// MayHold says whether a peer may be the holder of a volume in a generation:
	// nil, or why not, with a code. It is asked once per connection, volume and
	// generation, and may take up to two seconds; nil lets every member. The
	// generation itself is judged by the disk.
	MayHold func(ctx context.Context, peer model.NodeID, vol model.VolumeID, gen model.Generation) error
}

// A Server answers for the disks of this node. Its methods are safe for
// concurrent use.
type Server struct {
	cfg   Config
	disks atomic.Pointer[map[model.DiskID]Disk] // replaced, never changed

	mu       sync.Mutex // guards replacing disks, and:
	sessions map[client]*session
}

// A client is one Client of one node; only its newest connection counts.
type client struct {
	node     model.NodeID
	instance uint64
}

// New makes a server without disks.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg, sessions: map[client]*session{}}
	s.disks.Store(&map[model.DiskID]Disk{})
	return s
}

// Add begins to serve a disk.
func (s *Server) Add(id model.DiskID, d Disk) {
	s.change(func(m map[model.DiskID]Disk) { m[id] = d })
}

// Remove ends it: what was handed to the disk is still answered, all else is
// refused as model.Unavailable.
func (s *Server) Remove(id model.DiskID) {
	s.change(func(m map[model.DiskID]Disk) { delete(m, id) })
}

func (s *Server) change(f func(map[model.DiskID]Disk)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := maps.Clone(*s.disks.Load())
	f(m)
	s.disks.Store(&m)
}

func (s *Server) disk(id model.DiskID) (Disk, error) {
	if d, ok := (*s.disks.Load())[id]; ok {
		return d, nil
	}
	return nil, model.Errorf(model.Unavailable, "disk %s is not served there at present", id)
}

// Serve answers one connection until it ends: register it with
// wire.Transport.Serve(Proto, s.Serve).
func (s *Server) Serve(ctx context.Context, peer model.NodeID, conn net.Conn) {
	instance, err := s.greet(conn)
	if err != nil {
		slog.DebugContext(ctx, "block connection refused", "node", peer, "err", err)
		return
	}
	one := newSession(ctx, s, peer, conn)
	s.supersede(client{peer, instance}, one)
	err = one.run()
	slog.DebugContext(ctx, "block connection ended", "node", peer, "err", err)
	s.mu.Lock()
	if key := (client{peer, instance}); s.sessions[key] == one {
		delete(s.sessions, key)
	}
	s.mu.Unlock()
}

// greet exchanges hellos.
func (s *Server) greet(conn net.Conn) (instance uint64, err error) {
	if err := conn.SetDeadline(time.Now().Add(helloTimeout)); err != nil {
		return 0, err
	}
	if f, ok := conn.(flusher); ok {
		f.Buffer(connBuffer)
	}
	h, err := readHello(conn)
	if err != nil {
		return 0, err
	}
	v := h.choose()
	if _, err := conn.Write(hello{low: v, high: v, instance: h.instance}.encode()); err != nil {
		return 0, err
	}
	if f, ok := conn.(flusher); ok {
		if err := f.Flush(); err != nil {
			return 0, err
		}
	}
	if v == 0 {
		return 0, model.Errorf(model.Invalid, "the peer speaks versions %d to %d of the block protocol", h.low, h.high)
	}
	return h.instance, conn.SetDeadline(time.Time{})
}

// supersede ends the older connection of the same client: from now on nothing
// that it brought is handed to a disk.
func (s *Server) supersede(key client, by *session) {
	s.mu.Lock()
	old := s.sessions[key]
	s.sessions[key] = by
	s.mu.Unlock()
	if old != nil {
		old.end()
	}
}
