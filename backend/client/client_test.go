package client

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/model"
)

const canary = "canary-token-4711"

// against is a client, with a token, of something that answers as told.
func against(t *testing.T, answer http.HandlerFunc) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(answer)
	letGo(server.Listener)
	server.Listener = l
	server.Start()
	t.Cleanup(server.Close)
	c := Unix(path).WithToken(model.NewSecret(canary))
	t.Cleanup(c.Close)
	return c
}

func say(w http.ResponseWriter, media string, status int, text string) {
	w.Header().Set("Content-Type", media)
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

// Whatever answers, the error has a code and a sentence, and no secret.
func TestErrors(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		want   model.Code
		words  string
	}{
		{"a problem", func(w http.ResponseWriter, _ *http.Request) {
			say(w, schema.ProblemType, http.StatusConflict, `{"status":409,"code":"conflict","detail":"it is taken"}`)
		}, model.Conflict, "it is taken"},
		{"a page", func(w http.ResponseWriter, _ *http.Request) {
			say(w, "text/html", http.StatusNotFound, "<html>")
		}, model.Unavailable, "not a node of Drystone"},
		{"JSON of something else", func(w http.ResponseWriter, _ *http.Request) {
			say(w, "application/json", http.StatusBadGateway, `{"code":"denied"}`)
		}, model.Unavailable, "not a node of Drystone"},
		{"somewhere else", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://evil.example/", http.StatusFound)
		}, model.Unavailable, "not a node of Drystone"},
		{"half an answer", func(w http.ResponseWriter, _ *http.Request) {
			say(w, "application/json", http.StatusOK, `{"name":"de`)
		}, model.Unavailable, "broke off"},
		{"no answer", func(w http.ResponseWriter, _ *http.Request) {
			if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
				letGo(conn)
			}
		}, model.Unavailable, "cannot be reached"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := against(t, c.answer).Cluster(t.Context())
			if model.CodeOf(err) != c.want || !strings.Contains(err.Error(), c.words) {
				t.Errorf("Cluster: %v (%s), want %q (%s)", err, model.CodeOf(err), c.words, c.want)
			}
			if err != nil && strings.Contains(err.Error(), canary) {
				t.Errorf("the error %v holds the token", err)
			}
		})
	}
}

func TestNobodyThere(t *testing.T) {
	_, err := Unix(filepath.Join(t.TempDir(), "s")).Cluster(t.Context())
	if model.CodeOf(err) != model.Unavailable {
		t.Errorf("no socket: %v", err)
	}
	if _, err := TLS("127.0.0.1:1", []byte("no certificate"), model.Secret{}); model.CodeOf(err) != model.Invalid {
		t.Errorf("no certificate: %v", err)
	}
	_, err = Unix(filepath.Join(t.TempDir(), "s")).Live(t.Context())
	if model.CodeOf(err) != model.Unavailable {
		t.Errorf("a live stream of nobody: %v", err)
	}
}

// A caller who gives up gets the context's own error.
func TestCancel(t *testing.T) {
	hold := make(chan struct{})
	c := against(t, func(http.ResponseWriter, *http.Request) { <-hold })
	defer close(hold)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Cluster(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Cluster: %v", err)
	}
}

// What people type as a name cannot leave its place in the path.
func TestPathsAreEscaped(t *testing.T) {
	var got string
	c := against(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.URL.EscapedPath() + "?" + r.URL.RawQuery
		say(w, "application/json", http.StatusOK, "{}")
	})
	for ref, want := range map[string]string{
		"data":      "/api/v1/volumes/data?",
		"../nodes":  "/api/v1/volumes/..%2Fnodes?",
		"a?b=c#d e": "/api/v1/volumes/a%3Fb=c%23d%20e?",
	} {
		if _, err := c.Volume(t.Context(), ref); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("Volume(%q) asked for %s, want %s", ref, got, want)
		}
	}
}

// Streams end with an error unless they were ended by whoever asked for them.
func TestStreams(t *testing.T) {
	stream := func(text string) *Client {
		return against(t, func(w http.ResponseWriter, _ *http.Request) {
			say(w, "application/x-ndjson", http.StatusOK, text)
		})
	}
	spec := schema.ExportSpec{Kind: schema.ExportNBD}
	ready := 0
	count := func(string) { ready++ }
	err := stream(`{"ready":"nbd:x"}`+"\n").Export(t.Context(), "data", spec, count)
	if model.CodeOf(err) != model.Unavailable || ready != 1 {
		t.Errorf("an export that just ends: %v, ready %d times", err, ready)
	}
	err = stream(`{"ready":"nbd:x"}`+"\n"+`{"error":{"code":"fenced","detail":"taken"}}`+"\n").Export(t.Context(), "data", spec, count)
	if model.CodeOf(err) != model.Fenced {
		t.Errorf("an export that failed: %v", err)
	}
	image := Image{Name: "x", Format: schema.Raw, Size: 1}
	import1 := func(text string) error {
		_, err := stream(text).ImportImage(t.Context(), image, strings.NewReader("x"), func(schema.ImportEvent) {})
		return err
	}
	for text, want := range map[string]model.Code{
		`{"phase":"convert"}` + "\n":                           model.Unavailable,
		`{"error":{"code":"no_space","detail":"full"}}` + "\n": model.NoSpace,
		"not json\n": model.Unavailable,
		`{"phase":"convert"}` + "\n" + `{"volume":{"name":"x"}}` + "\n": "",
	} {
		if err := import1(text); model.CodeOf(err) != want {
			t.Errorf("an import answered with %q: %v, want code %q", text, err, want)
		}
	}
}
