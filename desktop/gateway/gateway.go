package gateway

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"drystone.example/drystone/backend/client"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/desktop/store"
	"drystone.example/drystone/desktop/vault"
)

// Config is what a Gateway is made of; every field but Page is needed.
type Config struct {
	Store *store.Store
	Vault vault.Vault
	Log   *slog.Logger

	// Origins are the pages that may use the gateway. The gateway's own origin is
	// added if it serves the page.
	Origins []string

	// Page is served at / to anybody on this machine, if it is not nil: it holds
	// no secret. The desktop's window brings the page itself.
	Page http.Handler
}

// A Gateway is a listener on 127.0.0.1.
type Gateway struct {
	store   *store.Store
	vault   vault.Vault
	log     *slog.Logger
	origins []string
	token   string
	ln      net.Listener
	server  *http.Server

	mu        sync.Mutex // guards what follows; held for moments only
	upstreams map[model.ClusterID]*upstream
	ending    bool
	requests  sync.WaitGroup // those being answered, websockets too
}

// refreshEvery is how often the addresses of clusters in use are read again.
const refreshEvery = time.Minute

// Listen opens the listener on a free port and draws the launch token. Requests
// are answered once Run runs.
func Listen(ctx context.Context, c Config) (*Gateway, error) {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the page: %w", err)
	}
	var token [32]byte
	rand.Read(token[:]) // never fails (crypto/rand)
	g := &Gateway{
		store: c.Store, vault: c.Vault, log: c.Log, ln: ln,
		origins:   c.Origins,
		token:     hex.EncodeToString(token[:]),
		upstreams: map[model.ClusterID]*upstream{},
	}
	mux := http.NewServeMux()
	mux.Handle("/desk/v1/", g.guard(g.desk()))
	mux.Handle("/c/{cluster}/api/v1/", g.guard(http.HandlerFunc(g.serveCluster)))
	if c.Page != nil {
		g.origins = append(append([]string{}, c.Origins...), g.URL())
		mux.Handle("/", g.ownHost(c.Page))
	}
	g.server = &http.Server{
		Handler:           g.counted(mux),
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug),
	}
	return g, nil
}

// Address is the host and port of the listener.
func (g *Gateway) Address() string { return g.ln.Addr().String() }

// URL is where the page finds the gateway, without a path.
func (g *Gateway) URL() string { return "http://" + g.Address() }

// Token is the token of this launch. Only the page may have it.
func (g *Gateway) Token() string { return g.token }

// Run serves until ctx ends, and returns when every request has been answered or
// cut off.
func (g *Gateway) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g.server.BaseContext = func(net.Listener) context.Context { return ctx }
	refreshed := make(chan struct{})
	go func() {
		defer close(refreshed)
		g.refresh(ctx)
	}()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		//nolint:errcheck // the process is ending; what Close could not close ends with it
		g.server.Close()
	}()
	err := g.server.Serve(g.ln)
	cancel()
	<-stopped
	<-refreshed
	g.mu.Lock()
	g.ending = true
	g.mu.Unlock()
	g.requests.Wait()
	g.closeUpstreams()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve the page: %w", err)
}

// counted lets Run wait for what it serves: closing the server does not wait for
// requests, and does not know of websockets.
func (g *Gateway) counted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		ending := g.ending
		if !ending {
			g.requests.Add(1)
		}
		g.mu.Unlock()
		if ending {
			return
		}
		defer g.requests.Done()
		next.ServeHTTP(w, r)
	})
}

// ownHost serves the page to who names the gateway by its own address.
func (g *Gateway) ownHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != g.Address() {
			http.Error(w, "this address is not for you", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// upstream returns the one upstream of a known cluster.
func (g *Gateway) upstream(ctx context.Context, id model.ClusterID) (*upstream, error) {
	if u := g.open(id); u != nil {
		return u, nil
	}
	c, err := g.store.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	fresh := newUpstream(c.Pin, c.Endpoints)
	token, err := g.vault.Get(id)
	switch {
	case err == nil:
		fresh.setSession(token)
	case model.CodeOf(err) == model.NotFound:
	default:
		// Without the vault a person can still log in, for this launch.
		g.log.Warn("vault", "cluster", id.String(), "err", err)
	}
	return g.adopt(id, fresh), nil
}

func (g *Gateway) open(id model.ClusterID) *upstream {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.upstreams[id]
}

// adopt makes u the cluster's upstream, unless somebody else was faster.
func (g *Gateway) adopt(id model.ClusterID, u *upstream) *upstream {
	g.mu.Lock()
	defer g.mu.Unlock()
	if have := g.upstreams[id]; have != nil {
		return have
	}
	g.upstreams[id] = u
	return u
}

func (g *Gateway) drop(id model.ClusterID) {
	g.mu.Lock()
	u := g.upstreams[id]
	delete(g.upstreams, id)
	g.mu.Unlock()
	if u != nil {
		u.close()
	}
}

func (g *Gateway) closeUpstreams() {
	g.mu.Lock()
	all := g.upstreams
	g.upstreams = map[model.ClusterID]*upstream{}
	g.mu.Unlock()
	for _, u := range all {
		u.close()
	}
}

// refresh keeps the addresses of clusters that are in use up to date, so that
// there is a next node when one goes.
func (g *Gateway) refresh(ctx context.Context) {
	tick := time.NewTicker(refreshEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		g.mu.Lock()
		used := map[model.ClusterID]*upstream{}
		for id, u := range g.upstreams {
			if u.loggedIn() && u.usedSince(time.Now().Add(-2*refreshEvery)) {
				used[id] = u
			}
		}
		g.mu.Unlock()
		for id, u := range used {
			if err := g.discover(ctx, id, u); err != nil {
				g.log.Debug("addresses not refreshed", "cluster", id.String(), "err", err)
			}
		}
	}
}

// discover asks a cluster for its nodes and keeps their addresses, and the pin of its
// root, which may have been replaced. The address in use stays first.
func (g *Gateway) discover(ctx context.Context, id model.ClusterID, u *upstream) error {
	ctx, cancel := context.WithTimeout(ctx, 2*dialTimeout)
	defer cancel()
	var found []string
	err := u.each(ctx, func(c *client.Client) error {
		nodes, err := c.Nodes(ctx)
		if err != nil {
			return err
		}
		found = []string{c.Where()}
		for _, n := range nodes.Items {
			if a := addressOf(n.API); a != "" && a != c.Where() {
				found = append(found, a)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	u.setEndpoints(found)
	_, err = g.store.Update(ctx, id, func(c *store.Cluster) { c.Endpoints, c.Pin = found, u.trusted() })
	return err
}

// defaultPort is where nodes serve people.
const defaultPort = "8443"

// addressOf is the host and port of a node's API.
func addressOf(api string) string {
	u, err := url.Parse(api)
	if err != nil || u.Hostname() == "" {
		return ""
	}
	port := u.Port()
	if port == "" {
		port = defaultPort
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// parseAddress reads what a person types: a host, a host with a port, or a URL.
func parseAddress(s string) (string, error) {
	s = strings.TrimSpace(s)
	s = strings.TrimPrefix(s, "https://")
	s, _, _ = strings.Cut(s, "/")
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = strings.Trim(s, "[]"), defaultPort
	}
	if host == "" || port == "" || strings.ContainsAny(host, " \t@?#\\") {
		return "", model.Errorf(model.Invalid, "%q is not an address: give a host, or host:port", s)
	}
	return net.JoinHostPort(host, port), nil
}
