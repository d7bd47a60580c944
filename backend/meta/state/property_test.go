package state

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

// drawn makes commands out of few identifiers, so that they meet each other,
// with what they must know of the record right about as often as not.
func drawn(t *rapid.T, v *View) command.Command {
	node := func() model.NodeID { return model.NodeID(rapid.IntRange(0, 4).Draw(t, "node")) }
	vol := func() model.VolumeID { return model.VolumeID(rapid.IntRange(1, 3).Draw(t, "volume")) }
	vm := func() model.VMID { return model.VMID(rapid.IntRange(1, 2).Draw(t, "vm")) }
	disk := func() model.DiskID {
		return model.DiskID(10*rapid.IntRange(1, 4).Draw(t, "disk") + rapid.IntRange(1, 2).Draw(t, "of"))
	}
	name := func() string { return rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name") }
	id := vol()
	now, _ := v.Volume(id)
	now.Revision += model.Revision(rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(t, "off"))
	switch rapid.IntRange(0, 23).Draw(t, "kind") {
	case 0:
		c := volume(id, name())
		for i := range c.Columns {
			c.Columns[i].Members[0].Disk, c.Columns[i].Members[1].Disk = disk(), disk()
		}
		return c
	case 1:
		return command.VolumeDelete{Volume: id}
	case 2, 3:
		p := rapid.SampledFrom([]model.Purpose{model.ForGuest, model.ForExport, model.ForMaintenance}).Draw(t, "purpose")
		return command.VolumeAcquire{Volume: id, Node: node(), Purpose: p, Generation: now.Generation, Revision: now.Revision}
	case 4:
		return command.VolumeRelease{Volume: id, Node: now.Holder, Generation: now.Generation}
	case 5, 6, 7:
		changes := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) model.MemberChange {
			return model.MemberChange{
				Column: rapid.IntRange(0, 2).Draw(t, "column"), Disk: disk(),
				State: rapid.SampledFrom([]model.MemberState{"", model.Active, model.Joining, model.Stale}).Draw(t, "state"),
			}
		}), 1, 3).Draw(t, "changes")
		return command.VolumeMembers{Volume: id, Generation: now.Generation, Revision: now.Revision, Changes: changes}
	case 8:
		return machine(vm(), name(), id)
	case 9:
		return command.VMDelete{VM: vm(), Disks: rapid.Bool().Draw(t, "disks")}
	case 10:
		return command.VMPower{
			VM: vm(), Node: node(),
			Power: rapid.SampledFrom([]model.PowerState{model.PowerOn, model.PowerOff}).Draw(t, "power"),
		}
	case 11:
		m, _ := v.VM(vm())
		return command.VMReport{
			VM: m.ID, Node: m.Node,
			State: rapid.SampledFrom([]model.VMState{model.VMRunning, model.VMStopped}).Draw(t, "state"),
		}
	case 12:
		if rapid.Bool().Draw(t, "drain") {
			return command.NodeDrain{Node: node(), Cancel: rapid.Bool().Draw(t, "cancel")}
		}
		return command.NodeRemove{Node: node(), Lost: rapid.Bool().Draw(t, "lost")}
	case 13:
		return command.DiskUpdate{
			Disk: disk(), Error: name(),
			State: rapid.SampledFrom([]model.DiskState{model.DiskOnline, model.DiskOffline}).Draw(t, "disk state"),
		}
	case 14, 15:
		return command.VolumeMove{Volume: id, Revision: now.Revision, Moves: []model.Move{{
			Column: rapid.IntRange(0, 1).Draw(t, "column"), From: disk(), To: disk(),
		}}}
	case 16:
		d := disk()
		if rapid.Bool().Draw(t, "remove") {
			return command.DiskRemove{Disk: d}
		}
		return command.DiskDrain{Disk: d, Cancel: rapid.Bool().Draw(t, "cancel")}
	case 17, 18:
		d, _ := v.Disk(disk())
		return command.DiskFound{
			Disk: d.ID, Node: node(), Claims: d.Claims, Path: rapid.SampledFrom([]string{"", "/found"}).Draw(t, "path"),
			Gone: rapid.Bool().Draw(t, "gone"), Twin: rapid.Bool().Draw(t, "twin"),
		}
	case 19, 20, 21, 22:
		return drawnTrust(t, v, node())
	default:
		return command.UserCreate{
			ID: model.UserID(rapid.IntRange(1, 4).Draw(t, "user")), Name: name(),
			Role: model.Viewer, PasswordHash: secret("x"),
		}
	}
}

// drawnTrust is drawn for keys and roots.
func drawnTrust(t *rapid.T, v *View, node model.NodeID) command.Command {
	c, _ := v.Cluster()
	has := model.Trust{Keys: c.Keyring.Step, Epoch: c.Succession.Epoch}
	switch rapid.IntRange(0, 7).Draw(t, "trust") {
	case 0:
		return command.KeyRotate{Key: secret(newKey)}
	case 1:
		return command.CARotate{Epoch: has.Epoch, CA: c.CA + "+", CAKey: secret("sealed"), Heritage: c.CA}
	case 2:
		return command.TrustStep{Keys: has.Keys, Except: []model.NodeID{node}}
	case 3:
		return command.TrustStep{Epoch: has.Epoch}
	default:
		return command.NodeTrust{Node: node, Trust: has}
	}
}

// sound says what is wrong with a record, whatever was asked of it.
func sound(v *View) error {
	for _, vol := range v.Volumes() {
		if v.VolumeDeleted(vol.ID) {
			return fmt.Errorf("volume %s is deleted and there", vol.ID)
		}
		if vol.Holder != 0 {
			if _, err := v.Node(vol.Holder); err != nil {
				return fmt.Errorf("volume %s is held by who is not there", vol.ID)
			}
		}
		for i, column := range vol.Columns {
			disks := map[model.DiskID]bool{}
			for _, m := range column.Members {
				_, err := v.Disk(m.Disk)
				if disks[m.Disk] || err != nil {
					return fmt.Errorf("column %d of %s: disk %s twice or unknown", i, vol.ID, m.Disk)
				}
				disks[m.Disk] = true
			}
			if column.Count(model.Active) == 0 || len(column.Members) > model.MaxMembers {
				return fmt.Errorf("column %d of %s is %+v", i, vol.ID, column)
			}
		}
	}
	for _, vm := range v.VMs() {
		for _, id := range vm.Volumes() {
			if _, err := v.Volume(id); err != nil {
				return fmt.Errorf("vm %s has volume %s, which is not there", vm.ID, id)
			}
			if of, _ := v.VMOf(id); of.ID != vm.ID {
				return fmt.Errorf("volume %s belongs to %s and %s", id, vm.ID, of.ID)
			}
		}
		if vm.Firmware.UEFI() != (vm.NVRAM != 0) {
			return fmt.Errorf("vm %s has the firmware %q and the NVRAM %s", vm.ID, vm.Firmware, vm.NVRAM)
		}
		if vm.Node != 0 {
			if _, err := v.Node(vm.Node); err != nil {
				return fmt.Errorf("vm %s is placed on who is not there", vm.ID)
			}
		}
	}
	return nil
}

// Whatever is asked in whatever order: the record stays sound, generations only
// grow, what is refused changes nothing, a dry run foretells what comes, and any
// cut of the log into snapshot, batches and repeated requests makes the same
// record.
func TestAnyHistory(t *testing.T) {
	base := small(t)
	dir := t.TempDir()
	files := 0
	fresh := func(rt *rapid.T, snapshot []byte) *Store {
		files++
		s, err := Open(t.Context(), filepath.Join(dir, strconv.Itoa(files)))
		if err != nil {
			rt.Fatal(err)
		}
		rt.Cleanup(func() {
			if err := s.Close(); err != nil {
				rt.Error(err)
			}
		})
		if err := s.Restore(t.Context(), bytes.NewReader(snapshot)); err != nil {
			rt.Fatal(err)
		}
		return s
	}
	start := encode(t, base.store)
	rapid.Check(t, func(rt *rapid.T) {
		s := fresh(rt, start)
		var log []Entry
		n := rapid.IntRange(1, 40).Draw(rt, "length")
		cut := rapid.IntRange(0, n).Draw(rt, "cut")
		var half []byte
		for i := range n {
			if i == cut {
				half = encode(t, s)
			}
			log = append(log, step(rt, s, fmt.Sprint("r", i)))
			if rapid.IntRange(0, 9).Draw(rt, "repeat") == 0 {
				again := log[rapid.IntRange(0, len(log)-1).Draw(rt, "which")]
				again.Index = s.View().Index() + 1
				before := rows(s.View())
				if _, err := s.ApplyBatch([]Entry{again}); err != nil {
					rt.Fatal(err)
				}
				if diff := cmp.Diff(before, rows(s.View())); diff != "" {
					rt.Fatalf("a repeated request changed something:\n%s", diff)
				}
				log = append(log, again)
			}
		}
		want := digest(t, s)
		whole := fresh(rt, start)
		if _, err := whole.ApplyBatch(log); err != nil {
			rt.Fatal(err)
		}
		if digest(t, whole) != want {
			rt.Error("one batch makes another record")
		}
		if half == nil {
			return
		}
		rest := fresh(rt, half)
		if _, err := rest.ApplyBatch(log); err != nil { // entries in the snapshot are passed over
			rt.Fatal(err)
		}
		if digest(t, rest) != want {
			rt.Errorf("a snapshot at %d and the log make another record", cut)
		}
	})
}

// step draws a command, applies it, and checks what holds for any one.
func step(t *rapid.T, s *Store, request string) Entry {
	v := s.View()
	env := command.Envelope{Request: request, At: noon.Add(time.Duration(v.Index()) * time.Second), Command: drawn(t, v)}
	data, err := command.Encode(env)
	if err != nil {
		t.Fatal(err)
	}
	before := rows(v)
	told, open, err := Check(v, env)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, rows(s.View())); diff != "" {
		t.Fatalf("the dry run of %s changed something:\n%s", env.Command.Kind(), diff)
	}
	e := Entry{Index: v.Index() + 1, Data: data}
	out, err := s.ApplyBatch([]Entry{e})
	if err != nil {
		t.Fatal(err)
	}
	if open != (out[0].Err == nil) || model.CodeOf(told.Err) != model.CodeOf(out[0].Err) ||
		jsonOf(told.Result) != jsonOf(out[0].Result) {
		t.Fatalf("the dry run of %s said %+v, then it was %+v", env.Command.Kind(), told, out[0])
	}
	now := s.View()
	if err := sound(now); err != nil {
		t.Fatalf("after %+v: %v", env.Command, err)
	}
	if out[0].Err != nil {
		if diff := cmp.Diff(before, rows(now)); diff != "" {
			t.Fatalf("%s was refused (%v) and changed something:\n%s", env.Command.Kind(), out[0].Err, diff)
		}
	}
	for _, old := range v.Volumes() {
		if is, err := now.Volume(old.ID); err == nil && (is.Generation < old.Generation || is.Revision < old.Revision) {
			t.Fatalf("%s took volume %s back to generation %d", env.Command.Kind(), old.ID, is.Generation)
		}
	}
	if !slices.IsSorted(now.DeletedVolumes()) {
		t.Fatal("the deleted volumes are out of order")
	}
	return e
}
