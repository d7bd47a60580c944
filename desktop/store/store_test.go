package store

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/pki"
)

func open(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatalf("Open(%q) = %v", path, err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close() = %v", err)
		}
	})
	return s
}

func example(id model.ClusterID, name string) Cluster {
	return Cluster{
		ID: id, Name: name, Color: "#188379", User: "anna", Pin: pki.Pin{1, 2, 3},
		Endpoints: []string{"127.0.1.1:8443", "[::1]:8443"},
		Added:     time.Date(2026, 11, 23, 9, 0, int(id), 0, time.UTC),
	}
}

// What was kept is there after the file was closed and opened again.
func TestKeepsAcrossOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new folder", "clusters.db")
	want := []Cluster{example(1, "oslo"), example(2, "bergen")}
	first, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range want {
		if err := first.Put(t.Context(), c); err != nil {
			t.Fatalf("Put(%s) = %v", c.Name, err)
		}
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := open(t, path).List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("List() differs (-want +got):\n%s", d)
	}
	info, err := os.Stat(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o700 {
		t.Errorf("the folder has mode %o, want 700", got)
	}
}

func TestUpdateAndDelete(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "clusters.db"))
	if err := s.Put(t.Context(), example(1, "oslo")); err != nil {
		t.Fatal(err)
	}
	got, err := s.Update(t.Context(), 1, func(c *Cluster) { c.ReadOnly, c.Color = true, "#c92a2a" })
	if err != nil {
		t.Fatal(err)
	}
	want := example(1, "oslo")
	want.ReadOnly, want.Color = true, "#c92a2a"
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("Update() differs (-want +got):\n%s", d)
	}
	if err := s.Delete(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), 1); model.CodeOf(err) != model.NotFound {
		t.Errorf("Get(deleted) = %v, want code %s", err, model.NotFound)
	}
	if _, err := s.Update(t.Context(), 1, func(*Cluster) {}); model.CodeOf(err) != model.NotFound {
		t.Errorf("Update(deleted) = %v, want code %s", err, model.NotFound)
	}
}

// A file that a newer app wrote is left alone.
func TestRefusesNewer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "clusters.db")
	s := open(t, path)
	if _, err := s.db.ExecContext(t.Context(), "PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), path)
	if model.CodeOf(err) != model.Conflict || !strings.Contains(err.Error(), "newer app") {
		t.Errorf("Open(newer) = %v, want a conflict that says so", err)
	}
}
