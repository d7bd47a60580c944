package placement

import (
	"strings"
	"testing"

	"drystone.example/drystone/backend/model"
)

// From 85 % of the pool on nothing new is made, nor where a disk takes no new data; the
// reason says how much is missing. Disks that are away do not count.
func TestRoomForNew(t *testing.T) {
	const gib = 1 << 30
	disks := func(free ...model.Bytes) (out []Disk) {
		for i, f := range free {
			out = append(out, Disk{ID: model.DiskID(i + 1), Size: 100 * gib, Free: f * gib, Up: true})
		}
		return out
	}
	away := append(disks(15, 17), Disk{ID: 3, Size: 100 * gib})
	for name, c := range map[string]struct {
		disks []Disk
		want  string // of the reason; empty: there is room
	}{
		"below":              {disks(15, 17), ""},
		"one away":           {away, ""},
		"none":               {nil, ""},
		"at the mark":        {disks(15, 16), "the pool is 85 % full, and from 85 % on nothing new is made: 1 MiB more"},
		"above":              {disks(12, 14), "5121 MiB more must be free"},
		"one disk":           {disks(8, 60), "disk 0000000000001 is 92 % full"},
		"one disk, not yet":  {disks(9, 60), ""},
		"a disk without any": {append(disks(60), Disk{ID: 9, Up: true}), ""},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			err := RoomForNew(c.disks)
			switch {
			case c.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.want != "" && (model.CodeOf(err) != model.NoSpace || !strings.Contains(err.Error(), c.want)):
				t.Errorf("%v, want no space with %q", err, c.want)
			}
		})
	}
}
