package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"drystone.example/drystone/backend/auth"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/unixsock"
)

// The bounds of a connection and a request (docs/ARCHITECTURE.md).
const (
	headerTime = 5 * time.Second
	readTime   = 30 * time.Second
	writeTime  = 90 * time.Second // of the page; every route has its own
	idleTime   = 2 * time.Minute
	answerTime = 15 * time.Second // to take an answer
	maxHeader  = 16 << 10
	closeTime  = 5 * time.Second // for requests under way when the server stops
)

// Base is where the API begins.
const Base = "/api/v1"

// A Server is one node's API. It may serve as soon as the record is there.
type Server struct {
	Config

	handler http.Handler
	spec    huma.API
	limits  limits
	live    *hub

	// stopping is closed when Run ends, so that streams and consoles, which
	// the HTTP server does not wait for, end too; open counts those.
	stopping chan struct{}
	stopOnce sync.Once
	open     sync.WaitGroup
}

// limits are the rates of one node, coarse by design: each node has its own.
type limits struct {
	public   *auth.Limiter // by address: what needs no log-in
	stranger *auth.Limiter // by address: tokens that nobody here knows
	session  *auth.Limiter // by session
	account  *auth.Limiter // by name: log-ins
	login    *auth.Limiter // by address: log-ins
	join     *auth.Limiter // by address
	joins    *auth.Limiter // all together
}

func newLimits() limits {
	return limits{
		public:   auth.NewLimiter(20, time.Second, 100),
		stranger: auth.NewLimiter(2, time.Second, 20),
		session:  auth.NewLimiter(50, time.Second, 200),
		account:  auth.NewLimiter(5, time.Minute, 5),
		login:    auth.NewLimiter(20, time.Minute, 20),
		join:     auth.NewLimiter(1, time.Second, 5),
		joins:    auth.NewLimiter(10, time.Minute, 30),
	}
}

// byAddress takes a turn of whatever limits a rate class before it is known who
// asks. The node's own socket has no limits: root is not kept out.
func (l limits) byAddress(class rateClass, c call) error {
	if c.local {
		return nil
	}
	switch class {
	case perSession:
		return nil // its session is the limit
	case perAddress:
		return l.public.Allow(c.address)
	case perLogin:
		return l.login.Allow(c.address)
	case perJoin:
		if err := l.join.Allow(c.address); err != nil {
			return err
		}
		return l.joins.Allow("all")
	}
	return l.public.Allow(c.address)
}

// New makes a Server. It serves nothing until Run or until its Handler is used.
func New(c Config) (*Server, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	s := &Server{Config: c, limits: newLimits(), stopping: make(chan struct{})}
	s.live = newHub(s)
	mux := http.NewServeMux()
	s.spec = s.mount(mux)
	mux.Handle("/api/", s.outside(func(w http.ResponseWriter, r *http.Request) {
		s.refuse(w, r, model.Errorf(model.NotFound, "there is nothing at this path"))
	}))
	mux.Handle("/", c.Page)
	origins := http.NewCrossOriginProtection()
	origins.SetDenyHandler(s.outside(func(w http.ResponseWriter, r *http.Request) {
		s.refuse(w, r, model.Errorf(model.Denied, "another web page may not use the api"))
	}))
	s.handler = harden(origins.Handler(mux))
	return s, nil
}

// Handler is the whole surface, without listeners: API, websockets and page.
func (s *Server) Handler() http.Handler { return s.handler }

// mount puts every route of the table on the mux, each behind its guard.
func (s *Server) mount(mux *http.ServeMux) huma.API {
	table := routes()
	guards := make(map[string]route, len(table))
	for _, r := range table {
		guards[r.method+" "+Base+r.path] = r
	}
	handle := func(pattern string, h http.Handler) { mux.Handle(pattern, s.guard(guards[pattern], h)) }
	framework := humago.NewWithPrefix(guardedMux{handle}, Base, humaConfig(s.Version))
	for _, r := range table {
		r.mount(s, framework, r, func(h http.HandlerFunc) { handle(r.method+" "+Base+r.path, h) })
	}
	finishSpec(framework.OpenAPI())
	return framework
}

// guardedMux lets the framework register its handlers behind their guards.
type guardedMux struct {
	handle func(pattern string, h http.Handler)
}

// HandleFunc is what the framework calls for each of its routes.
func (m guardedMux) HandleFunc(pattern string, h func(http.ResponseWriter, *http.Request)) {
	m.handle(pattern, http.HandlerFunc(h))
}

// ServeHTTP is never called: requests come through the mux behind.
func (m guardedMux) ServeHTTP(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }

// Run serves until ctx ends or a listener fails. Then requests under way have a
// few seconds; streams and consoles end at once. It returns when all have.
func (s *Server) Run(ctx context.Context) error {
	listeners, err := s.listen(ctx)
	if err != nil {
		return err
	}
	server := s.httpServer()
	failed := make(chan error, len(listeners))
	var serving sync.WaitGroup
	for _, l := range listeners {
		serving.Go(func() { failed <- serve(server, l) })
	}
	feeding, stop := context.WithCancel(ctx)
	defer stop()
	serving.Go(func() { s.live.run(feeding) })

	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	s.stopOnce.Do(func() { close(s.stopping) })
	stop()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	if late := server.Shutdown(grace); late != nil {
		err = errors.Join(err, server.Close())
	}
	s.open.Wait()
	serving.Wait()
	return err
}

// A listener is one door and whether it has TLS.
type listener struct {
	net.Listener

	tls bool
}

// listen opens every door, or none.
func (s *Server) listen(ctx context.Context) (all []listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range all {
				err = errors.Join(err, l.Close())
			}
			all = nil
		}
	}()
	if s.Socket != "" {
		l, err := unixsock.Listen(ctx, s.Socket, unixsock.Owner{})
		if err != nil {
			return all, fmt.Errorf("open the api's socket: %w", err)
		}
		all = append(all, listener{newCapped(l, maxConns), false})
	}
	var lc net.ListenConfig
	for _, address := range s.Listen {
		l, err := lc.Listen(ctx, "tcp", address)
		if err != nil {
			return all, fmt.Errorf("serve the api: %w", err)
		}
		all = append(all, listener{newCapped(l, maxConns), true})
	}
	return all, nil
}

func serve(server *http.Server, l listener) error {
	var err error
	if l.tls {
		err = server.ServeTLS(l, "", "")
	} else {
		err = server.Serve(l)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve the api at %s: %w", l.Addr(), err)
}

// harden adds the headers that every answer has.
func harden(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		if r.TLS != nil {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		if strings.HasPrefix(r.URL.Path, "/api/") {
			h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		}
		next.ServeHTTP(w, r)
	})
}

// outside gives a request that no route answers what its refusal needs.
func (s *Server) outside(h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := call{request: newRequestID(), method: r.Method, route: "none"}
		c.address, c.local = clientOf(r)
		w.Header().Set("X-Request-Id", c.request)
		h(w, r.WithContext(context.WithValue(r.Context(), callKey{}, c)))
	})
}
