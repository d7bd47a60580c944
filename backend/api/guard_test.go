package api_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"drystone.example/drystone/backend/api"
	"drystone.example/drystone/backend/api/apitest"
	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/auth"
	"drystone.example/drystone/backend/client"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/pki"
)

// post sends a body from an address and returns the answer.
func post(r *apitest.Rig, path, token, address, body string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(http.MethodPost, api.Base+path, strings.NewReader(body))
	req.RemoteAddr = address + ":1"
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, req)
	return w
}

func problemOf(t *testing.T, w *httptest.ResponseRecorder) (p schema.Problem) {
	t.Helper()
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	if got := w.Header().Get("Content-Type"); got != schema.ProblemType {
		t.Errorf("a problem of type %s", got)
	}
	if p.Status != w.Code || p.RequestID == "" || p.RequestID != w.Header().Get("X-Request-Id") {
		t.Errorf("a problem of %+v with status %d, request %s", p, w.Code, w.Header().Get("X-Request-Id"))
	}
	return p
}

func TestLoginFlow(t *testing.T) {
	r := apitest.New(t)
	ctx, nobody := t.Context(), r.With(t, model.Secret{})
	if _, err := nobody.Cluster(ctx); model.CodeOf(err) != model.Unknown {
		t.Errorf("nobody: %v", err)
	}
	result, err := nobody.Login(ctx, "Operator", model.NewSecret(apitest.Password))
	if err != nil || result.User.Role != model.Operator || result.User.Name != "operator" ||
		time.Until(result.Expires) < 23*time.Hour {
		t.Fatalf("Login = %+v, %v", result.User, err)
	}
	c := r.With(t, model.NewSecret(result.Token))
	session, err := c.Session(ctx)
	if err != nil || session.User != result.User || !session.Expires.Equal(result.Expires) {
		t.Errorf("Session = %+v, %v", session, err)
	}
	if err := c.Logout(ctx); err != nil {
		t.Errorf("Logout: %v", err)
	}
	_, err = c.Session(ctx)
	apitest.CodeIs(t, "after the log-out", err, model.Unknown)

	for _, bad := range []struct{ user, password string }{
		{"operator", "a wrong password"}, {"nobody", apitest.Password}, {"", ""},
	} {
		_, err := nobody.Login(ctx, bad.user, model.NewSecret(bad.password))
		apitest.CodeIs(t, "log-in of "+bad.user, err, model.Unknown)
		if err != nil && err.Error() != "the name or the password is wrong" {
			t.Errorf("log-in of %q: %v tells which was wrong", bad.user, err)
		}
	}
}

func TestSessionEnds(t *testing.T) {
	r := apitest.New(t)
	ctx := t.Context()
	token, digest := auth.NewToken()
	r.Apply(t, command.SessionCreate{
		TokenHash: digest, User: r.Users[model.Viewer].ID, Expires: time.Now().Add(300 * time.Millisecond),
	})
	c := r.With(t, token)
	if _, err := c.Session(ctx); err != nil {
		t.Fatalf("before its end: %v", err)
	}
	apitest.WaitFor(t, "the session to run out", func() bool {
		_, err := c.Session(ctx)
		return model.CodeOf(err) == model.Unknown
	})
	c = r.As(t, model.Viewer)
	r.Apply(t, command.UserDelete{User: r.Users[model.Viewer].ID})
	_, err := c.Session(ctx)
	apitest.CodeIs(t, "of a user who was deleted", err, model.Unknown)
	for _, bad := range []string{"x", "drys_x", digest, token.Reveal() + "x"} {
		_, err := r.With(t, model.NewSecret(bad)).Session(ctx)
		apitest.CodeIs(t, "with a token that is none", err, model.Unknown)
	}
}

func TestChangePassword(t *testing.T) {
	r := apitest.New(t)
	ctx := t.Context()
	mine, other := r.As(t, model.Admin), r.As(t, model.Admin)
	old, fresh := model.NewSecret(apitest.Password), model.NewSecret("mortar, after all")
	apitest.CodeIs(t, "too short", mine.ChangePassword(ctx, old, model.NewSecret("short")), model.Invalid)
	apitest.CodeIs(t, "a wrong old one", mine.ChangePassword(ctx, fresh, fresh), model.Denied)
	if err := mine.ChangePassword(ctx, old, fresh); err != nil {
		t.Fatalf("ChangePassword: %v", err)
	}
	if _, err := mine.Session(ctx); err != nil {
		t.Errorf("the session it was asked from: %v", err)
	}
	_, err := other.Session(ctx)
	apitest.CodeIs(t, "another session", err, model.Unknown)
	_, err = mine.Login(ctx, "admin", old)
	apitest.CodeIs(t, "log-in with the old one", err, model.Unknown)
	if _, err := mine.Login(ctx, "admin", fresh); err != nil {
		t.Errorf("log-in with the new one: %v", err)
	}
	apitest.CodeIs(t, "root has none", r.Root().ChangePassword(ctx, old, fresh), model.Invalid)
}

// Guessing one account's password is slow from wherever it is tried, and so is
// trying many accounts from one place. Others are not held up.
func TestLoginIsLimited(t *testing.T) {
	r := apitest.New(t)
	guess := func(user, address string) int {
		return post(r, "/login", "", address, fmt.Sprintf(`{"user":%q,"password":"guess"}`, user)).Code
	}
	for i := range 5 {
		if code := guess("owner", fmt.Sprintf("192.0.2.%d", i)); code != http.StatusUnauthorized {
			t.Fatalf("guess %d: %d", i, code)
		}
	}
	w := post(r, "/login", "", "192.0.2.99", `{"user":"OWNER","password":"guess"}`)
	if p := problemOf(t, w); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" || p.Code != model.Denied {
		t.Errorf("guess 6 of one account: %d %+v", w.Code, p)
	}
	if code := guess("admin", "192.0.2.99"); code != http.StatusUnauthorized {
		t.Errorf("another account: %d", code)
	}
	limited := 0
	for i := range 30 {
		if guess(fmt.Sprintf("user%d", i), "198.51.100.1") == http.StatusTooManyRequests {
			limited++
		}
	}
	if limited < 9 {
		t.Errorf("of 30 accounts from one place only %d were refused", limited)
	}
	// Root on the node is never kept out.
	if _, err := r.Root().Login(t.Context(), "owner", model.NewSecret(apitest.Password)); err != nil {
		t.Errorf("from the node's own socket: %v", err)
	}
}

func TestSessionIsLimited(t *testing.T) {
	r := apitest.New(t)
	token := r.Session(t, model.Viewer).Reveal()
	refused := 0
	for range 260 {
		req := httptest.NewRequest(http.MethodGet, api.Base+"/session", nil)
		req.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		r.Handler().ServeHTTP(w, req)
		if w.Code == http.StatusTooManyRequests {
			refused++
		}
	}
	if refused == 0 {
		t.Error("260 requests at once were all answered")
	}
	if _, err := r.As(t, model.Viewer).Session(t.Context()); err != nil {
		t.Errorf("another session: %v", err)
	}
}

func TestStrictJSON(t *testing.T) {
	r := apitest.New(t)
	token := r.Session(t, model.Admin).Reveal()
	const good = `{"name":"data","size_bytes":1073741824,"copies":2}`
	for _, c := range []struct {
		name, body string
		status     int
	}{
		{"nothing", "", http.StatusBadRequest},
		{"half", `{"name":"data"`, http.StatusBadRequest},
		{"two values", good + good, http.StatusBadRequest},
		{"something after it", good + " x", http.StatusBadRequest},
		{"a member twice", `{"name":"data","size_bytes":1,"name":"other"}`, http.StatusBadRequest},
		{"a member nobody knows", `{"name":"data","size_bytes":1073741824,"color":"red"}`, http.StatusUnprocessableEntity},
		{"a member of another case", `{"Name":"data","size_bytes":1073741824}`, http.StatusBadRequest},
		{"a member missing", `{"name":"data"}`, http.StatusUnprocessableEntity},
		{"another type", `{"name":"data","size_bytes":"1G"}`, http.StatusUnprocessableEntity},
		{"a list", "[" + good + "]", http.StatusUnprocessableEntity},
		{"deep", strings.Repeat("[", 40) + strings.Repeat("]", 40), http.StatusBadRequest},
		{"very deep", strings.Repeat("[", 100_000), http.StatusBadRequest},
		{"too large", `{"name":"` + strings.Repeat("x", 2<<20) + `"}`, http.StatusRequestEntityTooLarge},
		{"good", good, http.StatusOK},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := post(r, "/volumes", token, "192.0.2.1", c.body)
			if w.Code != c.status {
				t.Fatalf("status %d, want %d: %.300s", w.Code, c.status, w.Body)
			}
			if c.status != http.StatusOK {
				if p := problemOf(t, w); p.Code != model.Invalid || p.Detail == "" || len(p.Detail) > 1000 {
					t.Errorf("problem %+v", p)
				}
			}
		})
	}
	req := httptest.NewRequest(http.MethodGet, api.Base+"/volumes?unknown=1", nil)
	req.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, req)
	if w.Code != http.StatusUnprocessableEntity {
		t.Errorf("an unknown parameter: %d", w.Code)
	}
}

// Whatever goes wrong, no secret and no inner text leaves the server, neither to
// the client nor into the log.
func TestSecretsStayInside(t *testing.T) {
	r := apitest.New(t)
	const canary = "canary-password-4711"
	const inner = "inner text of a library"
	var said strings.Builder
	note := func(w *httptest.ResponseRecorder) { fmt.Fprintln(&said, w.Body, w.Header()) }
	for _, body := range []string{
		`{"user":"owner","password":"` + canary + `"}`,
		`{"user":"owner","password":"` + canary + `","x":1}`,
		`{"user":{"a":"` + canary + `"},"password":["` + canary + `"]}`,
		`{"password":"` + canary + `"}`,
		`{"user":"` + canary + `","password":"` + canary + `"`,
		`{"user":"` + canary + `","password":"` + canary + `"}`,
		`"` + canary + `"`,
	} {
		note(post(r, "/login", "", "192.0.2.1", body))
		note(post(r, "/password", r.Session(t, model.Admin).Reveal(), "192.0.2.1", strings.ReplaceAll(body, "user", "old")))
	}
	token := r.Session(t, model.Admin).Reveal()
	r.Service.Set(func(s *apitest.Service) { s.Fail = fmt.Errorf("%s", inner) })
	w := post(r, "/volumes", token, "192.0.2.1", `{"name":"data","size_bytes":1073741824}`)
	note(w)
	if p := problemOf(t, w); p.Code != model.Internal || !strings.Contains(p.Detail, p.RequestID) {
		t.Errorf("an internal error is answered as %+v", p)
	} else if !strings.Contains(r.Log.String(), p.RequestID) || !strings.Contains(r.Log.String(), inner) {
		t.Error("the log does not say what was wrong with the request")
	}
	note(post(r, "/volumes", token+"x", "192.0.2.1", `{}`))
	note(post(r, "/join", "", "192.0.2.1", `{"token_id":"abcdefgh","secret":"`+canary+`","csr":"eA==","name":"n3","address":"x","version":"1"}`))
	note(post(r, "/join", "", "192.0.2.1", `{"token_id":"abcdefgh","secret":["`+canary+`"]}`))

	if strings.Contains(said.String(), inner) {
		t.Error("the inner text of an error was answered")
	}
	for what, secret := range map[string]string{"a password": canary, "a token": token} {
		if strings.Contains(r.Log.String(), secret) {
			t.Errorf("%s is in the log", what)
		}
		if strings.Contains(said.String(), secret) {
			t.Errorf("%s is in an answer", what)
		}
	}
	rows, err := r.Root().Audit(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(rows)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), canary) || strings.Contains(string(text), auth.Digest(token)) {
		t.Error("a secret is in the audit log")
	}
}

// On the node's own socket root is the owner, by the kernel's word and without a
// log-in; a token there is taken for what it is.
func TestRootOnTheSocket(t *testing.T) {
	r := apitest.New(t)
	session, err := r.Root().Session(t.Context())
	if err != nil || session.User.Role != model.Owner || session.User.Name != "root" {
		t.Errorf("Session = %+v, %v", session, err)
	}
	viewer := r.Root().WithToken(r.Session(t, model.Viewer))
	if session, err := viewer.Session(t.Context()); err != nil || session.User.Role != model.Viewer {
		t.Errorf("with a viewer's token: %+v, %v", session, err)
	}
	_, err = r.Root().WithToken(model.NewSecret("drys_bad")).Session(t.Context())
	apitest.CodeIs(t, "with a bad token", err, model.Unknown)
}

func TestHeaders(t *testing.T) {
	r := apitest.New(t)
	resp, err := r.Web.Client().Get(r.Web.URL + api.Base + "/meta")
	if err != nil {
		t.Fatal(err)
	}
	defer letGo(resp.Body)
	for name, want := range map[string]string{
		"X-Content-Type-Options":    "nosniff",
		"Referrer-Policy":           "no-referrer",
		"Strict-Transport-Security": "max-age=31536000",
		"Content-Security-Policy":   "default-src 'none'; frame-ancestors 'none'",
		"Cache-Control":             "no-store",
		"Content-Type":              "application/json",
	} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// overSocket sends a request to the listener that has all the limits and returns
// the status of the answer.
func overSocket(t *testing.T, r *apitest.Rig, req *http.Request) int {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", r.Socket)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer letGo(resp.Body)
	return resp.StatusCode
}

func TestLimitsOfAConnection(t *testing.T) {
	r := apitest.New(t)
	req := httptest.NewRequest(http.MethodGet, "http://node"+api.Base+"/meta", nil)
	req.Header.Set("X-Big", strings.Repeat("x", 64<<10))
	if status := overSocket(t, r, req); status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("64 KiB of header: %d", status)
	}

	// A request whose header never ends is cut off.
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "unix", r.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer letGo(conn)
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n"); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if _, err := io.ReadAll(conn); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Logf("cut off by %v", err)
	}
	if took := time.Since(start); took > 8*time.Second {
		t.Errorf("half a header was waited for %v", took)
	}
}

// Over TLS people get version 1.3 or nothing, and no name of a node or its
// authority's key has to be known beforehand but the authority itself.
func TestRunOverTLS(t *testing.T) {
	r := apitest.New(t)
	ca, err := pki.NewCA(42)
	if err != nil {
		t.Fatal(err)
	}
	config, address := r.Config, freeAddress(t)
	config.Socket, config.Listen, config.TLS = "", []string{address}, webTLS(t, ca)
	server, err := api.New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	c, err := client.TLS(address, []byte(ca.PEM()), r.Session(t, model.Viewer))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	apitest.WaitFor(t, "the listener", func() bool {
		_, err := c.Cluster(ctx)
		return err == nil
	})
	old := &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}
	if _, err := client.WithTLS(address, old, model.Secret{}).Meta(ctx); model.CodeOf(err) != model.Unavailable {
		t.Errorf("TLS 1.2: %v", err)
	}
	other, err := pki.NewCA(43)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := client.TLS(address, []byte(other.PEM()), r.Session(t, model.Viewer))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stranger.Cluster(ctx); model.CodeOf(err) != model.Unavailable {
		t.Errorf("with another authority: %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func letGo(c io.Closer) { _ = c.Close() }

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer letGo(l)
	return l.Addr().String()
}

func webTLS(t *testing.T, ca *pki.CA) *tls.Config {
	t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := key.Request()
	if err != nil {
		t.Fatal(err)
	}
	certs, err := ca.Issue(csr, apitest.Self, []string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := pki.Save(dir, key, certs); err != nil {
		t.Fatal(err)
	}
	keeper, err := pki.OpenKeeper(dir)
	if err != nil {
		t.Fatal(err)
	}
	return keeper.Web()
}

func decode(t *testing.T, w *httptest.ResponseRecorder, into any) {
	t.Helper()
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), into); err != nil {
		t.Fatal(err)
	}
}
