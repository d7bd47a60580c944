package placement

import (
	"math/rand/v2"
	"testing"

	"drystone.example/drystone/backend/model"
)

func pool(perNode ...[]model.Bytes) []Disk {
	var out []Disk
	for n, sizes := range perNode {
		for _, s := range sizes {
			out = append(out, Disk{
				ID: model.DiskID(len(out) + 1), Node: model.NodeID(n + 1), Size: s << 30, Free: s << 30, Up: true,
			})
		}
	}
	return out
}

func TestWidth(t *testing.T) {
	for disks, want := range map[int]int{0: 32, 1: 32, 6: 32, 9: 64, 12: 64, 33: 256, 128: 512, 768: 512} {
		if got := Width(disks); got != want {
			t.Errorf("Width(%d) = %d, want %d", disks, got, want)
		}
	}
}

// The members of a column are on distinct nodes, and every disk has its share to
// within two columns, whatever the pool.
func TestColumnsApartAndEven(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 100 {
		var shape [][]model.Bytes
		per := 1 + rng.IntN(4)
		for range 3 + rng.IntN(6) {
			shape = append(shape, make([]model.Bytes, per))
			for i := range per {
				shape[len(shape)-1][i] = 8
			}
		}
		disks, copies := pool(shape...), 2+rng.IntN(2)
		columns, err := Columns(model.VolumeID(rng.Uint64()), copies, disks)
		if err != nil {
			t.Fatal(err)
		}
		node, count := map[model.DiskID]model.NodeID{}, map[model.DiskID]int{}
		for _, d := range disks {
			node[d.ID] = d.Node
		}
		for c, col := range columns {
			seen := map[model.NodeID]bool{}
			for _, m := range col.Members {
				if seen[node[m.Disk]] || m.State != model.Active {
					t.Fatalf("column %d: %+v", c, col)
				}
				seen[node[m.Disk]] = true
				count[m.Disk]++
			}
			if len(col.Members) != copies {
				t.Fatalf("column %d has %d members, want %d", c, len(col.Members), copies)
			}
		}
		share := float64(len(columns)*copies) / float64(len(disks))
		for _, d := range disks {
			if got := float64(count[d.ID]); got < share-2 || got > share+2 {
				t.Errorf("%d disks, %d copies: disk %d has %.0f members, share %.1f", len(disks), copies, d.ID, got, share)
			}
		}
	}
}

func TestColumnsInProportion(t *testing.T) {
	disks := pool([]model.Bytes{10}, []model.Bytes{20}, []model.Bytes{20}, []model.Bytes{10})
	columns, err := Columns(7, 2, disks)
	if err != nil {
		t.Fatal(err)
	}
	count := map[model.DiskID]int{}
	for _, c := range columns {
		for _, m := range c.Members {
			count[m.Disk]++
		}
	}
	if small, large := count[1]+count[4], count[2]+count[3]; large < small*3/2 {
		t.Errorf("small disks have %d members, those of twice the size %d", small, large)
	}
}

func TestColumnsTooFewDisks(t *testing.T) {
	if _, err := Columns(1, 2, pool([]model.Bytes{8})); model.CodeOf(err) != model.NoSpace {
		t.Errorf("one disk, two copies: %v, want %s", err, model.NoSpace)
	}
	// Two nodes and three copies: on distinct disks.
	columns, err := Columns(1, 3, pool([]model.Bytes{8, 8}, []model.Bytes{8}))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range columns {
		if len(c.Members) != 3 {
			t.Fatalf("column %+v, want 3 members", c)
		}
	}
}

// The reserve is gone when the others have not enough room for what a node has.
func TestShort(t *testing.T) {
	disks := pool([]model.Bytes{8, 8}, []model.Bytes{8}, []model.Bytes{8})
	for _, c := range []struct {
		name string
		free [4]model.Bytes
		want model.Bytes
	}{
		{"empty", [4]model.Bytes{8, 8, 8, 8}, 0},
		{"just enough", [4]model.Bytes{4, 4, 4, 4}, 0},
		{"not enough", [4]model.Bytes{4, 3, 4, 4}, 1},
		{"the largest counts", [4]model.Bytes{8, 0, 1, 2}, 5},
	} {
		for i := range disks {
			disks[i].Free = c.free[i] << 30
		}
		if got := Short(disks); got != c.want<<30 {
			t.Errorf("%s: Short = %d GiB, want %d", c.name, got>>30, c.want)
		}
	}
	if got := Short(disks[:3]); got != 0 {
		t.Errorf("with two nodes: Short = %d, want 0", got)
	}
}

func TestSubstitute(t *testing.T) {
	disks := pool([]model.Bytes{8, 8}, []model.Bytes{8, 8}, []model.Bytes{8, 8})
	disks[4].Free = 1 << 30
	column := model.Column{Members: []model.Member{{Disk: 1, State: model.Active}, {Disk: 3, State: model.Stale}}}
	if got, ok := Substitute(column, 2, disks); !ok || got != 4 && got != 6 {
		t.Errorf("Substitute = %d, %v; want a roomy disk on another node than disk 1's", got, ok)
	}
	for i := range disks[2:] {
		disks[2+i].Up = false
	}
	if got, ok := Substitute(column, 2, disks); ok {
		t.Errorf("Substitute = %d where only disk 1's own node is up", got)
	}
}

func TestVoters(t *testing.T) {
	for nodes, want := range map[int]int{1: 1, 2: 1, 3: 3, 4: 3, 5: 5, 64: 5} {
		if got := Voters(nodes); got != want {
			t.Errorf("Voters(%d) = %d, want %d", nodes, got, want)
		}
	}
}
