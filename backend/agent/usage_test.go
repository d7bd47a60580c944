package agent

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"drystone.example/drystone/backend/block/volume"
	"drystone.example/drystone/backend/model"
)

// What the holders say of a slow disk is added up, but for those that are not up any
// more; what the disks' nodes counted is kept.
func TestAilments(t *testing.T) {
	at := time.Unix(1_700_000_000, 0)
	holds := func(slow ...volume.Slow) map[model.VolumeID]HoldStatus {
		all := map[model.VolumeID]HoldStatus{}
		for i, s := range slow {
			all[model.VolumeID(i+1)] = HoldStatus{Slow: []volume.Slow{s}}
		}
		return all
	}
	a := &Agent{cfg: Config{Self: 1, Up: func(n model.NodeID) bool { return n == 2 }}}
	a.usage.nodes = map[model.NodeID]Usage{
		1: {
			Disks: []model.DiskUsage{{Disk: 11, ChecksumErrors: 5}, {Disk: 12}},
			Holds: holds(volume.Slow{Disk: 21, Took: time.Second, Times: 1, Until: at}),
		},
		2: {Holds: holds(volume.Slow{Disk: 21, Took: 2 * time.Second, Times: 3}, volume.Slow{Disk: 11, Took: time.Second})},
		3: {
			Disks: []model.DiskUsage{{Disk: 31, ChecksumErrors: 7}},
			Holds: holds(volume.Slow{Disk: 12, Took: time.Second}),
		},
	}
	want := map[model.DiskID]model.Ailment{
		11: {Errors: 5, Slow: model.Slowness{Volumes: 1, Took: time.Second}},
		21: {Slow: model.Slowness{Volumes: 2, Took: 2 * time.Second, Times: 3, Until: at}},
		31: {Errors: 7},
	}
	if diff := cmp.Diff(want, a.Ailments()); diff != "" {
		t.Errorf("Ailments (-want +got):\n%s", diff)
	}
}

// Of a column, one disk is counted if any active member can be reached, and it has
// everything.
func TestColumnIsCountedOnce(t *testing.T) {
	column := model.Column{Members: []model.Member{
		{Disk: 1, State: model.Stale},
		{Disk: 2, State: model.Active},
		{Disk: 3, State: model.Active},
		{Disk: 4, State: model.Joining},
	}}
	for name, c := range map[string]struct {
		down []model.DiskID
		want model.DiskID // zero: none
	}{
		"all up":           {nil, 2},
		"first down":       {[]model.DiskID{2}, 3},
		"no active member": {[]model.DiskID{2, 3}, 0},
	} {
		up := func(id model.DiskID) bool {
			for _, d := range c.down {
				if d == id {
					return false
				}
			}
			return true
		}
		for _, m := range column.Members {
			if got := counts(column, m.Disk, up); got != (m.Disk == c.want) {
				t.Errorf("%s: disk %s is counted: %v", name, m.Disk, got)
			}
		}
	}
}
