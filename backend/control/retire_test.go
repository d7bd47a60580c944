package control

import (
	"strings"
	"testing"
	"time"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/placement"
)

// retiring is a pool of disks, numbered from 1, each in a node of its own unless nodes
// says otherwise, and a volume with a column on the first two.
func retiring(disks int, free model.Bytes, nodes ...model.NodeID) ([]model.Disk, placement.Situation) {
	var pool []model.Disk
	s := placement.Situation{Used: map[model.VolumeID]model.Bytes{1: 2 << 30}, Volumes: []model.Volume{{
		ID: 1, Name: "data", Copies: 2, Columns: []model.Column{{Members: []model.Member{
			{Disk: 1, State: model.Active}, {Disk: 2, State: model.Active},
		}}},
	}}}
	for i := range disks {
		id, node := model.DiskID(i+1), model.NodeID(i+1)
		if i < len(nodes) {
			node = nodes[i]
		}
		pool = append(pool, model.Disk{ID: id, Node: node, State: model.DiskOnline})
		s.Disks = append(s.Disks, placement.Disk{ID: id, Node: node, Size: 16 << 30, Free: free, Up: true})
	}
	return pool, s
}

// A disk of which much was found damaged is retired if what it has can go elsewhere, one
// at a time; else it is said why not.
func TestRetire(t *testing.T) {
	errors := func(id model.DiskID, n uint64) map[model.DiskID]model.Ailment {
		return map[model.DiskID]model.Ailment{id: {Errors: n}}
	}
	drain := model.Drain{Since: time.Unix(1, 0), Errors: 100}
	for name, c := range map[string]struct {
		disks  int
		free   model.Bytes
		nodes  []model.NodeID
		ailing map[model.DiskID]model.Ailment
		change func(pool []model.Disk, s *placement.Situation)
		retire model.DiskID
		stuck  string // why disk 1 is not
	}{
		"enough":            {disks: 3, free: 8 << 30, ailing: errors(1, 100), retire: 1},
		"too few":           {disks: 3, free: 8 << 30, ailing: errors(1, 99)},
		"no room":           {disks: 3, free: 2 << 30, ailing: errors(1, 100), stuck: "no room"},
		"no other disk":     {disks: 2, free: 8 << 30, ailing: errors(1, 100), stuck: "too few other disks"},
		"no other node":     {disks: 3, free: 8 << 30, nodes: []model.NodeID{1, 2, 2}, ailing: errors(1, 100), stuck: "too few other disks"},
		"on its own node":   {disks: 3, free: 8 << 30, nodes: []model.NodeID{1, 2, 1}, ailing: errors(1, 100), retire: 1},
		"one node, 3 disks": {disks: 3, free: 8 << 30, nodes: []model.NodeID{1, 1, 1}, ailing: errors(1, 100), retire: 1},
		"forgiven": {disks: 3, free: 8 << 30, ailing: errors(1, 120), change: func(pool []model.Disk, _ *placement.Situation) {
			pool[0].Forgiven = 50
		}},
		"again": {disks: 3, free: 8 << 30, ailing: errors(1, 150), retire: 1, change: func(pool []model.Disk, _ *placement.Situation) {
			pool[0].Forgiven = 50
		}},
		"it is away": {disks: 3, free: 8 << 30, ailing: errors(1, 100), change: func(_ []model.Disk, s *placement.Situation) {
			s.Disks[0].Up = false
		}},
		"it leaves": {disks: 3, free: 8 << 30, ailing: errors(1, 100), change: func(pool []model.Disk, s *placement.Situation) {
			pool[0].Drain, s.Disks[0].Draining = drain, true
		}},
		"repairing": {disks: 3, free: 8 << 30, ailing: errors(1, 100), stuck: "repaired first", change: func(_ []model.Disk, s *placement.Situation) {
			s.Volumes[0].Columns[0].Members[1].State = model.Stale
		}},
		"another is emptied": {disks: 4, free: 8 << 30, ailing: errors(1, 100), stuck: "emptied first", change: func(pool []model.Disk, s *placement.Situation) {
			pool[1].Drain, s.Disks[1].Draining = drain, true
		}},
		"another was": {disks: 4, free: 8 << 30, ailing: errors(1, 100), retire: 1, change: func(pool []model.Disk, s *placement.Situation) {
			pool[3].Drain, s.Disks[3].Draining = drain, true
		}},
		"two at once": {
			disks: 5, free: 8 << 30, retire: 1,
			ailing: map[model.DiskID]model.Ailment{1: {Errors: 100}, 2: {Errors: 5000}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			pool, s := retiring(c.disks, c.free, c.nodes...)
			if c.change != nil {
				c.change(pool, &s)
			}
			retire, stuck := bad(pool, s, c.ailing)
			switch {
			case c.retire == 0 && retire != nil:
				t.Errorf("retired is %+v, want none", retire)
			case c.retire != 0 && (retire == nil || retire.Disk != c.retire || retire.Errors != c.ailing[c.retire].Errors):
				t.Errorf("retired is %+v, want disk %s: %v", retire, c.retire, stuck)
			}
			if why := stuck[1]; (why == "") != (c.stuck == "") || !strings.Contains(why, c.stuck) {
				t.Errorf("it is not retired because %q, want %q", why, c.stuck)
			}
		})
	}
}

// What is wrong with a disk is said, with a code, and nothing of one that is well.
func TestAilments(t *testing.T) {
	retired := model.Drain{Since: time.Unix(1, 0), Errors: 123}
	for name, c := range map[string]struct {
		disk model.Disk
		used bool
		t    troubles
		code string
		text string
	}{
		"well":        {},
		"some errors": {t: troubles{ailing: map[model.DiskID]model.Ailment{7: {Errors: 3}}}},
		"retired":     {disk: model.Disk{Drain: retired}, used: true, code: "disk_retired", text: "moves elsewhere"},
		"empty":       {disk: model.Disk{Drain: retired}, code: "disk_retired", text: "drystone disk remove"},
		"stuck": {
			t: troubles{
				ailing: map[model.DiskID]model.Ailment{7: {Errors: 123}}, stuck: map[model.DiskID]string{7: "there is no room"},
			},
			code: "disk_bad", text: "123 of its blocks were found damaged; it cannot be retired: there is no room",
		},
		"slow": {
			t: troubles{ailing: map[model.DiskID]model.Ailment{7: {Slow: model.Slowness{
				Volumes: 2, Took: 700 * time.Millisecond, Times: 3, Until: time.Unix(9, 0),
			}}}},
			code: "disk_slow", text: "takes 700ms or more",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c.disk.ID = 7
			got := ailments(c.disk, c.used, c.t)
			switch {
			case c.code == "" && len(got) > 0:
				t.Errorf("there are %+v", got)
			case c.code != "" && (len(got) != 1 || got[0].Code != c.code || got[0].Object != "disk 0000000000007"):
				t.Errorf("there are %+v, want one %s", got, c.code)
			case c.code != "" && !strings.Contains(strings.ReplaceAll(got[0].Text, "took", "takes"), c.text):
				t.Errorf("it says %q, want %q in it", got[0].Text, c.text)
			}
		})
	}
}
