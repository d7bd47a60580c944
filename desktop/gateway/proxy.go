package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"strings"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/client"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/desktop/store"
)

// serveCluster carries a request to a cluster.
func (g *Gateway) serveCluster(w http.ResponseWriter, r *http.Request) {
	var id model.ClusterID
	if err := id.UnmarshalText([]byte(r.PathValue("cluster"))); err != nil {
		refuse(w, http.StatusNotFound, model.NotFound, "this app knows no such cluster")
		return
	}
	known, err := g.store.Get(r.Context(), id)
	if err != nil {
		refuseError(w, err)
		return
	}
	u, err := g.upstream(r.Context(), id)
	if err != nil {
		refuseError(w, err)
		return
	}
	path := strings.TrimPrefix(r.URL.Path, "/c/"+r.PathValue("cluster"))
	if known.ReadOnly && changes(r, path) {
		refuse(w, http.StatusForbidden, model.Denied, "this cluster is set to read only in this app")
		return
	}
	switch {
	case path == "/api/v1/login" && r.Method == http.MethodPost:
		g.login(w, r, id, u)
	case path == "/api/v1/logout" && r.Method == http.MethodPost:
		g.logout(w, r, id, u)
	case isUpgrade(r):
		g.pipe(w, r, u, path)
	default:
		forward(w, r, u, path)
	}
}

// changes reports whether a request could change the cluster.
func changes(r *http.Request, path string) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return strings.Contains(path, "/console/")
	default:
		return path != "/api/v1/login" && path != "/api/v1/logout"
	}
}

// forward is one request over any node.
func forward(w http.ResponseWriter, r *http.Request, u *upstream, path string) {
	var via string
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		if c, ok := info.Conn.(*trackedConn); ok {
			via = c.address
		}
	}}
	proxy := httputil.ReverseProxy{
		Transport: u.transport,
		// Answers of the API may come line by line (progress of an import).
		FlushInterval: -1,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out = p.Out.WithContext(httptrace.WithClientTrace(p.Out.Context(), trace))
			p.Out.URL.Scheme = "https"
			p.Out.URL.Host = "cluster" // the transport knows the nodes
			p.Out.URL.Path = path
			p.Out.URL.RawPath = ""
			p.Out.Host = ""
			withoutPage(p.Out.Header)
			if token := u.session().Reveal(); token != "" {
				p.Out.Header.Set("Authorization", "Bearer "+token)
			}
		},
		ModifyResponse: func(resp *http.Response) error {
			resp.Header.Del("Set-Cookie")
			for name := range resp.Header {
				if strings.HasPrefix(name, "Access-Control-") {
					resp.Header.Del(name)
				}
			}
			if resp.StatusCode == http.StatusServiceUnavailable && via != "" {
				u.demote(via)
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) { refuseUpstream(w, err) },
	}
	proxy.ServeHTTP(w, r)
}

// withoutPage removes what a request says of the page it comes from. The guard has
// judged that page; a node would refuse it as another site's, and gets neither the
// launch token nor a cookie.
func withoutPage(h http.Header) {
	for _, name := range []string{"Origin", "Referer", "Cookie", "Authorization"} {
		h.Del(name)
	}
	for name := range h {
		if strings.HasPrefix(name, "Sec-Fetch-") {
			h.Del(name)
		}
	}
}

// refuseUpstream answers when no node did.
func refuseUpstream(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, context.Canceled):
		refuse(w, http.StatusBadGateway, unreachable, "the request was given up")
	case errors.Is(err, errUntrusted):
		refuseError(w, err)
	default:
		refuse(w, http.StatusBadGateway, unreachable, "no node of this cluster answers")
	}
}

// maxBody bounds what the app itself reads of a request.
const maxBody = 64 << 10

func readJSON(w http.ResponseWriter, r *http.Request, into any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return model.Errorf(model.Invalid, "the request is not as expected: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return model.Errorf(model.Invalid, "the request holds more than one value")
	}
	return nil
}

// login logs in and keeps the session; the page is not told its token.
func (g *Gateway) login(w http.ResponseWriter, r *http.Request, id model.ClusterID, u *upstream) {
	var in schema.Login
	if err := readJSON(w, r, &in); err != nil {
		refuseError(w, err)
		return
	}
	result, err := g.startSession(r.Context(), id, u, in)
	if err != nil {
		refuseClient(w, err)
		return
	}
	result.Token = ""
	answer(w, result)
}

// startSession logs in, keeps the token, and learns the other nodes' addresses.
func (g *Gateway) startSession(
	ctx context.Context, id model.ClusterID, u *upstream, in schema.Login,
) (schema.LoginResult, error) {
	var result schema.LoginResult
	u.setSession(model.Secret{})
	err := u.each(ctx, func(c *client.Client) (err error) {
		result, err = c.Login(ctx, in.User, model.NewSecret(in.Password))
		return err
	})
	if err != nil {
		return result, err
	}
	token := model.NewSecret(result.Token)
	u.setSession(token)
	if err := g.vault.Set(id, token); err != nil {
		// It works for this launch; the next one asks to log in again.
		g.log.Warn("session not kept", "cluster", id.String(), "err", err)
	}
	_, err = g.store.Update(ctx, id, func(c *store.Cluster) { c.User = result.User.Name })
	if err != nil && model.CodeOf(err) != model.NotFound {
		g.log.Warn("user not kept", "cluster", id.String(), "err", err)
	}
	return result, nil
}

// logout forgets the session here, and ends it in the cluster if that answers.
func (g *Gateway) logout(w http.ResponseWriter, r *http.Request, id model.ClusterID, u *upstream) {
	g.endSession(r.Context(), id, u)
	w.WriteHeader(http.StatusNoContent)
}

func (g *Gateway) endSession(ctx context.Context, id model.ClusterID, u *upstream) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if u.loggedIn() {
		err := u.each(ctx, func(c *client.Client) error { return c.Logout(ctx) })
		if err != nil {
			g.log.Warn("session not ended in the cluster", "cluster", id.String(), "err", err)
		}
	}
	u.setSession(model.Secret{})
	if err := g.vault.Delete(id); err != nil {
		g.log.Warn("session not forgotten", "cluster", id.String(), "err", err)
	}
}

// refuseClient answers with an error of the Go client.
func refuseClient(w http.ResponseWriter, err error) {
	if errors.Is(err, errUntrusted) || model.CodeOf(err) != model.Unavailable {
		refuseError(w, err)
		return
	}
	var e *model.Error
	detail := "no node of this cluster answers"
	if errors.As(err, &e) {
		detail = e.Text
	}
	refuse(w, http.StatusBadGateway, unreachable, detail)
}
