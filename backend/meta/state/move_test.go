package state

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

// members changes members of volume 1 as its holder.
func (r *record) members(changes ...model.MemberChange) command.VolumeMembers {
	v := r.volume(1)
	return command.VolumeMembers{Volume: 1, Generation: v.Generation, Revision: v.Revision, Changes: changes}
}

// moves asks for moves of volume 1 as it is now.
func (r *record) moves(moves ...model.Move) command.VolumeMove {
	return command.VolumeMove{Volume: 1, Revision: r.volume(1).Revision, Moves: moves}
}

// disk does what returns a disk.
func (r *record) disk(cmd command.Command) model.Disk {
	r.t.Helper()
	d, ok := r.ok(cmd).(model.Disk)
	if !ok {
		r.t.Fatalf("%s did not return a disk", cmd.Kind())
	}
	return d
}

// What any command returned can be read again, by a follower that passed it on or
// where the request is repeated.
func TestEveryResultIsRead(t *testing.T) {
	for k := command.Kind(1); k < 255; k++ {
		if _, err := DecodeResult(k, []byte("null")); k.String() != "unknown" && err != nil {
			t.Errorf("the result of %s: %v", k, err)
		}
	}
}

// A member that leaves goes only after another is active in its stead, and by a
// command of its own.
func TestVolumeMove(t *testing.T) {
	r := small(t)
	r.ok(volume(1, "data"))
	r.ok(command.DiskUpdate{Disk: 12, State: model.DiskFailed})
	r.ok(command.DiskDrain{Disk: 22})
	refuse(t, r, []refusal{
		{"of nothing", r.moves(), model.Invalid},
		{"unknown volume", command.VolumeMove{Volume: 9, Moves: []model.Move{{From: 11, To: 31}}}, model.NotFound},
		{"an old revision", command.VolumeMove{Volume: 1, Moves: []model.Move{{From: 11, To: 31}}}, model.Conflict},
		{"unknown column", r.moves(model.Move{Column: 2, From: 11, To: 31}), model.Invalid},
		{"from who has no part", r.moves(model.Move{From: 31, To: 32}), model.Conflict},
		{"to a member", r.moves(model.Move{From: 11, To: 21}), model.Conflict},
		{"to a failed disk", r.moves(model.Move{From: 11, To: 12}), model.Conflict},
		{"to a disk that is being emptied", r.moves(model.Move{From: 11, To: 22}), model.Conflict},
		{"to no disk", r.moves(model.Move{From: 11, To: 99}), model.Conflict},
	})
	r.ok(r.moves(model.Move{From: 11, To: 31}))
	want := []model.Member{
		{Disk: 11, State: model.Active, Leaving: true}, {Disk: 21, State: model.Active}, {Disk: 31, State: model.Joining},
	}
	if diff := cmp.Diff(want, r.volume(1).Columns[0].Members); diff != "" {
		t.Errorf("after the move was asked for:\n%s", diff)
	}
	r.acquire(1, 1)
	refuse(t, r, []refusal{
		{"a second move of the column", r.moves(model.Move{From: 21, To: 32}), model.Conflict},
		{"let go too early", r.members(model.MemberChange{Disk: 11}), model.Conflict},
		{"let go with the filling", r.members(
			model.MemberChange{Disk: 31, State: model.Active}, model.MemberChange{Disk: 11}), model.Conflict},
	})
	if out := r.do(r.members(model.MemberChange{Disk: 11})); out.Result == nil {
		t.Error("a refused change came without the record as it is, which ends its holder")
	}
	r.ok(r.members(model.MemberChange{Disk: 31, State: model.Active}))
	r.ok(r.moves(model.Move{From: 11}))
	if m, _ := r.volume(1).Columns[0].Member(11); !m.Leaving {
		t.Error("a move was taken back that was as good as done: a copy too many would stay")
	}
	r.ok(r.members(model.MemberChange{Disk: 11}))
	if !r.volume(1).Columns[0].Whole(2) {
		t.Errorf("after the move: %+v", r.volume(1).Columns[0])
	}
	r.ok(r.moves(model.Move{From: 31, To: 32}))
	r.ok(r.moves(model.Move{From: 31}))
	if c := r.volume(1).Columns[0]; c.Moving() || c.Count(model.Active) != 2 {
		t.Errorf("after the move was taken back: %+v", c)
	}
}

// A disk leaves the pool when it is to leave and nothing is on it any more.
func TestDiskDrainAndRemove(t *testing.T) {
	r := small(t)
	r.ok(volume(1, "data"))
	refuse(t, r, []refusal{
		{"unknown", command.DiskDrain{Disk: 99}, model.NotFound},
		{"remove who stays", command.DiskRemove{Disk: 31}, model.Conflict},
		{"remove unknown", command.DiskRemove{Disk: 99}, model.NotFound},
	})
	d := r.disk(command.DiskDrain{Disk: 11})
	if !d.Draining() || d.Drain.Columns != 1 {
		t.Errorf("a disk that is to leave: %+v", d)
	}
	r.at = noon.Add(1)
	if again := r.disk(command.DiskDrain{Disk: 11}); again != d {
		t.Errorf("asked again it is %+v, want %+v", again, d)
	}
	c := volume(2, "more")
	refuse(t, r, []refusal{
		{"remove what is in use", command.DiskRemove{Disk: 11}, model.Conflict},
		{"a new volume on it", c, model.Conflict},
	})
	if d := r.disk(command.DiskDrain{Disk: 11, Cancel: true}); d.Draining() {
		t.Errorf("a disk that stays after all: %+v", d)
	}
	r.ok(command.DiskDrain{Disk: 31})
	r.ok(command.DiskRemove{Disk: 31})
	if _, err := r.store.View().Disk(31); model.CodeOf(err) != model.NotFound {
		t.Errorf("the disk after it was removed: %v", err)
	}
}

// A disk that the leader retired stays listed when it is empty, until an operator wishes
// it to leave; one that stays after all has what was found on it forgiven.
func TestDiskIsRetired(t *testing.T) {
	r := small(t)
	r.ok(volume(1, "data"))
	d := r.disk(command.DiskDrain{Disk: 11, Errors: 120})
	if !d.Draining() || !d.Retired() || d.Drain.Columns != 1 {
		t.Errorf("a disk that was retired: %+v", d)
	}
	if again := r.disk(command.DiskDrain{Disk: 11, Errors: 130}); again != d {
		t.Errorf("retired again it is %+v, want %+v", again, d)
	}
	d = r.disk(command.DiskDrain{Disk: 11, Cancel: true, Errors: 150})
	if d.Draining() || d.Forgiven != 150 || d.Bad(249) || !d.Bad(250) {
		t.Errorf("a disk that stays after all: %+v", d)
	}
	r.ok(command.DiskDrain{Disk: 31, Errors: 100})
	refuse(t, r, []refusal{{"remove what nobody has seen", command.DiskRemove{Disk: 31}, model.Conflict}})
	if d := r.disk(command.DiskDrain{Disk: 31}); !d.Draining() || d.Retired() {
		t.Errorf("after an operator wished it to leave: %+v", d)
	}
	if d := r.disk(command.DiskDrain{Disk: 31, Errors: 200}); d.Retired() {
		t.Errorf("a disk that an operator wishes to leave was retired: %+v", d)
	}
	r.ok(command.DiskRemove{Disk: 31})
	r.ok(command.DiskDrain{Disk: 21})
	if d := r.disk(command.DiskDrain{Disk: 21, Cancel: true, Errors: 5}); d.Forgiven != 0 {
		t.Errorf("what nobody was told of is forgiven: %+v", d)
	}
}

func TestClusterSet(t *testing.T) {
	r := small(t)
	set := func(balance bool, seconds int64) command.ClusterSet {
		return command.ClusterSet{Balance: &balance, RebuildAfter: &seconds}
	}
	refuse(t, r, []refusal{
		{"too soon", set(false, 1), model.Invalid},
		{"never", set(false, 1<<40), model.Invalid},
	})
	c, _ := r.store.View().Cluster()
	if c.Settings != (model.Settings{}) || c.Settings.Patience() != model.DefaultRebuildAfter {
		t.Errorf("to begin with: %+v", c.Settings)
	}
	r.ok(set(false, 60))
	r.ok(command.ClusterSet{})
	if c, _ := r.store.View().Cluster(); !c.Settings.BalanceOff || c.Settings.Patience() != time.Minute {
		t.Errorf("after it was set: %+v", c.Settings)
	}
}
