package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/must"
	"drystone.example/drystone/backend/pki"
	"drystone.example/drystone/backend/sock"
)

// The limits of a transport.
const (
	handshakeTimeout = 5 * time.Second // from the first byte to admission
	strangersMost    = 128             // connections that have not yet proven who they are
	strangersPerHost = 32              // of these, from one address
	connsPerPeer     = 96              // admitted, of one node
)

// A Config says who we are and who may talk to us. Every field but Network must
// be set.
type Config struct {
	Self    model.NodeID
	Cluster model.ClusterID
	Listen  string  // host:port
	Network Network // nil: TCP
	TLS     *pki.Keeper

	// Allowed says whether a node is a member: nil, or why not. It is asked for
	// every connection, after the peer has proven who it is, and must not block.
	Allowed func(model.NodeID) error
	// Resolve returns a node's host:port. It must not block.
	Resolve func(model.NodeID) (string, error)
}

// A Handler serves one accepted connection, which is closed when it returns. Its
// context ends when the transport stops. The conn is a *Conn.
type Handler func(ctx context.Context, peer model.NodeID, conn net.Conn)

// A Transport is one node's end of the wire. Its methods are safe for concurrent
// use, but Serve and Handle come before Run.
type Transport struct {
	cfg      Config
	handlers map[string]Handler // by ALPN
	methods  map[string]method
	pools    pools

	mu        sync.Mutex
	state     runState
	listener  net.Listener
	conns     map[model.NodeID]map[*Conn]struct{}
	strangers map[string]int // by host
	stranger  map[net.Conn]struct{}
	wg        sync.WaitGroup // goroutines of the transport; added to under mu
}

type runState int

const (
	idle runState = iota
	running
	stopped
)

var errStopped = model.Errorf(model.Unavailable, "this node is shutting down")

// New makes a transport that neither listens nor dials yet.
func New(cfg Config) *Transport {
	must.That(cfg.TLS != nil && cfg.Allowed != nil && cfg.Resolve != nil, "wire: incomplete config")
	id := cfg.TLS.Identity()
	must.That(id == pki.Identity{Cluster: cfg.Cluster, Node: cfg.Self},
		"the certificate is of %s, not of node %s of %s", id, cfg.Self, cfg.Cluster)
	if cfg.Network == nil {
		cfg.Network = tcpFor(cfg.Listen)
	}
	t := &Transport{
		cfg:       cfg,
		handlers:  map[string]Handler{},
		methods:   map[string]method{},
		conns:     map[model.NodeID]map[*Conn]struct{}{},
		strangers: map[string]int{},
		stranger:  map[net.Conn]struct{}{},
	}
	t.pools.byNode = map[model.NodeID]*pool{}
	t.Serve(rpcProto, t.serveCalls)
	return t
}

// alpn is the name of a protocol on the wire. The number is the version of what
// this package adds (the welcome); a protocol negotiates its own version inside.
func alpn(proto string) string { return "drystone-" + proto + "/1" }

// Serve registers what is done with connections of a protocol.
func (t *Transport) Serve(proto string, h Handler) {
	must.That(t.state == idle, "wire: protocol %s registered after Run", proto)
	must.That(t.handlers[alpn(proto)] == nil, "wire: protocol %s registered twice", proto)
	t.handlers[alpn(proto)] = h
}

// Listen opens the port, so that a caller learns of a taken one before it starts
// the rest. Run calls it if nobody has.
func (t *Transport) Listen(ctx context.Context) (net.Addr, error) {
	t.mu.Lock()
	l := t.listener
	t.mu.Unlock()
	if l != nil {
		return l.Addr(), nil
	}
	l, err := t.cfg.Network.Listen(ctx, t.cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for nodes on %s: %w", t.cfg.Listen, err)
	}
	t.mu.Lock()
	t.listener = l
	t.mu.Unlock()
	return l.Addr(), nil
}

// Run accepts connections until ctx ends; then it closes all there are, also the
// dialled ones, and waits for the handlers. It is called once.
func (t *Transport) Run(ctx context.Context) error {
	if _, err := t.Listen(ctx); err != nil {
		return err
	}
	t.mu.Lock()
	must.That(t.state == idle, "wire: run twice")
	t.state = running
	l := t.listener
	t.mu.Unlock()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	unhook := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer unhook()
	err := t.acceptAll(ctx, l)
	cancel()
	_ = l.Close()
	t.stop()
	return err
}

// acceptAll returns when ctx ends or the listener has failed for good.
func (t *Transport) acceptAll(ctx context.Context, l net.Listener) error {
	const pauseMost = time.Second
	pause := 5 * time.Millisecond
	config := t.cfg.TLS.NodeServer(t.protocols())
	for {
		raw, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = raw.Close()
			}
			return ctx.Err()
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept nodes: %w", err)
		}
		if err != nil { // out of descriptors, most likely
			slog.WarnContext(ctx, "node connection not accepted", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
			pause = min(2*pause, pauseMost)
			continue
		}
		pause = 5 * time.Millisecond
		t.takeStranger(ctx, raw, config)
	}
}

func (t *Transport) protocols() []string {
	names := make([]string, 0, len(t.handlers))
	for name := range t.handlers {
		names = append(names, name)
	}
	return names
}

// stop closes everything and waits for every goroutine.
func (t *Transport) stop() {
	t.mu.Lock()
	t.state = stopped
	var all []*Conn
	for _, conns := range t.conns {
		for c := range conns {
			all = append(all, c)
		}
	}
	strangers := slices.Collect(maps.Keys(t.stranger))
	t.mu.Unlock()
	for _, raw := range strangers {
		_ = raw.Close()
	}
	for _, c := range all {
		c.Abort()
	}
	t.wg.Wait()
}

// takeStranger serves a new connection in a goroutine of its own, or closes it if
// there are too many that have not proven who they are.
func (t *Transport) takeStranger(ctx context.Context, raw net.Conn, config *tls.Config) {
	host := hostOf(raw)
	t.mu.Lock()
	ok := t.state == running && len(t.stranger) < strangersMost && t.strangers[host] < strangersPerHost
	if ok {
		t.strangers[host]++
		t.stranger[raw] = struct{}{}
		t.wg.Add(1)
	}
	t.mu.Unlock()
	if !ok {
		_ = raw.Close()
		return
	}
	go func() {
		defer t.wg.Done()
		conn, handler, err := t.greet(ctx, raw, config)
		t.mu.Lock()
		delete(t.stranger, raw)
		if t.strangers[host]--; t.strangers[host] == 0 {
			delete(t.strangers, host)
		}
		t.mu.Unlock()
		if err != nil {
			_ = raw.Close()
			slog.DebugContext(ctx, "node connection refused", "address", host, "err", err)
			return
		}
		handler(ctx, conn.peer, conn)
		_ = conn.Close()
	}()
}

func hostOf(c net.Conn) string {
	addr := c.RemoteAddr().String()
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return addr
}

// greet finds out who it is and says welcome, or why not.
func (t *Transport) greet(ctx context.Context, raw net.Conn, config *tls.Config) (*Conn, Handler, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	if err := raw.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return nil, nil, fmt.Errorf("set deadline: %w", err)
	}
	conn := &Conn{raw: &rawConn{Conn: sock.New(raw)}, owner: t}
	conn.Conn = tls.Server(conn.raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, nil, fmt.Errorf("shake hands: %w", err)
	}
	who, err := pki.PeerIdentity(conn.ConnectionState())
	if err != nil {
		return nil, nil, err
	}
	conn.peer = who.Node
	handler := t.handlers[conn.ConnectionState().NegotiatedProtocol]
	if handler == nil {
		return nil, nil, model.Errorf(model.Invalid, "node %s speaks none of our protocols", who.Node)
	}
	refusal := t.admit(conn)
	if err := writeWelcome(conn, refusal); err != nil {
		t.forget(conn)
		return nil, nil, err
	}
	if refusal != nil {
		return nil, nil, refusal
	}
	if err := raw.SetDeadline(time.Time{}); err != nil {
		t.forget(conn)
		return nil, nil, fmt.Errorf("clear deadline: %w", err)
	}
	return conn, handler, nil
}

// admit puts a connection into the books before it asks whether the node is a
// member: a node removed meanwhile is found either here or by Drop.
func (t *Transport) admit(c *Conn) error {
	t.mu.Lock()
	if t.state == stopped {
		t.mu.Unlock()
		return errStopped
	}
	of := t.conns[c.peer]
	if len(of) >= connsPerPeer {
		t.mu.Unlock()
		return model.Errorf(model.Unavailable, "node %s has %d connections here, which is the most", c.peer, connsPerPeer)
	}
	if of == nil {
		of = map[*Conn]struct{}{}
		t.conns[c.peer] = of
	}
	of[c] = struct{}{}
	t.mu.Unlock()
	if err := t.cfg.Allowed(c.peer); err != nil {
		t.forget(c)
		return fmt.Errorf("admit node %s: %w", c.peer, err)
	}
	return nil
}

func (t *Transport) forget(c *Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.conns[c.peer], c)
	if len(t.conns[c.peer]) == 0 {
		delete(t.conns, c.peer)
	}
}

// Drop cuts every connection with a node. Allowed must refuse the node already.
func (t *Transport) Drop(node model.NodeID) {
	t.mu.Lock()
	conns := make([]*Conn, 0, len(t.conns[node]))
	for c := range t.conns[node] {
		conns = append(conns, c)
	}
	t.mu.Unlock()
	for _, c := range conns {
		c.Abort()
	}
	t.pools.drop(node)
}

// Dial connects to a node for a protocol. It returns a *Conn whose peer has
// proven to be that node and has admitted us; the error is model.Denied if it
// has not, and model.Unavailable if it cannot be reached now. Without a deadline
// in ctx it takes at most five seconds.
func (t *Transport) Dial(ctx context.Context, node model.NodeID, proto string) (net.Conn, error) {
	c, err := t.dial(ctx, node, proto)
	if err != nil {
		return nil, fmt.Errorf("connect to node %s: %w", node, err)
	}
	return c, nil
}

func (t *Transport) dial(ctx context.Context, node model.NodeID, proto string) (*Conn, error) {
	if err := t.cfg.Allowed(node); err != nil {
		return nil, err
	}
	addr, err := t.cfg.Resolve(node)
	if err != nil {
		return nil, fmt.Errorf("find its address: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	raw, err := t.cfg.Network.Dial(ctx, addr)
	if err != nil {
		return nil, model.Errorf(model.Unavailable, "%s does not answer: %w", addr, err)
	}
	c := &Conn{raw: &rawConn{Conn: sock.New(raw)}, owner: t, peer: node}
	c.Conn = tls.Client(c.raw, t.cfg.TLS.NodeClient(alpn(proto), node))
	if err := t.enter(ctx, c); err != nil {
		_ = raw.Close()
		return nil, err
	}
	if err := t.admit(c); err != nil {
		_ = raw.Close()
		return nil, err
	}
	return c, nil
}

// enter shakes hands and waits for the welcome.
func (t *Transport) enter(ctx context.Context, c *Conn) error {
	cut := context.AfterFunc(ctx, func() { _ = c.raw.Close() })
	defer cut()
	if err := c.HandshakeContext(ctx); err != nil {
		return refusedOrLost(err)
	}
	if err := readWelcome(c); err != nil {
		return err
	}
	if !cut() {
		return model.Errorf(model.Unavailable, "it took too long: %w", ctx.Err())
	}
	return nil
}

// refusedOrLost tells a peer that does not trust us, or that we do not trust,
// from one that is not there.
func refusedOrLost(err error) error {
	var op *net.OpError
	switch {
	case model.CodeOf(err) == model.Denied:
		return err
	case errors.As(err, &op) && op.Op == "remote error",
		strings.HasPrefix(err.Error(), "tls: "):
		return model.Errorf(model.Denied, "it refused us: %w", err)
	default:
		return model.Errorf(model.Unavailable, "the connection broke: %w", err)
	}
}

// The welcome is what the accepting side says once it knows who is there.
const (
	welcomeVersion = 1

	welcomeYes     = 0
	welcomeDenied  = 1 // not a member, or no longer
	welcomeUnready = 2 // too many connections, or shutting down
)

func writeWelcome(w io.Writer, refusal error) error {
	status := byte(welcomeYes)
	switch {
	case refusal == nil:
	case model.CodeOf(refusal) == model.Unavailable:
		status = welcomeUnready
	default:
		status = welcomeDenied
	}
	if _, err := w.Write([]byte{'D', 'W', welcomeVersion, status}); err != nil {
		return fmt.Errorf("say welcome: %w", err)
	}
	return nil
}

func readWelcome(r io.Reader) error {
	var b [4]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return refusedOrLost(err)
	}
	switch {
	case b[0] != 'D' || b[1] != 'W' || b[2] != welcomeVersion:
		return model.Errorf(model.Invalid, "its greeting is not one we know")
	case b[3] == welcomeYes:
		return nil
	case b[3] == welcomeUnready:
		return model.Errorf(model.Unavailable, "it has no room for a connection now")
	default:
		return model.Errorf(model.Denied, "it says that this node is not a member of the cluster")
	}
}
