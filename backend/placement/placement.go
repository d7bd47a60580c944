// Package placement decides where columns, substitutes and machines go. It is
// pure: the same question has the same answer on every node, nothing is
// remembered and nothing is asked. What it needs to know is in its arguments.
package placement

import (
	"cmp"
	"hash/fnv"
	"math/bits"
	"slices"

	"drystone.example/drystone/backend/model"
)

// The number of columns of a volume lies between these, and is a power of two.
const (
	minColumns = 32
	maxColumns = 512
)

// A Disk is what placement knows of one disk.
type Disk struct {
	ID   model.DiskID
	Node model.NodeID
	Size model.Bytes
	Free model.Bytes
	Up   bool // online, and its node is reachable

	Draining bool // nothing new is put on it
}

// Width returns how many columns a new volume has over a pool of so many disks:
// four times the disks, so that a new disk can take its share column by column.
func Width(disks int) int {
	w := 4 * max(disks, 1)
	if w&(w-1) != 0 {
		w = 1 << bits.Len(uint(w))
	}
	return min(max(w, minColumns), maxColumns)
}

// Columns deals the columns of a new volume over the disks that are up, in
// proportion to their size, the members of each column on distinct nodes where
// there are enough nodes, else on distinct disks. It fails with model.NoSpace
// where there are fewer disks than copies.
func Columns(volume model.VolumeID, copies int, disks []Disk) ([]model.Column, error) {
	up := slices.DeleteFunc(slices.Clone(disks), func(d Disk) bool { return !d.Up || d.Size <= 0 || d.Draining })
	if len(up) < copies {
		return nil, model.Errorf(model.NoSpace,
			"%d copies need %d disks that are online; there are %d", copies, copies, len(up))
	}
	apart := nodes(up) >= copies
	count := Width(len(up))
	share := shares(count, copies, up)
	dealt := make(map[model.DiskID]float64, len(up))
	columns := make([]model.Column, count)
	for c := range columns {
		// A disk's need is how far it is behind its share after this column.
		due := float64(c+1) / float64(count)
		order := slices.Clone(up)
		slices.SortFunc(order, func(a, b Disk) int {
			needA, needB := due*share[a.ID]-dealt[a.ID], due*share[b.ID]-dealt[b.ID]
			return cmp.Or(cmp.Compare(needB, needA), cmp.Compare(mix(volume, c, a.ID), mix(volume, c, b.ID)))
		})
		members := pick(order, copies, apart)
		slices.SortFunc(members, func(a, b model.Member) int {
			return cmp.Compare(mix(volume, c, a.Disk), mix(volume, c, b.Disk))
		})
		for _, m := range members {
			dealt[m.Disk]++
		}
		columns[c].Members = members
	}
	return columns, nil
}

// pick takes the first disks of order that may stand side by side.
func pick(order []Disk, copies int, apart bool) []model.Member {
	members := make([]model.Member, 0, copies)
	used := map[model.NodeID]bool{}
	for _, d := range order {
		if len(members) == copies {
			break
		}
		if apart && used[d.Node] {
			continue
		}
		used[d.Node] = true
		members = append(members, model.Member{Disk: d.ID, State: model.Active})
	}
	return members
}

// Substitute chooses the disk that takes the place of a column's lost members:
// the emptiest one that is up and on a node with no living member of the column
// that stays;
// where the cluster has too few nodes for that, on another disk. It reports
// false where there is none.
func Substitute(column model.Column, copies int, disks []Disk) (model.DiskID, bool) {
	node := make(map[model.DiskID]model.NodeID, len(disks))
	for _, d := range disks {
		node[d.ID] = d.Node
	}
	taken := map[model.NodeID]bool{}
	for _, m := range column.Members {
		if m.State != model.Stale && !m.Leaving {
			taken[node[m.Disk]] = true
		}
	}
	apart := nodes(disks) >= copies
	var best Disk
	for _, d := range disks {
		_, member := column.Member(d.ID)
		if !d.Up || d.Draining || member || apart && taken[d.Node] || d.Free <= model.StripeUnit {
			continue
		}
		if best.ID == 0 || fuller(best, d) {
			best = d
		}
	}
	return best.ID, best.ID != 0
}

// fuller reports whether a has a smaller share free than b; ties go by id.
func fuller(a, b Disk) bool {
	fa, fb := float64(a.Free)/float64(a.Size), float64(b.Free)/float64(b.Size)
	return fa < fb || fa == fb && a.ID > b.ID
}

// Reserve is how much of the pool must stay free so that the loss of the node
// with most data can be rebuilt on the others.
func Reserve(disks []Disk) model.Bytes {
	used := map[model.NodeID]model.Bytes{}
	var most model.Bytes
	for _, d := range disks {
		used[d.Node] += d.Size - d.Free
		most = max(most, used[d.Node])
	}
	return most
}

// Short is how much of some node's data could not be rebuilt on the disks of the other
// nodes that are up, for the node for which that is most. With fewer than three nodes
// nothing can be rebuilt on another anyway, and nothing is short.
func Short(disks []Disk) model.Bytes {
	used, free := map[model.NodeID]model.Bytes{}, map[model.NodeID]model.Bytes{}
	var all, most model.Bytes
	for _, d := range disks {
		used[d.Node] += d.Size - d.Free
		if d.Up && !d.Draining {
			free[d.Node] += d.Free
			all += d.Free
		}
	}
	if len(used) < 3 {
		return 0
	}
	for n, u := range used {
		most = max(most, u-(all-free[n]))
	}
	return most
}

// votersMax is how many nodes take part in raft's quorum at most.
const votersMax = 5

// Voters returns how many of so many nodes vote: an odd number, since an even one
// tolerates no more losses than the odd one below it.
func Voters(nodes int) int {
	n := min(nodes, votersMax)
	if n > 1 && n%2 == 0 {
		n--
	}
	return n
}

func nodes(disks []Disk) int {
	seen := map[model.NodeID]bool{}
	for _, d := range disks {
		seen[d.Node] = true
	}
	return len(seen)
}

// mix spreads ties over the disks, another way for every volume and column.
func mix(volume model.VolumeID, column int, disk model.DiskID) uint64 {
	h := fnv.New64a()
	var b [24]byte
	for i, v := range []uint64{uint64(volume), uint64(column), uint64(disk)} {
		for j := range 8 {
			b[i*8+j] = byte(v >> (8 * j))
		}
	}
	_, _ = h.Write(b[:]) // never fails (hash.Hash)
	return h.Sum64()
}
