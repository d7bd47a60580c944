package spool

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"drystone.example/drystone/backend/model"
)

var (
	ada   = model.Actor{User: "ada", UserID: 1, Role: model.Admin}
	bob   = model.Actor{User: "bob", UserID: 2, Role: model.Admin}
	owner = model.Actor{User: "eve", UserID: 3, Role: model.Owner}
)

// opened is the spool of a folder after the node's start.
func opened(t *testing.T, dir string) *Spool {
	t.Helper()
	s := New(dir, slog.New(slog.DiscardHandler))
	if err := s.load(); err != nil {
		t.Fatal(err)
	}
	return s
}

func begun(t *testing.T, s *Spool, by model.Actor, n int) Upload {
	t.Helper()
	u, err := s.Begin(by, Spec{Name: "disk", File: "disk.img", Mark: "m", Size: model.Bytes(n)})
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func codeIs(t *testing.T, what string, err error, want model.Code) {
	t.Helper()
	if model.CodeOf(err) != want {
		t.Errorf("%s: %v, want the code %q", what, err, want)
	}
}

// used is what Use hands on.
func used(t *testing.T, s *Spool, id model.UploadID, sum string) (got []byte, err error) {
	t.Helper()
	err = s.Use(t.Context(), ada, id, sum, func(model.Bytes) {}, func(_ Upload, path string) error {
		got, err = os.ReadFile(path)
		return err
	})
	return got, err
}

// An upload that broke goes on at its offset, also in another life of the node, and what
// comes out is what was sent.
func TestGoesOn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "uploads")
	data := bytes.Repeat([]byte("0123456789abcdef"), 3<<16)
	s := opened(t, dir)
	u := begun(t, s, ada, len(data))
	broken := io.MultiReader(bytes.NewReader(data[:1<<20]), iotest.ErrReader(errors.New("the line is dead")))
	u, err := s.Append(t.Context(), ada, u.ID, Chunk{}, broken)
	codeIs(t, "a line that breaks", err, model.Unavailable)
	if u.Offset != 1<<20 {
		t.Errorf("of 1 MiB that arrived %d bytes count", u.Offset)
	}
	_, err = used(t, s, u.ID, "")
	codeIs(t, "using a third of a file", err, model.Conflict)

	// The node is killed while it writes: what it wrote beyond the offset does not count.
	f, err := os.OpenFile(s.path(u.ID, ".part"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("never acknowledged"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	s = opened(t, dir)
	again, err := s.Get(ada, u.ID)
	if err != nil || again.Offset != u.Offset || again.Spec != u.Spec {
		t.Fatalf("after a start: %+v, %v; want %+v", again, err, u)
	}
	u, err = s.Append(t.Context(), ada, u.ID, Chunk{At: u.Offset}, bytes.NewReader(data[u.Offset:]))
	if err != nil || u.Offset != u.Size {
		t.Fatalf("the rest: %+v, %v", u, err)
	}
	sum := sha256.Sum256(data)
	got, err := used(t, s, u.ID, hex.EncodeToString(sum[:]))
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("what comes out differs (%v)", err)
	}
	_, err = s.Get(ada, u.ID)
	codeIs(t, "what was used", err, model.NotFound)
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// A file that lost bytes the node had acknowledged is not taken for whole.
func TestShorterThanItsOffset(t *testing.T) {
	dir := t.TempDir()
	s := opened(t, dir)
	u := begun(t, s, ada, 8)
	if _, err := s.Append(t.Context(), ada, u.ID, Chunk{}, strings.NewReader("12345678")); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(s.path(u.ID, ".part"), 5); err != nil {
		t.Fatal(err)
	}
	s = opened(t, dir)
	if u, err := s.Get(ada, u.ID); err != nil || u.Offset != 5 {
		t.Errorf("the upload is at %d (%v), want 5", u.Offset, err)
	}
}

func TestChunksAreCompared(t *testing.T) {
	s := opened(t, t.TempDir())
	u := begun(t, s, ada, 6)
	right, wrong := sha256.Sum256([]byte("abc")), sha256.Sum256([]byte("abd"))
	send := func(at model.Bytes, sum []byte, text string) error {
		var err error
		u, err = s.Append(t.Context(), ada, u.ID, Chunk{At: at, Sum: sum}, strings.NewReader(text))
		return err
	}
	codeIs(t, "another digest", send(0, wrong[:], "abc"), model.Invalid)
	codeIs(t, "more than was announced", send(0, right[:], "abcd"), model.Invalid)
	if u.Offset != 0 {
		t.Errorf("what was refused counts: the offset is %d", u.Offset)
	}
	if err := send(0, right[:], "abc"); err != nil || u.Offset != 3 {
		t.Errorf("the right digest: %d, %v", u.Offset, err)
	}
	codeIs(t, "the same again", send(0, right[:], "abc"), model.Conflict)
	codeIs(t, "beyond the end", send(3, nil, "defg"), model.Invalid)
	if u.Offset != 6 {
		t.Errorf("the file's own bytes are at %d", u.Offset)
	}
}

// A whole file with another digest is refused and forgotten; one that could not be used
// for another reason stays.
func TestUse(t *testing.T) {
	s := opened(t, t.TempDir())
	u := begun(t, s, ada, 3)
	if _, err := s.Append(t.Context(), ada, u.ID, Chunk{}, strings.NewReader("abc")); err != nil {
		t.Fatal(err)
	}
	err := s.Use(t.Context(), ada, u.ID, "", func(model.Bytes) {}, func(Upload, string) error {
		_, err := s.Append(t.Context(), ada, u.ID, Chunk{At: 3}, strings.NewReader(""))
		codeIs(t, "sending while it is used", err, model.Conflict)
		codeIs(t, "deleting while it is used", s.Remove(ada, u.ID), model.Conflict)
		return model.Errorf(model.NoSpace, "the pool is full")
	})
	codeIs(t, "a pool that is full", err, model.NoSpace)
	_, err = used(t, s, u.ID, strings.Repeat("0", 64))
	codeIs(t, "another digest", err, model.Invalid)
	_, err = s.Get(ada, u.ID)
	codeIs(t, "the refused file", err, model.NotFound)
}

func TestBounds(t *testing.T) {
	s := opened(t, t.TempDir())
	for _, bad := range []Spec{
		{Name: "../x", Size: 1},
		{Name: "x"},
		{Name: "x", Size: -1},
		{Name: "x", Size: MaxSize + 1},
		{Name: "x", Size: 1, Mark: strings.Repeat("m", 300)},
	} {
		_, err := s.Begin(ada, bad)
		codeIs(t, bad.Name, err, model.Invalid)
	}
	_, err := s.Begin(ada, Spec{Name: "x", Size: MaxSize})
	codeIs(t, "more than the file system has", err, model.NoSpace)
	first := begun(t, s, ada, 1)
	for range MaxPerUser - 1 {
		begun(t, s, ada, 1)
	}
	_, err = s.Begin(ada, Spec{Name: "x", Size: 1})
	codeIs(t, "one too many", err, model.Conflict)
	if err := s.Remove(ada, first.ID); err != nil {
		t.Fatal(err)
	}
	begun(t, s, ada, 1)
}

// Nobody sees what others send, but an owner.
func TestOthers(t *testing.T) {
	s := opened(t, t.TempDir())
	u := begun(t, s, ada, 3)
	_, err := s.Append(t.Context(), bob, u.ID, Chunk{}, strings.NewReader("abc"))
	codeIs(t, "sending to somebody else's", err, model.NotFound)
	codeIs(t, "deleting somebody else's", s.Remove(bob, u.ID), model.NotFound)
	for by, want := range map[*model.Actor]int{&ada: 1, &bob: 0, &owner: 1} {
		if all, err := s.List(*by); err != nil || len(all) != want {
			t.Errorf("%s sees %v (%v), want %d", by.User, all, err, want)
		}
	}
}

// What nobody sends to is forgotten a day after the last byte, and what belongs to no
// upload when the node starts.
func TestExpire(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"0123456789abc.part", "junk", "0123456789abc.new"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := New(dir, slog.New(slog.DiscardHandler))
		_, err := s.Begin(ada, Spec{Name: "x", Size: 1})
		codeIs(t, "before the node has looked", err, model.Unavailable)
		ended := make(chan struct{})
		go func() { defer close(ended); s.Run(ctx) }()
		synctest.Wait()
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
		u := begun(t, s, ada, 3)
		time.Sleep(Lifetime - time.Hour)
		if _, err := s.Append(ctx, ada, u.ID, Chunk{}, strings.NewReader("ab")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(Lifetime - time.Hour)
		if _, err := s.Get(ada, u.ID); err != nil {
			t.Errorf("it is gone although something was sent within the day: %v", err)
		}
		time.Sleep(time.Hour + expireEvery)
		synctest.Wait()
		_, err = s.Get(ada, u.ID)
		codeIs(t, "after a day", err, model.NotFound)
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
		cancel()
		<-ended
	})
}
