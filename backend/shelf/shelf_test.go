package shelf

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"drystone.example/drystone/backend/model"
)

var (
	ada   = model.Actor{User: "ada", UserID: 1, Role: model.Admin}
	bob   = model.Actor{User: "bob", UserID: 2, Role: model.Admin}
	owner = model.Actor{User: "eve", UserID: 3, Role: model.Owner}
)

func written(dir string) (string, error) {
	path := filepath.Join(dir, "m.tar")
	return path, os.WriteFile(path, []byte("machine"), 0o600)
}

// A file is kept for an hour after it was made or read last, for who made it, and what a
// former life of the node left is removed.
func TestShelf(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "exports")
	if err := os.MkdirAll(filepath.Join(dir, "0123456789abc"), 0o700); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := New(dir, slog.New(slog.DiscardHandler))
		if _, err := s.Make(ada, written); model.CodeOf(err) != model.Unavailable {
			t.Errorf("before the node has looked: %v", err)
		}
		ended := make(chan struct{})
		go func() { defer close(ended); s.Run(ctx) }()
		synctest.Wait()
		if left, err := os.ReadDir(dir); err == nil {
			t.Errorf("left: %v", left)
		}
		f, err := s.Make(ada, written)
		if err != nil || f.Size != 7 || f.Name != "m.tar" {
			t.Fatalf("Make = %+v, %v", f, err)
		}
		for _, by := range []model.Actor{ada, owner} {
			time.Sleep(Lifetime - time.Minute)
			_, file, done, err := s.Open(by, f.ID)
			if err != nil {
				t.Fatalf("%s: %v", by.User, err)
			}
			if text, err := io.ReadAll(file); err != nil || string(text) != "machine" {
				t.Errorf("%s reads %q, %v", by.User, text, err)
			}
			time.Sleep(2 * Lifetime) // it is kept while it is read
			done()
		}
		if _, _, _, err := s.Open(bob, f.ID); model.CodeOf(err) != model.NotFound {
			t.Errorf("somebody else's: %v", err)
		}
		if err := s.Remove(bob, f.ID); model.CodeOf(err) != model.NotFound {
			t.Errorf("removing somebody else's: %v", err)
		}
		time.Sleep(Lifetime + expireEvery)
		synctest.Wait()
		if _, _, _, err := s.Open(ada, f.ID); model.CodeOf(err) != model.NotFound {
			t.Errorf("after an hour: %v", err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
		cancel()
		<-ended
	})
}

// No more than MaxFiles are there, and one that could not be made is not.
func TestBounds(t *testing.T) {
	s := New(t.TempDir(), slog.New(slog.DiscardHandler))
	s.open = true
	broken := errors.New("broken")
	if _, err := s.Make(ada, func(string) (string, error) { return "", broken }); !errors.Is(err, broken) {
		t.Errorf("what is broken: %v", err)
	}
	var last File
	for range MaxFiles {
		f, err := s.Make(ada, written)
		if err != nil {
			t.Fatal(err)
		}
		last = f
	}
	if _, err := s.Make(ada, written); model.CodeOf(err) != model.Conflict {
		t.Errorf("one too many: %v", err)
	}
	if err := s.Remove(ada, last.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Make(ada, written); err != nil {
		t.Errorf("after one was removed: %v", err)
	}
}
