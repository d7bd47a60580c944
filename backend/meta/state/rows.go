package state

import (
	"cmp"
	"encoding/json"
	"fmt"
	"time"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

// The rows that hold more than the model shows. Everything in them is in SQLite
// and in snapshots, secrets too; nothing of them is in the audit log.
type (
	clusterRow struct {
		model.Cluster
		SealedKey string `json:"ca_key"`
		Gossip    string `json:"gossip_key"`

		GossipNext string `json:"gossip_next,omitempty"` // that is to replace it
	}
	nodeRow struct {
		model.Node
		KeyHash string `json:"key_hash,omitempty"` // of the key it joined with
	}
	removedRow struct {
		ID   model.NodeID `json:"id"`
		Name string       `json:"name"`
		At   time.Time    `json:"at"`
	}
	deletedRow struct {
		ID model.VolumeID `json:"id"`
		At time.Time      `json:"at"`
	}
	userRow struct {
		model.User
		Hash string `json:"password_hash"`
	}
	// A seedRow is what cloud-init in a machine reads.
	seedRow struct {
		VM   model.VMID `json:"vm"`
		User string     `json:"user"`
		Meta string     `json:"meta"`
	}
	// A requestRow remembers what a request came to.
	requestRow struct {
		Request string          `json:"request"`
		Index   uint64          `json:"index"`
		Kind    command.Kind    `json:"kind"`
		Result  json.RawMessage `json:"result,omitempty"`
		Code    model.Code      `json:"code,omitempty"`
		Text    string          `json:"text,omitempty"`
	}
)

func (r clusterRow) model() model.Cluster {
	c := r.Cluster
	c.CAKey, c.GossipKeys = model.NewSecret(r.SealedKey), r.keyring()
	return c
}

func (r nodeRow) model() model.Node     { return r.Node }
func (r deletedRow) id() model.VolumeID { return r.ID }
func (r userRow) model() (u model.User) {
	u = r.User
	u.PasswordHash = model.NewSecret(r.Hash)
	return u
}

// tables is the record, decoded.
type tables struct {
	cluster  *table[string, clusterRow]
	nodes    *table[model.NodeID, nodeRow]
	removed  *table[model.NodeID, removedRow]
	disks    *table[model.DiskID, model.Disk]
	volumes  *table[model.VolumeID, model.Volume]
	deleted  *table[model.VolumeID, deletedRow]
	vms      *table[model.VMID, model.VM]
	users    *table[model.UserID, userRow]
	sessions *table[string, model.Session]
	tokens   *table[string, model.JoinToken]
	requests *table[string, requestRow]

	snapshots *table[model.SnapshotID, model.Snapshot]
	networks  *table[model.NetworkID, model.Network]
	seeds     *table[model.VMID, seedRow]
}

// The tables' kinds. The SQL names are in snapshots: they do not change.
var (
	clusterKind = &kind[string, clusterRow]{
		name: "cluster", noun: "cluster", watch: Cluster,
		key: func(clusterRow) string { return clusterKey }, text: plain,
		order: func(a, b clusterRow) int { return cmp.Compare(a.ID, b.ID) },
	}
	nodeKind = &kind[model.NodeID, nodeRow]{
		name: "nodes", noun: "node", watch: Nodes,
		key: func(n nodeRow) model.NodeID { return n.ID }, text: model.NodeID.String,
		title: func(n nodeRow) string { return n.Name },
		order: func(a, b nodeRow) int { return cmp.Compare(a.Name, b.Name) },
	}
	removedKind = &kind[model.NodeID, removedRow]{
		name: "removed_nodes", noun: "removed node", watch: Nodes,
		key: func(n removedRow) model.NodeID { return n.ID }, text: model.NodeID.String,
		order: func(a, b removedRow) int { return cmp.Compare(a.ID, b.ID) },
	}
	diskKind = &kind[model.DiskID, model.Disk]{
		name: "disks", noun: "disk", watch: Disks,
		key: func(d model.Disk) model.DiskID { return d.ID }, text: model.DiskID.String,
		order: func(a, b model.Disk) int {
			return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.ID, b.ID))
		},
	}
	volumeKind = &kind[model.VolumeID, model.Volume]{
		name: "volumes", noun: "volume", watch: Volumes,
		key: func(v model.Volume) model.VolumeID { return v.ID }, text: model.VolumeID.String,
		title: func(v model.Volume) string { return v.Name },
		order: func(a, b model.Volume) int { return cmp.Compare(a.Name, b.Name) },
	}
	deletedKind = &kind[model.VolumeID, deletedRow]{
		name: "deleted_volumes", noun: "deleted volume", watch: Volumes,
		key: func(v deletedRow) model.VolumeID { return v.ID }, text: model.VolumeID.String,
		order: func(a, b deletedRow) int { return cmp.Compare(a.ID, b.ID) },
	}
	vmKind = &kind[model.VMID, model.VM]{
		name: "vms", noun: "vm", watch: VMs,
		key: func(v model.VM) model.VMID { return v.ID }, text: model.VMID.String,
		title: func(v model.VM) string { return v.Name },
		order: func(a, b model.VM) int { return cmp.Compare(a.Name, b.Name) },
	}
	userKind = &kind[model.UserID, userRow]{
		name: "users", noun: "user", watch: Users,
		key: func(u userRow) model.UserID { return u.ID }, text: model.UserID.String,
		title: func(u userRow) string { return u.Name },
		order: func(a, b userRow) int { return cmp.Compare(a.Name, b.Name) },
	}
	sessionKind = &kind[string, model.Session]{
		name: "sessions", noun: "session", watch: Sessions,
		key: func(s model.Session) string { return s.TokenHash }, text: plain,
		order: func(a, b model.Session) int {
			return cmp.Or(a.Expires.Compare(b.Expires), cmp.Compare(a.TokenHash, b.TokenHash))
		},
	}
	tokenKind = &kind[string, model.JoinToken]{
		name: "tokens", noun: "token", watch: Tokens,
		key: func(t model.JoinToken) string { return t.ID }, text: plain,
		order: func(a, b model.JoinToken) int {
			return cmp.Or(a.Expires.Compare(b.Expires), cmp.Compare(a.ID, b.ID))
		},
	}
	requestKind = &kind[string, requestRow]{
		name: "requests", noun: "request",
		key: func(r requestRow) string { return r.Request }, text: plain,
		order: func(a, b requestRow) int { return cmp.Compare(a.Index, b.Index) },
	}
	networkKind = &kind[model.NetworkID, model.Network]{
		name: "networks", noun: "network", watch: Networks,
		key: func(n model.Network) model.NetworkID { return n.ID }, text: model.NetworkID.String,
		title: func(n model.Network) string { return n.Name },
		order: func(a, b model.Network) int { return cmp.Compare(a.Name, b.Name) },
	}
	snapshotKind = &kind[model.SnapshotID, model.Snapshot]{
		name: "volume_snapshots", noun: "snapshot", watch: Volumes,
		key: func(s model.Snapshot) model.SnapshotID { return s.ID }, text: model.SnapshotID.String,
		order: func(a, b model.Snapshot) int {
			return cmp.Or(cmp.Compare(a.Volume, b.Volume), cmp.Compare(a.Epoch, b.Epoch))
		},
	}
)

var seedKind = &kind[model.VMID, seedRow]{
	name: "vm_seeds", noun: "cloud-init data of vm",
	key: func(s seedRow) model.VMID { return s.VM }, text: model.VMID.String,
	order: func(a, b seedRow) int { return cmp.Compare(a.VM, b.VM) },
}

// clusterKey is the key of the one row of the cluster's table.
const clusterKey = "cluster"

func plain(s string) string { return s }

func newTables() tables {
	return tables{
		cluster: newTable(clusterKind), nodes: newTable(nodeKind), removed: newTable(removedKind),
		disks: newTable(diskKind), volumes: newTable(volumeKind), deleted: newTable(deletedKind),
		vms: newTable(vmKind), users: newTable(userKind), sessions: newTable(sessionKind),
		tokens: newTable(tokenKind), requests: newTable(requestKind),
		snapshots: newTable(snapshotKind), networks: newTable(networkKind), seeds: newTable(seedKind),
	}
}

// outcome is what the request came to, as it was told then.
func (r requestRow) outcome() Outcome {
	o := Outcome{Request: r.Request, Index: r.Index}
	if r.Code != "" {
		o.Err = &model.Error{Code: r.Code, Text: r.Text}
	}
	if len(r.Result) > 0 {
		result, err := DecodeResult(r.Kind, r.Result)
		if err != nil { // written by this package and checked by the snapshot's digest
			o.Err = fmt.Errorf("read the outcome of %s: %w", r.Request, err)
			return o
		}
		o.Result = result
	}
	return o
}

// DecodeResult reads the JSON of what a command returned. Secrets are not in it.
func DecodeResult(k command.Kind, p []byte) (any, error) {
	switch k {
	case command.KindClusterCreate, command.KindClusterSet, command.KindKeyRotate, command.KindCARotate,
		command.KindTrustStep:
		return readJSON[model.Cluster](p)
	case command.KindTokenCreate:
		return readJSON[model.JoinToken](p)
	case command.KindTokenRedeem, command.KindNodeUpdate, command.KindNodeVoter, command.KindNodeRemove,
		command.KindNodeTrust,
		command.KindNodeDrain:
		return readJSON[model.Node](p)
	case command.KindDiskAdd, command.KindDiskUpdate, command.KindDiskDrain, command.KindDiskRemove,
		command.KindDiskFound:
		return readJSON[model.Disk](p)
	case command.KindVolumeCreate, command.KindVolumeResize, command.KindVolumeDelete,
		command.KindVolumeAcquire, command.KindVolumeRelease, command.KindVolumeMembers,
		command.KindVolumeDetach, command.KindVolumeMove, command.KindVolumeScrubbed,
		command.KindSnapshotRevert, command.KindVolumeTended:
		return readJSON[model.Volume](p)
	case command.KindVMCreate, command.KindVMUpdate, command.KindVMPower, command.KindVMPlace,
		command.KindVMReport, command.KindVMDelete, command.KindVMMigrate, command.KindVMMigrateEnd:
		return readJSON[model.VM](p)
	case command.KindUserCreate, command.KindUserPassword, command.KindUserDelete:
		return readJSON[model.User](p)
	case command.KindSessionCreate:
		return readJSON[model.Session](p)
	case command.KindSessionsPrune:
		return readJSON[int](p)
	case command.KindSnapshotCreate:
		return readJSON[model.Cut](p)
	case command.KindSnapshotDelete:
		return readJSON[model.Snapshot](p)
	case command.KindNetworkCreate, command.KindNetworkUpdate, command.KindNetworkDelete:
		return readJSON[model.Network](p)
	case command.KindVolumeClone:
		return readJSON[model.Cloned](p)
	case command.KindTokenDelete, command.KindSessionDelete, command.KindVMConsole:
		return nil, nil
	}
	return nil, fmt.Errorf("command %d is not known to this daemon", uint8(k))
}

func readJSON[T any](p []byte) (any, error) {
	var v T
	if err := json.Unmarshal(p, &v); err != nil {
		return nil, err
	}
	return v, nil
}
