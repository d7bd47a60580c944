package state

import (
	"crypto/subtle"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

func (x *tx) clusterCreate(c command.ClusterCreate) (any, error) {
	if len(x.cluster.rows) > 0 {
		return nil, model.Errorf(model.Conflict, "the cluster exists already")
	}
	if err := model.ValidateName("cluster", c.Name); err != nil {
		return nil, err
	}
	if c.ID == 0 || c.CA == "" || c.CAKey.Reveal() == "" || c.GossipKey.Reveal() == "" {
		return nil, model.Errorf(model.Invalid, "a cluster needs an identifier, a certificate and its keys")
	}
	row := clusterRow{
		Cluster:   model.Cluster{ID: c.ID, Name: c.Name, CA: c.CA, Created: x.at},
		SealedKey: c.CAKey.Reveal(), Gossip: c.GossipKey.Reveal(),
	}
	if err := put(x, &x.cluster, row); err != nil {
		return nil, err
	}
	first := c.Node
	first.Voter = true
	if _, err := x.addNode(nodeRow{Node: first}); err != nil {
		return nil, err
	}
	if c.Owner.Role != model.Owner {
		return nil, model.Errorf(model.Invalid, "the first user is an owner, not %q", c.Owner.Role)
	}
	if _, err := x.userCreate(c.Owner); err != nil {
		return nil, err
	}
	x.object = "cluster " + c.Name
	return row.model(), nil
}

func (x *tx) clusterSet(c command.ClusterSet) (any, error) {
	row, err := x.clusterNow()
	if err != nil {
		return nil, err
	}
	x.object = "cluster " + row.Name
	if c.Balance != nil {
		row.Settings.BalanceOff = !*c.Balance
	}
	if c.RebuildAfter != nil {
		d := *c.RebuildAfter
		if least, most := int64(model.MinRebuildAfter.Seconds()), int64(model.MaxRebuildAfter.Seconds()); d < least || d > most {
			return nil, model.Errorf(model.Invalid,
				"a node may be away for %d to %d seconds before its data is rebuilt, not %d", least, most, d)
		}
		row.Settings.RebuildAfter = d
	}
	return row.model(), put(x, &x.cluster, row)
}

// addNode makes a member, with a name and an identifier that are new.
func (x *tx) addNode(n nodeRow) (model.Node, error) {
	if err := model.ValidateName("node", n.Name); err != nil {
		return model.Node{}, err
	}
	if n.ID == 0 || n.Address == "" {
		return model.Node{}, model.Errorf(model.Invalid, "the node %q needs an identifier and an address", n.Name)
	}
	if _, taken := x.nodes.names[lower(n.Name)]; taken {
		return model.Node{}, model.Errorf(model.Conflict, "there is already a node named %q", n.Name)
	}
	_, here := x.nodes.get(n.ID)
	_, gone := x.removed.get(n.ID)
	if here || gone {
		return model.Node{}, model.Errorf(model.Conflict, "the identifier %s has been a node before", n.ID)
	}
	n.Joined = x.at
	return n.Node, put(x, &x.nodes, n)
}

func (x *tx) tokenCreate(c command.TokenCreate) (any, error) {
	t := c.Token
	switch {
	case t.ID == "" || len(t.ID) > 64 || len(t.SecretHash) != 64:
		return nil, model.Errorf(model.Invalid, "a token needs an identifier and the digest of its secret")
	case t.Uses < 1 || t.Uses > 1000:
		return nil, model.Errorf(model.Invalid, "a token can be used 1 to 1000 times, not %d", t.Uses)
	case !t.Expires.After(x.at):
		return nil, model.Errorf(model.Invalid, "the token would have run out already")
	}
	if _, taken := x.tokens.get(t.ID); taken {
		return nil, model.Errorf(model.Conflict, "there is already a token %s", t.ID)
	}
	t.Created = x.at
	return t, put(x, &x.tokens, t)
}

func (x *tx) tokenRedeem(c command.TokenRedeem) (any, error) {
	t, ok := x.tokens.get(c.Token)
	if !ok || subtle.ConstantTimeCompare([]byte(t.SecretHash), []byte(c.SecretHash)) != 1 {
		return nil, model.Errorf(model.Unknown, "the join token is not one of this cluster")
	}
	if len(c.KeyHash) != 64 {
		return nil, model.Errorf(model.Invalid, "joining needs the digest of the node's key")
	}
	for _, n := range x.nodes.rows { // at most one has this key
		if n.KeyHash == c.KeyHash {
			return n.Node, nil
		}
	}
	if t.Uses == 0 {
		return nil, model.Errorf(model.Denied, "the join token has been used")
	}
	if !t.Expires.After(x.at) {
		return nil, model.Errorf(model.Denied, "the join token has run out")
	}
	n := c.Node
	n.Voter = false
	made, err := x.addNode(nodeRow{Node: n, KeyHash: c.KeyHash})
	if err != nil {
		return nil, err
	}
	made.Joined = x.at
	t.Uses--
	x.object = "node " + n.ID.String() + " " + n.Name
	return made, put(x, &x.tokens, t)
}

func (x *tx) tokenDelete(c command.TokenDelete) (any, error) {
	drop(x, &x.tokens, c.ID)
	return nil, nil
}

func (x *tx) nodeUpdate(c command.NodeUpdate) (any, error) {
	n, err := x.nodes.find(c.Node)
	if err != nil {
		return nil, err
	}
	old := n
	set(&n.Address, c.Address)
	set(&n.API, c.API)
	set(&n.Version, c.Version)
	set(&n.Serial, c.Serial)
	x.object = "node " + n.ID.String() + " " + n.Name
	if n == old {
		return n.Node, nil
	}
	return n.Node, put(x, &x.nodes, n)
}

// set replaces what is there by what is not the zero value.
func set[T comparable](into *T, value T) {
	var zero T
	if value != zero {
		*into = value
	}
}

func (x *tx) nodeVoter(c command.NodeVoter) (any, error) {
	n, err := x.nodes.find(c.Node)
	if err != nil {
		return nil, err
	}
	x.object = "node " + n.ID.String() + " " + n.Name
	if n.Voter == c.Voter {
		return n.Node, nil
	}
	n.Voter = c.Voter
	return n.Node, put(x, &x.nodes, n)
}

func (x *tx) nodeRemove(c command.NodeRemove) (any, error) {
	n, err := x.nodes.find(c.Node)
	if err != nil {
		return nil, err
	}
	x.object = "node " + n.ID.String() + " " + n.Name
	if len(x.nodes.rows) == 1 {
		return nil, model.Errorf(model.Conflict, "%s is the only node of the cluster", n.Name)
	}
	if err := x.emptyVMs(n.Node, c.Lost); err != nil {
		return nil, err
	}
	if err := x.emptyVolumes(n.Node, c.Lost); err != nil {
		return nil, err
	}
	for _, id := range x.disks.keys() {
		switch d := x.disks.rows[id]; {
		case d.Node == n.ID:
			drop(x, &x.disks, id)
		case d.Twin.Node == n.ID: // it is gone with who found it
			d.Twin = model.Twin{}
			if err := put(x, &x.disks, d); err != nil {
				return nil, err
			}
		}
	}
	if err := x.forgetBridges(n.ID); err != nil {
		return nil, err
	}
	if err := x.unwish(n.ID); err != nil {
		return nil, err
	}
	drop(x, &x.nodes, n.ID)
	if err := x.keyIsDue(); err != nil {
		return nil, err
	}
	return n.Node, put(x, &x.removed, removedRow{ID: n.ID, Name: n.Name, At: x.at})
}

// emptyVMs sees to it that no machine is placed on a node that leaves.
func (x *tx) emptyVMs(n model.Node, lost bool) error {
	for _, id := range x.vms.keys() {
		vm := x.vms.rows[id]
		if vm.Node != n.ID {
			continue
		}
		if !lost {
			return model.Errorf(model.Conflict, "the vm %q is still placed on %s", vm.Name, n.Name)
		}
		vm.Node, vm.Migration = 0, nil
		vm.Status = model.VMStatus{State: model.VMStopped, Reason: "its node was removed", Since: x.at}
		if err := put(x, &x.vms, vm); err != nil {
			return err
		}
	}
	return nil
}

// emptyVolumes sees to it that a node that leaves holds no volume and has no
// member of one.
func (x *tx) emptyVolumes(n model.Node, lost bool) error {
	for _, id := range x.volumes.keys() {
		v := cloneVolume(x.volumes.rows[id])
		held := v.Holder == n.ID
		if held && !lost {
			return model.Errorf(model.Conflict, "%s still holds the volume %q", n.Name, v.Name)
		}
		dropped, err := x.dropMembers(&v, n, lost)
		if err != nil {
			return err
		}
		if !held && !dropped {
			continue
		}
		if held {
			v.Holder, v.Purpose = 0, ""
		}
		v.Revision++
		if err := put(x, &x.volumes, v); err != nil {
			return err
		}
	}
	return nil
}

// dropMembers lets the members on a node's disks go.
func (x *tx) dropMembers(v *model.Volume, n model.Node, lost bool) (dropped bool, err error) {
	for i, column := range v.Columns {
		kept := make([]model.Member, 0, len(column.Members))
		for _, m := range column.Members {
			if d, ok := x.disks.get(m.Disk); ok && d.Node == n.ID {
				continue
			}
			kept = append(kept, m)
		}
		if len(kept) == len(column.Members) {
			continue
		}
		if !lost {
			return false, model.Errorf(model.Conflict, "the volume %q still has data on the disks of %s",
				v.Name, n.Name)
		}
		v.Columns[i].Members = kept
		if v.Columns[i].Count(model.Active) == 0 {
			return false, model.Errorf(model.Conflict,
				"%s has the only up-to-date copy of a part of the volume %q", n.Name, v.Name)
		}
		dropped = true
	}
	return dropped, nil
}

func (x *tx) diskAdd(c command.DiskAdd) (any, error) {
	d := c.Disk
	if _, err := x.nodes.find(d.Node); err != nil {
		return nil, err
	}
	if d.ID == 0 || d.Path == "" || d.Size <= 0 {
		return nil, model.Errorf(model.Invalid, "a disk needs an identifier, a path and a size")
	}
	if _, taken := x.disks.get(d.ID); taken {
		return nil, model.Errorf(model.Conflict, "the disk %s is in the pool already", d.ID)
	}
	d.State, d.Error, d.Added = model.DiskOnline, "", x.at
	return d, put(x, &x.disks, d)
}

func (x *tx) diskUpdate(c command.DiskUpdate) (any, error) {
	d, err := x.disks.find(c.Disk)
	if err != nil {
		return nil, err
	}
	switch c.State {
	case "", model.DiskOnline, model.DiskOffline, model.DiskFailed:
	default:
		return nil, model.Errorf(model.Invalid, "%q is not a state of a disk", c.State)
	}
	if d.State == model.DiskFailed && c.State != "" && c.State != model.DiskFailed {
		return nil, model.Errorf(model.Conflict, "the disk %s has failed and stays out until it is replaced", d.ID)
	}
	old := d
	set(&d.State, c.State)
	set(&d.Path, c.Path)
	set(&d.Size, c.Size)
	d.Error = c.Error
	if d == old {
		return d, nil
	}
	return d, put(x, &x.disks, d)
}
