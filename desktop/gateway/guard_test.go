//go:build linux

package gateway_test

import (
	"net/http"
	"strings"
	"testing"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/desktop/gateway"
)

// Whoever does not know the launch token, comes from another page or came here by
// another name is refused, by the app's own API and by a cluster's alike, and
// nothing of it reaches the cluster.
func TestGuard(t *testing.T) {
	n, a := startNode(t), startApp(t)
	a.introduce(t, n)
	session, err := a.vault.Get(cluster)
	if err != nil {
		t.Fatal(err)
	}
	set := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	for _, c := range []struct {
		name   string
		change func(*http.Request)
	}{
		{"no token", func(r *http.Request) { r.Header.Del("Authorization") }},
		{"another token", set("Authorization", "Bearer "+strings.Repeat("0", 64))},
		{"part of the token", set("Authorization", "Bearer "+a.Token()[:63])},
		{"empty token", set("Authorization", "Bearer ")},
		{"the cluster's token", set("Authorization", "Bearer "+session.Reveal())},
		{"another page", set("Origin", "https://evil.example")},
		{"a sandboxed page", set("Origin", "null")},
		{"the gateway as a page", set("Origin", a.URL())}, // it serves none
		{"a rebound name", func(r *http.Request) { r.Host = "evil.example" + r.Host[strings.LastIndex(r.Host, ":"):] }},
		{"another port", func(r *http.Request) { r.Host = "127.0.0.1:1" }},
		{"a websocket with its token in a header", set("Upgrade", "websocket")},
		{"a websocket with another token", func(r *http.Request) {
			r.Header.Set("Upgrade", "websocket")
			r.Header.Set("Sec-Websocket-Protocol", "drystone.v1, auth."+session.Reveal())
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, q := range []request{
				{method: "GET", path: "/desk/v1/clusters"},
				{method: "POST", path: "/desk/v1/probe", body: map[string]string{"address": n.address}},
				{method: "GET", path: api("/live")},
				{method: "POST", path: api("/logout")},
			} {
				q.change = c.change
				a.refused(t, http.StatusForbidden, model.Denied, q)
			}
			if asked := n.requests(); len(asked) != 0 {
				t.Errorf("the node was asked %s", asked[0].URL)
			}
		})
	}
}

// A browser asks without a token whether the page may ask; only the window's own
// page may, and the question stays here.
func TestPreflight(t *testing.T) {
	n, a := startNode(t), startApp(t)
	a.introduce(t, n)
	ask := func(origin string) reply {
		return a.ask(t, request{method: "OPTIONS", path: api("/volumes"), change: func(r *http.Request) {
			r.Header.Del("Authorization")
			r.Header.Set("Origin", origin)
			r.Header.Set("Access-Control-Request-Method", "POST")
		}})
	}
	own := ask(window)
	if own.status != http.StatusNoContent || own.header.Get("Access-Control-Allow-Origin") != window {
		t.Errorf("the window's own page gets %d %v", own.status, own.header)
	}
	other := ask("https://evil.example")
	if other.status != http.StatusForbidden || other.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("another page gets %d %v", other.status, other.header)
	}
	if asked := n.requests(); len(asked) != 0 {
		t.Errorf("the node was asked %s", asked[0].URL)
	}
}

// There is nothing for a cluster that was not added, whatever it is called.
func TestUnknownCluster(t *testing.T) {
	n, a := startNode(t), startApp(t)
	for _, id := range []string{cluster.String(), "zzz", n.address, "127.0.0.1", "%2e%2e"} {
		a.refused(t, http.StatusNotFound, model.NotFound, request{method: "GET", path: "/c/" + id + "/api/v1/meta"})
	}
	if asked := n.requests(); len(asked) != 0 {
		t.Errorf("the node was asked %s", asked[0].URL)
	}
}

// A gateway that serves the page is an origin of its own, by its own address only.
func TestOwnPage(t *testing.T) {
	g, err := gateway.Listen(t.Context(), gateway.Config{
		Log: discard, Page: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusTeapot)
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	a := &app{Gateway: g, seen: &canary{}}
	run(t, a)
	bare := func(host string) func(*http.Request) {
		return func(r *http.Request) { r.Header = http.Header{}; r.Host = host }
	}
	for host, want := range map[string]int{
		a.Address(): http.StatusTeapot, "evil.example": http.StatusForbidden, "localhost": http.StatusForbidden,
	} {
		if r := a.ask(t, request{method: "GET", path: "/", change: bare(host)}); r.status != want {
			t.Errorf("the page for %s = %d, want %d", host, r.status, want)
		}
	}
	for origin, want := range map[string]int{a.URL(): http.StatusNoContent, window: http.StatusForbidden} {
		r := a.ask(t, request{method: "OPTIONS", path: "/desk/v1/clusters", change: func(r *http.Request) {
			r.Header.Set("Origin", origin)
		}})
		if r.status != want {
			t.Errorf("a page of %s gets %d, want %d", origin, r.status, want)
		}
	}
}
