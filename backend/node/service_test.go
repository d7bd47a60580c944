package node

import (
	"strings"
	"testing"

	"drystone.example/drystone/backend/model"
)

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
