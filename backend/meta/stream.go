package meta

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"drystone.example/drystone/backend/meta/raftlog"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/wire"
)

// raftProto is the wire's protocol that raft speaks in.
const raftProto = "raft"

// Raft waits longer after each failure to reach a peer, up to ten seconds, and a
// peer that comes back would be left waiting as long for what it missed. So a
// failure is kept from raft for a while.
const (
	reconnectPause = 200 * time.Millisecond
	reconnectMost  = time.Minute
)

// candidacyPause is how long a node whose log hung does not try to lead.
const candidacyPause = 60 * time.Second

// A stream gives raft connections of the wire. Raft's addresses are the nodes'
// identifiers; the wire knows where they are.
type stream struct {
	self     model.NodeID
	wire     *wire.Transport
	accepted chan net.Conn

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
}

func newStream(self model.NodeID, w *wire.Transport) *stream {
	s := &stream{self: self, wire: w, accepted: make(chan net.Conn)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	w.Serve(raftProto, s.serve)
	return s
}

// serve hands a connection to raft and waits until raft is done with it.
func (s *stream) serve(ctx context.Context, _ model.NodeID, conn net.Conn) {
	c := &raftConn{Conn: conn, done: make(chan struct{})}
	select {
	case s.accepted <- c:
	case <-s.ctx.Done():
		return
	case <-ctx.Done():
		return
	}
	select {
	case <-c.done:
	case <-s.ctx.Done():
	case <-ctx.Done():
	}
}

// A raftConn tells when raft has closed it.
type raftConn struct {
	net.Conn
	once sync.Once
	done chan struct{}
}

// Close implements net.Conn.
func (c *raftConn) Close() error {
	c.once.Do(func() { close(c.done) })
	return c.Conn.Close()
}

// Accept implements net.Listener.
func (s *stream) Accept() (net.Conn, error) {
	select {
	case c := <-s.accepted:
		return c, nil
	case <-s.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener: every connection that was accepted ends.
func (s *stream) Close() error {
	s.cancel()
	return nil
}

// Addr implements net.Listener.
func (s *stream) Addr() net.Addr { return raftAddr(serverID(s.self)) }

// Dial implements raft.StreamLayer.
func (s *stream) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	id, err := nodeID(raft.ServerID(address))
	if err != nil {
		return nil, fmt.Errorf("dial for raft: %w", err)
	}
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	return s.wire.Dial(ctx, id, raftProto)
}

type raftAddr string

// Network implements net.Addr.
func (raftAddr) Network() string { return raftProto }

// String implements net.Addr.
func (a raftAddr) String() string { return string(a) }

// A transport is raft's own over a stream, with three things added: it notes when
// each peer last agreed that we lead, it does not ask for votes while our disk is
// suspect, and it tries again by itself to send entries.
type transport struct {
	*raft.NetworkTransport
	log    *raftlog.Store
	closed <-chan struct{}
	leads  func(term uint64) bool // whether it still makes sense; set before use
	// stored is told that a peer has stored entries, and of what commit it heard with
	// them; set before use.
	stored func(peer raft.Server, commit uint64)

	mu   sync.Mutex // guards what follows
	tick uint64     // counts moments
	acks map[raft.ServerID]ack
	news chan struct{}          // closed when acks has changed
	busy map[raft.ServerID]bool // peers with an announcement on its way; true: another is to follow
}

// An ack says that a peer was in a term at some time after the moment asked.
type ack struct {
	term  uint64
	asked uint64
}

func newTransport(s *stream, log *raftlog.Store, l *logger) *transport {
	return &transport{
		NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream: s, Logger: l, MaxPool: 3, MaxRPCsInFlight: 1, Timeout: rpcTimeout,
		}),
		log: log, closed: s.ctx.Done(),
		acks: map[raft.ServerID]ack{},
		news: make(chan struct{}),
		busy: map[raft.ServerID]bool{},
	}
}

// Close ends every connection, dialled and accepted.
func (t *transport) Close() error {
	err := t.NetworkTransport.Close()
	t.CloseStreams()
	return err
}

// AppendEntries implements raft.Transport.
func (t *transport) AppendEntries(id raft.ServerID, to raft.ServerAddress,
	req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse,
) error {
	began := time.Now()
	for {
		err := t.appendOnce(id, to, req, resp)
		if err == nil && resp.Success && len(req.Entries) > 0 {
			t.stored(raft.Server{ID: id, Address: to}, req.LeaderCommitIndex)
		}
		heartbeat := req.PrevLogEntry == 0 && len(req.Entries) == 0
		if err == nil || heartbeat || time.Since(began) > reconnectMost || !t.leads(req.Term) {
			return err
		}
		select {
		case <-time.After(reconnectPause):
		case <-t.closed:
			return err
		}
	}
}

// appendOnce sends one request and notes the answer.
func (t *transport) appendOnce(id raft.ServerID, to raft.ServerAddress,
	req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse,
) error {
	asked := t.moment()
	err := t.NetworkTransport.AppendEntries(id, to, req, resp)
	if err == nil && resp.Term == req.Term {
		t.mu.Lock()
		defer t.mu.Unlock()
		if old := t.acks[id]; old.term <= req.Term && old.asked < asked {
			t.acks[id] = ack{term: req.Term, asked: asked}
			close(t.news)
			t.news = make(chan struct{})
		}
	}
	return err
}

// heard returns what is closed at the next ack.
func (t *transport) heard() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.news
}

// moment returns a number that is higher than all before.
func (t *transport) moment() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tick++
	return t.tick
}

// agreed reports whether a peer, asked after a moment, was in the term.
func (t *transport) agreed(id raft.ServerID, term, after uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.acks[id]
	return a.term == term && a.asked > after
}

// begin reports whether an announcement may be sent to a peer; then end follows.
// If not, one is on its way, and end will say that another is to follow.
func (t *transport) begin(id raft.ServerID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, busy := t.busy[id]
	t.busy[id] = busy
	return !busy
}

// end reports whether another announcement is to follow; then end follows again.
func (t *transport) end(id raft.ServerID) (more bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.busy[id] {
		t.busy[id] = false
		return true
	}
	delete(t.busy, id)
	return false
}

// forget ends what begin began, whatever is to follow.
func (t *transport) forget(id raft.ServerID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.busy, id)
}

// errSuspect keeps a node from leading whose disk hung.
var errSuspect = model.Errorf(model.Unavailable, "the disk of raft's log hung not long ago")

func (t *transport) mayLead() error {
	if last := t.log.LastHung(); !last.IsZero() && time.Since(last) < candidacyPause || t.log.Err() != nil {
		return errSuspect
	}
	return nil
}

// RequestPreVote implements raft.WithPreVote.
func (t *transport) RequestPreVote(id raft.ServerID, to raft.ServerAddress,
	req *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse,
) error {
	if err := t.mayLead(); err != nil {
		return err
	}
	return t.NetworkTransport.RequestPreVote(id, to, req, resp)
}

// RequestVote implements raft.Transport.
func (t *transport) RequestVote(id raft.ServerID, to raft.ServerAddress,
	req *raft.RequestVoteRequest, resp *raft.RequestVoteResponse,
) error {
	if err := t.mayLead(); err != nil {
		return err
	}
	return t.NetworkTransport.RequestVote(id, to, req, resp)
}
