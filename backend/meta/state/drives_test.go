package state

import (
	"strings"
	"testing"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

func image(id model.VolumeID, name string) command.VolumeCreate {
	c := volume(id, name)
	c.Use = model.VolumeImage
	return c
}

// An image in a drive is nobody's disk, is not deleted and not written, whoever asks; and
// of a machine that is on only what is in its drives changes.
func TestDrives(t *testing.T) {
	r := small(t)
	r.ok(volume(1, "data"))
	r.ok(image(2, "iso"))
	r.ok(image(3, "disc"))
	with := func(change func(*command.VMCreate)) command.VMCreate {
		c := machine(1, "web", 1)
		change(&c)
		return c
	}
	drives := func(d ...model.CDROM) func(*command.VMCreate) {
		return func(c *command.VMCreate) { c.CDROMs = d }
	}
	sata := model.CDROM{Bus: model.BusSATA}
	refuse(t, r, []refusal{
		{"no such image", with(drives(model.CDROM{Image: 9, Bus: model.BusSATA})), model.NotFound},
		{"no image", with(drives(model.CDROM{Image: 1, Bus: model.BusSATA})), model.Invalid},
		{"on virtio", with(drives(model.CDROM{Image: 2})), model.Invalid},
		{"too many", with(drives(sata, sata, sata, sata, sata)), model.Invalid},
		{"a disk on scsi", with(func(c *command.VMCreate) { c.Disks[0].Bus = model.BusSCSI }), model.Invalid},
		{"from nothing", with(func(c *command.VMCreate) { c.BootOrder = []string{"cdrom1"} }), model.Invalid},
		{"from no such thing", with(func(c *command.VMCreate) { c.BootOrder = []string{"floppy"} }), model.Invalid},
		{"twice from one", with(func(c *command.VMCreate) { c.BootOrder = []string{"disk1", "disk"} }), model.Invalid},
		{"its own disk", with(func(c *command.VMCreate) {
			c.Disks = []model.VMDisk{{Volume: 2}}
			c.CDROMs = []model.CDROM{{Image: 2, Bus: model.BusSATA}}
		}), model.Conflict},
		{"much user data", with(func(c *command.VMCreate) { c.Seed = &command.Seed{User: secret(strings.Repeat("x", model.MaxSeed+1))} }), model.Invalid},
	})
	r.ok(with(func(c *command.VMCreate) {
		c.Disks[0].Bus = model.BusSATA
		c.CDROMs = []model.CDROM{{Image: 2, Bus: model.BusSCSI}, sata}
		c.BootOrder = []string{"cdrom", "disk1"}
	}))
	refuse(t, r, []refusal{
		{"delete", command.VolumeDelete{Volume: 2}, model.Conflict},
		{"write", command.VolumeAcquire{Volume: 2, Node: 1, Purpose: model.ForExport, Generation: 1, Revision: 1}, model.Conflict},
		{"as a disk", machine(2, "db", 2), model.Conflict},
	})
	r.ok(machine(2, "db", 3))
	changed := func(d ...model.CDROM) command.VMUpdate { return command.VMUpdate{VM: 1, CDROMs: &d} }
	refuse(t, r, []refusal{{"the disk of another", changed(model.CDROM{Image: 3, Bus: model.BusSATA}), model.Conflict}})

	r.ok(command.VMPower{VM: 1, Power: model.PowerOn, Node: 1})
	refuse(t, r, []refusal{
		{"a drive comes", changed(sata, sata, sata), model.Conflict},
		{"a drive changes", changed(sata, sata), model.Conflict},
		{"the order", command.VMUpdate{VM: 1, BootOrder: &[]string{"disk1"}}, model.Conflict},
		{"a seed comes", command.VMUpdate{VM: 1, Seed: &command.Seed{User: secret("#cloud-config")}}, model.Conflict},
	})
	r.ok(changed(model.CDROM{Bus: model.BusSCSI}, sata))
	r.ok(command.VolumeDelete{Volume: 2})
	if vm := r.vm(1); len(vm.CDROMs) != 2 || vm.CDROMs[0].Image != 0 || len(vm.BootOrder) != 2 {
		t.Errorf("the vm is %+v", vm)
	}
}

// What cloud-init reads is kept beside the machine: it is not in the machine's record, in
// what a request returns, nor in the audit log, and it is forgotten with the machine.
func TestSeed(t *testing.T) {
	r := small(t)
	r.ok(volume(1, "data"))
	c := machine(1, "web", 1)
	c.Seed = &command.Seed{User: secret("password: fiddlesticks"), Meta: secret("instance-id: i-1")}
	made := r.ok(c)
	if strings.Contains(jsonOf(made), "fiddlesticks") {
		t.Error("the request's result holds what is secret")
	}
	first := r.vm(1).Seed
	seed, err := r.store.View().Seed(1)
	if err != nil || first == 0 || seed.User.Reveal() != "password: fiddlesticks" || seed.Meta.Reveal() != "instance-id: i-1" {
		t.Fatalf("the seed is number %d, %v", first, err)
	}
	r.ok(command.VMPower{VM: 1, Power: model.PowerOn, Node: 1})
	r.ok(command.VMUpdate{VM: 1, Seed: &command.Seed{User: secret("password: other")}})
	if vm := r.vm(1); vm.Seed == first || vm.Seed == 0 {
		t.Errorf("a changed seed has the number %d after %d", vm.Seed, first)
	}
	refuse(t, r, []refusal{{"it goes", command.VMUpdate{VM: 1, Seed: &command.Seed{}}, model.Conflict}})
	r.ok(command.VMPower{VM: 1, Power: model.PowerOff})
	r.ok(command.VMReport{VM: 1, Node: 1, State: model.VMStopped})
	r.ok(command.VMDelete{VM: 1})
	if _, err := r.store.View().Seed(1); model.CodeOf(err) != model.NotFound {
		t.Errorf("of a machine that was deleted its seed is there: %v", err)
	}
}
