package api_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"drystone.example/drystone/backend/api"
	"drystone.example/drystone/backend/api/apitest"
	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/model"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares a text with a committed file, or writes the file.
func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s is not current (go test ./backend/api -update writes it); -committed +now:\n%s", path, diff)
	}
}

// fillPath puts something that is nowhere in the place of a path's parameters.
func fillPath(path string) string {
	for _, p := range []string{"{ref}", "{id}", "{sha256}"} {
		path = strings.ReplaceAll(path, p, "nowhere")
	}
	return api.Base + path
}

// Every route asks every role as the committed matrix says, and what is refused is
// refused before the request is looked at. "yes" means that the request got past
// the guard, whatever it then came to.
func TestMatrix(t *testing.T) {
	r := apitest.New(t)
	roles := []model.Role{"", model.Viewer, model.Operator, model.Admin, model.Owner}
	var out bytes.Buffer
	fmt.Fprintf(&out, "%-7s %-32s %-8s %-8s %-8s", "method", "path", "verb", "kind", "rate")
	fmt.Fprintf(&out, " %-8s %-8s %-8s %-8s %-8s\n", "nobody", "viewer", "operator", "admin", "owner")
	for i, line := range api.Table() {
		fmt.Fprintf(&out, "%-7s %-32s %-8s %-8s %-8s", line.Method, line.Path, line.Verb, line.Kind, line.Rate)
		for j, role := range roles {
			req := httptest.NewRequest(line.Method, fillPath(line.Path), strings.NewReader("not json"))
			req.RemoteAddr = fmt.Sprintf("192.0.%d.%d:1", j, i)
			req.Header.Set("Content-Type", "application/json")
			if role != "" {
				req.Header.Set("Authorization", "Bearer "+r.Session(t, role).Reveal())
			}
			w := httptest.NewRecorder()
			r.Handler().ServeHTTP(w, req)
			verdict := "yes"
			switch w.Code {
			case http.StatusUnauthorized:
				verdict = "log in"
			case http.StatusForbidden:
				verdict = "no"
			}
			fmt.Fprintf(&out, " %-8s", verdict)
			if got := w.Header().Get("X-Request-Id"); got == "" {
				t.Errorf("%s %s: no request id", line.Method, line.Path)
			}
			if w.Code == http.StatusInternalServerError {
				t.Errorf("%s %s as %q: %s", line.Method, line.Path, role, w.Body)
			}
		}
		fmt.Fprintln(&out)
	}
	golden(t, "testdata/matrix.txt", trimmed(out.Bytes()))
}

// trimmed takes the blanks from the ends of lines.
func trimmed(p []byte) []byte {
	var out bytes.Buffer
	for line := range bytes.Lines(p) {
		out.Write(append(bytes.TrimRight(line, " \n"), '\n'))
	}
	return out.Bytes()
}

// Every route of the table is served, and every identifier is used once.
func TestTableIsServed(t *testing.T) {
	r := apitest.New(t)
	spec, err := r.Spec()
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string `json:"operationId"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(spec, &doc); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, line := range api.Table() {
		op, ok := doc.Paths[line.Path][strings.ToLower(line.Method)]
		if !ok || op.OperationID != line.ID {
			t.Errorf("%s %s is described as %q, want %q", line.Method, line.Path, op.OperationID, line.ID)
		}
		if seen[line.ID] {
			t.Errorf("the identifier %s is used twice", line.ID)
		}
		seen[line.ID] = true
		if line.Body <= 0 {
			t.Errorf("%s %s has no limit of its body", line.Method, line.Path)
		}
	}
	n := 0
	for _, methods := range doc.Paths {
		n += len(methods)
	}
	if n != len(api.Table()) {
		t.Errorf("%d operations are described, the table has %d", n, len(api.Table()))
	}
}

func TestOpenAPIIsCurrent(t *testing.T) {
	r := apitest.New(t)
	spec, err := r.Spec()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "../../docs/openapi.json", spec)
	if n := strings.Count(string(spec), `"null"`); n != 2 {
		t.Errorf("%d things in the description may be null, want two: a value of a History and of a VMHistory", n)
	}
	if strings.Contains(string(spec), "ErrorModel") {
		t.Error("the framework's error is in the description")
	}

	resp, err := r.Web.Client().Get(r.Web.URL + api.Base + "/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	defer letGo(resp.Body)
	var served, want any
	if err := json.NewDecoder(resp.Body).Decode(&served); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(spec, &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, served); diff != "" {
		t.Errorf("what is served differs: %s", diff)
	}
}

// What is not in the table is not there, in the API's own words, and what is not
// the API is the page.
func TestOutsideTheTable(t *testing.T) {
	r := apitest.New(t)
	for _, c := range []struct {
		method, path, origin string
		status               int
	}{
		{"GET", "/api/v1/nothing", "", http.StatusNotFound},
		{"GET", "/api/v2/cluster", "", http.StatusNotFound},
		{"DELETE", "/api/v1/cluster", "", http.StatusNotFound},
		{"POST", "/api/v1/login", "https://evil.example", http.StatusForbidden},
	} {
		req := httptest.NewRequest(c.method, c.path, nil)
		if c.origin != "" {
			req.Header.Set("Origin", c.origin)
		}
		w := httptest.NewRecorder()
		r.Handler().ServeHTTP(w, req)
		var p schema.Problem
		err := json.Unmarshal(w.Body.Bytes(), &p)
		if w.Code != c.status || err != nil || p.Status != c.status || p.RequestID == "" ||
			w.Header().Get("Content-Type") != schema.ProblemType {
			t.Errorf("%s %s: %d %s", c.method, c.path, w.Code, w.Body)
		}
	}
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if w.Code != http.StatusOK || w.Body.String() != "page" || w.Header().Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("GET /: %d %s %v", w.Code, w.Body, w.Header())
	}
}
