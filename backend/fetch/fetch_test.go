package fetch

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"drystone.example/drystone/backend/model"
)

// nowhere is inside nothing.
func nowhere() []netip.Prefix { return nil }

// What is not the public network is refused, however it is written.
func TestPublic(t *testing.T) {
	for _, a := range []string{
		"127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
		"255.255.255.255", "::1", "::", "fe80::1", "fd00::1", "fec0::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
		"64:ff9b::7f00:1", "2002:7f00:1::", "::127.0.0.1", "240.0.0.1", "198.18.0.1",
	} {
		if err := public(netip.MustParseAddr(a).Unmap()); model.CodeOf(err) != model.Denied {
			t.Errorf("%s: %v, want it denied", a, err)
		}
	}
	for _, a := range []string{"1.1.1.1", "2606:4700:4700::1111", "151.101.2.132"} {
		if err := public(netip.MustParseAddr(a)); err != nil {
			t.Errorf("%s: %v", a, err)
		}
	}
}

// Nothing of this machine is reached: by address, by a name that resolves to it, or in
// other ways to write either.
func TestInside(t *testing.T) {
	reached := false
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	defer s.Close()
	port := s.URL[strings.LastIndex(s.URL, ":"):]
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0"} {
		_, _, err := New(nowhere).Open(t.Context(), "http://"+host+port+"/x")
		if model.CodeOf(err) != model.Denied {
			t.Errorf("%s: %v, want it denied", host, err)
		}
	}
	c := New(func() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("1.1.1.0/24")} })
	if _, _, err := c.Open(t.Context(), "http://1.1.1.1/x"); model.CodeOf(err) != model.Denied {
		t.Errorf("a public address of the cluster: %v, want it denied", err)
	}
	if reached {
		t.Error("a request arrived")
	}
}

// server serves by the path; the tests allow its address and no other.
func server(t *testing.T) (*Client, string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/file":
			_, _ = io.WriteString(w, "image of a disk") // the test reads it
		case "/stream":
			w.WriteHeader(http.StatusOK)
			http.NewResponseController(w).Flush() //nolint:errcheck // the test sees it
		case "/to":
			http.Redirect(w, r, r.URL.Query().Get("url"), http.StatusFound)
		case "/around":
			http.Redirect(w, r, "/around", http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	own := netip.MustParseAddr(u.Hostname())
	return newClient(func(a netip.Addr) error {
		if a == own {
			return nil
		}
		return public(a)
	}), s.URL
}

func TestOpen(t *testing.T) {
	c, at := server(t)
	for _, path := range []string{"/file", "/to?url=/file", "/to?url=" + url.QueryEscape(at+"/to?url=/file")} {
		body, size, err := c.Open(t.Context(), at+path)
		if err != nil || size != 15 {
			t.Fatalf("%s: %d, %v", path, size, err)
		}
		if text, err := io.ReadAll(body); err != nil || string(text) != "image of a disk" {
			t.Errorf("%s: %q, %v", path, text, err)
		}
		if err := body.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A redirect leads nowhere that could not be gone to at once.
func TestRefused(t *testing.T) {
	c, at := server(t)
	for path, want := range map[string]model.Code{
		at + "/none":   model.Invalid,
		at + "/stream": model.Invalid,
		at + "/around": model.Invalid,
		at + "/to?url=" + url.QueryEscape("http://127.0.0.2:1/x"):                    model.Denied,
		at + "/to?url=" + url.QueryEscape("http://169.254.169.254/latest/meta-data"): model.Denied,
		at + "/to?url=" + url.QueryEscape("file:///etc/passwd"):                      model.Invalid,
		at + "/to?url=" + url.QueryEscape("http://u:p@127.0.0.1/x"):                  model.Invalid,
		"file:///etc/passwd":                  model.Invalid,
		"http://user:secret@x/":               model.Invalid,
		"gopher://127.0.0.1:70/x":             model.Invalid,
		"http:///x":                           model.Invalid,
		"http://127.0.0.2:1/x":                model.Denied,
		"http://[fe80::1%25lo]:1/x":           model.Denied,
		"http://" + strings.Repeat("x", 4096): model.Invalid,
	} {
		_, _, err := c.Open(t.Context(), path)
		if model.CodeOf(err) != want {
			t.Errorf("%.80s: %v, want %s", path, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error holds a password: %v", err)
		}
	}
}
