package volume

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/model"
)

// A watched disk notes, in order, when it is asked to promise and what it is
// asked or sent for which column.
type watched struct {
	Disk

	mu    sync.Mutex
	notes []string
}

func (w *watched) note(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.notes); n == 0 || what == "promise" || w.notes[n-1] != what {
		w.notes = append(w.notes, what)
	}
}

func (w *watched) seen() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.notes)
}

func (w *watched) Prepare(ctx context.Context, p disk.Prepare) (disk.Promise, error) {
	w.note("promise")
	return w.Disk.Prepare(ctx, p)
}

func (w *watched) Apply(op *disk.Op, done func(error)) {
	if op.Kind != disk.Mark && op.Column == 0 {
		w.note("column 0")
	}
	w.Disk.Apply(op, done)
}

func (w *watched) List(ctx context.Context, l disk.List) (disk.Listing, error) {
	if l.Column == 0 {
		w.note("column 0")
	}
	return w.Disk.List(ctx, l)
}

// A disk that joins a column while its row for another one is whole promises once
// more before anything of the new column is listed on it or sent to it: its node
// may be about to free what it once held there.
func TestJoinOnLiveRowPromises(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 3, 2, 16<<20, []int{0, 1}, []int{1, 2})
		w := &watched{Disk: r.disks[3]}
		r.pool.wrap[3] = w
		r.pool.spare = []model.DiskID{3}
		v := r.open(t)
		defer r.close(t, v)
		one := pattern(2<<20, 0, 1)
		write(t, v, 0, one)
		if got := w.seen(); !slices.Equal(got, []string{"promise"}) {
			t.Fatalf("before the drop: %v", got)
		}
		r.cfg.Grace = 0
		r.disks[1].setDown(model.Errorf(model.Unavailable, "connection lost"))
		r.pool.setReach(1, Failed)
		write(t, v, 0, one[:4096])
		eventually(t, "the substitute is active", time.Minute, func() bool {
			m, ok := r.record.get().Columns[0].Member(3)
			return ok && m.State == model.Active
		})
		if got := w.seen(); len(got) < 3 || got[1] != "promise" {
			t.Errorf("after the drop: %v, want a promise before column 0", got)
		}
		wantRead(t, v, 0, one)
	})
}
