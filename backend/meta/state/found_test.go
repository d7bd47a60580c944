package state

import (
	"testing"
	"time"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

// claim is disk 11 claimed by a node, as the record has it now.
func (r *record) claim(by model.NodeID, change func(*command.DiskFound)) command.DiskFound {
	r.t.Helper()
	d, err := r.store.View().Disk(11)
	if err != nil {
		r.t.Fatal(err)
	}
	c := command.DiskFound{Disk: 11, Node: by, Claims: d.Claims, Path: "/found", Journal: d.Journal}
	if change != nil {
		change(&c)
	}
	return c
}

// A disk goes to another node only if its own has let it go, and is one node's at any
// time: of two claims that know the same the second is refused.
func TestDiskFound(t *testing.T) {
	r := small(t)
	absent := func(c *command.DiskFound) { c.Path, c.Error = "", "not found" }
	gone := func(c *command.DiskFound) { c.Gone = true }
	refuse(t, r, []refusal{
		{"unknown disk", command.DiskFound{Disk: 99, Node: 1, Path: "/x"}, model.NotFound},
		{"unknown node", command.DiskFound{Disk: 11, Node: 9, Path: "/x"}, model.NotFound},
		{"another's", r.claim(2, nil), model.Conflict},
		{"absent, by another", r.claim(2, absent), model.Conflict},
	})
	late := r.claim(1, absent)
	own := r.disk(r.claim(1, func(c *command.DiskFound) { c.Journal = 7 }))
	if want := (model.Disk{
		ID: 11, Node: 1, Path: "/found", State: model.DiskOnline, Size: 1 << 30, Added: noon, Claims: 1, Journal: 7,
	}); own != want {
		t.Errorf("claimed by its node it is %+v, want %+v", own, want)
	}
	refuse(t, r, []refusal{
		{"what was said before the claim", late, model.Conflict},
		{"an older image", r.claim(1, func(c *command.DiskFound) { c.Journal = 6 }), model.Conflict},
	})
	d := r.disk(r.claim(1, absent))
	if d.State != model.DiskOffline || d.Error != "not found" || d.Absent.IsZero() {
		t.Errorf("absent it is %+v", d)
	}
	if d.Lost(d.Absent.Add(time.Minute), time.Hour) || !d.Lost(d.Absent.Add(time.Hour), time.Hour) {
		t.Error("a disk that is absent is not lost after the patience, or before")
	}
	first, second := r.claim(2, nil), r.claim(3, nil)
	if d = r.disk(first); d.Node != 2 || d.State != model.DiskOnline || d.Error != "" || !d.Absent.IsZero() {
		t.Errorf("taken over it is %+v", d)
	}
	refuse(t, r, []refusal{
		{"the second claim", second, model.Conflict},
		{"the old node's", r.claim(1, nil), model.Conflict},
	})
	if d = r.disk(r.claim(3, gone)); d.Node != 3 {
		t.Errorf("of a node that is gone it is %+v", d)
	}
	r.ok(command.DiskUpdate{Disk: 11, State: model.DiskFailed, Error: "input/output error"})
	refuse(t, r, []refusal{{"a failed one", r.claim(1, nil), model.Conflict}})
	if d = r.disk(r.claim(3, nil)); d.State != model.DiskFailed {
		t.Errorf("a failed disk that its node opened is %+v", d)
	}
}

// A disk that was seen twice stays with the node it has, also when that is away,
// until who saw the second one says that it is gone.
func TestDiskTwice(t *testing.T) {
	r := small(t)
	twin := func(c *command.DiskFound) { c.Twin = true }
	over := func(c *command.DiskFound) { c.Twin, c.Path = true, "" }
	gone := func(c *command.DiskFound) { c.Gone = true }
	d := r.disk(r.claim(2, twin))
	if d.Node != 1 || d.Twin != (model.Twin{Node: 2, Path: "/found"}) {
		t.Errorf("seen twice it is %+v", d)
	}
	refuse(t, r, []refusal{
		{"the second", r.claim(2, gone), model.Conflict},
		{"a third", r.claim(3, gone), model.Conflict},
		{"a third is seen", r.claim(3, twin), model.Conflict},
		{"over, by another", r.claim(3, over), model.Conflict},
	})
	r.ok(r.claim(1, func(c *command.DiskFound) { c.Path = "" }))
	refuse(t, r, []refusal{{"the second, when its node has not got it", r.claim(2, nil), model.Conflict}})
	r.ok(r.claim(1, nil))
	if d = r.disk(r.claim(2, over)); d.Twin.Node != 0 {
		t.Errorf("when the second has gone it is %+v", d)
	}
	r.ok(r.claim(2, twin))
	r.ok(command.NodeRemove{Node: 2})
	if d, err := r.store.View().Disk(11); err != nil || d.Twin.Node != 0 {
		t.Errorf("when who saw the second has gone it is %+v, %v", d, err)
	}
}
