package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
)

// A file system that does what it should is found to do so.
func TestHonest(t *testing.T) {
	var out bytes.Buffer
	if err := run([]string{"-seed", "3", "-ops", "400", "-files", "2", "-size", "1048576", t.TempDir()}, &out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "all as it must be") {
		t.Errorf("it printed %q", &out)
	}
}

// A broken file does one thing wrong, now and then.
type broken struct {
	diskFile
	kind string
	n    int
}

// fails is true for every fifth thing of a kind.
func (b *broken) fails(kind string) bool {
	if kind == b.kind {
		b.n++
	}
	return kind == b.kind && b.n%5 == 0
}

func (b *broken) WriteAt(p []byte, off int64) (int, error) {
	switch {
	case b.fails("lost write"):
		return len(p), nil
	case b.fails("misplaced write"):
		return b.diskFile.WriteAt(p, off^4096)
	case b.fails("torn write"):
		_, err := b.diskFile.WriteAt(p[:len(p)/2], off)
		return len(p), err
	}
	return b.diskFile.WriteAt(p, off)
}

func (b *broken) Truncate(size int64) error {
	if b.fails("short truncate") {
		size++
	}
	return b.diskFile.Truncate(size)
}

func (b *broken) Punch(off, n int64) error {
	switch {
	case b.fails("lost punch"):
		return nil
	case b.fails("wide punch"):
		n += 512
	}
	return b.diskFile.Punch(off, n)
}

func (b *broken) Zero(off, n int64) error {
	if b.fails("lost zeros") {
		return nil
	}
	return b.diskFile.Zero(off, n)
}

// Whatever is planted is found.
func TestBroken(t *testing.T) {
	for _, kind := range []string{
		"lost write", "misplaced write", "torn write", "short truncate", "lost punch", "wide punch", "lost zeros",
	} {
		t.Run(kind, func(t *testing.T) {
			f, err := open(filepath.Join(t.TempDir(), "f"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.close() //nolint:errcheck // it is of no use any more
			w := newWalk(&broken{diskFile: f, kind: kind}, 1, 1<<20)
			for range 1000 {
				if err := w.step(); err != nil {
					t.Log(err)
					return
				}
			}
			t.Error("nothing was found in 1000 steps")
		})
	}
}
