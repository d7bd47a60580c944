package unixsock

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"drystone.example/drystone/backend/model"
)

func TestListenReplacesAndRemoves(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.sock")
	owner := Owner{UID: os.Getuid(), GID: os.Getgid(), Mode: 0o660}
	old, err := Listen(t.Context(), path, owner)
	if err != nil {
		t.Fatal(err)
	}
	if now, err := os.Lstat(path); err != nil || now.Mode() != fs.ModeSocket|0o660 {
		t.Errorf("mode %v, %v; want a socket with 0660", now.Mode(), err)
	}
	young, err := Listen(t.Context(), path, Owner{})
	if err != nil {
		t.Fatal(err)
	}
	if err := old.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the old listener's Close took the new one's path away: %v", err)
	}
	defer func() { _ = c.Close() }()
	for range 2 {
		if err := young.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestListenRefusals(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, path string
		want       model.Code
	}{
		{"a file in the way", file, model.Conflict},
		{"too long", filepath.Join(dir, strings.Repeat("x", PathMax)), model.Invalid},
		{"no directory", filepath.Join(dir, "none", "a"), model.Internal},
	} {
		l, err := Listen(t.Context(), tc.path, Owner{})
		if err == nil {
			_ = l.Close()
		}
		if got := model.CodeOf(err); got != tc.want {
			t.Errorf("%s: %v has code %q, want %q", tc.name, err, got, tc.want)
		}
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != "x" {
		t.Errorf("the file in the way is now %q, %v", got, err)
	}
}
