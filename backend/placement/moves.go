package placement

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"

	"drystone.example/drystone/backend/model"
)

// A Pace is how many members move at the same time at most. Filling is throttled by
// each holder as well; these bounds keep what is begun small, so that it ends soon.
type Pace struct {
	PerDisk int
	AtOnce  int // in the cluster
}

// Gently is the pace that production uses.
var Gently = Pace{PerDisk: 4, AtOnce: 16}

// roomKept is the part of a disk that moves leave free.
const roomKept = 0.08

// A Situation is what moves are planned by.
type Situation struct {
	Volumes []model.Volume
	Used    map[model.VolumeID]model.Bytes // one copy counted; of what is not in it nothing is known
	Disks   []Disk
	Balance bool // also move what only makes the disks more even
	Pace    Pace
}

// An Order is a move of one volume.
type Order struct {
	Volume model.VolumeID
	model.Move
}

// A Plan says what shall move.
//
// Of the moves of a plan, and of any later plan for the same disks, it holds: the
// copies of a column stay on distinct nodes where there are enough, and one that has
// two on a node gets them apart; no disk that is to leave gets anything; a move for
// balance goes from a disk that has more than its share to one that has less, and
// makes the sum of the squares of what they are off smaller. So plans end, and what
// one plan moved no later one moves back.
type Plan struct {
	Begin   []Order                 // now
	Left    int                     // members that have to move, those on their way included
	Blocked map[model.DiskID]string // why a disk that is to leave does not become empty
	Waits   string                  // why nothing is moved for balance, where something would be
}

// Moves plans what shall move: first off the disks that are to leave, then, while
// nothing is being repaired, copies of a column that share a node, then towards the
// share of each disk.
func Moves(s Situation) Plan {
	p := newPlanner(s)
	for _, v := range p.volumes {
		p.drain(v)
	}
	if s.Balance {
		if p.plan.Waits = p.repairing(); p.plan.Waits == "" {
			for _, v := range p.volumes {
				p.spread(v)
				p.even(v)
			}
		} else if !p.uneven() {
			p.plan.Waits = ""
		}
	}
	return p.plan
}

// A planner counts moves as if they were done.
type planner struct {
	plan    Plan
	pace    Pace
	disks   map[model.DiskID]*planned
	usable  []Disk // those that may get something, in order of their identifiers
	volumes []*volume
	nodes   int // of what is usable
	begun   int
}

// A planned disk.
type planned struct {
	Disk

	free  model.Bytes // when all that is on its way has arrived
	moves int         // that it takes part in
}

// A volume as it will be when what is planned is done.
type volume struct {
	model.Volume

	bytes  model.Bytes // of a column, about
	apart  bool        // copies lie on distinct nodes
	on     []([]model.DiskID)
	fixed  []bool // columns that are moving, planned, or not whole
	count  map[model.DiskID]int
	share  map[model.DiskID]float64
	repair bool
}

func newPlanner(s Situation) *planner {
	p := &planner{pace: s.Pace, disks: map[model.DiskID]*planned{}, plan: Plan{Blocked: map[model.DiskID]string{}}}
	for _, d := range s.Disks {
		p.disks[d.ID] = &planned{Disk: d, free: d.Free}
		if d.Up && !d.Draining && d.Size > 0 {
			p.usable = append(p.usable, d)
		}
	}
	slices.SortFunc(p.usable, func(a, b Disk) int { return cmp.Compare(a.ID, b.ID) })
	p.nodes = nodes(p.usable)
	for _, rec := range s.Volumes {
		p.volumes = append(p.volumes, p.volume(rec, s.Used[rec.ID]))
	}
	slices.SortFunc(p.volumes, func(a, b *volume) int { return cmp.Compare(a.ID, b.ID) })
	return p
}

// volume looks at a record with what is on its way as arrived.
func (p *planner) volume(rec model.Volume, used model.Bytes) *volume {
	columns := len(rec.Columns)
	v := &volume{
		Volume: rec, bytes: used/model.Bytes(max(columns, 1)) + model.StripeUnit,
		apart: p.nodes >= rec.Copies,
		on:    make([][]model.DiskID, columns), fixed: make([]bool, columns),
		count: map[model.DiskID]int{}, share: shares(columns, rec.Copies, p.usable),
	}
	for c, col := range rec.Columns {
		v.fixed[c] = !col.Whole(rec.Copies) || col.Moving()
		v.repair = v.repair || v.fixed[c] && !col.Moving() || col.Count(model.Active) < rec.Copies
		for _, m := range col.Members {
			if m.State == model.Joining && col.Moving() {
				if d := p.disks[m.Disk]; d != nil {
					d.moves++
					d.free -= v.bytes
				}
			}
			if m.Leaving {
				p.plan.Left++
				p.begun++
				if d := p.disks[m.Disk]; d != nil {
					d.moves++
				}
				continue
			}
			v.on[c] = append(v.on[c], m.Disk)
			v.count[m.Disk]++
		}
	}
	return v
}

// shares says how many members of a volume each disk should have: in proportion to
// its size, but on a node no more than one of each column; where there are fewer
// nodes than copies, that holds for each disk.
func shares(columns, copies int, disks []Disk) map[model.DiskID]float64 {
	apart := nodes(disks) >= copies
	group := func(d Disk) uint64 {
		if apart {
			return uint64(d.Node)
		}
		return uint64(d.ID)
	}
	size := map[uint64]float64{}
	var total float64
	for _, d := range disks {
		size[group(d)] += float64(d.Size)
		total += float64(d.Size)
	}
	full := map[uint64]bool{}
	left := float64(columns * copies)
	for again := true; again; {
		again = false
		for _, g := range slices.Sorted(maps.Keys(size)) {
			if !full[g] && left*size[g] > float64(columns)*total {
				full[g], again = true, true
				left -= float64(columns)
				total -= size[g]
			}
		}
	}
	out := make(map[model.DiskID]float64, len(disks))
	for _, d := range disks {
		switch g := group(d); {
		case full[g]:
			out[d.ID] = float64(columns) * float64(d.Size) / size[g]
		case total > 0:
			out[d.ID] = left * float64(d.Size) / total
		}
	}
	return out
}

func (v *volume) off(d model.DiskID) float64 { return float64(v.count[d]) - v.share[d] }

// slack is how far off its share a disk may be before anything is moved for that.
func (v *volume) slack(d model.DiskID) float64 { return max(1, v.share[d]/10) }

// fits reports whether a disk may take a member's place: copies on distinct nodes
// where there are enough, else on no fewer nodes than before.
func (p *planner) fits(v *volume, c int, from, to model.DiskID) bool {
	if v.count[to] > 0 && slices.Contains(v.on[c], to) {
		return false
	}
	var others []model.NodeID
	for _, o := range v.on[c] {
		if d := p.disks[o]; o != from && d != nil && !slices.Contains(others, d.Node) {
			others = append(others, d.Node)
		}
	}
	joins, leaves := p.disks[to].Node, p.disks[from].Node
	if v.apart {
		return !slices.Contains(others, joins)
	}
	worse := slices.Contains(others, joins) && !slices.Contains(others, leaves)
	return !worse || len(others) >= p.nodes
}

func (p *planner) roomy(v *volume, to model.DiskID) bool {
	d := p.disks[to]
	return float64(d.free-v.bytes) >= roomKept*float64(d.Size)
}

// best finds the disk that should rather have a column than from: the one most
// behind its share. Where several are, clones go where the volume goes that they descend
// from, and one another: a disk keeps once what they have in common.
func (p *planner) best(v *volume, c int, from model.DiskID) (to model.DiskID, why string) {
	why = "there is no other disk, on a node without a copy, for some of it"
	for _, d := range p.usable {
		switch {
		case !p.fits(v, c, from, d.ID):
			continue
		case !p.roomy(v, d.ID):
			if to == 0 {
				why = "there is no room for it on the other disks"
			}
			continue
		}
		if to == 0 || cmp.Or(cmp.Compare(v.off(d.ID), v.off(to)),
			cmp.Compare(mix(v.Root(), c, d.ID), mix(v.Root(), c, to))) < 0 {
			to = d.ID
		}
	}
	if to != 0 {
		why = ""
	}
	return to, why
}

// move plans a move, to begin now if the bounds allow it.
func (p *planner) move(v *volume, c int, from, to model.DiskID) {
	p.plan.Left++
	a, b := p.disks[from], p.disks[to]
	if p.begun < p.pace.AtOnce && a.moves < p.pace.PerDisk && b.moves < p.pace.PerDisk {
		p.plan.Begin = append(p.plan.Begin, Order{v.ID, model.Move{Column: c, From: from, To: to}})
		p.begun++
		a.moves++
		b.moves++
	}
	b.free -= v.bytes
	v.fixed[c] = true
	v.on[c][slices.Index(v.on[c], from)] = to
	v.count[from]--
	v.count[to]++
}

// drain moves a volume off the disks that are to leave.
func (p *planner) drain(v *volume) {
	for c := range v.on {
		for _, from := range slices.Clone(v.on[c]) {
			d := p.disks[from]
			if d == nil || !d.Draining {
				continue
			}
			switch {
			case !d.Up:
				p.block(from, "its node is away, or it has failed: its data is rebuilt elsewhere")
			case !v.Columns[c].Moving() && !v.Columns[c].Whole(v.Copies):
				p.block(from, fmt.Sprintf("the volume %s is being repaired first", v.Name))
			case v.fixed[c]: // once the other copy has moved
			default:
				to, why := p.best(v, c, from)
				if to != 0 {
					p.move(v, c, from, to)
					continue
				}
				p.block(from, why)
			}
			p.plan.Left++
		}
	}
}

func (p *planner) block(d model.DiskID, why string) {
	if p.plan.Blocked[d] == "" {
		p.plan.Blocked[d] = why
	}
}

// repairing says why nothing may be moved for balance, or nothing.
func (p *planner) repairing() string {
	for _, v := range p.volumes {
		if v.repair {
			return fmt.Sprintf("the volume %s is being repaired first", v.Name)
		}
		for d, n := range v.count {
			if o := p.disks[d]; n > 0 && (o == nil || !o.Up) {
				return "a disk with data is away"
			}
		}
	}
	return ""
}

// uneven reports whether anything would be moved for balance.
func (p *planner) uneven() bool {
	for _, v := range p.volumes {
		for _, d := range p.usable {
			if math.Abs(v.off(d.ID)) > v.slack(d.ID)+1 {
				return true
			}
		}
	}
	return false
}

// spread gets copies of a column apart that share a node while another could have
// one of them.
func (p *planner) spread(v *volume) {
	if !v.apart {
		return
	}
	for c := range v.on {
		from, twice := p.double(v, c)
		if !twice || v.fixed[c] {
			continue
		}
		if to, _ := p.best(v, c, from); to != 0 {
			p.move(v, c, from, to)
		}
	}
}

// double returns the member of a column, of those that share a node with another,
// whose disk is most above its share.
func (p *planner) double(v *volume, c int) (from model.DiskID, twice bool) {
	for _, id := range v.on[c] {
		shared := slices.ContainsFunc(v.on[c], func(o model.DiskID) bool {
			return o != id && p.disks[o].Node == p.disks[id].Node
		})
		if shared && (!twice || v.off(id) > v.off(from)) {
			from, twice = id, true
		}
	}
	return from, twice
}

// even moves columns from disks above their share to those below it, while one of
// the two is off by more than its slack and the move makes both together less so.
func (p *planner) even(v *volume) {
	for p.evenOnce(v) {
		continue
	}
}

func (p *planner) evenOnce(v *volume) bool {
	var above, below []model.DiskID
	far := false
	for _, d := range p.usable {
		off := v.off(d.ID)
		far = far || math.Abs(off) > v.slack(d.ID)
		switch {
		case off > 0:
			above = append(above, d.ID)
		case off < 0 && p.roomy(v, d.ID):
			below = append(below, d.ID)
		}
	}
	if !far {
		return false
	}
	slices.SortStableFunc(above, func(a, b model.DiskID) int { return cmp.Compare(v.off(b), v.off(a)) })
	slices.SortStableFunc(below, func(a, b model.DiskID) int { return cmp.Compare(v.off(a), v.off(b)) })
	for _, from := range above {
		for _, to := range below {
			if v.off(from)-v.off(to) < 2 {
				break
			}
			if v.off(from) <= v.slack(from) && -v.off(to) <= v.slack(to) {
				continue
			}
			if c := p.column(v, from, to); c >= 0 {
				p.move(v, c, from, to)
				return true
			}
		}
	}
	return false
}

// column picks a column that may move from a disk to another, or -1.
func (p *planner) column(v *volume, from, to model.DiskID) int {
	best := -1
	for c := range v.on {
		if v.fixed[c] || !slices.Contains(v.on[c], from) || !p.fits(v, c, from, to) {
			continue
		}
		if best < 0 || mix(v.Root(), c, to) < mix(v.Root(), best, to) {
			best = c
		}
	}
	return best
}
