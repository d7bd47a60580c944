package node

import (
	"strings"
	"testing"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/placement"
)

// Above the mark nothing new is made; disks that are away do not count.
func TestRoomForNew(t *testing.T) {
	disks := []placement.Disk{
		{ID: 1, Size: 100, Free: 15, Up: true}, {ID: 2, Size: 100, Free: 16, Up: true}, {ID: 3, Size: 100, Free: 0},
	}
	if err := roomForNew(disks); err != nil {
		t.Errorf("at 84.5 %%: %v", err)
	}
	disks[1].Free = 15
	if err := roomForNew(disks); model.CodeOf(err) != model.NoSpace {
		t.Errorf("at 85 %%: %v, want %s", err, model.NoSpace)
	}
	if err := roomForNew(nil); err != nil {
		t.Errorf("without disks: %v", err)
	}
}

// A machine may have the longest name there is, and so may another that differs
// from it only at the end.
func TestDiskNamesFit(t *testing.T) {
	long := strings.Repeat("n", model.MaxName-1)
	seen := map[string]bool{}
	for i, name := range []string{"web", long + "a", long + "b", long[:model.MaxName-6]} {
		vm := model.VM{ID: model.VMID(1000 + i), Name: name}
		for _, n := range []int{1, 12} {
			disk := diskName(vm, n)
			if err := model.ValidateName("volume", disk); err != nil || seen[disk] {
				t.Errorf("disk %d of %s: %q, %v, taken %v", n, name, disk, err, seen[disk])
			}
			seen[disk] = true
		}
	}
	if !seen["web-disk1"] || !seen[long[:model.MaxName-6]+"-disk1"] {
		t.Errorf("a name that fits was cut: %v", seen)
	}
}
