package agent

import (
	"testing"

	"drystone.example/drystone/backend/model"
)

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
