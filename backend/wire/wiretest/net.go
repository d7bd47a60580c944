// Package wiretest is a network in memory for tests: hosts that listen and dial,
// links that are slow or cut in one direction, hosts that die. It blocks only in
// ways that testing/synctest understands, so virtual time runs on it.
package wiretest

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"drystone.example/drystone/backend/wire"
)

// A Net is a set of hosts, each with a name that stands where an IP address
// would. Its methods are safe for concurrent use.
type Net struct {
	mu        sync.Mutex
	listeners map[string]*listener // by host:port
	links     map[route]*link
	conns     map[*conn]struct{}
	ports     int

	sent atomic.Int64
}

type route struct{ from, to string }

// A link is one direction between two hosts.
type link struct {
	mu      sync.Mutex
	delay   time.Duration
	cut     bool
	changed chan struct{} // closed and replaced when delay or cut change
}

// NewNet returns a network without hosts, where everything arrives at once.
func NewNet() *Net {
	return &Net{
		listeners: map[string]*listener{},
		links:     map[route]*link{},
		conns:     map[*conn]struct{}{},
		ports:     40000,
	}
}

// Host returns the network as one host sees it. A host needs no registration.
func (n *Net) Host(name string) wire.Network { return &host{net: n, name: name} }

// Delay makes everything from one host to another arrive d later.
func (n *Net) Delay(from, to string, d time.Duration) {
	n.link(from, to).set(func(l *link) { l.delay = d })
}

// Cut holds back everything from one host to another, without a word to either,
// until Heal: then what was held arrives, as TCP would send it again.
func (n *Net) Cut(from, to string) { n.link(from, to).set(func(l *link) { l.cut = true }) }

// Heal undoes Cut.
func (n *Net) Heal(from, to string) { n.link(from, to).set(func(l *link) { l.cut = false }) }

// Partition cuts both directions between two hosts; Join heals them.
func (n *Net) Partition(a, b string) { n.Cut(a, b); n.Cut(b, a) }

// Join undoes Partition.
func (n *Net) Join(a, b string) { n.Heal(a, b); n.Heal(b, a) }

// Kill ends a host's listeners and connections as the death of its process does:
// what it sent and had not arrived is lost, and its peers see a reset.
func (n *Net) Kill(name string) {
	n.mu.Lock()
	var listeners []*listener
	for _, l := range n.listeners {
		if l.host == name {
			listeners = append(listeners, l)
		}
	}
	var conns []*conn
	for c := range n.conns {
		if c.local.host == name {
			conns = append(conns, c)
		}
	}
	n.mu.Unlock()
	for _, l := range listeners {
		_ = l.Close()
	}
	for _, c := range conns {
		c.reset()
	}
}

// Sent returns how many bytes all hosts have sent.
func (n *Net) Sent() int64 { return n.sent.Load() }

func (n *Net) link(from, to string) *link {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.links[route{from, to}]
	if l == nil {
		l = &link{changed: make(chan struct{})}
		n.links[route{from, to}] = l
	}
	return l
}

func (l *link) set(change func(*link)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(l)
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *link) get() (delay time.Duration, cut bool, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.delay, l.cut, l.changed
}

// cross waits as long as a first packet takes.
func (l *link) cross(ctx context.Context) error {
	for {
		delay, cut, changed := l.get()
		var arrived <-chan time.Time
		if !cut {
			if delay == 0 {
				return nil
			}
			arrived = time.After(delay)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-arrived:
			return nil
		}
	}
}

type addr struct {
	host string
	port string
}

func (addr) Network() string  { return "mem" }
func (a addr) String() string { return net.JoinHostPort(a.host, a.port) }

type host struct {
	net  *Net
	name string
}

// Listen implements wire.Network. Port 0 draws one.
func (h *host) Listen(_ context.Context, address string) (net.Listener, error) {
	name, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if name != h.name {
		return nil, fmt.Errorf("listen on %s: host %s is not there: %w", address, h.name, syscall.EADDRNOTAVAIL)
	}
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if port == "0" {
		port = n.port()
	}
	at := addr{name, port}
	if n.listeners[at.String()] != nil {
		return nil, fmt.Errorf("listen on %s: %w", at, syscall.EADDRINUSE)
	}
	l := &listener{net: n, host: name, addr: at, queue: make(chan *conn, 128), done: make(chan struct{})}
	n.listeners[at.String()] = l
	return l, nil
}

// port draws a port; n.mu is held.
func (n *Net) port() string {
	n.ports++
	return strconv.Itoa(n.ports)
}

// Dial implements wire.Network.
func (h *host) Dial(ctx context.Context, address string) (net.Conn, error) {
	name, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	out, back := h.net.link(h.name, name), h.net.link(name, h.name)
	if err := out.cross(ctx); err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	n := h.net
	n.mu.Lock()
	l := n.listeners[address]
	here := addr{h.name, n.port()}
	n.mu.Unlock()
	if err := back.cross(ctx); err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	if l == nil {
		return nil, fmt.Errorf("dial %s: %w", address, syscall.ECONNREFUSED)
	}
	there, backThere := newHalf(out), newHalf(back)
	near := &conn{net: n, local: here, remote: addr{name, port}, in: backThere, out: there}
	far := &conn{net: n, local: addr{name, port}, remote: here, in: there, out: backThere}
	n.mu.Lock()
	n.conns[near], n.conns[far] = struct{}{}, struct{}{}
	n.mu.Unlock()
	select {
	case <-l.done:
	case l.queue <- far:
		select {
		case <-l.done: // closed at the same moment: nobody will accept it
		default:
			return near, nil
		}
	case <-ctx.Done():
		err = ctx.Err()
	}
	near.reset()
	far.reset()
	if err == nil {
		err = syscall.ECONNREFUSED
	}
	return nil, fmt.Errorf("dial %s: %w", address, err)
}

type listener struct {
	net   *Net
	host  string
	addr  addr
	queue chan *conn
	once  sync.Once
	done  chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, net.ErrClosed
	default:
	}
	select {
	case <-l.done:
		return nil, net.ErrClosed
	case c := <-l.queue:
		return c, nil
	}
}

func (l *listener) Addr() net.Addr { return l.addr }

func (l *listener) Close() error {
	l.once.Do(func() {
		l.net.mu.Lock()
		delete(l.net.listeners, l.addr.String())
		l.net.mu.Unlock()
		close(l.done)
		for {
			select {
			case c := <-l.queue:
				c.reset()
			default:
				return
			}
		}
	})
	return nil
}

// A conn is one end of a connection.
type conn struct {
	net           *Net
	local, remote addr
	in, out       *half
}

func (c *conn) Read(p []byte) (int, error) { return c.in.read(p) }
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.out.write(p)
	c.net.sent.Add(int64(n))
	return n, err
}
func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) SetDeadline(t time.Time) error {
	c.in.setDeadline(&c.in.readBy, t)
	c.out.setDeadline(&c.out.writeBy, t)
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.setDeadline(&c.in.readBy, t)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.setDeadline(&c.out.writeBy, t)
	return nil
}

// Close lets what was written arrive, then the peer reads io.EOF.
func (c *conn) Close() error {
	c.forget()
	c.out.finish()
	c.in.fail(net.ErrClosed, syscall.EPIPE)
	return nil
}

// reset ends both directions at once.
func (c *conn) reset() {
	c.forget()
	c.out.fail(syscall.ECONNRESET, net.ErrClosed)
	c.in.fail(net.ErrClosed, syscall.ECONNRESET)
}

func (c *conn) forget() {
	c.net.mu.Lock()
	delete(c.net.conns, c)
	c.net.mu.Unlock()
}

// window is how much one direction holds before the writer waits.
const window = 256 << 10

// A half is one direction of a connection.
type half struct {
	link *link

	mu       sync.Mutex
	flying   []segment
	size     int
	readBy   time.Time
	writeBy  time.Time
	finished bool  // the writer has closed
	readErr  error // instead of everything else, for the reader
	writeErr error // for the writer
	changed  chan struct{}
}

type segment struct {
	data []byte
	at   time.Time // when it arrives
}

func newHalf(l *link) *half { return &half{link: l, changed: make(chan struct{})} }

// wake makes waiting readers and writers look again; h.mu is held.
func (h *half) wake() {
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *half) setDeadline(which *time.Time, t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	*which = t
	h.wake()
}

func (h *half) finish() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.finished = true
	if h.writeErr == nil {
		h.writeErr = net.ErrClosed
	}
	h.wake()
}

func (h *half) fail(forReader, forWriter error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.readErr == nil {
		h.readErr = forReader
	}
	if h.writeErr == nil {
		h.writeErr = forWriter
	}
	h.flying, h.size = nil, 0
	h.wake()
}

func (h *half) read(p []byte) (int, error) {
	for {
		h.mu.Lock()
		_, cut, linkChanged := h.link.get() // under h.mu: what is written after a cut is not read
		n, wait, err := h.tryRead(p, cut)
		changed := h.changed
		if n > 0 {
			h.wake()
		}
		h.mu.Unlock()
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
		await(wait, changed, linkChanged)
	}
}

// tryRead takes what has arrived, or says how long to wait at most (0: for a
// change). h.mu is held.
func (h *half) tryRead(p []byte, cut bool) (n int, wait time.Duration, err error) {
	now := time.Now()
	switch {
	case h.readErr != nil:
		return 0, 0, h.readErr
	case !h.readBy.IsZero() && !now.Before(h.readBy):
		return 0, 0, os.ErrDeadlineExceeded
	}
	for !cut && n < len(p) && len(h.flying) > 0 && !h.flying[0].at.After(now) {
		s := &h.flying[0]
		k := copy(p[n:], s.data)
		n, h.size = n+k, h.size-k
		if s.data = s.data[k:]; len(s.data) == 0 {
			h.flying = h.flying[1:]
		}
	}
	if n > 0 {
		return n, 0, nil
	}
	if !cut && h.finished && len(h.flying) == 0 {
		return 0, 0, io.EOF
	}
	if !h.readBy.IsZero() {
		wait = h.readBy.Sub(now)
	}
	if !cut && len(h.flying) > 0 {
		if until := h.flying[0].at.Sub(now); wait == 0 || until < wait {
			wait = until
		}
	}
	return 0, wait, nil
}

func (h *half) write(p []byte) (int, error) {
	done := 0
	for {
		delay, _, _ := h.link.get()
		h.mu.Lock()
		n, wait, err := h.tryWrite(p[done:], delay)
		changed := h.changed
		if n > 0 {
			h.wake()
		}
		h.mu.Unlock()
		done += n
		if err != nil || done == len(p) {
			return done, err
		}
		if n == 0 {
			await(wait, changed, nil)
		}
	}
}

// tryWrite sends what fits into the window. h.mu is held.
func (h *half) tryWrite(p []byte, delay time.Duration) (n int, wait time.Duration, err error) {
	now := time.Now()
	switch {
	case h.writeErr != nil:
		return 0, 0, h.writeErr
	case !h.writeBy.IsZero() && !now.Before(h.writeBy):
		return 0, 0, os.ErrDeadlineExceeded
	}
	n = min(len(p), window-h.size)
	if n > 0 {
		at := now.Add(delay)
		if k := len(h.flying); k > 0 && h.flying[k-1].at.After(at) {
			at = h.flying[k-1].at // a shorter delay must not reorder
		}
		h.flying = append(h.flying, segment{data: append([]byte(nil), p[:n]...), at: at})
		h.size += n
		return n, 0, nil
	}
	if !h.writeBy.IsZero() {
		wait = h.writeBy.Sub(now)
	}
	return 0, wait, nil
}

// await returns on a change or, unless wait is 0, when it has passed.
func await(wait time.Duration, a, b <-chan struct{}) {
	var timeout <-chan time.Time
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-a:
	case <-b:
	case <-timeout:
	}
}
