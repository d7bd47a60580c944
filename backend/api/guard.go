package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"drystone.example/drystone/backend/auth"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/must"
)

// A call is one request as the guard let it through.
type call struct {
	auth.Subject

	request string // its identifier, in the answer, the log and the audit
	method  string
	route   string
	address string    // of the client, without a port; "local" on the socket
	local   bool      // over the node's own socket
	session string    // digest of the token; empty for root on the socket
	expires time.Time // of the session

	control *http.ResponseController // of the connection
}

// actor is how the record names who asks.
func (c call) actor() model.Actor {
	return model.Actor{User: c.Name, UserID: c.User, Role: c.Role, Address: c.address, Request: c.request}
}

type callKey struct{}

func callOf(ctx context.Context) call {
	c, _ := ctx.Value(callKey{}).(call)
	return c
}

// by is the actor of a request, for handlers.
func by(ctx context.Context) model.Actor { return callOf(ctx).actor() }

// rootName is what root on a node's own socket is called in the audit log.
const rootName = "root"

// guard puts everything that has to happen before a handler in front of it, in
// this order: who is it, is there a turn left, may they, and how much may they
// send and how long may it take.
func (s *Server) guard(r route, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		c := call{request: newRequestID(), method: r.method, route: r.path, control: http.NewResponseController(w)}
		c.address, c.local = clientOf(req)
		h := w.Header()
		h.Set("X-Request-Id", c.request)
		h.Set("Cache-Control", "no-store")
		req = req.WithContext(context.WithValue(req.Context(), callKey{}, c))
		defer s.recovered(w, req)

		c, err := s.admit(req, r, c)
		if err != nil {
			s.refuse(w, req, err)
			return
		}
		ctx := context.WithValue(req.Context(), callKey{}, c)
		if r.timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, r.timeout)
			defer cancel()
		}
		s.setDeadlines(c, r)
		inner := req.WithContext(ctx) //nolint:contextcheck // it is made of the request's own
		inner.Body = http.MaxBytesReader(w, req.Body, r.body)
		next.ServeHTTP(w, inner)
	})
}

// setDeadlines limits how long a client may take to send and to receive. A long
// request (timeout zero) has its own limits in its handler.
func (s *Server) setDeadlines(c call, r route) {
	read, write := time.Now().Add(readTime), time.Time{}
	if r.timeout > 0 {
		read = time.Now().Add(max(r.timeout, readTime))
		write = read.Add(answerTime)
	}
	// The server's own read deadline would end the request's context when it
	// passes, also long after the body was read; patient lifts it.
	if err := errors.Join(c.control.SetReadDeadline(read), c.control.SetWriteDeadline(write)); err != nil {
		s.Log.Debug("no deadlines on a connection", "err", err)
	}
}

// patient is for handlers of long requests, when they have read the body.
func (s *Server) patient(ctx context.Context) {
	if err := callOf(ctx).control.SetReadDeadline(time.Time{}); err != nil {
		s.Log.Debug("no deadlines on a connection", "err", err)
	}
}

// admit authenticates, limits and authorises.
func (s *Server) admit(req *http.Request, r route, c call) (call, error) {
	if err := s.limits.byAddress(r.rate, c); err != nil {
		return c, err
	}
	if r.verb == auth.Public {
		return c, nil
	}
	c, err := s.authenticate(req, r, c)
	if err != nil {
		return c, err
	}
	if r.rate == perSession && c.session != "" {
		if err := s.limits.session.Allow(c.session); err != nil {
			return c, err
		}
	}
	return c, auth.Allow(c.Subject, r.verb, auth.Object{Kind: r.kind})
}

// authenticate finds out who asks: root by the credentials of the socket, others
// by a bearer token, which a websocket sends as a subprotocol because a browser
// lets it send no header.
func (s *Server) authenticate(req *http.Request, r route, c call) (call, error) {
	token, sent := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
	if r.socket() && !sent {
		token, sent = subprotocol(req, "auth.")
	}
	if !sent {
		if c.local && isRoot(req.Context()) {
			c.Subject = auth.Subject{Name: rootName, Role: model.Owner}
			return c, nil
		}
		return c, model.Errorf(model.Unknown, "log in first")
	}
	return s.bySession(req.Context(), c, auth.Digest(token))
}

// bySession looks a session up. One that this node has not heard of may be new:
// the linearizable record is asked, a bounded number of times for each address.
func (s *Server) bySession(ctx context.Context, c call, digest string) (call, error) {
	unknown := model.Errorf(model.Unknown, "the session has ended; log in again")
	if digest == "" {
		return c, unknown
	}
	view := s.Record.Local()
	session, ok := view.Session(digest)
	if !ok {
		if err := s.limits.stranger.Allow(c.address); err != nil {
			return c, err
		}
		var err error
		if view, err = s.Record.View(ctx); err != nil {
			return c, err
		}
		if session, ok = view.Session(digest); !ok {
			return c, unknown
		}
	}
	if !time.Now().Before(session.Expires) {
		return c, unknown
	}
	user, err := view.User(session.User)
	if err != nil {
		return c, unknown
	}
	c.Subject = auth.Subject{User: user.ID, Name: user.Name, Role: user.Role}
	c.session, c.expires = digest, session.Expires
	return c, nil
}

// stillGood reports whether the session behind a long connection still is, with
// the same role or a higher one as far as its verb needs it.
func (s *Server) stillGood(c call, verb auth.Verb, kind auth.Kind) bool {
	if c.session == "" {
		return c.local
	}
	view := s.Record.Local()
	session, ok := view.Session(c.session)
	if !ok || !time.Now().Before(session.Expires) {
		return false
	}
	user, err := view.User(session.User)
	if err != nil {
		return false
	}
	now := auth.Subject{User: user.ID, Name: user.Name, Role: user.Role}
	return auth.Allow(now, verb, auth.Object{Kind: kind}) == nil
}

// recovered answers for a handler that panicked. What was an assertion of ours
// ends the process, as an assertion must: the HTTP server would go on.
func (s *Server) recovered(w http.ResponseWriter, req *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	c := callOf(req.Context())
	if req.Context().Err() != nil {
		return // the client left, and the framework panics when it cannot write
	}
	s.Log.Error("handler panicked", "request", c.request, "route", c.route, "reason", v,
		"stack", string(debug.Stack()))
	if text, ok := v.(string); ok && strings.HasPrefix(text, "must: ") {
		go must.That(false, "%s", text)
		select {}
	}
	s.refuse(w, req, errors.New("the handler panicked"))
}

// subprotocol returns the rest of the first websocket subprotocol with a prefix.
func subprotocol(req *http.Request, prefix string) (string, bool) {
	for _, line := range req.Header.Values("Sec-Websocket-Protocol") {
		for p := range strings.SplitSeq(line, ",") {
			if rest, ok := strings.CutPrefix(strings.TrimSpace(p), prefix); ok {
				return rest, true
			}
		}
	}
	return "", false
}

func newRequestID() string {
	var b [8]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// clientOf is where a request came from.
func clientOf(req *http.Request) (address string, local bool) {
	if _, ok := req.Context().Value(peerKey{}).(peer); ok {
		return "local", true
	}
	host, _, err := net.SplitHostPort(req.RemoteAddr)
	if err != nil {
		return req.RemoteAddr, false
	}
	return host, false
}
