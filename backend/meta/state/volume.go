package state

import (
	"math/bits"
	"slices"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/must"
)

func (x *tx) volumeCreate(c command.VolumeCreate) (any, error) {
	if err := model.ValidateVolume(c.Name, c.Size, c.Copies); err != nil {
		return nil, err
	}
	if err := validKind(c.Use, c.Size); err != nil {
		return nil, err
	}
	if _, taken := x.volumes.names[lower(c.Name)]; taken {
		return nil, model.Errorf(model.Conflict, "there is already a volume named %q", c.Name)
	}
	_, here := x.volumes.get(c.ID)
	_, gone := x.deleted.get(c.ID)
	if c.ID == 0 || here || gone {
		return nil, model.Errorf(model.Conflict, "the identifier %s has been a volume before", c.ID)
	}
	if n := len(c.Columns); n > model.MaxColumns || bits.OnesCount(uint(n)) != 1 {
		return nil, model.Errorf(model.Invalid, "a volume has a power of two of columns up to %d, not %d",
			model.MaxColumns, n)
	}
	for i, column := range c.Columns {
		if err := x.validColumn(i, column, c.Copies); err != nil {
			return nil, err
		}
	}
	v := model.Volume{
		ID: c.ID, Name: c.Name, Kind: c.Use, Size: c.Size, Copies: c.Copies,
		Columns: c.Columns, Revision: 1, Epoch: 1, Created: x.at,
	}
	x.object = volumeObject(v)
	return v, put(x, &x.volumes, v)
}

func volumeObject(v model.Volume) string { return "volume " + v.ID.String() + " " + v.Name }

// validColumn holds what a new column is: one new active member for each copy,
// on disks that differ.
func (x *tx) validColumn(i int, column model.Column, copies int) error {
	if len(column.Members) != copies {
		return model.Errorf(model.Invalid, "column %d has %d members for %d copies", i, len(column.Members), copies)
	}
	for j, m := range column.Members {
		d, err := x.disks.find(m.Disk)
		if err != nil {
			return err
		}
		switch {
		case d.State != model.DiskOnline:
			return model.Errorf(model.Conflict, "the disk %s is %s", d.ID, d.State)
		case d.Draining():
			return model.Errorf(model.Conflict, "the disk %s is being emptied", d.ID)
		case m.State != model.Active || !m.Cutoff.IsZero():
			return model.Errorf(model.Invalid, "a new member of column %d is active, without a cutoff", i)
		case slices.ContainsFunc(column.Members[:j], func(o model.Member) bool { return o.Disk == m.Disk }):
			return model.Errorf(model.Invalid, "column %d is on disk %s twice", i, m.Disk)
		}
	}
	return nil
}

func (x *tx) volumeResize(c command.VolumeResize) (any, error) {
	v, err := x.volumes.find(c.Volume)
	if err != nil {
		return nil, err
	}
	x.object = volumeObject(v)
	if err := model.ValidateSize(c.Size); err != nil {
		return nil, err
	}
	if c.Size < v.Size {
		return nil, model.Errorf(model.Invalid, "the volume %q has %d bytes; it can only grow, not shrink to %d",
			v.Name, v.Size, c.Size)
	}
	if v.Kind == model.VolumeNVRAM {
		return nil, model.Errorf(model.Invalid, "the volume %q is a machine's NVRAM, whose size is fixed", v.Name)
	}
	if v.Revert.Due() {
		return nil, reverting(v)
	}
	if c.Size == v.Size {
		return v, nil
	}
	if err := x.unread(v); err != nil {
		return nil, err
	}
	v.Size = c.Size
	v.Revision++
	return v, put(x, &x.volumes, v)
}

func (x *tx) volumeDelete(c command.VolumeDelete) (any, error) {
	v, err := x.volumes.find(c.Volume)
	if err != nil {
		return nil, err
	}
	x.object = volumeObject(v)
	if vm, attached := vmOf(x.vms, v.ID); attached {
		return nil, model.Errorf(model.Conflict, "the volume %q belongs to the vm %q", v.Name, vm.Name)
	}
	return v, x.forgetVolume(v)
}

// forgetVolume deletes a volume that is not in use.
func (x *tx) forgetVolume(v model.Volume) error {
	if v.Holder != 0 && v.Purpose != model.ForMaintenance {
		return model.Errorf(model.Conflict, "the volume %q is in use on %s for %s",
			v.Name, x.nodeName(v.Holder), purposeWord(v.Purpose))
	}
	if err := x.unread(v); err != nil {
		return err
	}
	x.dropSnapshots(v.ID)
	drop(x, &x.volumes, v.ID)
	return put(x, &x.deleted, deletedRow{ID: v.ID, At: x.at})
}

func purposeWord(p model.Purpose) string {
	switch p {
	case model.ForGuest:
		return "a guest"
	case model.ForExport:
		return "an export"
	case model.ForMaintenance:
		return "maintenance"
	}
	return "an unknown purpose"
}

func (x *tx) nodeName(id model.NodeID) string {
	if n, ok := x.nodes.get(id); ok {
		return n.Name
	}
	return id.String()
}

func (x *tx) volumeAcquire(c command.VolumeAcquire) (any, error) {
	v, err := x.volumes.find(c.Volume)
	if err != nil {
		return nil, err
	}
	x.object = volumeObject(v)
	if _, err := x.nodes.find(c.Node); err != nil {
		return nil, err
	}
	vm, attached := vmOf(x.vms, v.ID)
	switch c.Purpose {
	case model.ForGuest:
		if !attached || vm.Node != c.Node {
			return nil, model.Errorf(model.Conflict, "no vm on %s has the volume %q", x.nodeName(c.Node), v.Name)
		}
	case model.ForExport:
		if attached && vm.Power == model.PowerOn {
			return nil, model.Errorf(model.Conflict, "the volume %q belongs to the vm %q, which is on", v.Name, vm.Name)
		}
		if err := x.unread(v); err != nil {
			return nil, err
		}
	case model.ForMaintenance:
	default:
		return nil, model.Errorf(model.Invalid, "%q is not a purpose to hold a volume for", c.Purpose)
	}
	if v.Revert.Due() && c.Purpose != model.ForMaintenance {
		return v, reverting(v)
	}
	if v.Generation != c.Generation || v.Revision != c.Revision {
		return v, model.Errorf(model.Conflict, "the volume %q has changed meanwhile", v.Name)
	}
	before := v.Generation
	v.Generation++
	v.Revision++
	v.Holder, v.Purpose = c.Node, c.Purpose
	must.That(v.Generation > before, "the generation of %s grew from %d to %d", v.ID, before, v.Generation)
	return v, put(x, &x.volumes, v)
}

func (x *tx) volumeRelease(c command.VolumeRelease) (any, error) {
	v, err := x.volumes.find(c.Volume)
	if err != nil {
		return nil, err
	}
	x.object = volumeObject(v)
	switch {
	case v.Generation != c.Generation:
		return nil, fenced(v, c.Generation)
	case v.Holder == 0:
		return v, nil
	case v.Holder != c.Node:
		return nil, model.Errorf(model.Conflict, "the volume %q is held by %s", v.Name, x.nodeName(v.Holder))
	}
	v.Holder, v.Purpose = 0, ""
	v.Revision++
	return v, put(x, &x.volumes, v)
}

func fenced(v model.Volume, g model.Generation) error {
	return model.Errorf(model.Fenced, "generation %d of the volume %q is over; it is at %d", g, v.Name, v.Generation)
}

func (x *tx) volumeMembers(c command.VolumeMembers) (any, error) {
	v, err := x.volumes.find(c.Volume)
	if err != nil {
		return nil, err
	}
	x.object = volumeObject(v)
	switch {
	case v.Generation != c.Generation:
		return v, fenced(v, c.Generation)
	case v.Holder == 0:
		return v, model.Errorf(model.Conflict, "nobody holds the volume %q", v.Name)
	case v.Revision != c.Revision:
		return v, model.Errorf(model.Conflict, "the volume %q has changed meanwhile", v.Name)
	case len(c.Changes) == 0:
		return nil, model.Errorf(model.Invalid, "no change of the members of %q is given", v.Name)
	}
	before := v
	v = cloneVolume(v)
	for i, change := range c.Changes {
		if slices.ContainsFunc(c.Changes[:i], func(o model.MemberChange) bool {
			return o.Column == change.Column && o.Disk == change.Disk
		}) {
			return nil, model.Errorf(model.Invalid, "disk %s of column %d is changed twice", change.Disk, change.Column)
		}
		if err := x.changeMember(&v, change); err != nil {
			return before, err
		}
	}
	for i, column := range v.Columns {
		was := before.Columns[i]
		kept := keptActive(was, column)
		if kept == 0 || letActiveGo(was, column) && kept < v.Copies {
			return before, model.Errorf(model.Conflict,
				"column %d of the volume %q would keep %d up-to-date copies", i, v.Name, kept)
		}
	}
	v.Revision++
	return v, put(x, &x.volumes, v)
}

func (x *tx) volumeScrubbed(c command.VolumeScrubbed) (any, error) {
	v, err := x.volumes.find(c.Volume)
	if err != nil {
		return nil, err
	}
	x.object = volumeObject(v)
	v.Scrub = c.Scrub
	v.Scrub.Ended = x.at
	return v, put(x, &x.volumes, v)
}

// keptActive returns how many members that were active are active still.
func keptActive(before, after model.Column) (n int) {
	for _, m := range before.Members {
		now, there := after.Member(m.Disk)
		if m.State == model.Active && there && now.State == model.Active {
			n++
		}
	}
	return n
}

// letActiveGo reports whether a member that was active has no part any more.
func letActiveGo(before, after model.Column) bool {
	return slices.ContainsFunc(before.Members, func(m model.Member) bool {
		_, there := after.Member(m.Disk)
		return m.State == model.Active && !there
	})
}

// changeMember makes one legal step of one member.
func (x *tx) changeMember(v *model.Volume, c model.MemberChange) error {
	if c.Column < 0 || c.Column >= len(v.Columns) {
		return model.Errorf(model.Invalid, "the volume %q has no column %d", v.Name, c.Column)
	}
	column := &v.Columns[c.Column]
	at := slices.IndexFunc(column.Members, func(m model.Member) bool { return m.Disk == c.Disk })
	if at < 0 {
		return x.addMember(column, c)
	}
	m := &column.Members[at]
	kept := c.Cutoff.IsZero() || c.Cutoff == m.Cutoff
	switch {
	case c.State == "":
		column.Members = slices.Delete(column.Members, at, at+1)
		return nil
	case m.State == model.Joining && c.State == model.Active && c.Cutoff.IsZero():
		m.State, m.Cutoff = model.Active, model.Stamp{}
		return nil
	case m.State == model.Active && c.State == model.Stale:
		if c.Cutoff.Generation > v.Generation {
			return model.Errorf(model.Invalid, "a cutoff of generation %d is ahead of the volume's %d",
				c.Cutoff.Generation, v.Generation)
		}
		m.State, m.Cutoff = model.Stale, c.Cutoff
		return nil
	case m.State == model.Joining && c.State == model.Stale && kept,
		m.State == model.Stale && c.State == model.Joining && kept:
		m.State = c.State
		return nil
	}
	return model.Errorf(model.Invalid, "a member that is %s with cutoff %v cannot become %q with cutoff %v",
		m.State, m.Cutoff, c.State, c.Cutoff)
}

// addMember begins a new member, which has nothing yet.
func (x *tx) addMember(column *model.Column, c model.MemberChange) error {
	if c.State != model.Joining || !c.Cutoff.IsZero() {
		return model.Errorf(model.Invalid, "disk %s has no part in column %d; a new member begins as joining",
			c.Disk, c.Column)
	}
	d, there := x.disks.get(c.Disk)
	switch {
	case !there: // it left meanwhile, which is no fault of who names it
		return model.Errorf(model.Conflict, "the disk %s is not in the pool", c.Disk)
	case d.State != model.DiskOnline:
		return model.Errorf(model.Conflict, "the disk %s is %s", d.ID, d.State)
	case d.Draining():
		return model.Errorf(model.Conflict, "the disk %s is being emptied", d.ID)
	}
	if len(column.Members) >= model.MaxMembers {
		return model.Errorf(model.Conflict, "column %d has %d members already", c.Column, len(column.Members))
	}
	column.Members = append(column.Members, model.Member{Disk: c.Disk, State: model.Joining})
	return nil
}
