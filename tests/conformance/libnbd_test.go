package conformance

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	kib = 1 << 10
	mib = 1 << 20
)

// An extent as nbdinfo prints it.
type extent struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
	Type   int   `json:"type"`
}

// What extents are: the bits of base:allocation, both set for a hole.
const (
	data = 0
	hole = 3
)

func extents(t *testing.T, uri string) (out []extent) {
	t.Helper()
	text := tool(t, "nbdinfo", "--map", "--json", uri)
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatalf("nbdinfo printed %q: %v", text, err)
	}
	return out
}

// nbdinfo must see what was written as data, the rest as holes, and holes where
// whole blocks were trimmed, across the edges of pages and stripes.
func (s *suite) nbdinfo(t *testing.T) {
	s.volume(t, "map", "16M")
	e := s.nbd(t, "map", "node1")
	for _, step := range []struct {
		command string
		want    []extent
	}{
		{"flush", []extent{{0, 16 * mib, hole}}},
		{"write -q -P 7 1M 6M", []extent{{0, mib, hole}, {mib, 6 * mib, data}, {7 * mib, 9 * mib, hole}}},
		{"discard -q 1984k 192k", []extent{
			{0, mib, hole},
			{mib, 960 * kib, data},
			{1984 * kib, 192 * kib, hole},
			{2176 * kib, 7*mib - 2176*kib, data},
			{7 * mib, 9 * mib, hole},
		}},
		// One block within a page, and a part of a block, which stays.
		{"discard -q 3076k 4608", []extent{
			{0, mib, hole},
			{mib, 960 * kib, data},
			{1984 * kib, 192 * kib, hole},
			{2176 * kib, 900 * kib, data},
			{3076 * kib, 4 * kib, hole},
			{3080 * kib, 7*mib - 3080*kib, data},
			{7 * mib, 9 * mib, hole},
		}},
		{"discard -q 0 16M", []extent{{0, 16 * mib, hole}}},
		{"write -q -P 9 16776704 512", []extent{{0, 16*mib - 4*kib, hole}, {16*mib - 4*kib, 4 * kib, data}}},
		{"write -q -z -u 0 16M", []extent{{0, 16 * mib, hole}}},
	} {
		qemuIO(t, e.URI, []string{step.command, "flush"})
		if diff := cmp.Diff(step.want, extents(t, e.URI)); diff != "" {
			t.Errorf("after %q nbdinfo sees (-want +got)\n%s", step.command, diff)
		}
	}
}

// nbdcopy brings a file in through one node and takes it out through another, and
// copies one volume to another, with several connections: the bytes and the holes
// are the same everywhere.
func (s *suite) nbdcopy(t *testing.T) {
	const size = 96 * mib
	s.volume(t, "first", "96M")
	s.volume(t, "second", "96M")
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from.raw"), filepath.Join(dir, "to.raw")
	want := make([]byte, size)
	source := random(t)
	for _, r := range [][2]int{{0, mib}, {5*mib + 4*kib, 9 * mib}, {30*mib + 512, 44 * mib}, {size - 64*kib, size}} {
		_, _ = source.Read(want[r[0]:r[1]])
	}
	if err := os.WriteFile(from, want, 0o600); err != nil {
		t.Fatal(err)
	}

	first := s.nbd(t, "first", "node1")
	tool(t, "nbdcopy", "--connections=4", from, first.URI)
	first.Stop()
	first = s.nbd(t, "first", "node2")
	second := s.nbd(t, "second", "node3")
	qemuIO(t, second.URI, []string{"write -q -P 0xee 0 96M"}) // holes must be made, not found
	tool(t, "nbdcopy", "--connections=4", first.URI, second.URI)
	tool(t, "nbdcopy", "--connections=4", second.URI, to)
	if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, want) {
		t.Errorf("what came back is not what went in: %v", err)
	}
	tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", from, first.URI)
	if diff := cmp.Diff(extents(t, first.URI), extents(t, second.URI)); diff != "" {
		t.Errorf("the copy's holes are not the source's (-source +copy)\n%s", diff)
	}
}

// libnbd's own client, over several connections at once, holds the server to what
// it says of itself: CAN_MULTI_CONN.
func (s *suite) multiConn(t *testing.T) {
	s.volume(t, "shared", "16M")
	e := s.nbd(t, "shared", "node1")
	script, err := filepath.Abs("testdata/multiconn.py")
	if err != nil {
		t.Fatal(err)
	}
	// The distribution's Python, for which its libnbd is built.
	t.Log(tool(t, "/usr/bin/python3", script, e.URI, strconv.FormatUint(*seed, 10), pick("200", "3000")))
}
