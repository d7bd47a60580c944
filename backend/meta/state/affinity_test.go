package state

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

// On a node in maintenance no machine is placed, whoever asks; what runs there goes on.
func TestNodeDrain(t *testing.T) {
	r := small(t)
	r.ok(volume(1, "data"))
	r.ok(volume(2, "more"))
	r.ok(machine(1, "web", 1))
	r.ok(machine(2, "db", 2))
	r.ok(command.VMPower{VM: 1, Power: model.PowerOn, Node: 1})
	r.ok(command.VMReport{VM: 1, Node: 1, State: model.VMRunning})
	r.ok(command.NodeDrain{Node: 2})
	since := r.node(2).Maintenance
	if since.IsZero() || !r.node(2).InMaintenance() {
		t.Fatalf("the node is %+v", r.node(2))
	}
	r.ok(command.NodeDrain{Node: 2}) // said again
	if got := r.node(2).Maintenance; !got.Equal(since) {
		t.Errorf("it is in maintenance since %v, was %v", got, since)
	}
	refuse(t, r, []refusal{
		{"unknown", command.NodeDrain{Node: 9}, model.NotFound},
		{"start", command.VMPower{VM: 2, Power: model.PowerOn, Node: 2}, model.Conflict},
		{"place", command.VMPlace{VM: 1, Node: 2, Expected: 1}, model.Conflict},
		{"migrate", command.VMMigrate{VM: 1, Task: 5, From: 1, To: 2}, model.Conflict},
	})
	r.ok(command.NodeDrain{Node: 1})
	r.ok(command.VMReport{VM: 1, Node: 1, State: model.VMRunning, Reason: "still"})
	r.ok(command.VMPower{VM: 1, Power: model.PowerOn}) // which it is
	r.ok(command.VMPower{VM: 1, Power: model.PowerOff})
	r.ok(command.VMReport{VM: 1, Node: 1, State: model.VMStopped})
	refuse(t, r, []refusal{{"start where it was", command.VMPower{VM: 1, Power: model.PowerOn}, model.Conflict}})
	r.ok(command.NodeDrain{Node: 2, Cancel: true})
	r.ok(command.VMPower{VM: 2, Power: model.PowerOn, Node: 2})
	if r.node(2).InMaintenance() {
		t.Errorf("the node is %+v", r.node(2))
	}
}

// A machine remembers where a drain took it from, over several nodes, until it is back or
// somebody moved or stopped it; and when and why it was moved last.
func TestHome(t *testing.T) {
	const drain, back = model.MoveDrain, model.MoveReturn
	for name, c := range map[string]struct {
		moves []model.MoveReason // to node 2, 3, 1, ...
		off   bool
		want  model.NodeID
	}{
		"drained":           {moves: []model.MoveReason{drain}, want: 1},
		"drained twice":     {moves: []model.MoveReason{drain, drain}, want: 1},
		"drained to home":   {moves: []model.MoveReason{drain, drain, drain}},
		"back":              {moves: []model.MoveReason{drain, drain, back}},
		"moved by somebody": {moves: []model.MoveReason{drain, model.MoveAsked}},
		"moved for balance": {moves: []model.MoveReason{model.MoveBalance}},
		"switched off":      {moves: []model.MoveReason{drain}, off: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := small(t)
			r.ok(volume(1, "data"))
			r.ok(machine(1, "web", 1))
			r.ok(command.VMPower{VM: 1, Power: model.PowerOn, Node: 1})
			r.ok(command.VMReport{VM: 1, Node: 1, State: model.VMRunning})
			for i, why := range c.moves {
				from, to, task := model.NodeID(i%3+1), model.NodeID((i+1)%3+1), model.TaskID(i+1)
				r.ok(command.VMMigrate{VM: 1, Task: task, From: from, To: to, For: why})
				r.ok(command.VMMigrateEnd{VM: 1, Task: task, From: from, Moved: true})
				if got := r.vm(1).Moved; got.For != why || got.At.IsZero() {
					t.Errorf("it was moved %+v, want for %q", got, why)
				}
			}
			if c.off {
				r.ok(command.VMPower{VM: 1, Power: model.PowerOff})
			}
			if got := r.vm(1).Home; got != c.want {
				t.Errorf("its home is %d, want %d", got, c.want)
			}
		})
	}
}

// Where a machine would rather run is changed while it runs, part by part; a strict one
// is placed nowhere else; a node that leaves the cluster is no one's wish.
func TestAffinity(t *testing.T) {
	r := small(t)
	r.ok(volume(1, "data"))
	r.ok(machine(1, "web", 1))
	r.ok(command.VMPower{VM: 1, Power: model.PowerOn, Node: 1})
	r.ok(command.VMReport{VM: 1, Node: 1, State: model.VMRunning})
	two, three, nine, none := model.NodeID(2), model.NodeID(3), model.NodeID(9), model.NodeID(0)
	yes, groups, odd, twice := true, []string{"web", "db"}, []string{"a b"}, []string{"db", "db"}
	refuse(t, r, []refusal{
		{"no such node", command.VMUpdate{VM: 1, Prefer: &nine}, model.NotFound},
		{"strict about nothing", command.VMUpdate{VM: 1, Strict: &yes}, model.Invalid},
		{"one node twice", command.VMUpdate{VM: 1, Prefer: &two, Backup: &two}, model.Invalid},
		{"no name of a group", command.VMUpdate{VM: 1, Apart: &odd}, model.Invalid},
		{"a group twice", command.VMUpdate{VM: 1, Apart: &twice}, model.Invalid},
	})
	r.ok(command.VMUpdate{VM: 1, Prefer: &three, Apart: &groups})
	r.ok(command.VMUpdate{VM: 1, Backup: &two, Strict: &yes})
	want := model.Affinity{Prefer: 3, Backup: 2, Strict: true, Apart: []string{"db", "web"}}
	if diff := cmp.Diff(want, r.vm(1).Affinity); diff != "" {
		t.Errorf("its affinity differs:\n%s", diff)
	}
	r.ok(command.VMMigrate{VM: 1, Task: 4, From: 1, To: 2})
	r.ok(command.VMMigrateEnd{VM: 1, Task: 4, From: 1, Moved: true})
	refuse(t, r, []refusal{
		{"migrate", command.VMMigrate{VM: 1, Task: 5, From: 2, To: 1}, model.Conflict},
		{"place", command.VMPlace{VM: 1, Node: 1, Expected: 2}, model.Conflict},
	})
	r.ok(command.NodeRemove{Node: 3, Lost: true})
	want = model.Affinity{Backup: 2, Strict: true, Apart: []string{"db", "web"}}
	if diff := cmp.Diff(want, r.vm(1).Affinity); diff != "" {
		t.Errorf("after a node was removed its affinity differs:\n%s", diff)
	}
	r.ok(command.VMUpdate{VM: 1, Backup: &none, Strict: new(bool)})
	if a := r.vm(1).Affinity; a.Backup != 0 || a.Strict || len(a.Apart) != 2 {
		t.Errorf("its affinity is %+v", a)
	}
}

// A node in maintenance may be away for longer before what it had is rebuilt.
func TestPatienceInMaintenance(t *testing.T) {
	short, long := model.Settings{RebuildAfter: 60}, model.Settings{RebuildAfter: 86400}
	rests := model.Node{Maintenance: time.Unix(1, 0)}
	for _, c := range []struct {
		s    model.Settings
		n    model.Node
		want time.Duration
	}{{short, model.Node{}, time.Minute}, {short, rests, 4 * time.Hour}, {long, rests, 24 * time.Hour}} {
		if got := c.s.PatienceFor(c.n); got != c.want {
			t.Errorf("PatienceFor(%+v) of %+v = %v, want %v", c.n, c.s, got, c.want)
		}
	}
}

func (r *record) node(id model.NodeID) model.Node {
	r.t.Helper()
	n, err := r.store.View().Node(id)
	if err != nil {
		r.t.Fatalf("Node(%s): %v", id, err)
	}
	return n
}

// What a machine's disks may do is changed while it runs, part by part.
func TestLimits(t *testing.T) {
	r := small(t)
	r.ok(volume(1, "data"))
	r.ok(machine(1, "web", 1))
	r.ok(command.VMPower{VM: 1, Power: model.PowerOn, Node: 1})
	r.ok(command.VMReport{VM: 1, Node: 1, State: model.VMRunning})
	iops, few, bytes, none, burst := int64(500), int64(9), model.Bytes(100<<20), model.Bytes(0), int64(30)
	long, below := int64(3601), model.Bytes(1)
	refuse(t, r, []refusal{
		{"too few requests", command.VMUpdate{VM: 1, IOPS: &few}, model.Invalid},
		{"too few bytes", command.VMUpdate{VM: 1, IOBytes: &below}, model.Invalid},
		{"too long a burst", command.VMUpdate{VM: 1, IOBurst: &long}, model.Invalid},
	})
	r.ok(command.VMUpdate{VM: 1, IOPS: &iops, IOBytes: &bytes})
	r.ok(command.VMUpdate{VM: 1, IOBurst: &burst})
	if got, want := r.vm(1).Limits, (model.IOLimits{IOPS: 500, Bytes: 100 << 20, Burst: 30}); got != want {
		t.Errorf("its limits are %+v, want %+v", got, want)
	}
	r.ok(command.VMUpdate{VM: 1, IOBytes: &none})
	if got, want := r.vm(1).Limits, (model.IOLimits{IOPS: 500, Burst: 30}); got != want {
		t.Errorf("its limits are %+v, want %+v", got, want)
	}
}
