//go:build linux

// The server that the gateway is tested against is a node's, and nodes are Linux.

package gateway_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"drystone.example/drystone/backend/api/apitest"
	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/pki"
	"drystone.example/drystone/desktop/gateway"
	"drystone.example/drystone/desktop/store"
	"drystone.example/drystone/desktop/vault"
)

const (
	cluster = model.ClusterID(42) // of apitest
	window  = "wails://wails"     // where the page says it comes from
)

var discard = slog.New(slog.DiscardHandler)

// A node is a node's real API behind the cluster's real certificates.
type node struct {
	*apitest.Rig

	ca      *pki.CA
	address string

	mu     sync.Mutex
	asked  []*http.Request // that reached the node, without those of the app itself
	offers []string        // sub-protocols that reached it
}

// startNode starts a cluster's API on an address of its own.
func startNode(t *testing.T) *node {
	t.Helper()
	n := &node{Rig: apitest.New(t), ca: newCA(t, cluster)}
	n.address = listen(t, n.certificates(t), n.record(n.Handler()))
	return n
}

func newCA(t *testing.T, id model.ClusterID) *pki.CA {
	t.Helper()
	ca, err := pki.NewCA(id)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// certificates are those of a node of the cluster, as a node keeps them.
func (n *node) certificates(t *testing.T) *tls.Config {
	t.Helper()
	return webOf(t, n.ca, "127.0.0.1")
}

func webOf(t *testing.T, ca *pki.CA, host string) *tls.Config {
	t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	request, err := key.Request()
	if err != nil {
		t.Fatal(err)
	}
	issued, err := ca.Issue(request, apitest.Self, []string{host})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := pki.Save(dir, key, issued); err != nil {
		t.Fatal(err)
	}
	keeper, err := pki.OpenKeeper(dir)
	if err != nil {
		t.Fatal(err)
	}
	return keeper.Web()
}

// record notes what reaches the node, and answers with what a page must not get.
func (n *node) record(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.mu.Lock()
		n.asked = append(n.asked, r.Clone(context.WithoutCancel(r.Context())))
		n.offers = append(n.offers, r.Header.Values("Sec-Websocket-Protocol")...)
		n.mu.Unlock()
		w.Header().Set("Set-Cookie", "of=thenode")
		w.Header().Set("Access-Control-Allow-Origin", "*")
		next.ServeHTTP(w, r)
	})
}

// requests returns what reached the node since it was called last.
func (n *node) requests() []*http.Request {
	n.mu.Lock()
	defer n.mu.Unlock()
	asked := n.asked
	n.asked = nil
	return asked
}

// listen serves until the test ends and returns host:port.
func listen(t *testing.T, config *tls.Config, h http.Handler) string {
	t.Helper()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	t.Cleanup(func() {
		if err := errors.Join(server.Close(), <-served); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

// An app is the desktop app without its window.
type app struct {
	*gateway.Gateway

	store *store.Store
	vault vault.Vault
	seen  *canary
	stop  func() // ends Run and waits for it
}

// startApp runs a gateway over an empty list of clusters.
func startApp(t *testing.T) *app {
	t.Helper()
	// The vault is then the sealed file, and not the keyring of whoever tests.
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "")
	t.Setenv("XDG_RUNTIME_DIR", "")
	dir := t.TempDir()
	a := &app{seen: &canary{}}
	var err error
	if a.store, err = store.Open(t.Context(), filepath.Join(dir, "clusters.db")); err != nil {
		t.Fatal(err)
	}
	if a.vault, err = vault.Open(dir, model.Secret{}); err != nil {
		t.Fatal(err)
	}
	a.Gateway, err = gateway.Listen(t.Context(), gateway.Config{
		Store: a.store, Vault: a.vault, Origins: []string{window},
		Log: slog.New(slog.NewTextHandler(a.seen, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, a)
	t.Cleanup(func() {
		a.stop() // the store is still needed until then
		a.holdsNoSession(t)
		if err := a.store.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

// run runs the gateway until the test ends.
func run(t *testing.T, a *app) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	a.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(a.stop)
}

// A canary collects everything that the page was told and that was logged.
type canary struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (c *canary) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.Write(p)
}

func (c *canary) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.String()
}

// holdsNoSession is checked at the end of every test: no answer, no frame and no
// line of the log holds the token of the session that the vault keeps.
func (a *app) holdsNoSession(t *testing.T) {
	t.Helper()
	token, err := a.vault.Get(cluster)
	if err != nil {
		return // nobody is logged in
	}
	if strings.Contains(a.seen.String(), token.Reveal()) {
		t.Error("the page or the log was told the session's token")
	}
	if strings.Contains(a.seen.String(), a.Token()) {
		t.Error("an answer or the log holds the launch token")
	}
}

// A page's request, as the window's browser engine sends it.
type request struct {
	method, path string
	body         any
	change       func(*http.Request)
}

type reply struct {
	status int
	header http.Header
	body   []byte
}

// code is the code of a problem, or empty.
func (r reply) code() model.Code {
	var p schema.Problem
	if json.Unmarshal(r.body, &p) != nil {
		return ""
	}
	return p.Code
}

func (a *app) ask(t *testing.T, q request) reply {
	t.Helper()
	text, err := json.Marshal(q.body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), q.method, a.URL()+q.path, bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"Authorization": "Bearer " + a.Token(), "Content-Type": "application/json",
		"Origin": window, "Referer": window + "/", "Cookie": "of=thepage",
		"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty",
	} {
		req.Header.Set(name, value)
	}
	if q.change != nil {
		q.change(req)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", q.method, q.path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", q.method, q.path, err)
	}
	if err := errors.Join(resp.Header.Write(a.seen), second(a.seen.Write(body))); err != nil {
		t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, body}
}

func second(_ int, err error) error { return err }

// must asks for something that succeeds with a status, and reads the answer.
func (a *app) must(t *testing.T, want int, q request, into any) {
	t.Helper()
	r := a.ask(t, q)
	if r.status != want {
		t.Fatalf("%s %s = %d %s, want %d", q.method, q.path, r.status, r.body, want)
	}
	if into == nil {
		return
	}
	if err := json.Unmarshal(r.body, into); err != nil {
		t.Fatalf("%s %s = %s: %v", q.method, q.path, r.body, err)
	}
}

// refused asks for something that is refused.
func (a *app) refused(t *testing.T, status int, code model.Code, q request) {
	t.Helper()
	if r := a.ask(t, q); r.status != status || r.code() != code {
		t.Errorf("%s %s = %d %s, want %d with code %q", q.method, q.path, r.status, r.body, status, code)
	}
}

// api is a path of the cluster's API behind the gateway.
func api(path string) string { return "/c/" + cluster.String() + "/api/v1" + path }

// introduce adds the cluster as a person does who has compared the CA.
func (a *app) introduce(t *testing.T, n *node) gateway.Cluster {
	t.Helper()
	var c gateway.Cluster
	a.must(t, http.StatusOK, request{method: "POST", path: "/desk/v1/clusters", body: gateway.Add{
		Address: n.address, CA: n.ca.Pin().String(), User: "owner", Password: apitest.Password, Color: "#188379",
	}}, &c)
	n.requests()
	return c
}

// remember puts the cluster into the list as if it had been added before, with a
// session of the owner, by these addresses and this pin.
func (a *app) remember(t *testing.T, n *node, pin pki.Pin, addresses ...string) model.Secret {
	t.Helper()
	err := a.store.Put(t.Context(), store.Cluster{
		ID: cluster, Name: "demo", Color: "#188379", User: "owner", Pin: pin, Endpoints: addresses, Added: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	session := n.Session(t, model.Owner)
	if err := a.vault.Set(cluster, session); err != nil {
		t.Fatal(err)
	}
	return session
}
