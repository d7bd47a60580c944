package state

import (
	"time"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

// diskFound says whose a disk is from now on, and where it is.
//
// The invariant: a disk is open on one node at most, which is the one that claimed it
// last. A node says that it has not got a disk only while it has it not open, opens
// none without a claim, and after a claim nothing that was said before counts any
// more; one that cannot be asked has closed its disks before the leader lets anybody
// say that it is gone.
func (x *tx) diskFound(c command.DiskFound) (any, error) {
	d, err := x.disks.find(c.Disk)
	if err != nil {
		return nil, err
	}
	if _, err := x.nodes.find(c.Node); err != nil {
		return nil, err
	}
	if d.Claims != c.Claims {
		return d, model.Errorf(model.Conflict, "the disk %s was claimed meanwhile", d.ID)
	}
	before := d
	switch {
	case c.Twin:
		d.Twin, err = twin(d, c)
	case c.Path == "":
		err = absent(&d, c, x.at)
	default:
		err = claim(&d, c)
	}
	if err != nil || d == before {
		return before, err
	}
	return d, put(x, &x.disks, d)
}

// twin is what is known of a second one. The first that was found stays until who
// found it says that it has gone.
func twin(d model.Disk, c command.DiskFound) (model.Twin, error) {
	switch {
	case d.Twin.Node != 0 && d.Twin.Node != c.Node:
		return d.Twin, model.Errorf(model.Conflict, "a second disk %s was found on another node already", d.ID)
	case c.Path == "":
		return model.Twin{}, nil
	}
	return model.Twin{Node: c.Node, Path: c.Path}, nil
}

// absent notes that the disk's node has not got it open.
func absent(d *model.Disk, c command.DiskFound, now time.Time) error {
	if d.Node != c.Node {
		return model.Errorf(model.Conflict, "the disk %s is another node's", d.ID)
	}
	if d.State == model.DiskOnline {
		d.State, d.Error, d.Absent = model.DiskOffline, c.Error, now
	}
	return nil
}

// claim makes a disk the finder's.
func claim(d *model.Disk, c command.DiskFound) error {
	other := d.Node != c.Node
	switch {
	case c.Journal < d.Journal:
		return model.Errorf(model.Conflict,
			"this is an older image of disk %s, from before it was opened last", d.ID)
	case other && d.Twin.Node != 0:
		return model.Errorf(model.Conflict,
			"disk %s was found twice; take the image of it away, and plug the disk in again", d.ID)
	case other && d.State != model.DiskOffline && !c.Gone:
		return model.Errorf(model.Conflict, "disk %s is another node's, which has not let it go", d.ID)
	}
	d.Node, d.Path, d.Journal = c.Node, c.Path, c.Journal
	d.Claims++
	if d.State == model.DiskOffline {
		d.State, d.Error, d.Absent = model.DiskOnline, "", time.Time{}
	}
	return nil
}
