package api

import (
	"cmp"
	"context"
	"time"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
)

// A picture is the record with what the nodes report, from which answers are made.
type picture struct {
	*state.View

	reports map[model.NodeID]NodeReport
	usage   map[model.DiskID]model.DiskUsage
	volumes map[model.VolumeID]VolumeReport
	leading model.Leading
	columns map[model.DiskID]int // that each disk has a part in
	leader  model.NodeID
	quorum  bool
}

// picture takes a linearizable one.
func (s *Server) picture(ctx context.Context) (*picture, error) {
	view, err := s.Record.View(ctx)
	if err != nil {
		return nil, err
	}
	return s.pictureOf(ctx, view), nil
}

// anyPicture takes a linearizable one or, while there is no leader, one of what
// this node knows: for answers that say themselves whether there is a quorum.
func (s *Server) anyPicture(ctx context.Context) (*picture, error) {
	if _, quorum := s.Service.Leader(); !quorum {
		return s.pictureOf(ctx, s.Record.Local()), nil
	}
	p, err := s.picture(ctx)
	if model.CodeOf(err) == model.Unavailable {
		return s.pictureOf(ctx, s.Record.Local()), nil
	}
	return p, err
}

func (s *Server) pictureOf(ctx context.Context, view *state.View) *picture {
	p := &picture{
		View:    view,
		reports: s.Service.Nodes(ctx),
		usage:   s.Service.Disks(ctx),
		volumes: s.Service.Volumes(ctx),
		leading: s.Service.Leading(ctx),
		columns: map[model.DiskID]int{},
	}
	for _, v := range p.Volumes() {
		for _, c := range v.Columns {
			for _, m := range c.Members {
				p.columns[m.Disk]++
			}
		}
	}
	p.leader, p.quorum = s.Service.Leader()
	return p
}

func (p *picture) nodeName(id model.NodeID) string {
	n, err := p.Node(id)
	if err != nil {
		return ""
	}
	return n.Name
}

func (p *picture) node(n model.Node) schema.Node {
	r := p.reports[n.ID]
	version := r.Version
	if version == "" {
		version = n.Version
	}
	running, left, away := 0, 0, 0
	var stuck []schema.StuckVM
	for _, vm := range p.VMs() {
		if vm.Node == n.ID && p.vmState(vm) == model.VMRunning {
			running++
		}
		if vm.Node == n.ID && vm.Runs() {
			left++
		}
		if vm.Home == n.ID {
			away++
		}
		// One that is to come back is told of by the node it came from.
		if why := p.leading.Stuck[vm.ID]; why != "" && cmp.Or(p.returns(vm), vm.Node) == n.ID {
			stuck = append(stuck, schema.StuckVM{ID: vm.ID, Name: vm.Name, Reason: why})
		}
	}
	o := schema.Node{
		ID: n.ID, Name: n.Name, Address: n.Address, API: n.API, Voter: n.Voter,
		Leader: n.ID == p.leader, Up: r.Up, Since: r.Since, Version: version,
		CPUs: r.CPUs, Memory: r.Memory, Hypervisor: r.Hypervisor,
		VMsRunning: running, Joined: n.Joined, Stuck: stuck,
	}
	if n.InMaintenance() {
		o.Maintenance = &schema.Maintenance{Since: n.Maintenance, Left: left, Moved: away}
	} else {
		o.Returning = away
	}
	return o
}

// returns is the node that a machine shall come back to now, or none.
func (p *picture) returns(vm model.VM) model.NodeID {
	home, err := p.Node(vm.Home)
	at, _ := p.Node(vm.Node)
	if err != nil || home.InMaintenance() || at.InMaintenance() {
		return 0
	}
	return home.ID
}

// diskState is what the record says, unless the disk's node is away.
func (p *picture) diskState(d model.Disk) model.DiskState {
	if d.State == model.DiskOnline && !p.reports[d.Node].Up {
		return model.DiskOffline
	}
	return d.State
}

func (p *picture) disk(d model.Disk) schema.Disk {
	u := p.usage[d.ID]
	var scrub *schema.DiskScrub
	if s := u.Scrub; s != (model.Scrub{}) {
		scrub = &schema.DiskScrub{Began: s.Began, Done: s.Done, Total: s.Total, Running: s.Running}
	}
	var cache *schema.MapCache
	if m := u.Map; m.Limit > 0 {
		cache = &schema.MapCache{Memory: m.Memory, Limit: m.Limit, Hits: m.Hits, Misses: m.Misses}
	}
	var hardware *schema.Hardware
	if h := u.Hardware; h.Health != "" {
		hardware = &schema.Hardware{Model: h.Model, Serial: h.Serial, Health: h.Health}
	}
	return schema.Disk{
		ID: d.ID, Node: d.Node, NodeName: p.nodeName(d.Node), Path: d.Path,
		State: p.diskState(d), Size: d.Size, Used: u.Used,
		ChecksumErrors: u.ChecksumErrors, Repaired: u.Repaired, Damaged: u.Damaged,
		LastScrub: u.Scrubbed, Scrub: scrub, Hardware: hardware, MapCache: cache, Error: d.Error,
		Columns: p.columns[d.ID], Drain: p.drain(d),
	}
}

// drain says how far a disk is with leaving, or nil.
func (p *picture) drain(d model.Disk) *schema.DiskDrain {
	if !d.Draining() {
		return nil
	}
	o := schema.DiskDrain{
		Since: d.Drain.Since, Left: p.columns[d.ID], Blocked: p.leading.Moves.Blocked[d.ID], Errors: d.Drain.Errors,
	}
	o.Total = max(d.Drain.Columns, o.Left)
	if done := o.Total - o.Left; done > 0 {
		o.Seconds = int64(time.Since(o.Since).Seconds()*float64(o.Left)/float64(done)) + 1
	}
	return &o
}

// health is how a volume's columns are.
type health struct {
	state     schema.VolumeState
	outOfSync int // columns with fewer active members than copies
}

func (p *picture) health(v model.Volume) health {
	h := health{state: schema.VolumeHealthy}
	for _, c := range v.Columns {
		active, within := 0, 0
		for _, m := range c.Members {
			if m.State != model.Active {
				continue
			}
			active++
			if d, err := p.Disk(m.Disk); err == nil && p.diskState(d) == model.DiskOnline {
				within++
			}
		}
		if active < v.Copies {
			h.outOfSync++
		}
		switch {
		case within == 0:
			h.state = schema.VolumeUnavailable
		case within < v.Copies && h.state == schema.VolumeHealthy:
			h.state = schema.VolumeDegraded
		}
	}
	return h
}

func (p *picture) volume(v model.Volume, columns bool) schema.Volume {
	h, r := p.health(v), p.volumes[v.ID]
	o := schema.Volume{
		ID: v.ID, Name: v.Name, Kind: v.Kind, Size: v.Size, Used: r.Used, Copies: v.Copies,
		Holder: v.Holder, HolderName: p.nodeName(v.Holder), Purpose: v.Purpose,
		Generation: v.Generation, Epoch: v.Epoch, State: h.state, Waits: r.Waits, Fill: r.Fill, Lost: lostOf(r.Lost), Created: v.Created,
		ColumnsTotal: len(v.Columns), ColumnsOutOfSync: h.outOfSync, CloneOf: v.Origin.Volume,
	}
	if s := v.Scrub; !s.Ended.IsZero() {
		o.Scrub = &schema.VolumeScrub{
			Ended: s.Ended, Compared: s.Compared, Skipped: s.Skipped, Different: s.Different, Diverged: s.Diverged,
		}
	}
	o.Tending = tending(v, r.Tending)
	if vm, ok := p.VMOf(v.ID); ok {
		o.AttachedTo = vm.ID
	}
	if !columns {
		return o
	}
	o.Columns = make([]schema.Column, len(v.Columns))
	for i, c := range v.Columns {
		o.Columns[i].Members = make([]schema.Member, len(c.Members))
		for j, m := range c.Members {
			member := schema.Member{Disk: m.Disk, State: m.State}
			if d, err := p.Disk(m.Disk); err == nil {
				member.Node = d.Node
			}
			o.Columns[i].Members[j] = member
		}
	}
	return o
}

// lostShown is how many lost ranges of a volume an answer names.
const lostShown = 100

func lostOf(ranges []model.LostRange) *schema.Lost {
	if len(ranges) == 0 {
		return nil
	}
	o := &schema.Lost{Count: len(ranges), Ranges: ranges[:min(lostShown, len(ranges))]}
	for _, r := range ranges {
		o.Size += r.Length
	}
	return o
}

// tending is what the record says is to be done for a volume's snapshots, and how far
// its holder says that is.
func tending(v model.Volume, told *schema.Tending) *schema.Tending {
	var out schema.Tending
	switch {
	case v.Revert.Due():
		out = schema.Tending{Kind: schema.Reverting, Snapshot: v.Revert.Name}
	case v.Trim.Due():
		out = schema.Tending{Kind: schema.Freeing}
	default:
		return nil
	}
	if told != nil && told.Kind == out.Kind {
		out.Done, out.Total, out.Error = told.Done, told.Total, told.Error
	}
	return &out
}

// vmState is what its node reports, unless that is away.
func (p *picture) vmState(vm model.VM) model.VMState {
	if vm.Status.Node != 0 && vm.Status.State != model.VMStopped && !p.reports[vm.Status.Node].Up {
		return model.VMUnknown
	}
	return vm.Status.State
}

func (p *picture) vm(vm model.VM) schema.VM {
	o := schema.VM{
		ID: vm.ID, Name: vm.Name, CPUs: vm.CPUs, Memory: vm.Memory, Boot: vm.Boot, Power: vm.Power,
		Priority: cmp.Or(vm.Priority, model.PriorityNormal),
		Node:     vm.Node, NodeName: p.nodeName(vm.Node), Created: vm.Created,
		Disks: make([]schema.VMDisk, len(vm.Disks)), NICs: p.nics(vm),
		Tags: append([]string{}, vm.Tags...), Description: vm.Description,
		Status: schema.VMStatus{
			State: p.vmState(vm), Node: vm.Status.Node, Reason: vm.Status.Reason, Since: vm.Status.Since,
		},
	}
	a := vm.Affinity
	o.Prefer, o.Backup, o.Strict = p.nodeName(a.Prefer), p.nodeName(a.Backup), a.Strict
	o.Apart = append([]string{}, a.Apart...)
	o.ReturnsTo = p.nodeName(vm.Home)
	o.Limits = schema.IOLimits(vm.Limits)
	if vm.Migration != nil {
		o.MovesTo = p.nodeName(vm.Migration.To)
	}
	for i, d := range vm.PlacedDisks() {
		o.Disks[i] = p.diskOf(d.Volume)
		o.Disks[i].Device = d.Device()
	}
	o.Firmware = cmp.Or(vm.Firmware, model.FirmwareBIOS)
	if vm.NVRAM != 0 {
		nvram := p.diskOf(vm.NVRAM)
		o.NVRAM = &nvram
	}
	p.drives(vm, &o)
	return o
}

// diskOf is a volume of a machine.
func (p *picture) diskOf(id model.VolumeID) schema.VMDisk {
	v, err := p.Volume(id)
	if err != nil {
		return schema.VMDisk{Volume: id, State: schema.VolumeUnavailable}
	}
	return schema.VMDisk{Volume: v.ID, Name: v.Name, Size: v.Size, Used: p.volumes[v.ID].Used, State: p.health(v).state}
}

// pool adds the disks up. What is kept free is what the fullest node holds, so
// that all of it can be made anew elsewhere; with a single node there is no
// elsewhere.
func (p *picture) pool() schema.Pool {
	var o schema.Pool
	held := map[model.NodeID]model.Bytes{}
	for _, d := range p.Disks() {
		o.DisksTotal++
		used := p.usage[d.ID].Used
		held[d.Node] += used
		if p.diskState(d) == model.DiskOnline {
			o.DisksOnline++
			o.Size += d.Size
			o.Used += used
		}
	}
	if len(held) > 1 {
		for _, used := range held {
			o.Reserve = max(o.Reserve, used)
		}
	}
	for _, v := range p.Volumes() {
		o.Provisioned += v.Size * model.Bytes(v.Copies)
		o.ColumnsOutOfSync += p.health(v).outOfSync
	}
	m := p.leading.Moves
	o.Moves = schema.Moves{UnderWay: m.UnderWay, Left: m.Left, Seconds: m.Seconds, Waits: m.Waits}
	return o
}
