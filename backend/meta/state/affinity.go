package state

import (
	"slices"
	"time"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

// Where machines shall run: nodes in maintenance take none, and each machine has wishes.

func (x *tx) nodeDrain(c command.NodeDrain) (any, error) {
	n, err := x.nodes.find(c.Node)
	if err != nil {
		return nil, err
	}
	x.object = "node " + n.ID.String() + " " + n.Name
	if n.InMaintenance() != c.Cancel {
		return n.Node, nil
	}
	n.Maintenance = x.at
	if c.Cancel {
		n.Maintenance = time.Time{}
	}
	return n.Node, put(x, &x.nodes, n)
}

// takes says why a machine may not be placed on a node, or nil.
func (x *tx) takes(id model.NodeID, vm model.VM) error {
	n, there := x.nodes.get(id)
	switch {
	case there && n.InMaintenance():
		return model.Errorf(model.Conflict, "%s is in maintenance and takes no machines (drystone node undrain %s)", n.Name, n.Name)
	case there && !vm.Affinity.Allows(id):
		return model.Errorf(model.Conflict, "the vm %q may run on its preferred and its backup node only", vm.Name)
	}
	return nil
}

// wish changes an affinity by what a command has of it, and takes that out of the command.
func (x *tx) wish(a *model.Affinity, c *command.VMUpdate) error {
	for _, id := range []*model.NodeID{c.Prefer, c.Backup} {
		if id == nil || *id == 0 {
			continue
		}
		if _, err := x.nodes.find(*id); err != nil {
			return err
		}
	}
	if c.Prefer != nil {
		a.Prefer = *c.Prefer
	}
	if c.Backup != nil {
		a.Backup = *c.Backup
	}
	if c.Strict != nil {
		a.Strict = *c.Strict
	}
	if c.Apart != nil {
		a.Apart = slices.Clone(*c.Apart)
		slices.Sort(a.Apart)
	}
	c.Prefer, c.Backup, c.Strict, c.Apart = nil, nil, nil, nil
	return nil
}

// unwish takes a node that leaves out of the machines' wishes. What was strict about it
// alone may run anywhere: a machine that can run nowhere helps nobody.
func (x *tx) unwish(node model.NodeID) error {
	for _, id := range x.vms.keys() {
		vm := cloneVM(x.vms.rows[id])
		a := &vm.Affinity
		if vm.Home != node && a.Prefer != node && a.Backup != node {
			continue
		}
		for _, field := range []*model.NodeID{&vm.Home, &a.Prefer, &a.Backup} {
			if *field == node {
				*field = 0
			}
		}
		a.Strict = a.Strict && (a.Prefer != 0 || a.Backup != 0)
		if err := put(x, &x.vms, vm); err != nil {
			return err
		}
	}
	return nil
}
