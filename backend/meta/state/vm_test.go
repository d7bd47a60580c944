package state

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

func TestVMCreate(t *testing.T) {
	r := small(t)
	r.ok(volume(1, "data"))
	r.ok(volume(2, "more"))
	r.ok(machine(1, "web", 1))
	bad := func(change func(*command.VMCreate)) command.VMCreate {
		c := machine(2, "db", 2)
		change(&c)
		return c
	}
	refuse(t, r, []refusal{
		{"name taken", machine(2, "WEB", 2), model.Conflict},
		{"identifier taken", machine(1, "db", 2), model.Conflict},
		{"no identifier", machine(0, "db", 2), model.Conflict},
		{"no cpus", bad(func(c *command.VMCreate) { c.CPUs = 0 }), model.Invalid},
		{"little memory", bad(func(c *command.VMCreate) { c.Memory = 1 << 20 }), model.Invalid},
		{"nothing to start from", machine(2, "db"), model.Invalid},
		{"unknown volume", machine(2, "db", 9), model.NotFound},
		{"volume of another vm", machine(2, "db", 1), model.Conflict},
		{"volume twice", machine(2, "db", 2, 2), model.Invalid},
	})
	want := model.VM{
		ID: 1, Name: "web", CPUs: 1, Memory: 256 << 20, Disks: []model.VMDisk{{Volume: 1}},
		Power: model.PowerOff, Status: model.VMStatus{State: model.VMStopped, Since: noon}, Created: noon,
	}
	if diff := cmp.Diff(want, r.vm(1)); diff != "" {
		t.Errorf("the vm differs:\n%s", diff)
	}
	if vm, ok := r.store.View().VMOf(1); !ok || vm.ID != 1 {
		t.Errorf("VMOf(1) is %v, %t", vm.ID, ok)
	}
}

func TestVMUpdate(t *testing.T) {
	r := small(t)
	r.ok(volume(1, "data"))
	r.ok(volume(2, "more"))
	r.ok(machine(1, "web", 1))
	r.ok(machine(2, "db", 2))
	name, taken, cpus, memory := "www", "db", 4, model.Bytes(1<<30)
	none := []model.VMDisk{}
	refuse(t, r, []refusal{
		{"unknown", command.VMUpdate{VM: 9, Name: &name}, model.NotFound},
		{"name taken", command.VMUpdate{VM: 1, Name: &taken}, model.Conflict},
		{"disk of another", command.VMUpdate{VM: 1, Disks: &[]model.VMDisk{{Volume: 2}}}, model.Conflict},
		{"nothing to start from", command.VMUpdate{VM: 1, Disks: &none}, model.Invalid},
	})
	r.ok(command.VMUpdate{VM: 1, Name: &name, CPUs: &cpus, Memory: &memory})
	if vm := r.vm(1); vm.Name != "www" || vm.CPUs != 4 || vm.Memory != 1<<30 || len(vm.Disks) != 1 {
		t.Errorf("the vm is %+v", vm)
	}
	if _, err := r.store.View().FindVM("web"); model.CodeOf(err) != model.NotFound {
		t.Errorf("its old name still finds something: %v", err)
	}
	r.ok(command.VMPower{VM: 1, Power: model.PowerOn})
	high, odd := model.PriorityHigh, model.Priority("odd")
	refuse(t, r, []refusal{
		{"it is on", command.VMUpdate{VM: 1, CPUs: &cpus}, model.Conflict},
		{"it is on, beside the priority", command.VMUpdate{VM: 1, CPUs: &cpus, Priority: &high}, model.Conflict},
		{"no such priority", command.VMUpdate{VM: 1, Priority: &odd}, model.Invalid},
	})
	r.ok(command.VMUpdate{VM: 1, Priority: &high})
	if vm := r.vm(1); vm.Priority != high || vm.CPUs != 4 {
		t.Errorf("the vm is %+v", vm)
	}
	tags, words := []string{"shop", "web"}, "What the shop\nruns on."
	r.ok(command.VMUpdate{VM: 1, Tags: &tags, Description: &words})
	if vm := r.vm(1); len(vm.Tags) != 2 || vm.Tags[0] != "shop" || vm.Description != words {
		t.Errorf("with tags and a description the vm is %+v", vm)
	}
	twice, odd2, bell := []string{"a", "a"}, []string{"a b"}, "\a"
	refuse(t, r, []refusal{
		{"a tag twice", command.VMUpdate{VM: 1, Tags: &twice}, model.Invalid},
		{"a tag with a space", command.VMUpdate{VM: 1, Tags: &odd2}, model.Invalid},
		{"a description that rings", command.VMUpdate{VM: 1, Description: &bell}, model.Invalid},
	})
}

// A migration is decided once: it moves the machine, or it does not, and what comes
// late changes nothing. Placing the machine anew ends it too.
func TestVMMigration(t *testing.T) {
	r := small(t)
	r.ok(volume(1, "data"))
	r.ok(machine(1, "web", 1))
	begin := command.VMMigrate{VM: 1, Task: 5, From: 1, To: 2}
	end := func(task model.TaskID, moved bool) command.VMMigrateEnd {
		return command.VMMigrateEnd{VM: 1, Task: task, From: 1, Moved: moved}
	}
	refuse(t, r, []refusal{
		{"off", begin, model.Conflict},
		{"nobody", command.VMMigrate{VM: 9, Task: 5, From: 1, To: 2}, model.NotFound},
		{"no migration", end(5, true), model.Conflict},
	})
	r.ok(command.VMPower{VM: 1, Power: model.PowerOn, Node: 1})
	refuse(t, r, []refusal{{"not running yet", begin, model.Conflict}})
	r.ok(command.VMReport{VM: 1, Node: 1, State: model.VMRunning})
	refuse(t, r, []refusal{
		{"from elsewhere", command.VMMigrate{VM: 1, Task: 5, From: 2, To: 1}, model.Conflict},
		{"to where it is", command.VMMigrate{VM: 1, Task: 5, From: 1, To: 1}, model.Invalid},
		{"to nowhere", command.VMMigrate{VM: 1, Task: 5, From: 1, To: 9}, model.NotFound},
		{"without a task", command.VMMigrate{VM: 1, From: 1, To: 2}, model.Invalid},
	})
	r.ok(begin)
	r.ok(begin) // said again
	refuse(t, r, []refusal{
		{"a second one", command.VMMigrate{VM: 1, Task: 6, From: 1, To: 2}, model.Conflict},
		{"the end of another", end(6, true), model.Conflict},
	})
	r.ok(end(5, false))
	if vm := r.vm(1); vm.Node != 1 || vm.Migration != nil || vm.Status.State != model.VMRunning {
		t.Fatalf("after it was called off the vm is %+v", vm)
	}
	refuse(t, r, []refusal{{"moved after it was called off", end(5, true), model.Conflict}})
	r.ok(command.VMMigrate{VM: 1, Task: 7, From: 1, To: 2})
	r.ok(end(7, true))
	if vm := r.vm(1); vm.Node != 2 || vm.Migration != nil || vm.Status.State != model.VMRunning || vm.Status.Node != 2 {
		t.Fatalf("after it moved the vm is %+v", vm)
	}
	refuse(t, r, []refusal{{"called off after it moved", end(7, false), model.Conflict}})
	r.ok(command.VMMigrate{VM: 1, Task: 8, From: 2, To: 1})
	r.ok(command.VMPlace{VM: 1, Node: 1, Expected: 2})
	refuse(t, r, []refusal{
		{"moved after it was placed anew", command.VMMigrateEnd{VM: 1, Task: 8, From: 2, Moved: true}, model.Conflict},
	})
}

// A machine's life: what it shall be, where, and what its node says.
func TestVMLife(t *testing.T) {
	r := small(t)
	r.ok(volume(1, "data"))
	r.ok(machine(1, "web", 1))
	on := func(n model.NodeID) command.VMPower { return command.VMPower{VM: 1, Power: model.PowerOn, Node: n} }
	report := func(n model.NodeID, s model.VMState) command.VMReport {
		return command.VMReport{VM: 1, Node: n, State: s}
	}
	is := func(power model.PowerState, node model.NodeID, state model.VMState) {
		t.Helper()
		vm := r.vm(1)
		if vm.Power != power || vm.Node != node || vm.Status.State != state {
			t.Fatalf("the vm is %s on %s and %s; want %s on %s and %s",
				vm.Power, vm.Node, vm.Status.State, power, node, state)
		}
	}
	refuse(t, r, []refusal{
		{"no such power", command.VMPower{VM: 1, Power: "warp"}, model.Invalid},
		{"power of nobody", command.VMPower{VM: 9, Power: model.PowerOn}, model.NotFound},
		{"on an unknown node", on(9), model.NotFound},
		{"placed by another's word", command.VMPlace{VM: 1, Node: 1, Expected: 2}, model.Conflict},
		{"placed on an unknown node", command.VMPlace{VM: 1, Node: 9}, model.NotFound},
		{"place nobody", command.VMPlace{VM: 9, Node: 1}, model.NotFound},
		{"report while nowhere", report(1, model.VMRunning), model.Conflict},
		{"report of nobody", command.VMReport{VM: 9, Node: 1, State: model.VMRunning}, model.NotFound},
	})
	r.ok(on(0))
	is(model.PowerOn, 0, model.VMStopped)
	r.ok(command.VMPlace{VM: 1, Node: 1})
	is(model.PowerOn, 1, model.VMStarting)
	refuse(t, r, []refusal{
		{"report of another node", report(2, model.VMRunning), model.Conflict},
		{"no such state", report(1, "odd"), model.Invalid},
		{"moved by power", on(2), model.Conflict},
		{"deleted while on", command.VMDelete{VM: 1}, model.Conflict},
	})
	r.ok(report(1, model.VMRunning))
	since := r.vm(1).Status.Since
	r.at = noon.Add(1)
	r.ok(command.VMReport{VM: 1, Node: 1, State: model.VMRunning, Reason: strings.Repeat("x", 2*maxReason)})
	if s := r.vm(1).Status; !s.Since.Equal(since) || len(s.Reason) != maxReason || s.Node != 1 {
		t.Errorf("the status is %+v", s)
	}
	r.ok(command.VMPower{VM: 1, Power: model.PowerOff})
	is(model.PowerOff, 1, model.VMRunning)
	refuse(t, r, []refusal{{"deleted while it runs", command.VMDelete{VM: 1}, model.Conflict}})
	r.ok(report(1, model.VMStopped))
	r.ok(on(2)) // stopped, so it may move
	is(model.PowerOn, 2, model.VMStarting)
	r.ok(report(2, model.VMFailed))
	r.ok(on(0)) // try again
	is(model.PowerOn, 2, model.VMStarting)
	r.ok(command.VMPower{VM: 1, Power: model.PowerOff})
	r.ok(report(2, model.VMStopped))
	r.ok(command.VMDelete{VM: 1})
	if v := r.volume(1); v.ID != 1 {
		t.Error("its volume is gone with it")
	}
}

// With its disks, a machine goes whole or not at all.
func TestVMDeleteWithDisks(t *testing.T) {
	r := small(t)
	r.ok(volume(1, "data"))
	r.ok(volume(2, "more"))
	r.ok(machine(1, "web", 1, 2))
	r.ok(command.VolumeAcquire{Volume: 2, Node: 1, Purpose: model.ForExport, Revision: 1})
	refuse(t, r, []refusal{
		{"unknown", command.VMDelete{VM: 9}, model.NotFound},
		{"a disk is exported", command.VMDelete{VM: 1, Disks: true}, model.Conflict},
	})
	r.ok(command.VolumeRelease{Volume: 2, Node: 1, Generation: 1})
	r.ok(command.VMDelete{VM: 1, Disks: true})
	if v := r.store.View(); len(v.VMs()) != 0 || len(v.Volumes()) != 0 || len(v.DeletedVolumes()) != 2 {
		t.Errorf("left are %d vms, %d volumes, %d deleted", len(v.VMs()), len(v.Volumes()), len(v.DeletedVolumes()))
	}
}
