package state

import (
	"slices"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

func (x *tx) volumeMove(c command.VolumeMove) (any, error) {
	v, err := x.volumes.find(c.Volume)
	if err != nil {
		return nil, err
	}
	x.object = volumeObject(v)
	switch {
	case v.Revision != c.Revision:
		return v, model.Errorf(model.Conflict, "the volume %q has changed meanwhile", v.Name)
	case len(c.Moves) == 0:
		return nil, model.Errorf(model.Invalid, "no move of %q is given", v.Name)
	}
	before := v
	v = cloneVolume(v)
	for _, m := range c.Moves {
		if err := x.moveMember(&v, m); err != nil {
			return before, err
		}
	}
	v.Revision++
	return v, put(x, &x.volumes, v)
}

// moveMember marks one member as leaving and lets another disk join in its stead,
// or takes the mark away. No member is let go here and none becomes active.
func (x *tx) moveMember(v *model.Volume, m model.Move) error {
	if m.Column < 0 || m.Column >= len(v.Columns) {
		return model.Errorf(model.Invalid, "the volume %q has no column %d", v.Name, m.Column)
	}
	column := &v.Columns[m.Column]
	at := slices.IndexFunc(column.Members, func(o model.Member) bool { return o.Disk == m.From })
	if at < 0 {
		return model.Errorf(model.Conflict, "disk %s has no part in column %d", m.From, m.Column)
	}
	if m.To == 0 {
		// Where the other is active already the move is as good as done, and ends.
		column.Members[at].Leaving = column.Members[at].Leaving && column.Staying() >= v.Copies
		return nil
	}
	switch _, there := column.Member(m.To); {
	case there:
		return model.Errorf(model.Conflict, "column %d is on disk %s already", m.Column, m.To)
	case column.Count(model.Active) < v.Copies, column.Count(model.Active) < len(column.Members):
		return model.Errorf(model.Conflict, "column %d of the volume %q is being repaired or moved", m.Column, v.Name)
	}
	column.Members[at].Leaving = true
	return x.addMember(column, model.MemberChange{Column: m.Column, Disk: m.To, State: model.Joining})
}

func (x *tx) diskDrain(c command.DiskDrain) (any, error) {
	d, err := x.disks.find(c.Disk)
	if err != nil {
		return nil, err
	}
	was := d
	switch {
	case c.Cancel:
		if d.Retired() || !d.Draining() {
			d.Forgiven = max(d.Forgiven, d.Drain.Errors, c.Errors)
		}
		d.Drain = model.Drain{}
	case !d.Draining():
		d.Drain = model.Drain{Since: x.at, Columns: len(x.columnsOn(d.ID)), Errors: c.Errors}
	case c.Errors == 0:
		d.Drain.Errors = 0 // it was retired, and an operator has seen it
	}
	if d == was {
		return d, nil
	}
	return d, put(x, &x.disks, d)
}

func (x *tx) diskRemove(c command.DiskRemove) (any, error) {
	d, err := x.disks.find(c.Disk)
	if err != nil {
		return nil, err
	}
	if !d.Draining() || d.Retired() {
		return nil, model.Errorf(model.Conflict, "the disk %s is not to leave the pool", d.ID)
	}
	if on := x.columnsOn(d.ID); len(on) > 0 {
		return nil, model.Errorf(model.Conflict, "the disk %s still has a part of the volume %q", d.ID, on[0].Name)
	}
	drop(x, &x.disks, d.ID)
	return d, nil
}

// columnsOn lists the volume of each column that a disk is a member of, whatever
// its state.
func (x *tx) columnsOn(id model.DiskID) (volumes []model.Volume) {
	for _, key := range x.volumes.keys() {
		v := x.volumes.rows[key]
		for _, c := range v.Columns {
			if _, member := c.Member(id); member {
				volumes = append(volumes, v)
			}
		}
	}
	return volumes
}
