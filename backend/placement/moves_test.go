package placement

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"drystone.example/drystone/backend/model"
)

// A yard is a pool in which every move that is begun is done at once.
type yard struct {
	t       *rapid.T
	disks   []Disk
	volumes []model.Volume
	pace    Pace
	moved   int
}

func drawDisks(t *rapid.T, nodes int) (disks []Disk) {
	for n := range nodes {
		for range rapid.IntRange(1, 4).Draw(t, "disks") {
			size := model.Bytes(rapid.IntRange(1, 16).Draw(t, "size")) << 40
			disks = append(disks, Disk{
				ID: model.DiskID(len(disks) + 1), Node: model.NodeID(n + 1), Size: size, Free: size, Up: true,
			})
		}
	}
	return disks
}

// drawYard draws a pool of 1 to 64 nodes with unequal disks, whose volumes were made
// when it was smaller or as it is.
func drawYard(t *rapid.T) *yard {
	y := &yard{
		t: t, disks: drawDisks(t, rapid.IntRange(1, 64).Draw(t, "nodes")),
		pace: Pace{PerDisk: rapid.IntRange(4, 100).Draw(t, "pace"), AtOnce: 1000},
	}
	for i := range rapid.IntRange(1, 3).Draw(t, "volumes") {
		copies := rapid.IntRange(2, 3).Draw(t, "copies")
		then := y.disks[:rapid.IntRange(min(copies, len(y.disks)), len(y.disks)).Draw(t, "disks then")]
		y.create(model.VolumeID(i+1), copies, then)
	}
	return y
}

func (y *yard) create(id model.VolumeID, copies int, disks []Disk) {
	if columns, err := Columns(id, copies, disks); err == nil {
		y.volumes = append(y.volumes, model.Volume{ID: id, Name: fmt.Sprint(id), Copies: copies, Columns: columns})
	}
}

func (y *yard) plan() Plan {
	s := Situation{Volumes: y.volumes, Disks: y.disks, Balance: true, Pace: y.pace}
	plan := Moves(s)
	shuffled := Situation{Volumes: slices.Clone(s.Volumes), Disks: slices.Clone(s.Disks), Balance: true, Pace: y.pace}
	slices.Reverse(shuffled.Volumes)
	slices.Reverse(shuffled.Disks)
	if diff := cmp.Diff(plan, Moves(shuffled)); diff != "" {
		y.t.Fatalf("the plan depends on the order of what it is given:\n%s", diff)
	}
	return plan
}

func (y *yard) disk(id model.DiskID) Disk {
	i := slices.IndexFunc(y.disks, func(d Disk) bool { return d.ID == id })
	return y.disks[i]
}

// apply does what a plan begins, and fails if that breaks a promise of plans.
func (y *yard) apply(p Plan) {
	y.t.Helper()
	if len(p.Begin) > y.pace.AtOnce || p.Left < len(p.Begin) {
		y.t.Fatalf("%d moves begin of %d", len(p.Begin), p.Left)
	}
	per := map[model.DiskID]int{}
	for _, o := range p.Begin {
		v := &y.volumes[slices.IndexFunc(y.volumes, func(v model.Volume) bool { return v.ID == o.Volume })]
		if to := y.disk(o.To); to.Draining || !to.Up {
			y.t.Fatalf("a move to a disk that takes nothing: %+v", to)
		}
		members := slices.Clone(v.Columns[o.Column].Members)
		at := slices.IndexFunc(members, func(m model.Member) bool { return m.Disk == o.From })
		had := y.nodesOf(members)
		members[at].Disk = o.To
		v.Columns[o.Column].Members = members
		apart := min(v.Copies, nodes(slices.DeleteFunc(slices.Clone(y.disks), func(d Disk) bool { return d.Draining || !d.Up })))
		if has := y.nodesOf(members); has < min(had, apart) {
			y.t.Fatalf("column %d was on %d nodes and is on %d: %+v", o.Column, had, has, o)
		}
		for _, d := range []model.DiskID{o.From, o.To} {
			if per[d]++; per[d] > y.pace.PerDisk {
				y.t.Fatalf("disk %s takes part in %d moves", d, per[d])
			}
		}
		y.moved++
	}
}

func (y *yard) nodesOf(members []model.Member) int {
	seen := map[model.NodeID]bool{}
	for _, m := range members {
		seen[y.disk(m.Disk).Node] = true
	}
	return len(seen)
}

// settle applies plans until nothing is left to move.
func (y *yard) settle(most int) Plan {
	y.t.Helper()
	for y.moved = 0; ; {
		p := y.plan()
		if len(p.Begin) == 0 {
			return p
		}
		if y.apply(p); y.moved > most {
			y.t.Fatalf("%d members were moved, at most %d needed it", y.moved, most)
		}
	}
}

// needed is how many members at least have to move: those above the shares of their
// disks, those on disks that are to leave, and those that share a node.
func (y *yard) needed() (n int) {
	for _, v := range y.volumes {
		usable := slices.DeleteFunc(slices.Clone(y.disks), func(d Disk) bool { return d.Draining || !d.Up })
		share, count := shares(len(v.Columns), v.Copies, usable), map[model.DiskID]int{}
		for _, c := range v.Columns {
			n += len(c.Members) - y.nodesOf(c.Members)
			for _, m := range c.Members {
				count[m.Disk]++
			}
		}
		for d, k := range count {
			n += int(max(0, float64(k)-share[d]+1))
		}
	}
	return n
}

// Whatever the pool, a new volume is where it should be.
func TestNewVolumesStay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		y := &yard{t: t, pace: Gently, disks: drawDisks(t, rapid.IntRange(1, 64).Draw(t, "nodes"))}
		y.create(model.VolumeID(rapid.Uint64().Draw(t, "volume")), rapid.IntRange(2, 3).Draw(t, "copies"), y.disks)
		if p := y.plan(); p.Left > 0 {
			t.Errorf("of a new volume %d members move: %+v", p.Left, p.Begin)
		}
	})
}

// Whatever the pool and whatever it was: plans end, after no more moves than were
// needed, with every disk near its share; then nothing moves any more.
func TestMovesSettle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		y := drawYard(t)
		most := y.needed()
		y.settle(most)
		if p := y.plan(); p.Left > 0 {
			t.Errorf("when it has settled %d members are left to move", p.Left)
		}
	})
}

// A disk that is to leave becomes empty, or says what blocks it.
func TestMovesDrain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		y := drawYard(t)
		for range rapid.IntRange(1, 3).Draw(t, "draining") {
			y.disks[rapid.IntRange(0, len(y.disks)-1).Draw(t, "disk")].Draining = true
		}
		most := y.needed() // more where a copy had to go where only it could
		p := y.settle(most + most/4 + 2)
		for _, v := range y.volumes {
			for c, col := range v.Columns {
				for _, m := range col.Members {
					if y.disk(m.Disk).Draining && p.Blocked[m.Disk] == "" {
						t.Fatalf("disk %s still has column %d and nothing is said to block it", m.Disk, c)
					}
				}
			}
		}
	})
}

// A disk that is added takes its share of what is there, within its slack.
func TestMovesToNewDisk(t *testing.T) {
	disks := pool([]model.Bytes{8}, []model.Bytes{8}, []model.Bytes{8}, []model.Bytes{8})
	rapid.Check(t, func(t *rapid.T) {
		y := &yard{t: t, pace: Gently, disks: disks}
		y.create(1, 2, disks[:3])
		y.settle(17)
		got := 0
		for _, c := range y.volumes[0].Columns {
			if _, there := c.Member(4); there {
				got++
			}
		}
		if got < 14 || got > 17 {
			t.Errorf("the new disk has %d of %d members, its share is 16", got, 64)
		}
	})
}

// What is being repaired is not moved, and nothing is balanced meanwhile; a disk that
// shall leave says so.
func TestMovesWaitForRepair(t *testing.T) {
	disks := pool([]model.Bytes{8}, []model.Bytes{8}, []model.Bytes{8}, []model.Bytes{8})
	columns, err := Columns(1, 2, disks[:3])
	if err != nil {
		t.Fatal(err)
	}
	v := model.Volume{ID: 1, Name: "data", Copies: 2, Columns: columns}
	v.Columns[0].Members[1].State = model.Stale
	s := Situation{Volumes: []model.Volume{v}, Disks: disks, Balance: true, Pace: Gently}
	if p := Moves(s); len(p.Begin) > 0 || p.Waits == "" {
		t.Errorf("beside a repair: %+v", p)
	}
	for i := range disks {
		disks[i].Draining = columns[0].Members[0].Disk == disks[i].ID
	}
	if p := Moves(s); len(p.Begin) == 0 || len(p.Blocked) != 1 {
		t.Errorf("off a disk whose column 0 is being repaired: %+v", p)
	}
	v.Columns[0].Members[1].State = model.Active
	for i := range disks {
		disks[i].Free = disks[i].Size / 20
	}
	if p := Moves(s); len(p.Begin) > 0 || len(p.Blocked) != 1 {
		t.Errorf("with full disks: %+v", p)
	}
}

// Clones go where the volume goes that they descend from, column by column, for a disk
// keeps once what they have in common there: off disks that are to leave, and to new ones.
func TestClonesMoveTogether(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		y := &yard{t: t, pace: Pace{PerDisk: 1000, AtOnce: 1000}, disks: drawDisks(t, rapid.IntRange(4, 16).Draw(t, "nodes"))}
		then := y.disks[:rapid.IntRange(2, len(y.disks)).Draw(t, "disks then")]
		y.create(7, 2, then)
		if len(y.volumes) == 0 {
			t.Skip("too few disks")
		}
		for id := range model.VolumeID(5) {
			clone := y.volumes[0]
			clone.ID, clone.Family = id+100, 7
			clone.Columns = slices.Clone(clone.Columns)
			y.volumes = append(y.volumes, clone)
		}
		y.disks[rapid.IntRange(0, len(then)-1).Draw(t, "leaves")].Draining = true
		y.settle(1 << 20)
		for _, v := range y.volumes[1:] {
			if diff := cmp.Diff(y.volumes[0].Columns, v.Columns); diff != "" {
				t.Fatalf("a clone is elsewhere than what it descends from:\n%s", diff)
			}
		}
	})
}
