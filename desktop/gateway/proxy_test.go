//go:build linux

package gateway_test

import (
	"crypto/tls"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"drystone.example/drystone/backend/api/apitest"
	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/pki"
	"drystone.example/drystone/desktop/gateway"
)

// A page's request does at the node what it asks for, in the name of who logged
// in. Nothing in it says that it came from a page: a node refuses changes that
// come from another site's.
func TestForward(t *testing.T) {
	n, a := startNode(t), startApp(t)
	session := a.remember(t, n, n.ca.Pin(), n.address)
	var v schema.Volume
	a.must(t, http.StatusOK, request{
		method: "POST", path: api("/volumes"), body: schema.VolumeSpec{Name: "data", Size: 1 << 30, Copies: 2},
	}, &v)
	if got, err := n.Root().Volume(t.Context(), "data"); err != nil || got.ID != v.ID {
		t.Errorf("the cluster has %+v, %v, the page was told %+v", got, err, v)
	}
	r := a.ask(t, request{method: "DELETE", path: api("/volumes/none")})
	if r.status != http.StatusNotFound || r.code() != model.NotFound {
		t.Errorf("a refusal of the node = %d %s", r.status, r.body)
	}
	if got := r.header.Values("Access-Control-Allow-Origin"); len(got) != 1 || got[0] != window {
		t.Errorf("the answer is for pages of %q, want only %s", got, window)
	}
	if r.header.Get("Set-Cookie") != "" {
		t.Error("a node's cookie got to the page")
	}
	a.must(t, http.StatusOK, request{method: "GET", path: api("/audit?after=0&limit=3")}, nil)
	asked := n.requests()
	if len(asked) != 3 {
		t.Fatalf("the node got %d requests, want 3", len(asked))
	}
	for _, req := range asked {
		if got := req.Header.Get("Authorization"); got != "Bearer "+session.Reveal() {
			t.Errorf("%s came with another token than the session's", req.URL)
		}
		for name := range req.Header {
			if strings.HasPrefix(name, "Sec-Fetch-") || strings.HasPrefix(name, "X-Forwarded-") ||
				name == "Origin" || name == "Referer" || name == "Cookie" {
				t.Errorf("%s came with %s", req.URL, name)
			}
		}
	}
	if got := asked[2].URL.RequestURI(); got != "/api/v1/audit?after=0&limit=3" {
		t.Errorf("the node was asked for %s", got)
	}
}

// The page logs in without ever holding the session, and logging out ends it in
// the cluster and here.
func TestLogin(t *testing.T) {
	n, a := startNode(t), startApp(t)
	a.remember(t, n, n.ca.Pin(), n.address)
	if err := a.vault.Delete(cluster); err != nil {
		t.Fatal(err)
	}
	a.refused(t, http.StatusUnauthorized, model.Unknown, request{method: "GET", path: api("/cluster")})
	login := func(password string) request {
		return request{method: "POST", path: api("/login"), body: schema.Login{User: "viewer", Password: password}}
	}
	a.refused(t, http.StatusUnauthorized, model.Unknown, login("wrong"))
	var result schema.LoginResult
	a.must(t, http.StatusOK, login(apitest.Password), &result)
	if result.Token != "" || result.User.Name != "viewer" || result.Expires.IsZero() {
		t.Errorf("the page is told %+v", result)
	}
	token, err := a.vault.Get(cluster)
	if err != nil {
		t.Fatal(err)
	}
	if kept, err := a.store.Get(t.Context(), cluster); err != nil || kept.User != "viewer" {
		t.Errorf("the list keeps %+v, %v", kept, err)
	}
	var who schema.Session
	a.must(t, http.StatusOK, request{method: "GET", path: api("/session")}, &who)
	if who.User.Name != "viewer" {
		t.Errorf("the page asks as %+v", who.User)
	}
	a.must(t, http.StatusNoContent, request{method: "POST", path: api("/logout")}, nil)
	_, err = n.With(t, token).Session(t.Context())
	apitest.CodeIs(t, "the session after the log-out", err, model.Unknown)
	_, err = a.vault.Get(cluster)
	apitest.CodeIs(t, "the vault after the log-out", err, model.NotFound)
	a.refused(t, http.StatusUnauthorized, model.Unknown, request{method: "GET", path: api("/cluster")})
}

// Who answers at a cluster's address without proving to be of it gets neither a
// request nor a password, and the page is told why.
func TestPinnedCA(t *testing.T) {
	for _, c := range []struct {
		name     string
		impostor func(*testing.T, *node) *tls.Config
	}{
		{"another cluster", func(t *testing.T, _ *node) *tls.Config {
			t.Helper()
			return webOf(t, newCA(t, cluster), "127.0.0.1")
		}},
		{"this CA's certificate behind another's leaf", func(t *testing.T, n *node) *tls.Config {
			t.Helper()
			return chained(t, webOf(t, newCA(t, cluster), "127.0.0.1"), n.certificates(t))
		}},
		{"a certificate for another host", func(t *testing.T, n *node) *tls.Config {
			t.Helper()
			return webOf(t, n.ca, "192.0.2.1")
		}},
		{"no node at all", func(t *testing.T, n *node) *tls.Config {
			t.Helper()
			return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: n.Web.TLS.Certificates}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, a := startNode(t), startApp(t)
			var reached atomic.Int32
			at := listen(t, c.impostor(t, n), http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				reached.Add(1)
			}))
			a.remember(t, n, n.ca.Pin(), at)
			for _, q := range []request{
				{method: "GET", path: api("/cluster")},
				{method: "POST", path: api("/login"), body: schema.Login{User: "owner", Password: apitest.Password}},
				{method: "GET", path: api("/live"), change: func(r *http.Request) {
					r.Header.Del("Authorization")
					r.Header.Set("Connection", "Upgrade")
					r.Header.Set("Upgrade", "websocket")
					r.Header.Set("Sec-Websocket-Version", "13")
					r.Header.Set("Sec-Websocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
					r.Header.Set("Sec-Websocket-Protocol", "drystone.v1, auth."+a.Token())
				}},
			} {
				a.refused(t, http.StatusBadGateway, "untrusted", q)
			}
			if got := reached.Load(); got != 0 {
				t.Errorf("%d requests reached the impostor", got)
			}
		})
	}
}

// chained shows the chain of one configuration followed by that of another.
func chained(t *testing.T, first, then *tls.Config) *tls.Config {
	t.Helper()
	own, err := first.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	other, err := then.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	mixed := *own
	mixed.Certificate = append([][]byte{own.Certificate[0]}, other.Certificate[1:]...)
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{mixed}}
}

// A node that is gone, or not of the cluster, or that says that it cannot serve is
// passed over for the next one; a refusal is an answer and ends the search.
func TestNextNode(t *testing.T) {
	n, a := startNode(t), startApp(t)
	foreign := listen(t, webOf(t, newCA(t, cluster), "127.0.0.1"), http.NotFoundHandler())
	var refusals atomic.Int32
	draining := listen(t, n.certificates(t), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		refusals.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	const gone = "127.0.0.1:1"
	a.remember(t, n, n.ca.Pin(), gone, foreign, draining, n.address)
	first := a.ask(t, request{method: "GET", path: api("/cluster")})
	if first.status != http.StatusServiceUnavailable {
		t.Errorf("the node that cannot serve answered %d %s", first.status, first.body)
	}
	for range 3 {
		a.must(t, http.StatusOK, request{method: "GET", path: api("/cluster")}, nil)
	}
	if got := refusals.Load(); got != 1 {
		t.Errorf("the node that cannot serve was asked %d times, want once", got)
	}
}

// A cluster of which no node answers is said to be unreachable.
func TestNobodyAnswers(t *testing.T) {
	n, a := startNode(t), startApp(t)
	a.remember(t, n, n.ca.Pin(), "127.0.0.1:1", "127.0.0.1:2")
	a.refused(t, http.StatusBadGateway, "unreachable", request{method: "GET", path: api("/cluster")})
	a.refused(t, http.StatusBadGateway, "unreachable", request{
		method: "POST", path: api("/login"), body: schema.Login{User: "owner", Password: "x"},
	})
	a.must(t, http.StatusOK, request{method: "GET", path: "/desk/v1/clusters"}, nil)
	// It can be forgotten all the same.
	a.must(t, http.StatusNoContent, request{method: "DELETE", path: "/desk/v1/clusters/" + cluster.String()}, nil)
}

// A join string as `drystone cert show` prints it adds a cluster without a
// comparison: the answer to it is what the page adds by.
func TestAddByJoinString(t *testing.T) {
	n, a := startNode(t), startApp(t)
	printed := pki.JoinString{Address: n.address, CA: n.ca.Pin()}.String()
	var probe struct {
		Address string `json:"address"`
		CA      string `json:"ca_spki"`
		Vouched bool   `json:"vouched"`
	}
	a.must(t, http.StatusOK, request{
		method: "POST", path: "/desk/v1/probe", body: map[string]string{"address": printed},
	}, &probe)
	if !probe.Vouched {
		t.Error("the join string vouches for nobody")
	}
	a.must(t, http.StatusOK, request{method: "POST", path: "/desk/v1/clusters", body: map[string]string{
		"address": probe.Address, "ca_spki": probe.CA, "user": "owner", "password": apitest.Password, "color": "#188379",
	}}, nil)
	a.must(t, http.StatusOK, request{method: "GET", path: api("/cluster")}, nil)
}

// A cluster whose root was replaced is followed by what the pinned root vouches for:
// requests go on, and the app remembers the new pin for the time when the old one is
// gone from what nodes show.
func TestRootIsReplaced(t *testing.T) {
	n, a := startNode(t), startApp(t)
	next, err := n.ca.Succeed()
	if err != nil {
		t.Fatal(err)
	}
	at := listen(t, webOf(t, next, "127.0.0.1"), n.record(n.Handler()))
	a.remember(t, n, n.ca.Pin(), at)
	a.must(t, http.StatusOK, request{method: "GET", path: api("/cluster")}, nil)
	a.must(t, http.StatusOK, request{method: "POST", path: "/desk/v1/clusters", body: gateway.Add{
		Address: at, CA: next.Pin().String(), User: "owner", Password: apitest.Password, Color: "#188379",
	}}, nil)
	known, err := a.store.Get(t.Context(), cluster)
	if err != nil || known.Pin != next.Pin() {
		t.Errorf("the app remembers %s, %v; want the new root's pin", known.Pin, err)
	}
}
