package state

import (
	"context"
	"slices"

	"drystone.example/drystone/backend/model"
)

// A Noun names a part of the record that can be watched.
type Noun string

// The nouns, complete, as the live stream calls them.
const (
	Cluster  Noun = "cluster"
	Nodes    Noun = "nodes"
	Disks    Noun = "disks"
	Volumes  Noun = "volumes"
	VMs      Noun = "vms"
	Users    Noun = "users"
	Sessions Noun = "sessions"
	Tokens   Noun = "tokens"
	Networks Noun = "networks"
)

// AllNouns lists every noun.
func AllNouns() []Noun {
	return []Noun{Cluster, Nodes, Disks, Volumes, VMs, Users, Sessions, Tokens, Networks}
}

// A View is the record as of one index of the log.
type View struct {
	tables
	index   uint64
	changed map[Noun]uint64
	next    chan struct{}
	store   *Store
}

// Index is the last entry of the log that is in the view.
func (v *View) Index() uint64 { return v.index }

// Next is closed when a newer view than this one is there.
func (v *View) Next() <-chan struct{} { return v.next }

// Changed is the index of the entry that last changed a part of the record; two
// views with the same value have the same rows there.
func (v *View) Changed(n Noun) uint64 { return v.changed[n] }

// Cluster returns the cluster, or false before its first command.
func (v *View) Cluster() (model.Cluster, bool) {
	c, ok := v.cluster.get(clusterKey)
	if !ok {
		return model.Cluster{}, false
	}
	return c.model(), true
}

// Nodes returns the members, in order of name.
func (v *View) Nodes() []model.Node { return mapped(v.nodes.sorted(), nodeRow.model) }

// Node returns a member, or model.NotFound.
func (v *View) Node(id model.NodeID) (model.Node, error) {
	n, err := v.nodes.find(id)
	return n.Node, err
}

// FindNode returns the member of an identifier or a name.
func (v *View) FindNode(ref string) (model.Node, error) {
	n, err := resolve(v.nodes, ref)
	return n.Node, err
}

// Removed reports whether a node was a member once and is not any more. It stays
// so for ever: an identifier does not come back.
func (v *View) Removed(id model.NodeID) bool {
	_, gone := v.removed.get(id)
	return gone
}

// Disks returns the members of the pool, in order of identifier.
func (v *View) Disks() []model.Disk { return slices.Clone(v.disks.sorted()) }

// Disk returns a member of the pool, or model.NotFound.
func (v *View) Disk(id model.DiskID) (model.Disk, error) { return v.disks.find(id) }

// Volumes returns the volumes, in order of name.
func (v *View) Volumes() []model.Volume { return slices.Clone(v.volumes.sorted()) }

// Volume returns a volume of the caller's own, or model.NotFound.
func (v *View) Volume(id model.VolumeID) (model.Volume, error) {
	vol, err := v.volumes.find(id)
	return cloneVolume(vol), err
}

// FindVolume returns the volume of an identifier or a name, of the caller's own.
func (v *View) FindVolume(ref string) (model.Volume, error) {
	vol, err := resolve(v.volumes, ref)
	return cloneVolume(vol), err
}

// VolumeDeleted reports whether there was such a volume and it was deleted. A
// disk may drop what it holds of it.
func (v *View) VolumeDeleted(id model.VolumeID) bool {
	_, gone := v.deleted.get(id)
	return gone
}

// DeletedVolumes returns every volume that was ever deleted, in order.
func (v *View) DeletedVolumes() []model.VolumeID {
	return mapped(v.deleted.sorted(), deletedRow.id)
}

// VMs returns the machines, in order of name.
func (v *View) VMs() []model.VM { return slices.Clone(v.vms.sorted()) }

// VM returns a machine of the caller's own, or model.NotFound.
func (v *View) VM(id model.VMID) (model.VM, error) {
	vm, err := v.vms.find(id)
	return cloneVM(vm), err
}

// FindVM returns the machine of an identifier or a name, of the caller's own.
func (v *View) FindVM(ref string) (model.VM, error) {
	vm, err := resolve(v.vms, ref)
	return cloneVM(vm), err
}

// VMOf returns the machine that has a volume, or false.
func (v *View) VMOf(id model.VolumeID) (model.VM, bool) {
	vm, ok := vmOf(v.vms, id)
	return cloneVM(vm), ok
}

// Seed returns what cloud-init in a machine reads; model.NotFound: nothing.
func (v *View) Seed(id model.VMID) (model.Seed, error) {
	row, err := v.seeds.find(id)
	return model.Seed{User: model.NewSecret(row.User), Meta: model.NewSecret(row.Meta)}, err
}

// Networks returns the networks, in order of name.
func (v *View) Networks() []model.Network { return slices.Clone(v.networks.sorted()) }

// Network returns a network, or model.NotFound.
func (v *View) Network(id model.NetworkID) (model.Network, error) { return v.networks.find(id) }

// FindNetwork returns the network of an identifier or a name.
func (v *View) FindNetwork(ref string) (model.Network, error) { return resolve(v.networks, ref) }

// Users returns who can log in, in order of name.
func (v *View) Users() []model.User { return mapped(v.users.sorted(), userRow.model) }

// User returns a user, or model.NotFound.
func (v *View) User(id model.UserID) (model.User, error) {
	u, err := v.users.find(id)
	return u.model(), err
}

// FindUser returns the user of an identifier or a name.
func (v *View) FindUser(ref string) (model.User, error) {
	u, err := resolve(v.users, ref)
	return u.model(), err
}

// Session returns a log-in by the digest of its token, or false. Whether it has
// run out is the caller's to judge.
func (v *View) Session(tokenHash string) (model.Session, bool) { return v.sessions.get(tokenHash) }

// Sessions returns all log-ins of all users, in order of expiry.
func (v *View) Sessions() []model.Session { return slices.Clone(v.sessions.sorted()) }

// Tokens returns the join tokens that were not taken back or pruned, used ones
// included, in order of expiry.
func (v *View) Tokens() []model.JoinToken { return slices.Clone(v.tokens.sorted()) }

// Token returns a join token, or false.
func (v *View) Token(id string) (model.JoinToken, bool) { return v.tokens.get(id) }

// Audit returns up to limit rows of the audit log that come after an index and
// are in this view, oldest first. The log keeps the newest MaxAudit rows or more.
func (v *View) Audit(ctx context.Context, after uint64, limit int) ([]model.AuditRow, error) {
	return v.store.audit(ctx, after, v.index, limit)
}

// NewestAudit returns up to limit of the newest rows of the audit log that are in
// this view, newest first.
func (v *View) NewestAudit(ctx context.Context, limit int) ([]model.AuditRow, error) {
	return v.store.newestAudit(ctx, v.index, limit)
}

// Outcome returns what a request came to, if it was applied not long ago.
func (v *View) Outcome(request string) (Outcome, bool) {
	r, ok := v.requests.get(request)
	if !ok {
		return Outcome{}, false
	}
	return r.outcome(), true
}

func cloneVolume(v model.Volume) model.Volume {
	v.Columns = slices.Clone(v.Columns)
	for i, c := range v.Columns {
		v.Columns[i].Members = slices.Clone(c.Members)
	}
	return v
}

func cloneVM(v model.VM) model.VM {
	v.Disks = slices.Clone(v.Disks)
	v.NICs = slices.Clone(v.NICs)
	v.Tags = slices.Clone(v.Tags)
	if v.Boot != nil {
		boot := *v.Boot
		v.Boot = &boot
	}
	v.Affinity.Apart = slices.Clone(v.Affinity.Apart)
	return v
}

func mapped[A, B any](rows []A, f func(A) B) []B {
	out := make([]B, len(rows))
	for i, r := range rows {
		out[i] = f(r)
	}
	return out
}

// vmOf finds the machine that has a volume; there is at most one.
func vmOf(vms *table[model.VMID, model.VM], id model.VolumeID) (model.VM, bool) {
	for _, vm := range vms.rows {
		if slices.Contains(vm.Volumes(), id) {
			return vm, true
		}
	}
	return model.VM{}, false
}
