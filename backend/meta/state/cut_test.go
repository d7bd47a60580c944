package state

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

func TestSnapshotCreate(t *testing.T) {
	r := small(t)
	r.ok(volume(1, "data"))
	r.ok(volume(2, "more"))
	cut := func(id model.SnapshotID, of model.VolumeID, holder model.NodeID, g model.Generation, rev model.Revision) command.SnapshotCut {
		return command.SnapshotCut{ID: id, Volume: of, Holder: holder, Generation: g, Revision: rev}
	}
	of := func(name string, cuts ...command.SnapshotCut) command.SnapshotCreate {
		return command.SnapshotCreate{Name: name, Cuts: cuts}
	}
	refuse(t, r, []refusal{
		{"bad name", of("a@b", cut(7, 1, 0, 0, 1)), model.Invalid},
		{"of nothing", of("a"), model.Invalid},
		{"no identifier", of("a", cut(0, 1, 0, 0, 1)), model.Invalid},
		{"twice of one volume", of("a", cut(7, 1, 0, 0, 1), cut(8, 1, 0, 0, 1)), model.Invalid},
		{"unknown volume", of("a", cut(7, 9, 0, 0, 1)), model.NotFound},
		{"by who does not hold it", of("a", cut(7, 1, 1, 0, 1)), model.Conflict},
		{"another generation", of("a", cut(7, 1, 0, 1, 1)), model.Fenced},
		{"another revision", of("a", cut(7, 1, 0, 0, 2)), model.Conflict},
		{"one of two has changed", of("a", cut(7, 1, 0, 0, 1), cut(8, 2, 0, 0, 2)), model.Conflict},
	})
	both := of("a", cut(7, 1, 0, 0, 1), cut(8, 2, 0, 0, 1))
	first := r.ok(both)
	want := model.Cut{
		Volumes: []model.Volume{r.volume(1), r.volume(2)},
		Snapshots: []model.Snapshot{
			{ID: 7, Name: "a", Volume: 1, Epoch: 1, Size: 1 << 30, Created: noon, Group: 7},
			{ID: 8, Name: "a", Volume: 2, Epoch: 1, Size: 1 << 30, Created: noon, Group: 7},
		},
	}
	if diff := cmp.Diff(want, first); diff != "" {
		t.Errorf("the cut differs:\n%s", diff)
	}
	if v := r.volume(1); v.Epoch != 2 || v.Revision != 2 {
		t.Errorf("the volume is at epoch %d, revision %d, want 2, 2", v.Epoch, v.Revision)
	}
	if diff := cmp.Diff(first, r.ok(both)); diff != "" {
		t.Errorf("the same cut again differs:\n%s", diff)
	}
	if v := r.volume(1); v.Epoch != 2 {
		t.Errorf("the same cut again raised the epoch to %d", v.Epoch)
	}
	r.acquire(1, 1)
	v := r.volume(1)
	refuse(t, r, []refusal{
		{"the name again", of("A", cut(9, 1, 1, v.Generation, v.Revision)), model.Conflict},
		{"as if nobody held it", of("b", cut(9, 1, 0, v.Generation, v.Revision)), model.Conflict},
		{"another's identifier", of("b", cut(8, 1, 1, v.Generation, v.Revision)), model.Conflict},
	})
	r.ok(of("b", cut(9, 1, 1, v.Generation, v.Revision)))
	if s, err := r.store.View().Snapshot(9); err != nil || s.Group != 0 {
		t.Errorf("one that was cut alone is %+v, %v", s, err)
	}
	other := small(t)
	if err := other.store.Restore(t.Context(), bytes.NewReader(encode(t, r.store))); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r.store.View().Snapshots(), other.store.View().Snapshots()); diff != "" {
		t.Errorf("a restored record has other snapshots:\n%s", diff)
	}
	r.ok(command.VolumeDelete{Volume: 1})
	if left := r.store.View().Snapshots(); len(left) != 1 || left[0].ID != 8 {
		t.Errorf("with a volume gone the snapshots are %+v", left)
	}
}
