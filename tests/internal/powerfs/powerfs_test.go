package powerfs_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"drystone.example/drystone/tests/internal/powerfs"
)

// A rig is one drive, and a test that uses it.
type rig struct {
	t    *testing.T
	rack *powerfs.Rack
	at   string
}

func newRig(t *testing.T, seed uint64) *rig {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("to mount needs root")
	}
	r := &rig{t: t, rack: powerfs.New(t.TempDir(), seed), at: t.TempDir()}
	if err := r.rack.Mount(r.at); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.ok(r.rack.Close()) })
	return r
}

func (r *rig) ok(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Error(err)
	}
}

func (r *rig) path(name string) string { return filepath.Join(r.at, name) }

// use opens a file, or makes it, and closes it again.
func (r *rig) use(name string, flags int, f func(f *os.File) error) {
	r.t.Helper()
	file, err := os.OpenFile(r.path(name), os.O_CREATE|os.O_RDWR|flags, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	r.ok(errors.Join(f(file), file.Close()))
}

// sync makes what a file or directory holds durable.
func (r *rig) sync(name string) {
	r.t.Helper()
	f, err := os.Open(r.path(name))
	if err != nil {
		r.t.Fatal(err)
	}
	r.ok(errors.Join(f.Sync(), f.Close()))
}

func (r *rig) write(name, text string) {
	r.t.Helper()
	r.ok(os.WriteFile(r.path(name), []byte(text), 0o600))
}

func (r *rig) cut(k powerfs.Keep) {
	r.t.Helper()
	r.rack.Cut()
	r.rack.Off()
	r.ok(r.rack.On(k))
}

// files are what is there, by name.
func (r *rig) files() map[string]string {
	r.t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(r.at, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		name, _ := filepath.Rel(r.at, path)
		out[name] = string(text)
		return err
	})
	r.ok(err)
	return out
}

// old is what each case begins with, durable.
const old = "old text of the file"

// What was not made durable is lost when nothing is kept, what was is there, and all
// of it is there when everything is kept.
func TestCut(t *testing.T) {
	for _, c := range []struct {
		name      string
		do        func(r *rig)
		none, all map[string]string
	}{
		{
			"new file", func(r *rig) { r.write("b", "b") },
			map[string]string{"a": old},
			map[string]string{"a": old, "b": "b"},
		},
		{
			"new file, synced, not its name", func(r *rig) { r.write("b", "b"); r.sync("b") },
			map[string]string{"a": old},
			map[string]string{"a": old, "b": "b"},
		},
		{
			"new name, synced, not its file", func(r *rig) { r.write("b", "b"); r.sync(".") },
			map[string]string{"a": old, "b": ""},
			map[string]string{"a": old, "b": "b"},
		},
		{
			"both synced", func(r *rig) { r.write("b", "b"); r.sync("b"); r.sync(".") },
			map[string]string{"a": old, "b": "b"},
			map[string]string{"a": old, "b": "b"},
		},
		{
			"over the end", func(r *rig) {
				r.use("a", os.O_APPEND, func(f *os.File) error { _, err := f.WriteString("!"); return err })
			},
			map[string]string{"a": old},
			map[string]string{"a": old + "!"},
		},
		{
			"truncate", func(r *rig) { r.ok(os.Truncate(r.path("a"), 3)); r.ok(os.Truncate(r.path("a"), 5)) },
			map[string]string{"a": old},
			map[string]string{"a": "old\x00\x00"},
		},
		{
			"truncate, synced", func(r *rig) { r.ok(os.Truncate(r.path("a"), 3)); r.sync("a") },
			map[string]string{"a": "old"},
			map[string]string{"a": "old"},
		},
		{
			"rename over", func(r *rig) {
				r.write("b", "b")
				r.sync("b")
				r.ok(os.Rename(r.path("b"), r.path("a")))
			},
			map[string]string{"a": old},
			map[string]string{"a": "b"},
		},
		{
			"remove", func(r *rig) { r.ok(os.Remove(r.path("a"))) },
			map[string]string{"a": old},
			map[string]string{},
		},
		{
			"remove, synced", func(r *rig) { r.ok(os.Remove(r.path("a"))); r.sync(".") },
			map[string]string{},
			map[string]string{},
		},
		{
			"folder", func(r *rig) { r.ok(os.Mkdir(r.path("d"), 0o700)); r.write("d/b", "b"); r.sync("d/b"); r.sync("d") },
			map[string]string{"a": old},
			map[string]string{"a": old, "d/b": "b"},
		},
		{
			"a lie", func(r *rig) {
				r.rack.Lie(powerfs.LieOfFiles | powerfs.LieOfNames)
				r.write("b", "b")
				r.sync("b")
				r.sync(".")
			},
			map[string]string{"a": old},
			map[string]string{"a": old, "b": "b"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, 1)
			for _, k := range []struct {
				keep powerfs.Keep
				want map[string]string
			}{{powerfs.Nothing, c.none}, {powerfs.Everything, c.all}} {
				for name := range r.files() {
					r.ok(os.Remove(r.path(name)))
				}
				r.write("a", old)
				r.sync("a")
				r.ok(os.RemoveAll(r.path("d")))
				r.sync(".")
				c.do(r)
				r.cut(k.keep)
				if diff := cmp.Diff(k.want, r.files()); diff != "" {
					t.Errorf("%d %% kept (-want +got)\n%s", k.keep, diff)
				}
			}
		})
	}
}

// aligned is memory as O_DIRECT wants it.
func aligned(b byte, n int) []byte {
	p := make([]byte, n+4096)
	p = p[4096-uintptr(unsafe.Pointer(&p[0]))%4096:][:n]
	for i := range p {
		p[i] = b
	}
	return p
}

// A write with RWF_DSYNC is durable, and no other one with it; a lie about it is one.
func TestDurableWrite(t *testing.T) {
	const size = 8 << 10
	for _, lie := range []powerfs.Lie{0, powerfs.LieOfWrites} {
		r := newRig(t, 1)
		want := slices.Concat(bytes.Repeat([]byte{1}, size), bytes.Repeat([]byte{2}, size))
		r.use("f", 0, func(f *os.File) error {
			_, err := f.Write(bytes.Repeat([]byte{1}, 2*size))
			return errors.Join(err, f.Sync())
		})
		r.sync(".")
		r.rack.Lie(lie)
		r.use("f", unix.O_DIRECT, func(f *os.File) error {
			_, err := f.WriteAt(aligned(3, size), 0)
			_, err2 := unix.Pwritev2(int(f.Fd()), [][]byte{aligned(2, size)}, size, unix.RWF_DSYNC)
			return errors.Join(err, err2)
		})
		if lie != 0 {
			want = bytes.Repeat([]byte{1}, 2*size)
		}
		r.cut(powerfs.Nothing)
		if got := r.files()["f"]; got != string(want) {
			t.Errorf("with lie %d the file has %d bytes, the first %d, the last %d", lie, len(got), got[0], got[len(got)-1])
		}
	}
}

// Of a write that was not durable a cut that keeps a part keeps 512 bytes or not, and
// of names the first ones.
func TestTorn(t *testing.T) {
	const sectors = 200
	seen := map[int]bool{}
	for seed := range uint64(8) {
		r := newRig(t, seed)
		r.use("a", 0, func(f *os.File) error {
			_, err := f.Write(make([]byte, sectors*512))
			return errors.Join(err, f.Sync())
		})
		r.sync(".")
		r.use("a", 0, func(f *os.File) error {
			_, err := f.Write(bytes.Repeat([]byte{9}, sectors*512))
			return err
		})
		names := []string{"b", "c", "d", "e"}
		for _, name := range names {
			r.write(name, "")
		}
		r.cut(50)
		got := r.files()
		kept := 0
		for at := range sectors {
			s := got["a"][at*512 : (at+1)*512]
			if s == string(bytes.Repeat([]byte{9}, 512)) {
				kept++
			} else if s != string(make([]byte, 512)) {
				t.Errorf("sector %d is torn", at)
			}
		}
		if kept < sectors/4 || kept > sectors*3/4 {
			t.Errorf("%d of %d sectors survived", kept, sectors)
		}
		seen[len(got)-1] = true
		for _, name := range names[:len(got)-1] {
			if _, ok := got[name]; !ok {
				t.Errorf("a later name than %s survived without it: %v", name, got)
			}
		}
	}
	if len(seen) < 3 {
		t.Errorf("of four names there survived only as many as %v", seen)
	}
}

// After a cut no call returns before Off, and none of them has succeeded.
func TestNothingReturns(t *testing.T) {
	r := newRig(t, 1)
	r.write("a", old)
	r.sync("a")
	r.sync(".")
	f, err := os.OpenFile(r.path("a"), os.O_WRONLY|unix.O_DSYNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	r.rack.Cut()
	returned := make(chan error, 1)
	go func() {
		_, err := f.WriteAt([]byte("new"), 0)
		returned <- errors.Join(err, f.Close())
	}()
	time.Sleep(50 * time.Millisecond) // for what returns too early
	select {
	case err := <-returned:
		t.Fatalf("a call returned after the cut: %v", err)
	default:
	}
	r.rack.Off()
	if err := <-returned; !errors.Is(err, unix.EIO) {
		t.Errorf("the call that waited returned %v", err)
	}
	r.ok(r.rack.On(powerfs.Nothing))
	if got := r.files()["a"]; got != old {
		t.Errorf("the file holds %q", got)
	}
}
