package state

import (
	"testing"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

// snapped is a record with a volume that has snapshots 7 of epoch 1 and 8 of epoch 2.
func snapped(t *testing.T) *record {
	t.Helper()
	r := small(t)
	r.ok(volume(1, "data"))
	for i, name := range []string{"monday", "tuesday"} {
		v := r.volume(1)
		r.ok(command.SnapshotCreate{Name: name, Cuts: []command.SnapshotCut{{
			ID: model.SnapshotID(7 + i), Volume: 1, Generation: v.Generation, Revision: v.Revision,
		}}})
	}
	return r
}

func hold(r *record, p model.Purpose) {
	r.t.Helper()
	v := r.volume(1)
	r.ok(command.VolumeAcquire{Volume: 1, Node: 1, Purpose: p, Generation: v.Generation, Revision: v.Revision})
}

func tended(g model.Generation, d model.Tended) command.VolumeTended {
	return command.VolumeTended{Volume: 1, Generation: g, Tended: d}
}

// A deleted snapshot is out of the record at once; that there is something to free
// stays in it until a holder says that nothing is left of just that.
func TestSnapshotDelete(t *testing.T) {
	r := snapped(t)
	refuse(t, r, []refusal{{"unknown", command.SnapshotDelete{Snapshot: 9}, model.NotFound}})
	before := r.volume(1)
	r.ok(command.SnapshotDelete{Snapshot: 7})
	v := r.volume(1)
	if want := (model.Trim{Since: before.Revision + 1}); v.Trim != want || v.Revision != want.Since || !v.Trim.Due() {
		t.Errorf("after a snapshot was deleted: %+v at revision %d, want %+v", v.Trim, v.Revision, want)
	}
	if left := r.store.View().SnapshotsOf(1); len(left) != 1 || left[0].ID != 8 {
		t.Errorf("the snapshots left are %+v", left)
	}
	refuse(t, r, []refusal{
		{"again", command.SnapshotDelete{Snapshot: 7}, model.NotFound},
		{"by another generation", tended(1, model.Tended{Trimmed: v.Trim.Since}), model.Fenced},
		{"another one is done", tended(0, model.Tended{Trimmed: v.Trim.Since - 1}), model.Conflict},
		{"another one rests", tended(0, model.Tended{Rests: v.Trim.Since - 1}), model.Conflict},
	})
	r.ok(tended(0, model.Tended{Rests: v.Trim.Since}))
	if v := r.volume(1); !v.Trim.Rests || v.Trim.Due() {
		t.Errorf("a trim that rests: %+v", v.Trim)
	}
	was := v.Trim.Since
	r.ok(command.SnapshotDelete{Snapshot: 8})
	if v = r.volume(1); !v.Trim.Due() || v.Trim.Since <= was {
		t.Errorf("after another one was deleted: %+v", v.Trim)
	}
	refuse(t, r, []refusal{{"the one before is done", tended(0, model.Tended{Trimmed: was}), model.Conflict}})
	r.ok(tended(0, model.Tended{Trimmed: v.Trim.Since}))
	r.ok(tended(0, model.Tended{Trimmed: v.Trim.Since}))
	if v := r.volume(1); v.Trim != (model.Trim{}) {
		t.Errorf("after all was freed: %+v", v.Trim)
	}
}

// While a volume is reverted nobody has it but for maintenance, and nothing ends its
// epoch; when that is done it has the snapshot's size.
func TestSnapshotRevert(t *testing.T) {
	r := snapped(t)
	r.ok(command.VolumeResize{Volume: 1, Size: 2 << 30})
	r.ok(volume(2, "other"))
	r.ok(command.VMCreate{ID: 30, Name: "web", CPUs: 1, Memory: 1 << 30, Disks: []model.VMDisk{{Volume: 1}}})
	revert := command.SnapshotRevert{Volume: 1, Snapshot: 7, Keep: 20, KeepName: "before"}
	taken, bad, other := revert, revert, revert
	taken.KeepName, bad.KeepName, other.Volume = "Monday", "a@b", 2
	same := revert
	same.Keep = 8
	refuse(t, r, []refusal{
		{"unknown volume", command.SnapshotRevert{Volume: 9, Snapshot: 7}, model.NotFound},
		{"unknown snapshot", command.SnapshotRevert{Volume: 1, Snapshot: 9}, model.NotFound},
		{"of another volume", other, model.Invalid},
		{"a name there is", taken, model.Conflict},
		{"a bad name", bad, model.Invalid},
		{"another's identifier", same, model.Conflict},
		{"nothing to cancel", command.SnapshotRevert{Volume: 1, Cancel: true}, model.Conflict},
	})
	hold(r, model.ForExport)
	refuse(t, r, []refusal{{"in use", revert, model.Conflict}})
	r.ok(command.VolumeRelease{Volume: 1, Node: 1, Generation: r.volume(1).Generation})

	epoch := r.volume(1).Epoch
	r.ok(revert)
	v := r.volume(1)
	want := model.Revert{Snapshot: 7, Name: "monday", Epoch: 1, Size: 1 << 30, Began: v.Revision}
	if v.Revert != want || v.Epoch != epoch+1 || v.Size != 2<<30 {
		t.Errorf("a revert began as %+v, epoch %d, size %d", v.Revert, v.Epoch, v.Size)
	}
	if kept, err := r.store.View().Snapshot(20); err != nil || kept.Epoch != epoch || kept.Size != 2<<30 || kept.Name != "before" {
		t.Errorf("what was kept is %+v, %v", kept, err)
	}
	acquire := command.VolumeAcquire{Volume: 1, Node: 1, Purpose: model.ForExport, Generation: v.Generation, Revision: v.Revision}
	cut := command.SnapshotCut{ID: 21, Volume: 1, Generation: v.Generation, Revision: v.Revision}
	refuse(t, r, []refusal{
		{"an export", acquire, model.Conflict},
		{"its machine is to run", command.VMPower{VM: 30, Power: model.PowerOn, Node: 1}, model.Conflict},
		{"a snapshot", command.SnapshotCreate{Name: "now", Cuts: []command.SnapshotCut{cut}}, model.Conflict},
		{"another size", command.VolumeResize{Volume: 1, Size: 3 << 30}, model.Conflict},
	})
	r.ok(command.SnapshotRevert{Volume: 1, Cancel: true})
	if v := r.volume(1); v.Revert.Due() || v.Epoch != epoch+1 {
		t.Errorf("after the cancelling: %+v at epoch %d", v.Revert, v.Epoch)
	}

	r.ok(command.VMPower{VM: 30, Power: model.PowerOn, Node: 1})
	refuse(t, r, []refusal{{"its machine runs", revert, model.Conflict}})
	r.ok(command.VMPower{VM: 30, Power: model.PowerOff})
	r.ok(command.VMReport{VM: 30, Node: 1, State: model.VMStopped})
	r.ok(command.SnapshotRevert{Volume: 1, Snapshot: 7})
	hold(r, model.ForMaintenance)
	v = r.volume(1)
	r.ok(tended(v.Generation, model.Tended{Begun: v.Revert.Began}))
	refuse(t, r, []refusal{
		{"cancel what has begun", command.SnapshotRevert{Volume: 1, Cancel: true}, model.Conflict},
		{"another one has begun", tended(v.Generation, model.Tended{Begun: v.Revert.Began + 9}), model.Conflict},
	})
	r.ok(command.SnapshotDelete{Snapshot: 7})
	if kept := r.volume(1).KeptEpochs(r.store.View().Snapshots(), r.store.View().Volumes()); kept[0] != 1 {
		t.Errorf("while it is reverted to epoch 1, epochs %d are kept", kept)
	}
	r.ok(command.SnapshotRevert{Volume: 1, Snapshot: 8})
	refuse(t, r, []refusal{
		{"the one before is done", tended(v.Generation, model.Tended{Reverted: v.Revert.Began}), model.Conflict},
		{"by another generation", tended(v.Generation+1, model.Tended{Reverted: r.volume(1).Revert.Began}), model.Fenced},
	})
	now := r.volume(1)
	if now.Epoch != v.Epoch || !now.Revert.Running {
		t.Errorf("replaced, the revert is %+v at epoch %d, want running at %d", now.Revert, now.Epoch, v.Epoch)
	}
	for range 2 {
		r.ok(tended(v.Generation, model.Tended{Reverted: now.Revert.Began}))
		after := r.volume(1)
		if after.Revert.Due() || after.Size != 1<<30 || after.Trim.Since != now.Revision+1 || after.Revision != now.Revision+1 {
			t.Errorf("after the revert: %+v", after)
		}
	}
}
