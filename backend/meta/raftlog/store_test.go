package raftlog

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"drystone.example/drystone/backend/model"
)

var update = flag.Bool("update", false, "write golden files that are not there yet")

// failer is what testing.T and rapid.T have in common here.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

func openOn(t failer, fs FS) *Store {
	t.Helper()
	s, err := Open(Options{Dir: "log", FS: fs})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return s
}

func closed(t failer, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func entry(index, term uint64) *raft.Log {
	return &raft.Log{Index: index, Term: term, Type: raft.LogCommand, Data: fmt.Appendf(nil, "%d of %d", index, term)}
}

func entries(term, from, to uint64) (out []*raft.Log) {
	for i := from; i <= to; i++ {
		out = append(out, entry(i, term))
	}
	return out
}

// contents is the whole log: the term of each entry that is there.
func contents(t failer, s *Store, upTo uint64) map[uint64]uint64 {
	t.Helper()
	out := map[uint64]uint64{}
	for i := uint64(1); i <= upTo; i++ {
		var l raft.Log
		err := s.GetLog(i, &l)
		if errors.Is(err, raft.ErrLogNotFound) {
			continue
		}
		if err != nil {
			t.Fatalf("GetLog(%d): %v", i, err)
		}
		if want := entry(i, l.Term); !bytes.Equal(l.Data, want.Data) || l.Index != i {
			t.Errorf("entry %d is %+v", i, l)
		}
		out[i] = l.Term
	}
	return out
}

func ends(t failer, s *Store) (first, last uint64) {
	t.Helper()
	first, err := s.FirstIndex()
	if err != nil {
		t.Fatalf("FirstIndex: %v", err)
	}
	if last, err = s.LastIndex(); err != nil {
		t.Fatalf("LastIndex: %v", err)
	}
	return first, last
}

// The store is a log as raft sees one: any appends, truncations of the end,
// deletions of the beginning and reopenings leave what the same steps on a plain
// map leave.
func TestAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fs := vfs.NewMem()
		s := openOn(t, fs)
		defer func() { closed(t, s) }()
		want := map[uint64]uint64{}
		last, term := uint64(0), uint64(1)
		const most = 40
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0, 1: // append, now and then after a gap
				from := last + 1 + uint64(rapid.SampledFrom([]int{0, 0, 0, 3}).Draw(t, "gap"))
				to := min(most, from+uint64(rapid.IntRange(0, 4).Draw(t, "more")))
				if from > to {
					continue
				}
				if err := s.StoreLogs(entries(term, from, to)); err != nil {
					t.Fatalf("StoreLogs(%d..%d): %v", from, to, err)
				}
				for i := from; i <= to; i++ {
					want[i] = term
				}
				last = to
			case 2: // another leader: truncate the end and append
				from := uint64(rapid.IntRange(1, most).Draw(t, "from"))
				if want[from] == 0 || want[from-1] == 0 && from > 1 {
					continue // raft truncates from an entry on, and not behind a gap
				}
				if err := s.DeleteRange(from, last); err != nil {
					t.Fatalf("DeleteRange(%d..%d): %v", from, last, err)
				}
				maps.DeleteFunc(want, func(i, _ uint64) bool { return i >= from })
				term++
				check(t, s, want)
				if err := s.StoreLogs(entries(term, from, from)); err != nil {
					t.Fatalf("StoreLogs(%d): %v", from, err)
				}
				want[from], last = term, from
			case 3: // compact
				to := uint64(rapid.IntRange(1, most).Draw(t, "to"))
				first, _ := ends(t, s)
				if first == 0 || to >= last || to < first {
					continue
				}
				if err := s.DeleteRange(first, to); err != nil {
					t.Fatalf("DeleteRange(%d..%d): %v", first, to, err)
				}
				maps.DeleteFunc(want, func(i, _ uint64) bool { return i <= to })
			case 4:
				closed(t, s)
				s = openOn(t, fs)
			}
			check(t, s, want)
		}
	})
}

func check(t failer, s *Store, want map[uint64]uint64) {
	t.Helper()
	if diff := cmp.Diff(want, contents(t, s, 100)); diff != "" {
		t.Fatalf("the log differs (-want +got):\n%s", diff)
	}
	first, last := ends(t, s)
	wantFirst, wantLast := uint64(0), uint64(0)
	if len(want) > 0 {
		keys := slices.Sorted(maps.Keys(want))
		wantFirst, wantLast = keys[0], keys[len(keys)-1]
	}
	// After a compaction into a gap the first index may lie in the gap.
	if last != wantLast || first > wantFirst || (first == 0) != (wantFirst == 0) {
		t.Fatalf("the log goes from %d to %d, want %d to %d", first, last, wantFirst, wantLast)
	}
}

// Stable values are there after reopening; those never set are empty.
func TestStableValues(t *testing.T) {
	fs := vfs.NewMem()
	s := openOn(t, fs)
	if got, err := s.GetUint64([]byte("term")); got != 0 || err != nil {
		t.Errorf("a value never set: %d, %v", got, err)
	}
	if got, err := s.Get([]byte("vote")); len(got) != 0 || err != nil {
		t.Errorf("a value never set: %q, %v", got, err)
	}
	if err := errors.Join(s.SetUint64([]byte("term"), 1<<40), s.Set([]byte("vote"), []byte("me"))); err != nil {
		t.Fatal(err)
	}
	closed(t, s)
	s = openOn(t, fs)
	defer closed(t, s)
	if got, err := s.GetUint64([]byte("term")); got != 1<<40 || err != nil {
		t.Errorf("term: %d, %v", got, err)
	}
	if got, err := s.Get([]byte("vote")); string(got) != "me" || err != nil {
		t.Errorf("vote: %q, %v", got, err)
	}
	if _, err := s.GetUint64([]byte("vote")); model.CodeOf(err) != model.Corrupt {
		t.Errorf("a number of two bytes: %v", err)
	}
}

// The commit index is what was staged when the last append became durable, never
// more, and never beyond the log.
func TestCommitIndex(t *testing.T) {
	fs := vfs.NewMem()
	s := openOn(t, fs)
	commit := func() uint64 {
		t.Helper()
		got, err := s.GetCommitIndex()
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	stage := func(i uint64) {
		t.Helper()
		if err := s.StageCommitIndex(i); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.StoreLogs(entries(1, 1, 5)); err != nil {
		t.Fatal(err)
	}
	stage(3)
	if got := commit(); got != 0 {
		t.Errorf("staged only: %d, want 0", got)
	}
	if err := s.StoreLog(entry(6, 1)); err != nil {
		t.Fatal(err)
	}
	stage(6)
	closed(t, s)
	s = openOn(t, fs)
	defer closed(t, s)
	if got := commit(); got != 3 {
		t.Errorf("after reopening: %d, want 3", got)
	}
	stage(9)
	if err := s.StoreLog(entry(7, 1)); err != nil {
		t.Fatal(err)
	}
	if got := commit(); got != 7 {
		t.Errorf("staged beyond the log: %d, want 7", got)
	}
}

// At whatever moment the machine crashes, and whatever it kept of what was not
// synced: everything that was acknowledged is there, entry for entry.
func TestCrash(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 2))
		fs := vfs.NewCrashableMem()
		s := openOn(t, fs)
		want, last, term := map[uint64]uint64{}, uint64(0), uint64(0)
		for range 1 + rng.IntN(30) {
			from := last + 1
			if last > 0 && rng.IntN(4) == 0 {
				from = last - uint64(rng.IntN(int(min(last, 3))))
				if err := s.DeleteRange(from, last); err != nil {
					t.Fatal(err)
				}
				maps.DeleteFunc(want, func(i, _ uint64) bool { return i >= from })
			}
			term++
			to := from + uint64(rng.IntN(3))
			if err := s.StageCommitIndex(from - 1); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(s.SetUint64([]byte("term"), term), s.StoreLogs(entries(term, from, to))); err != nil {
				t.Fatal(err)
			}
			for i := from; i <= to; i++ {
				want[i] = term
			}
			last = to
		}
		if last > 1 && rng.IntN(2) == 0 { // a truncation that no append made durable
			if err := s.DeleteRange(last, last); err != nil {
				t.Fatal(err)
			}
		}
		crashed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
		closed(t, s)
		s = openOn(t, crashed)
		check(t, s, want)
		if got, err := s.GetUint64([]byte("term")); got != term || err != nil {
			t.Errorf("seed %d: term %d, %v, want %d", seed, got, err, term)
		}
		if got, err := s.GetCommitIndex(); err != nil || got > last {
			t.Errorf("seed %d: commit index %d, %v in a log of %d", seed, got, err, last)
		}
		closed(t, s)
	}
}

// A store that another version wrote is refused.
func TestVersion(t *testing.T) {
	fs := vfs.NewMem()
	s := openOn(t, fs)
	if err := s.db.Set(versionKey, []byte{formatVersion + 1}, nil); err != nil {
		t.Fatal(err)
	}
	closed(t, s)
	if _, err := Open(Options{Dir: "log", FS: fs}); model.CodeOf(err) != model.Invalid {
		t.Errorf("Open of a store to come: %v", err)
	}
}

// An entry is written as it always was, and read with every field.
func TestEntryGolden(t *testing.T) {
	want := raft.Log{
		Index: 9, Term: 7, Type: raft.LogConfiguration, Data: []byte("data"), Extensions: []byte("ext"),
		AppendedAt: time.Unix(1_767_268_800, 5),
	}
	path := filepath.Join("testdata", "entry-1")
	if _, err := os.Stat(path); *update && os.IsNotExist(err) {
		if err := os.WriteFile(path, encodeEntry(&want), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(golden, encodeEntry(&want)) {
		t.Errorf("it is now written as %x", encodeEntry(&want))
	}
	var got raft.Log
	if err := decodeEntry(9, golden, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("it reads as another one:\n%s", diff)
	}
	for at := range golden {
		flipped := bytes.Clone(golden)
		flipped[at] ^= 1
		if err := decodeEntry(9, flipped, &got); err == nil {
			t.Errorf("a bit flipped at %d went unseen", at)
		}
		if err := decodeEntry(9, golden[:at], &got); err == nil {
			t.Errorf("an entry cut at %d was read", at)
		}
	}
}

// Whatever bytes are there, reading an entry does not crash.
func FuzzDecodeEntry(f *testing.F) {
	f.Add(encodeEntry(entry(1, 1)))
	f.Fuzz(func(t *testing.T, p []byte) {
		var l raft.Log
		if err := decodeEntry(1, p, &l); err == nil && !bytes.Equal(encodeEntry(&l), p) {
			t.Errorf("%x was read as %+v", p, l)
		}
	})
}
