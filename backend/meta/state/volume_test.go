package state

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

func TestVolumeCreate(t *testing.T) {
	r := small(t)
	r.ok(volume(1, "data"))
	r.ok(command.DiskUpdate{Disk: 31, State: model.DiskOffline})
	bad := func(change func(*command.VolumeCreate)) command.VolumeCreate {
		c := volume(2, "more")
		change(&c)
		return c
	}
	members := func(m ...model.Member) func(*command.VolumeCreate) {
		return func(c *command.VolumeCreate) { c.Columns[1].Members = m }
	}
	a := model.Active
	refuse(t, r, []refusal{
		{"name taken", volume(2, "DATA"), model.Conflict},
		{"identifier taken", volume(1, "more"), model.Conflict},
		{"no identifier", volume(0, "more"), model.Conflict},
		{"bad name", volume(2, "../x"), model.Invalid},
		{"odd size", bad(func(c *command.VolumeCreate) { c.Size++ }), model.Invalid},
		{"one copy", bad(func(c *command.VolumeCreate) { c.Copies = 1 }), model.Invalid},
		{"no such kind", bad(func(c *command.VolumeCreate) { c.Use = "tape" }), model.Invalid},
		{"no columns", bad(func(c *command.VolumeCreate) { c.Columns = nil }), model.Invalid},
		{"three columns", bad(func(c *command.VolumeCreate) { c.Columns = append(c.Columns, c.Columns[0]) }), model.Invalid},
		{"too few members", bad(members(model.Member{Disk: 11, State: a})), model.Invalid},
		{"one disk twice", bad(members(model.Member{Disk: 11, State: a}, model.Member{Disk: 11, State: a})), model.Invalid},
		{"joining", bad(members(model.Member{Disk: 11, State: a}, model.Member{Disk: 21, State: model.Joining})), model.Invalid},
		{"with a cutoff", bad(members(model.Member{Disk: 11, State: a},
			model.Member{Disk: 21, State: a, Cutoff: model.Stamp{Generation: 1}})), model.Invalid},
		{"unknown disk", bad(members(model.Member{Disk: 11, State: a}, model.Member{Disk: 99, State: a})), model.NotFound},
		{"offline disk", bad(members(model.Member{Disk: 11, State: a}, model.Member{Disk: 31, State: a})), model.Conflict},
	})
	want := model.Volume{
		ID: 1, Name: "data", Kind: model.VolumeDisk, Size: 1 << 30, Copies: 2,
		Columns: volume(1, "").Columns, Revision: 1, Epoch: 1, Created: noon,
	}
	if diff := cmp.Diff(want, r.volume(1)); diff != "" {
		t.Errorf("the volume differs:\n%s", diff)
	}
}

// What a comparison found is noted, and changes nothing that a holder goes by.
func TestVolumeScrubbed(t *testing.T) {
	r := small(t)
	r.ok(volume(1, "data"))
	want := r.volume(1)
	refuse(t, r, []refusal{{"unknown", command.VolumeScrubbed{Volume: 9}, model.NotFound}})
	r.ok(command.VolumeScrubbed{Volume: 1, Scrub: model.VolumeScrub{Compared: 5, Diverged: 1}})
	want.Scrub = model.VolumeScrub{Ended: noon, Compared: 5, Diverged: 1}
	if diff := cmp.Diff(want, r.volume(1)); diff != "" {
		t.Errorf("the volume differs:\n%s", diff)
	}
}

func TestVolumeResize(t *testing.T) {
	r := small(t)
	r.ok(volume(1, "data"))
	refuse(t, r, []refusal{
		{"unknown", command.VolumeResize{Volume: 9, Size: 2 << 30}, model.NotFound},
		{"smaller", command.VolumeResize{Volume: 1, Size: 1 << 29}, model.Invalid},
		{"too large", command.VolumeResize{Volume: 1, Size: model.MaxVolumeSize + 512}, model.Invalid},
	})
	r.ok(command.VolumeResize{Volume: 1, Size: 2 << 30})
	if v := r.volume(1); v.Size != 2<<30 || v.Revision != 2 {
		t.Errorf("size %d at revision %d, want %d at 2", v.Size, v.Revision, 2<<30)
	}
}

func TestVolumeDelete(t *testing.T) {
	r := small(t)
	r.ok(volume(1, "data"))
	r.ok(volume(2, "more"))
	r.ok(machine(1, "web", 1))
	r.ok(command.VolumeAcquire{Volume: 2, Node: 3, Purpose: model.ForExport, Revision: 1})
	refuse(t, r, []refusal{
		{"unknown", command.VolumeDelete{Volume: 9}, model.NotFound},
		{"a vm has it", command.VolumeDelete{Volume: 1}, model.Conflict},
		{"it is exported", command.VolumeDelete{Volume: 2}, model.Conflict},
	})
	r.ok(command.VolumeRelease{Volume: 2, Node: 3, Generation: 1})
	r.acquire(2, 1) // for maintenance, which gives way
	r.ok(command.VolumeDelete{Volume: 2})
	v := r.store.View()
	if !v.VolumeDeleted(2) || v.VolumeDeleted(1) || !cmp.Equal(v.DeletedVolumes(), []model.VolumeID{2}) {
		t.Errorf("the deleted volumes are %v", v.DeletedVolumes())
	}
	refuse(t, r, []refusal{{"its identifier comes back", volume(2, "other"), model.Conflict}})
	r.ok(volume(3, "more")) // its name may
}

func TestVolumeAcquireAndRelease(t *testing.T) {
	r := small(t)
	r.ok(volume(1, "data"))
	r.ok(machine(1, "web", 1))
	acquire := func(node model.NodeID, p model.Purpose, g model.Generation, rev model.Revision) command.VolumeAcquire {
		return command.VolumeAcquire{Volume: 1, Node: node, Purpose: p, Generation: g, Revision: rev}
	}
	refuse(t, r, []refusal{
		{"unknown volume", command.VolumeAcquire{Volume: 9, Node: 1, Purpose: model.ForExport}, model.NotFound},
		{"unknown node", acquire(9, model.ForExport, 0, 1), model.NotFound},
		{"no such purpose", acquire(1, "fun", 0, 1), model.Invalid},
		{"for a vm that is nowhere", acquire(1, model.ForGuest, 0, 1), model.Conflict},
		{"old generation", acquire(1, model.ForExport, 5, 1), model.Conflict},
		{"old revision", acquire(1, model.ForExport, 0, 7), model.Conflict},
	})
	r.ok(acquire(1, model.ForExport, 0, 1))
	r.ok(command.VMPower{VM: 1, Power: model.PowerOn, Node: 2})
	refuse(t, r, []refusal{
		{"for an export while the vm is on", acquire(1, model.ForExport, 1, 2), model.Conflict},
		{"for the vm on another node", acquire(1, model.ForGuest, 1, 2), model.Conflict},
	})
	out := r.refused(model.Conflict, acquire(2, model.ForGuest, 0, 1))
	if diff := cmp.Diff(r.volume(1), out.Result); diff != "" {
		t.Errorf("a lost compare-and-swap did not return the volume as it is:\n%s", diff)
	}
	r.ok(acquire(2, model.ForGuest, 1, 2))
	if v := r.volume(1); v.Holder != 2 || v.Purpose != model.ForGuest || v.Generation != 2 || v.Revision != 3 {
		t.Errorf("the volume is %+v", v)
	}
	release := func(node model.NodeID, g model.Generation) command.VolumeRelease {
		return command.VolumeRelease{Volume: 1, Node: node, Generation: g}
	}
	refuse(t, r, []refusal{
		{"release unknown", command.VolumeRelease{Volume: 9}, model.NotFound},
		{"release by the one before", release(1, 1), model.Fenced},
		{"release by another", release(3, 2), model.Conflict},
	})
	r.ok(release(2, 2))
	r.ok(release(2, 2))
	if v := r.volume(1); v.Holder != 0 || v.Purpose != "" || v.Generation != 2 || v.Revision != 4 {
		t.Errorf("the volume is %+v", v)
	}
}

// The members' steps, legal and not, each from a column with an active member on
// disk 11, an active one on 21, a joining one on 31 and a stale one on 32 with a
// cutoff.
func TestVolumeMembers(t *testing.T) {
	for _, test := range memberSteps() {
		t.Run(test.name, func(t *testing.T) {
			r := columns(t, stepCut)
			v := r.volume(1)
			cmd := command.VolumeMembers{Volume: 1, Generation: v.Generation, Revision: v.Revision, Changes: test.changes}
			if test.want != "" {
				r.refused(test.want, cmd)
				return
			}
			r.ok(cmd)
			after := r.volume(1)
			if after.Revision != v.Revision+1 || after.Generation != v.Generation {
				t.Errorf("revision %d -> %d, generation %d -> %d", v.Revision, after.Revision, v.Generation, after.Generation)
			}
			for disk, want := range test.after {
				if got, _ := after.Columns[0].Member(disk); got != want {
					t.Errorf("disk %s: got %+v, want %+v", disk, got, want)
				}
			}
			if diff := cmp.Diff(v.Columns[1], after.Columns[1]); diff != "" {
				t.Errorf("the other column changed:\n%s", diff)
			}
		})
	}
}

// stepCut is the cutoff of the stale member in TestVolumeMembers.
var stepCut = model.Stamp{Generation: 1, Number: 5}

// A memberStep is a change of column 0 and what becomes of it.
type memberStep struct {
	name    string
	changes []model.MemberChange
	want    model.Code // empty: legal
	after   map[model.DiskID]model.Member
}

func memberSteps() []memberStep {
	return append(newAndActiveSteps(), otherSteps()...)
}

func change(d model.DiskID, s model.MemberState, c model.Stamp) model.MemberChange {
	return model.MemberChange{Disk: d, State: s, Cutoff: c}
}

func newAndActiveSteps() []memberStep {
	cut, other, zero := stepCut, model.Stamp{Generation: 1, Number: 6}, model.Stamp{}
	return []memberStep{
		{
			"new joins",
			[]model.MemberChange{change(12, model.Joining, zero)},
			"",
			map[model.DiskID]model.Member{12: {Disk: 12, State: model.Joining}},
		},
		{"new begins active", []model.MemberChange{change(12, model.Active, zero)}, model.Invalid, nil},
		{"new with a cutoff", []model.MemberChange{change(12, model.Joining, cut)}, model.Invalid, nil},
		{"new on an unknown disk", []model.MemberChange{change(99, model.Joining, zero)}, model.Conflict, nil},
		{"new on a failed disk", []model.MemberChange{change(22, model.Joining, zero)}, model.Conflict, nil},
		{
			"active goes stale",
			[]model.MemberChange{change(21, model.Stale, other)},
			"",
			map[model.DiskID]model.Member{21: {Disk: 21, State: model.Stale, Cutoff: other}},
		},
		{"active goes stale, cutoff ahead", []model.MemberChange{change(21, model.Stale, model.Stamp{Generation: 2})}, model.Invalid, nil},
		{"active goes joining", []model.MemberChange{change(21, model.Joining, zero)}, model.Invalid, nil},
		{"active stays", []model.MemberChange{change(21, model.Active, zero)}, model.Invalid, nil},
		{"active let go, too few stay", []model.MemberChange{change(21, "", zero)}, model.Conflict, nil},
		{"active let go for one that is only now filled", []model.MemberChange{
			change(21, "", zero), change(31, model.Active, zero),
		}, model.Conflict, nil},
	}
}

func otherSteps() []memberStep {
	cut, other, zero := stepCut, model.Stamp{Generation: 1, Number: 6}, model.Stamp{}
	return []memberStep{
		{
			"joining is filled",
			[]model.MemberChange{change(31, model.Active, zero)},
			"",
			map[model.DiskID]model.Member{31: {Disk: 31, State: model.Active}},
		},
		{
			"joining goes stale",
			[]model.MemberChange{change(31, model.Stale, zero)},
			"",
			map[model.DiskID]model.Member{31: {Disk: 31, State: model.Stale}},
		},
		{"joining goes stale, other cutoff", []model.MemberChange{change(31, model.Stale, cut)}, model.Invalid, nil},
		{
			"stale joins, keeping its cutoff",
			[]model.MemberChange{change(32, model.Joining, zero)},
			"",
			map[model.DiskID]model.Member{32: {Disk: 32, State: model.Joining, Cutoff: cut}},
		},
		{
			"stale joins, naming its cutoff",
			[]model.MemberChange{change(32, model.Joining, cut)},
			"",
			map[model.DiskID]model.Member{32: {Disk: 32, State: model.Joining, Cutoff: cut}},
		},
		{"stale joins, other cutoff", []model.MemberChange{change(32, model.Joining, other)}, model.Invalid, nil},
		{"stale goes active", []model.MemberChange{change(32, model.Active, zero)}, model.Invalid, nil},
		{"stale let go", []model.MemberChange{change(32, "", zero)}, "", map[model.DiskID]model.Member{32: {}}},
		{"no such state", []model.MemberChange{change(32, "odd", zero)}, model.Invalid, nil},
		{"let go who is not there", []model.MemberChange{change(12, "", zero)}, model.Invalid, nil},
		{"unknown column", []model.MemberChange{{Column: 2, Disk: 11}}, model.Invalid, nil},
		{"column below zero", []model.MemberChange{{Column: -1, Disk: 11}}, model.Invalid, nil},
		{"nothing", nil, model.Invalid, nil},
		{"the same twice", []model.MemberChange{change(31, model.Active, zero), change(31, "", zero)}, model.Invalid, nil},
		{"both active go", []model.MemberChange{change(11, "", zero), change(21, model.Stale, cut)}, model.Conflict, nil},
		{"both active go stale", []model.MemberChange{change(11, model.Stale, cut), change(21, model.Stale, cut)}, model.Conflict, nil},
		{"all active go, a filled one comes", []model.MemberChange{
			change(11, "", zero), change(21, "", zero),
			change(31, model.Active, zero),
		}, model.Conflict, nil},
		{
			"one goes, one is filled, one comes",
			[]model.MemberChange{
				change(11, model.Stale, cut),
				change(31, model.Active, zero), change(12, model.Joining, zero),
			},
			"",
			map[model.DiskID]model.Member{
				11: {Disk: 11, State: model.Stale, Cutoff: cut},
				31: {Disk: 31, State: model.Active}, 12: {Disk: 12, State: model.Joining},
			},
		},
		{
			"a good one and a bad one",
			[]model.MemberChange{change(21, model.Stale, cut), change(32, model.Active, zero)},
			model.Invalid, nil,
		},
	}
}

// columns is the record that TestVolumeMembers describes.
func columns(t *testing.T, cut model.Stamp) *record {
	t.Helper()
	r := small(t)
	r.ok(volume(1, "data"))
	step := func(changes ...model.MemberChange) {
		t.Helper()
		v := r.volume(1)
		r.ok(command.VolumeMembers{Volume: 1, Generation: v.Generation, Revision: v.Revision, Changes: changes})
	}
	r.acquire(1, 1)
	step(model.MemberChange{Disk: 32, State: model.Joining}, model.MemberChange{Disk: 31, State: model.Joining})
	step(model.MemberChange{Disk: 32, State: model.Active})
	step(model.MemberChange{Disk: 32, State: model.Stale, Cutoff: cut})
	r.ok(command.DiskUpdate{Disk: 22, State: model.DiskFailed})
	return r
}

// Only the present reign may change members, and only from what it knows.
func TestVolumeMembersCompareAndSwap(t *testing.T) {
	r := small(t)
	r.ok(volume(1, "data"))
	change := []model.MemberChange{{Disk: 31, State: model.Joining}}
	members := func(g model.Generation, rev model.Revision) command.VolumeMembers {
		return command.VolumeMembers{Volume: 1, Generation: g, Revision: rev, Changes: change}
	}
	refuse(t, r, []refusal{
		{"unknown", command.VolumeMembers{Volume: 9, Changes: change}, model.NotFound},
		{"nobody holds it", members(0, 1), model.Conflict},
	})
	r.acquire(1, 1)
	r.acquire(1, 2)
	refuse(t, r, []refusal{
		{"the reign before", members(1, 3), model.Fenced},
		{"a reign to come", members(3, 3), model.Fenced},
		{"an old revision", members(2, 2), model.Conflict},
	})
	for _, cmd := range []command.VolumeMembers{members(1, 3), members(2, 2)} {
		if diff := cmp.Diff(r.volume(1), r.do(cmd).Result); diff != "" {
			t.Errorf("a lost compare-and-swap did not return the volume as it is:\n%s", diff)
		}
	}
	r.ok(members(2, 3))
}

// A column does not grow without end.
func TestVolumeMembersBounded(t *testing.T) {
	r := small(t)
	r.ok(volume(1, "data"))
	for i := model.DiskID(100); i < 110; i++ {
		r.ok(command.DiskAdd{Disk: model.Disk{ID: i, Node: 3, Path: "/d", Size: 1}})
	}
	r.acquire(1, 1)
	for i := model.DiskID(100); ; i++ {
		v := r.volume(1)
		cmd := command.VolumeMembers{
			Volume: 1, Generation: v.Generation, Revision: v.Revision,
			Changes: []model.MemberChange{{Disk: i, State: model.Joining}},
		}
		if len(v.Columns[0].Members) == model.MaxMembers {
			r.refused(model.Conflict, cmd)
			break
		}
		r.ok(cmd)
	}
}
