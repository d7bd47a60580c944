package state

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"drystone.example/drystone/backend/model"
)

var update = flag.Bool("update", false, "write the golden files anew")

func digest(t *testing.T, s *Store) string {
	t.Helper()
	d, err := s.Digest(t.Context())
	if err != nil {
		t.Fatalf("Digest: %v", err)
	}
	return d
}

func encode(t *testing.T, s *Store) []byte {
	t.Helper()
	snap, err := s.Snapshot(t.Context())
	if err != nil {
		t.Fatalf("Snapshot: %v", err)
	}
	var buf bytes.Buffer
	if err := snap.Encode(t.Context(), &buf); err != nil {
		t.Fatalf("Encode: %v", err)
	}
	if err := snap.Release(); err != nil {
		t.Fatalf("Release: %v", err)
	}
	return buf.Bytes()
}

func jsonOf(v any) string {
	text, err := json.Marshal(v) // map keys come in order
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// A snapshot is of the moment it was taken, whatever is applied while it is
// written.
func TestSnapshotWhileApplying(t *testing.T) {
	r := small(t)
	want := encode(t, r.store)
	snap, err := r.store.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.ok(volume(1, "data"))
	r.ok(volume(2, "more"))
	var got bytes.Buffer
	if err := snap.Encode(t.Context(), &got); err != nil {
		t.Fatal(err)
	}
	if err := snap.Release(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Error("the snapshot has something that was applied later")
	}
}

// A snapshot that is damaged anywhere, or cut anywhere, is refused, and the
// record stays as it was.
func TestDamagedSnapshot(t *testing.T) {
	r := small(t)
	r.ok(volume(1, "data"))
	good := encode(t, r.store)
	other := small(t)
	before, want := rows(other.store.View()), digest(t, other.store)
	check := func(what string, at int, p []byte) {
		t.Helper()
		if err := other.store.Restore(t.Context(), bytes.NewReader(p)); err == nil {
			t.Fatalf("a snapshot %s at byte %d of %d was restored", what, at, len(good))
		}
	}
	for at := 0; at < len(good); at += 1 + len(good)/60 {
		flipped := bytes.Clone(good)
		flipped[at] ^= 0x10
		check("flipped", at, flipped)
		check("cut", at, good[:at])
	}
	if diff := cmp.Diff(before, rows(other.store.View())); diff != "" {
		t.Errorf("the record changed:\n%s", diff)
	}
	if got := digest(t, other.store); got != want {
		t.Error("the record's rows changed")
	}
	if err := other.store.Restore(t.Context(), bytes.NewReader(good)); err != nil {
		t.Fatalf("the undamaged one: %v", err)
	}
	if got := digest(t, other.store); got != digest(t, r.store) {
		t.Error("the restored record is another one")
	}
}

// Every version of the snapshot there ever was can be read. The file of a version
// is written once, with -update, and then stays.
func TestSnapshotGolden(t *testing.T) {
	r := small(t)
	r.by = model.Actor{User: "kim", UserID: owner, Role: model.Owner}
	r.ok(volume(1, "data"))
	r.ok(machine(1, "web", 1))
	path := filepath.Join("testdata", "snapshot-1")
	if *update {
		if err := os.WriteFile(path, encode(t, r.store), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := open(t)
	if err := s.Restore(t.Context(), bytes.NewReader(golden)); err != nil {
		t.Fatalf("Restore: %v", err)
	}
	if diff := cmp.Diff(rows(r.store.View()), rows(s.View())); diff != "" {
		t.Errorf("version 1 reads as another record:\n%s", diff)
	}
	if got, want := s.View().Index(), r.store.View().Index(); got != want {
		t.Errorf("its index is %d, want %d", got, want)
	}
}

// Whatever bytes come, Restore does not crash and does not change the record
// unless it accepts them whole.
func FuzzRestore(f *testing.F) {
	golden, err := os.ReadFile(filepath.Join("testdata", "snapshot-1"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	f.Add([]byte(snapshotMagic))
	f.Fuzz(func(t *testing.T, p []byte) {
		s := open(t)
		if err := s.Restore(t.Context(), bytes.NewReader(p)); err != nil {
			if _, there := s.View().Cluster(); there {
				t.Errorf("a refused snapshot left something behind")
			}
			return
		}
		again := encode(t, s)
		if err := s.Restore(t.Context(), bytes.NewReader(again)); err != nil {
			t.Errorf("what was restored cannot be restored again: %v", err)
		}
	})
}
