package state

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

// A clone has the columns with the active members alone, the size its origin had in the
// epoch that ended, and nothing else of it; and pins the origin's data until it is
// detached, also when the origin is deleted.
func TestVolumeClone(t *testing.T) {
	r := small(t)
	r.ok(volume(1, "data"))
	v := r.acquire(1, 1)
	clone := func(id model.VolumeID, name string, at model.SnapshotID) command.VolumeClone {
		return command.VolumeClone{
			ID: id, Name: name, Use: model.VolumeDisk, Volume: 1, Snapshot: at,
			Holder: 1, Generation: v.Generation, Revision: v.Revision,
		}
	}
	change := func(f func(*command.VolumeClone)) command.VolumeClone {
		c := clone(2, "twin", 0)
		f(&c)
		return c
	}
	refuse(t, r, []refusal{
		{"bad name", clone(2, "a@b", 0), model.Invalid},
		{"bad kind", change(func(c *command.VolumeClone) { c.Use = "x" }), model.Invalid},
		{"no identifier", clone(0, "twin", 0), model.Conflict},
		{"the identifier of another", clone(1, "twin", 0), model.Conflict},
		{"the name of another", clone(2, "DATA", 0), model.Conflict},
		{"unknown volume", change(func(c *command.VolumeClone) { c.Volume = 9 }), model.NotFound},
		{"unknown snapshot", clone(2, "twin", 9), model.NotFound},
		{"by who does not hold it", change(func(c *command.VolumeClone) { c.Holder = 2 }), model.Conflict},
		{"another generation", change(func(c *command.VolumeClone) { c.Generation++ }), model.Fenced},
		{"another revision", change(func(c *command.VolumeClone) { c.Revision++ }), model.Conflict},
	})
	r.ok(command.SnapshotCreate{Name: "monday", Cuts: []command.SnapshotCut{
		{ID: 7, Volume: 1, Holder: 1, Generation: v.Generation, Revision: v.Revision},
	}})
	r.ok(command.VolumeMembers{Volume: 1, Generation: v.Generation, Revision: v.Revision + 1, Changes: []model.MemberChange{
		{Column: 0, Disk: 11, State: model.Stale}, {Column: 0, Disk: 31, State: model.Joining},
	}})
	r.ok(command.VolumeResize{Volume: 1, Size: 2 << 30})
	v = r.volume(1)
	cmd := clone(2, "twin", 0)
	first := r.ok(cmd)
	want := model.Volume{
		ID: 2, Name: "twin", Kind: model.VolumeDisk, Size: 2 << 30, Copies: 2, Revision: 1, Epoch: 1,
		Columns: []model.Column{{Members: []model.Member{{Disk: 21, State: model.Active}}}, v.Columns[1]},
		Created: noon, Origin: model.Origin{Volume: 1, Epoch: v.Epoch}, Trim: model.Trim{Since: 1, Rests: true}, Family: 1,
	}
	if diff := cmp.Diff(want, r.volume(2)); diff != "" {
		t.Errorf("the clone differs:\n%s", diff)
	}
	if now := r.volume(1); now.Epoch != v.Epoch+1 || now.Revision != v.Revision+1 {
		t.Errorf("the volume is at epoch %d, revision %d", now.Epoch, now.Revision)
	}
	if diff := cmp.Diff(first, r.ok(cmd)); diff != "" {
		t.Errorf("the same clone again differs:\n%s", diff)
	}
	v = r.volume(1)
	r.ok(clone(3, "elder", 7))
	if c := r.volume(3); c.Size != 1<<30 || c.Origin.Epoch != 1 || r.volume(1).Revision != v.Revision {
		t.Errorf("the clone of the snapshot is %+v", c)
	}
	r.ok(command.VolumeRelease{Volume: 1, Node: 1, Generation: v.Generation})
	r.ok(command.VolumeDelete{Volume: 1})
	refuse(t, r, []refusal{
		{"detached by who does not hold it", command.VolumeDetach{Volume: 2}, model.Conflict},
		{"of another generation", command.VolumeDetach{Volume: 2, Generation: 1}, model.Fenced},
	})
	pinned := func(disk model.DiskID, want bool) {
		t.Helper()
		if got := r.store.View().Pinned(1, disk); got != want {
			t.Errorf("the disk %d is pinned: %v, want %v", disk, got, want)
		}
	}
	pinned(21, true)
	pinned(11, false)
	for id := model.VolumeID(2); id <= 3; id++ {
		pinned(22, true)
		g := r.acquire(id, 2).Generation
		r.ok(command.VolumeDetach{Volume: id, Generation: g})
		r.ok(command.VolumeDetach{Volume: id, Generation: g})
		if r.volume(id).Origin != (model.Origin{}) {
			t.Errorf("the volume %d still has an origin", id)
		}
	}
	pinned(22, false)
	two := r.volume(2)
	r.ok(command.VolumeClone{
		ID: 4, Name: "grandchild", Use: model.VolumeDisk, Volume: 2,
		Holder: 2, Generation: two.Generation, Revision: two.Revision,
	})
	if v := r.volume(4); v.Family != 1 || v.Origin.Volume != 2 {
		t.Errorf("the clone of a clone is of the family %d and begins as %d", v.Family, v.Origin.Volume)
	}
}

// The epoch a clone begins as is kept while the clone needs it, also without a snapshot
// of it; then it is something to free. A volume that is being reverted is not cloned as
// it is.
func TestCloneKeepsItsEpoch(t *testing.T) {
	r := small(t)
	r.ok(volume(1, "data"))
	v := r.acquire(1, 1)
	r.ok(command.VolumeClone{
		ID: 2, Name: "twin", Use: model.VolumeDisk, Volume: 1,
		Holder: 1, Generation: v.Generation, Revision: v.Revision,
	})
	kept := func(want ...model.Epoch) {
		t.Helper()
		view := r.store.View()
		if diff := cmp.Diff(want, r.volume(1).KeptEpochs(view.SnapshotsOf(1), view.Volumes())); diff != "" {
			t.Errorf("the epochs kept differ:\n%s", diff)
		}
	}
	kept(v.Epoch, v.Epoch+1)
	if trim := r.volume(1).Trim; trim != (model.Trim{}) {
		t.Errorf("before the clone is detached there is something to free: %+v", trim)
	}
	r.ok(command.VolumeDetach{Volume: 2, Generation: r.acquire(2, 2).Generation})
	kept(v.Epoch + 1)
	if trim := r.volume(1).Trim; trim.Since == 0 || trim.Due() {
		t.Errorf("after the clone was detached the volume has %+v", trim)
	}

	v = r.volume(1)
	r.ok(command.SnapshotCreate{Name: "monday", Cuts: []command.SnapshotCut{
		{ID: 7, Volume: 1, Holder: 1, Generation: v.Generation, Revision: v.Revision},
	}})
	r.ok(command.VolumeRelease{Volume: 1, Node: 1, Generation: v.Generation})
	r.ok(command.SnapshotRevert{Volume: 1, Snapshot: 7})
	v = r.acquire(1, 1)
	refuse(t, r, []refusal{{"cloned while it is reverted", command.VolumeClone{
		ID: 3, Name: "third", Use: model.VolumeDisk, Volume: 1,
		Holder: 1, Generation: v.Generation, Revision: v.Revision,
	}, model.Conflict}})
}
