package conformance

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"drystone.example/drystone/tests/internal/devcluster"
)

const page = 64 * kib

// snapshotOf serves a snapshot from a node until it is stopped or the test ends.
func (s *suite) snapshotOf(t *testing.T, ref, node string) *devcluster.Export {
	t.Helper()
	return s.c.ExportSnapshot(t, ref, node)
}

// filled makes a file of random stretches and zeros, and a volume with that in it.
func (s *suite) filled(t *testing.T, name string, size int64) (file string, content []byte, live *devcluster.Export) {
	t.Helper()
	s.volume(t, name, strconv.FormatInt(size/mib, 10)+"M")
	content = make([]byte, size)
	source := random(t)
	for _, r := range [][2]int64{{0, mib}, {5*mib + 4*kib, 9 * mib}, {20*mib + 512, 31 * mib}, {size - page, size}} {
		_, _ = source.Read(content[r[0]:r[1]])
	}
	file = filepath.Join(t.TempDir(), "content.raw")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	live = s.nbd(t, name, "node1")
	tool(t, "nbdcopy", file, live.URI)
	return file, content, live
}

// A snapshot that is cut and read while fio writes the volume is what the volume was
// before, each time, from each node; and what others compare it with.
func (s *suite) snapshot(t *testing.T) {
	file, content, live := s.filled(t, "kept", 48*mib)
	s.c.Must(t, "snapshot", "create", "kept", "before")
	load := make(chan string, 1)
	go func() { // ends with fio, which ends by itself
		out, err := tryFio(t, live.URI, slices.Concat(mixed, []string{
			"--rw=randwrite", "--iodepth=8", "--size=48m", "--number_ios=" + pick("6000", "60000"),
		})...)
		if err != nil {
			out = err.Error() + "\n" + out
		} else {
			out = ""
		}
		load <- out
	}()
	here, there := s.snapshotOf(t, "kept@before", "node1"), s.snapshotOf(t, "kept@before", "node2")
	copied := filepath.Join(t.TempDir(), "copy.raw")
	read := func(when string, from *devcluster.Export) {
		t.Helper()
		if err := os.RemoveAll(copied); err != nil {
			t.Fatal(err)
		}
		tool(t, "nbdcopy", "--connections=4", from.URI, copied)
		if got, err := os.ReadFile(copied); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s the snapshot is not what the volume was: %v", when, err)
		}
	}
	read("beside fio, where the volume is held,", here)
	read("beside fio, from another node,", there)
	s.c.Must(t, "snapshot", "create", "kept", "amid")
	if out := <-load; out != "" {
		t.Fatalf("fio: %s", out)
	}
	read("after fio, where the volume is held,", here)
	read("after fio, from another node,", there)
	tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", file, there.URI)
	if out, err := try(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", file, live.URI); err == nil {
		t.Errorf("qemu-img finds the volume itself to be what it was: %s", out)
	}
	flip(t, file, 7*mib)
	if out, err := try(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", file, here.URI); err == nil {
		t.Errorf("qemu-img did not see a planted difference: %s", out)
	}
	for _, uri := range []string{here.URI, there.URI} {
		if out, err := tryQemuIO(t, uri, []string{"write -q 0 4k"}); err == nil {
			t.Errorf("a snapshot could be written to: %s", out)
		}
		if out := tool(t, "nbdinfo", uri); !strings.Contains(out, "is_read_only: true") {
			t.Errorf("nbdinfo of a snapshot sees\n%s", out)
		}
	}
	between := s.snapshotOf(t, "kept@amid", "node3")
	first, second := filepath.Join(t.TempDir(), "first.raw"), filepath.Join(t.TempDir(), "second.raw")
	tool(t, "nbdcopy", between.URI, first)
	qemuIO(t, live.URI, []string{"write -q -P 9 0 48M"})
	tool(t, "nbdcopy", between.URI, second)
	tool(t, "cmp", first, second)
}

// What is said to be dirty since a snapshot is, to the page, what was written and
// discarded after it, by nbdinfo, by `snapshot diff` and by libnbd; and a copy of the
// snapshot into which a client reads what is dirty is the volume.
func (s *suite) dirtySince(t *testing.T) {
	_, _, live := s.filled(t, "dirty", 48*mib)
	s.c.Must(t, "snapshot", "create", "dirty", "one")
	if diff := cmp.Diff([]extent{{0, 48 * mib, 0}}, dirtyMap(t, live.URI, "one")); diff != "" {
		t.Errorf("right after the snapshot (-want +got)\n%s", diff)
	}
	qemuIO(t, live.URI, []string{
		"write -q -P 1 1M 64k",           // a page
		"write -q -P 2 2162176 1024",     // over the edge of two pages: 2112 KiB
		"write -q -P 3 4032k 128k",       // over the edge of two stripes
		"discard -q 6M 192k",             // three pages that held something
		"discard -q 12M 1M",              // nothing was there
		"write -q -P 4 14M 4k",           // where nothing was
		"write -q -P 5 40M 64k", "flush", // written and gone again
		"discard -q 40M 64k", "flush",
	})
	wantOne := []extent{
		{0, mib, 0},
		{mib, page, 1},
		{mib + page, 2112*kib - 64*kib - (mib + page), 0},
		{2112*kib - 64*kib, 2 * page, 1},
		{2176 * kib, 4032*kib - 2176*kib, 0},
		{4032 * kib, 2 * page, 1},
		{4160 * kib, 6*mib - 4160*kib, 0},
		{6 * mib, 3 * page, 1},
		{6*mib + 3*page, 8*mib - 3*page, 0},
		{14 * mib, page, 1},
		{14*mib + page, 34*mib - page, 0},
	}
	if diff := cmp.Diff(wantOne, dirtyMap(t, live.URI, "one")); diff != "" {
		t.Errorf("since the first snapshot (-want +got)\n%s", diff)
	}
	s.c.Must(t, "snapshot", "create", "dirty", "two")
	live.Stop()
	s.c.Must(t, "volume", "resize", "dirty", "64M")
	live = s.nbd(t, "dirty", "node3")
	qemuIO(t, live.URI, []string{"write -q -P 6 60M 4k", "write -q -P 7 20M 64k"})
	wantTwo := []extent{
		{0, 20 * mib, 0},
		{20 * mib, page, 1},
		{20*mib + page, 40*mib - page, 0},
		{60 * mib, page, 1},
		{60*mib + page, 4*mib - page, 0},
	}
	if diff := cmp.Diff(wantTwo, dirtyMap(t, live.URI, "two")); diff != "" {
		t.Errorf("since the second snapshot, of a volume that grew (-want +got)\n%s", diff)
	}
	two := s.snapshotOf(t, "dirty@two", "node1")
	if diff := cmp.Diff(wantOne, dirtyMap(t, two.URI, "one")); diff != "" {
		t.Errorf("of the second snapshot since the first (-want +got)\n%s", diff)
	}
	if out, err := try(t, "nbdinfo", "--map=drystone:dirty-since-two", two.URI); err == nil {
		t.Errorf("a snapshot has a context of itself: %s", out)
	}
	for _, c := range []struct {
		args []string
		want []extent
	}{
		{[]string{"dirty@one", "dirty@two"}, wantOne},
		{[]string{"dirty@two"}, wantTwo},
	} {
		var got struct {
			Ranges []struct{ Offset, Length int64 }
		}
		text := s.c.Must(t, append(append([]string{"snapshot", "diff"}, c.args...), "--json")...)
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatalf("snapshot diff printed %q: %v", text, err)
		}
		var ranges, want []extent
		for _, r := range got.Ranges {
			ranges = append(ranges, extent{r.Offset, r.Length, 1})
		}
		for _, e := range c.want {
			if e.Type == 1 {
				want = append(want, e)
			}
		}
		if diff := cmp.Diff(want, ranges); diff != "" {
			t.Errorf("snapshot diff %v (-want +got)\n%s", c.args, diff)
		}
	}
	script, err := filepath.Abs("testdata/incremental.py")
	if err != nil {
		t.Fatal(err)
	}
	one := s.snapshotOf(t, "dirty@one", "node2")
	t.Log(tool(t, "/usr/bin/python3", script, one.URI, "one", two.URI, "two", live.URI))
}

func dirtyMap(t *testing.T, uri, since string) (out []extent) {
	t.Helper()
	text := tool(t, "nbdinfo", "--map=drystone:dirty-since-"+since, "--json", uri)
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatalf("nbdinfo printed %q: %v", text, err)
	}
	return out
}
