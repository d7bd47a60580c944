package compactor_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"drystone.example/drystone/backend/compactor"
)

// What piles up is compacted, one thing after the other, and the database closes.
func TestCompacts(t *testing.T) {
	opts := &pebble.Options{
		FS:                         vfs.NewMem(),
		L0CompactionThreshold:      2,
		CompactionConcurrencyRange: func() (int, int) { return 1, 1 },
	}
	opts.Experimental.CompactionScheduler = &compactor.One{}
	db, err := pebble.Open("db", opts)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		for k := range 10 {
			if err := db.Set(fmt.Appendf(nil, "key %d", k), fmt.Appendf(nil, "%d", i), pebble.NoSync); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	done := func() bool {
		m := db.Metrics()
		return m.Compact.Count > 0 && m.Levels[0].TablesCount < 10 && m.Compact.NumInProgress == 0
	}
	for end := time.Now().Add(20 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("40 tables were not compacted:\n%s", db.Metrics())
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}
