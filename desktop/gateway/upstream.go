package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"drystone.example/drystone/backend/client"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/pki"
)

const (
	dialTimeout = 5 * time.Second

	// A node that failed is not asked first again for this long, doubled with
	// each further failure up to the longest.
	firstRest   = 2 * time.Second
	longestRest = time.Minute

	// maxEndpoints bounds how many nodes are tried for one connection.
	maxEndpoints = 8
)

// errUntrusted is in the chain of an error when who answered could not prove to
// belong to the cluster.
var errUntrusted = errors.New("not the cluster that was pinned")

// An upstream is one cluster, reached by any of its nodes.
type upstream struct {
	transport *http.Transport
	now       func() time.Time

	mu        sync.Mutex // guards what follows; held for moments only
	pin       pki.Pin    // follows the cluster's root when that is replaced
	endpoints []endpoint
	token     model.Secret
	hasToken  bool
	lastUsed  time.Time
}

// An endpoint is one node's address and how it was lately.
type endpoint struct {
	address  string
	failures int
	rests    time.Time // until then others come first
}

func newUpstream(pin pki.Pin, addresses []string) *upstream {
	u := &upstream{pin: pin, now: time.Now}
	u.setEndpoints(addresses)
	u.transport = &http.Transport{
		DialTLSContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return u.dial(ctx) },
		MaxIdleConnsPerHost:   8,
		MaxConnsPerHost:       64,
		IdleConnTimeout:       time.Minute,
		ResponseHeaderTimeout: 2 * time.Minute,
	}
	return u
}

func (u *upstream) close() { u.transport.CloseIdleConnections() }

// setEndpoints replaces the addresses; what is known of those that stay is kept.
func (u *upstream) setEndpoints(addresses []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	old := u.endpoints
	u.endpoints = nil
	for _, a := range addresses {
		e := endpoint{address: a}
		for _, o := range old {
			if o.address == a {
				e = o
			}
		}
		u.endpoints = append(u.endpoints, e)
	}
}

// order lists the addresses to try: those at rest last, otherwise as they were.
func (u *upstream) order() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := u.now()
	u.lastUsed = now
	var ready, resting []string
	for _, e := range u.endpoints {
		if e.rests.After(now) {
			resting = append(resting, e.address)
		} else {
			ready = append(ready, e.address)
		}
	}
	all := append(ready, resting...)
	return all[:min(len(all), maxEndpoints)]
}

// report remembers how a node was. One that works moves to the front, so that the
// next connection goes where this one went.
func (u *upstream) report(address string, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for i := range u.endpoints {
		e := &u.endpoints[i]
		if e.address != address {
			continue
		}
		if ok {
			e.failures, e.rests = 0, time.Time{}
			u.endpoints[0], u.endpoints[i] = u.endpoints[i], u.endpoints[0]
			return
		}
		rest := min(firstRest<<min(e.failures, 10), longestRest)
		e.failures++
		e.rests = u.now().Add(rest)
		return
	}
}

// dial connects to the first node that answers and proves to be of the cluster.
func (u *upstream) dial(ctx context.Context) (net.Conn, error) {
	var failures []error
	for _, address := range u.order() {
		conn, err := u.dialOne(ctx, address)
		if err == nil {
			u.report(address, true)
			return conn, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		u.report(address, false)
		failures = append(failures, err)
	}
	if len(failures) == 0 {
		return nil, model.Errorf(model.Unavailable, "no address of this cluster is known")
	}
	return nil, errors.Join(failures...)
}

func (u *upstream) dialOne(ctx context.Context, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	d := tls.Dialer{
		NetDialer: &net.Dialer{Timeout: dialTimeout},
		Config:    u.tls(address),
	}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &trackedConn{Conn: conn, address: address}, nil
}

// tls is pki's pinned configuration for a node, with a mark on its refusals.
func (u *upstream) tls(address string) *tls.Config {
	config := pki.PinnedTLS(u.trusted(), hostOf(address), u.follow)
	verify := config.VerifyConnection
	config.VerifyConnection = func(cs tls.ConnectionState) error {
		if err := verify(cs); err != nil {
			return errors.Join(errUntrusted, err)
		}
		return nil
	}
	return config
}

// trusted is the pin of the cluster's root, as far as it is known.
func (u *upstream) trusted() pki.Pin {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.pin
}

// follow takes the root that the pinned one vouches for in its place.
func (u *upstream) follow(pin pki.Pin) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.pin = pin
}

// A trackedConn remembers which node it goes to.
type trackedConn struct {
	net.Conn
	address string
}

// demote makes the node that just answered come last for a while: it is up, but
// says that it cannot serve. Connections that idle may lead there, so they go.
func (u *upstream) demote(address string) {
	u.report(address, false)
	u.transport.CloseIdleConnections()
}

// each asks the nodes one after another until one gives an answer; a refusal is
// an answer. It is for the app's own questions.
func (u *upstream) each(ctx context.Context, ask func(*client.Client) error) error {
	var last error
	for _, address := range u.order() {
		c := client.WithTLS(address, u.tls(address), u.session())
		err := ask(c)
		c.Close()
		if model.CodeOf(err) != model.Unavailable {
			if err == nil {
				u.report(address, true)
			}
			return err
		}
		u.report(address, false)
		last = err
		if ctx.Err() != nil {
			break
		}
	}
	if last == nil {
		return model.Errorf(model.Unavailable, "no address of this cluster is known")
	}
	return last
}

func (u *upstream) session() model.Secret {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.token
}

// setSession keeps the token in memory; the vault keeps it on disk.
func (u *upstream) setSession(token model.Secret) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.token, u.hasToken = token, token.Reveal() != ""
}

func (u *upstream) loggedIn() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.hasToken
}

// usedSince reports whether somebody wanted something of the cluster since t.
func (u *upstream) usedSince(t time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.lastUsed.After(t)
}

func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}
