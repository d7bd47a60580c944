package state

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

// Disks come at any time. Of a machine that is not off one goes only by the word of the
// node the machine is on; until then nobody else can have its volume, nor delete it. Each
// disk stays in its slot, also that of a record of before there were slots.
func TestDisksComeAndGo(t *testing.T) {
	r := small(t)
	for i, name := range []string{"a", "b", "c", "d"} {
		r.ok(volume(model.VolumeID(i+1), name))
	}
	r.ok(machine(1, "web", 1, 2))
	r.ok(machine(2, "db", 4))
	r.ok(command.VMPower{VM: 1, Power: model.PowerOn, Node: 1})
	r.ok(command.VMReport{VM: 1, Node: 1, State: model.VMRunning})
	ids := func(v ...model.VolumeID) []model.VolumeID { return v }
	refuse(t, r, []refusal{
		{"another's", command.VMUpdate{VM: 1, AddDisks: ids(4)}, model.Conflict},
		{"its own", command.VMUpdate{VM: 1, AddDisks: ids(1)}, model.Invalid},
		{"unknown", command.VMUpdate{VM: 1, AddDisks: ids(9)}, model.NotFound},
		{"not given back", command.VMUpdate{VM: 1, RemoveDisks: ids(1)}, model.Conflict},
		{"given back elsewhere", command.VMUpdate{VM: 1, RemoveDisks: ids(1), Released: 2}, model.Conflict},
		{"not its own", command.VMUpdate{VM: 1, RemoveDisks: ids(4), Released: 1}, model.NotFound},
		{"all", command.VMUpdate{VM: 1, RemoveDisks: ids(1, 2), Released: 1}, model.Invalid},
		{"deleted", command.VolumeDelete{Volume: 2}, model.Conflict},
	})
	r.ok(command.VMUpdate{VM: 1, RemoveDisks: ids(1), Released: 1})
	r.ok(command.VMUpdate{VM: 1, AddDisks: ids(3)})
	if diff := cmp.Diff([]model.VMDisk{{Volume: 3}, {Volume: 2, Slot: 1}}, r.vm(1).Disks); diff != "" {
		t.Errorf("the disks differ:\n%s", diff)
	}
	r.ok(command.VMMigrate{VM: 1, Task: 5, From: 1, To: 2})
	refuse(t, r, []refusal{
		{"comes in a migration", command.VMUpdate{VM: 1, AddDisks: ids(1)}, model.Conflict},
		{"goes in a migration", command.VMUpdate{VM: 1, RemoveDisks: ids(3), Released: 1}, model.Conflict},
	})
	r.ok(command.VMMigrateEnd{VM: 1, Task: 5, From: 1})
	r.ok(command.VMPower{VM: 1, Power: model.PowerOff})
	refuse(t, r, []refusal{{"it runs yet", command.VMUpdate{VM: 1, RemoveDisks: ids(3)}, model.Conflict}})
	r.ok(command.VMReport{VM: 1, Node: 1, State: model.VMStopped})
	r.ok(command.VMUpdate{VM: 1, RemoveDisks: ids(3)})
	if diff := cmp.Diff([]model.VMDisk{{Volume: 2, Slot: 1}}, r.vm(1).Disks); diff != "" {
		t.Errorf("the disks differ:\n%s", diff)
	}
	r.ok(command.VMUpdate{VM: 2, AddDisks: ids(3)})
}
