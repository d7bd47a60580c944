package schema

import (
	"time"

	"drystone.example/drystone/backend/model"
)

// Version is the version of the API, the number in its path.
const Version = 1

// A List is how every list is answered.
type List[T any] struct {
	Items []T `json:"items"`
}

// ListOf makes a List that is never null.
func ListOf[T any](items []T) List[T] {
	if items == nil {
		items = []T{}
	}
	return List[T]{Items: items}
}

// A Meta says what answers here; anybody may ask.
type Meta struct {
	Product      string          `json:"product"`
	Version      string          `json:"version"`
	API          int             `json:"api"`
	ClusterID    model.ClusterID `json:"cluster_id"`
	ClusterName  string          `json:"cluster_name"`
	NodeID       model.NodeID    `json:"node_id"`
	NodeName     string          `json:"node_name"`
	Capabilities []string        `json:"capabilities"`
}

// A Health says whether this node can serve; anybody may ask.
type Health struct {
	Status string `json:"status" enum:"ok,degraded,unavailable"`
	Leader bool   `json:"leader"` // whether a leader is known here
	Reason string `json:"reason,omitempty"`
}

// The values of Health.Status.
const (
	HealthOK          = "ok"
	HealthDegraded    = "degraded"    // everything works, with less protection
	HealthUnavailable = "unavailable" // no leader: nothing can be changed
)

// A Cluster is the whole at a glance.
type Cluster struct {
	ID                 model.ClusterID `json:"id"`
	Name               string          `json:"name"`
	Version            string          `json:"version"`
	Leader             model.NodeID    `json:"leader"`
	Quorum             bool            `json:"quorum"`
	NodesTotal         int             `json:"nodes_total"`
	NodesUp            int             `json:"nodes_up"`
	NodesMaintenance   int             `json:"nodes_maintenance" doc:"drained or being drained"`
	NodesResting       int             `json:"nodes_resting" doc:"of these, that are away: somebody works on them"`
	VMsTotal           int             `json:"vms_total"`
	VMsRunning         int             `json:"vms_running"`
	VolumesTotal       int             `json:"volumes_total"`
	VolumesUnavailable int             `json:"volumes_unavailable"`
	ColumnsTotal       int             `json:"columns_total"`
	ColumnsOutOfSync   int             `json:"columns_out_of_sync"`
	VolumesLost        []VolumeLost    `json:"volumes_lost,omitempty" doc:"the volumes of which a part has no good copy any more"`
	VolumesDiverged    int             `json:"volumes_diverged" doc:"with copies that claim to be the same and are not"`
	Pool               PoolSize        `json:"pool"`
	Spare              Spare           `json:"spare"`
	Accel              string          `json:"accel"`      // kvm, tcg, or empty without a hypervisor
	Hypervisor         bool            `json:"hypervisor"` // whether any node runs machines
	Settings           Settings        `json:"settings"`
	Alarms             []Alarm         `json:"alarms,omitempty"`
}

// Spare is what the nodes that are up and not in maintenance have for machines, and what
// would become of these if one more node were lost: the one whose loss is the worst.
type Spare struct {
	Memory         model.Bytes  `json:"memory_bytes" doc:"for machines"`
	MemoryPromised model.Bytes  `json:"memory_promised_bytes" doc:"of it, to machines that are on"`
	CPUs           int          `json:"cpus"`
	CPUsPromised   int          `json:"cpus_promised" doc:"of the machines that are on; a start is refused where these would be more than eight for each of the node's own"`
	LossOf         model.NodeID `json:"loss_of,omitzero" doc:"the node whose loss is the worst; absent: there is no other that could take over"`
	LossVMs        int          `json:"loss_vms" doc:"machines that would run nowhere then; 0: all would be started elsewhere"`
	LossMemory     model.Bytes  `json:"loss_memory_bytes" doc:"their memory"`
}

// An Alarm is something that an operator should know, for as long as it is so.
type Alarm struct {
	Code     string         `json:"code"`
	Severity model.Severity `json:"severity" enum:"warning,serious,critical"`
	Object   string         `json:"object" doc:"such as pool, or disk with its identifier"`
	Text     string         `json:"text"`
	Since    time.Time      `json:"since" doc:"as the present leader has seen it"`
}

// Settings are what the cluster can be told about itself.
type Settings struct {
	Balance      bool  `json:"balance" doc:"data moves by itself to make the disks evenly full, and machines to make the nodes evenly busy"`
	RebuildAfter int64 `json:"rebuild_after_seconds" doc:"how long a node may be away before what it had is rebuilt elsewhere"`
}

// A SettingsChange changes the settings that it has.
type SettingsChange struct {
	Balance      *bool  `json:"balance,omitempty"`
	RebuildAfter *int64 `json:"rebuild_after_seconds,omitempty" minimum:"5" maximum:"604800"`
}

// A VolumeLost is how much of a volume has no good copy any more.
type VolumeLost struct {
	ID   model.VolumeID `json:"id"`
	Name string         `json:"name"`
	Lost Lost           `json:"lost"`
}

// A PoolSize is how much room the pool has, before copies.
type PoolSize struct {
	Size    model.Bytes `json:"size_bytes"`
	Used    model.Bytes `json:"used_bytes"`
	Reserve model.Bytes `json:"reserve_bytes"` // kept free to rebuild what one node holds
}

// A Pool is every disk of every node taken together.
type Pool struct {
	PoolSize
	Provisioned      model.Bytes `json:"provisioned_bytes"` // what the volumes promise, with copies
	DisksOnline      int         `json:"disks_online"`
	DisksTotal       int         `json:"disks_total"`
	ColumnsOutOfSync int         `json:"columns_out_of_sync"`
	Moves            Moves       `json:"moves"`
}

// Moves is how far the moving of columns between disks is: off disks that are to
// leave, and towards the share of each disk.
type Moves struct {
	UnderWay int    `json:"under_way"`
	Left     int    `json:"left" doc:"columns to move, those under way included"`
	Seconds  int64  `json:"seconds_left" doc:"at the pace so far; 0: not known"`
	Waits    string `json:"waits,omitempty" doc:"why nothing moves that would make the disks more even"`
}

// A Node is a member of the cluster.
type Node struct {
	ID         model.NodeID `json:"id"`
	Name       string       `json:"name"`
	Address    string       `json:"address"`
	API        string       `json:"api"` // URL of its web page and API
	Voter      bool         `json:"voter"`
	Leader     bool         `json:"leader"`
	Up         bool         `json:"up"`
	Since      time.Time    `json:"since,omitzero"` // of Up; absent when nobody knows
	Version    string       `json:"version"`
	CPUs       int          `json:"cpus"`
	Memory     model.Bytes  `json:"memory_bytes"`
	Hypervisor bool         `json:"hypervisor"`
	VMsRunning int          `json:"vms_running"`
	Joined     time.Time    `json:"joined"`

	Maintenance *Maintenance `json:"maintenance,omitempty" doc:"absent: machines may run on it"`
	Returning   int          `json:"vms_returning" doc:"machines that a drain took from it and that come back"`
	Stuck       []StuckVM    `json:"vms_stuck,omitempty" doc:"machines that do not leave it, or do not come back, with the reason"`
}

// A Maintenance is how far a node is with being drained.
type Maintenance struct {
	Since time.Time `json:"since"`
	Left  int       `json:"vms_left" doc:"machines that run there; 0: it can be stopped"`
	Moved int       `json:"vms_moved" doc:"machines that were moved away and will come back"`
}

// A StuckVM is a machine that is not moved though it should be.
type StuckVM struct {
	ID     model.VMID `json:"id"`
	Name   string     `json:"name"`
	Reason string     `json:"reason"`
}

// A Disk is one member of the pool.
type Disk struct {
	ID             model.DiskID    `json:"id"`
	Node           model.NodeID    `json:"node"`
	NodeName       string          `json:"node_name"`
	Path           string          `json:"path"`
	State          model.DiskState `json:"state" enum:"online,failed,offline"`
	Size           model.Bytes     `json:"size_bytes"`
	Used           model.Bytes     `json:"used_bytes"`
	ChecksumErrors uint64          `json:"checksum_errors"`
	Repaired       uint64          `json:"repaired"`
	Damaged        int             `json:"damaged_pages" doc:"known to be damaged now"`
	LastScrub      time.Time       `json:"last_scrub,omitzero" doc:"when all of its data was verified last; absent: never"`
	Scrub          *DiskScrub      `json:"scrub,omitempty" doc:"the pass that began after that, if any"`
	Hardware       *Hardware       `json:"hardware,omitempty" doc:"absent for a file, and where the disk's node has not told it"`
	MapCache       *MapCache       `json:"map_cache,omitempty" doc:"absent when the disk's node has not told it"`
	Error          string          `json:"error,omitempty"`
	Columns        int             `json:"columns" doc:"of volumes that it has a part in"`
	Drain          *DiskDrain      `json:"drain,omitempty" doc:"how far it is with leaving the pool; absent: it stays"`
}

// A DiskDrain is how far a disk is with leaving the pool.
type DiskDrain struct {
	Since   time.Time `json:"since"`
	Total   int       `json:"columns_total" doc:"that it had a part in then"`
	Left    int       `json:"columns_left"`
	Seconds int64     `json:"seconds_left" doc:"at the pace so far; 0: not known"`
	Blocked string    `json:"blocked,omitempty" doc:"why it does not become empty"`
	Errors  uint64    `json:"errors,omitempty" doc:"blocks found damaged, for which the cluster retired it; such a disk stays listed when it is empty. Absent: an operator wishes it to leave"`
}

// A DiskScrub is a pass over a disk that verifies its data, as far as it has come.
type DiskScrub struct {
	Began   time.Time   `json:"began"`
	Done    model.Bytes `json:"done_bytes"`
	Total   model.Bytes `json:"total_bytes"`
	Running bool        `json:"running" doc:"false: it was interrupted and will be gone on with"`
}

// Hardware is what the block device of a disk says of itself.
type Hardware struct {
	Model  string       `json:"model,omitempty"`
	Serial string       `json:"serial,omitempty"`
	Health model.Health `json:"health" enum:"good,failing,unknown" doc:"by SMART; unknown also where smartctl is not installed"`
}

// A MapCache is the part of a disk's page map that is in memory.
type MapCache struct {
	Memory model.Bytes `json:"memory_bytes"`
	Limit  model.Bytes `json:"limit_bytes" doc:"map_memory_bytes in the node's node.json"`
	Hits   uint64      `json:"hits" doc:"since the disk was opened, of those that looked for a page"`
	Misses uint64      `json:"misses" doc:"those that had to look on the disk"`
}

// A DiskSpec asks for a disk to be made part of the pool.
type DiskSpec struct {
	Path   string      `json:"path" minLength:"1" maxLength:"4096" doc:"absolute path on the node"`
	Size   model.Bytes `json:"size_bytes,omitempty" minimum:"0" doc:"of a file to create; absent for what exists"`
	Sparse bool        `json:"sparse,omitempty" doc:"does not reserve the space of the file to create: for trials; without room for a write the disk fails"`
	Wipe   bool        `json:"wipe,omitempty" doc:"takes a block device although it holds data, which is lost; one that is in use, or that the pool has a disk on, is refused all the same"`
}

// A Token lets nodes join; its secret was shown once.
type Token struct {
	ID      string    `json:"id"`
	Name    string    `json:"name,omitempty"`
	Uses    int       `json:"uses"` // left
	Expires time.Time `json:"expires"`
	Created time.Time `json:"created"`
}

// A TokenSpec asks for a join token.
type TokenSpec struct {
	Name string `json:"name,omitempty" maxLength:"63"`
	TTL  int64  `json:"ttl_seconds,omitempty" minimum:"60" maximum:"2592000" default:"3600"`
	Uses int    `json:"uses,omitempty" minimum:"1" maximum:"100" default:"1"`
}

// A NewToken is the one answer that holds a join token's secret.
type NewToken struct {
	ID      string    `json:"id"`
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
	Uses    int       `json:"uses"`
}

// A JoinRequest is what a node that holds a join token sends to become a member.
// Everything in the certificate request but its public key is ignored.
type JoinRequest struct {
	TokenID string `json:"token_id" minLength:"8" maxLength:"8"`
	Secret  string `json:"secret" minLength:"1" maxLength:"64"`
	CSR     []byte `json:"csr" doc:"the certificate request" maxLength:"8192"`
	Name    string `json:"name" maxLength:"63"`
	Address string `json:"address" maxLength:"255" doc:"host or IP that the other nodes reach it at"`
	API     string `json:"api,omitempty" maxLength:"255" doc:"URL of its web page and API"`
	Version string `json:"version" maxLength:"63"`
}

// A JoinAnswer is all that a new member needs.
type JoinAnswer struct {
	ClusterID   model.ClusterID `json:"cluster_id"`
	ClusterName string          `json:"cluster_name"`
	NodeID      model.NodeID    `json:"node_id"`
	NodeCert    string          `json:"node_certificate"` // PEM chain for the node port
	WebCert     string          `json:"web_certificate"`  // PEM chain for the web port
	Roots       string          `json:"roots"`            // PEM, every root that is trusted
	GossipKeys  [][]byte        `json:"gossip_keys"`      // the first one encrypts
	Peers       []JoinPeer      `json:"peers"`
}

// A JoinPeer is a member that a new one may turn to.
type JoinPeer struct {
	ID      model.NodeID `json:"id"`
	Name    string       `json:"name"`
	Address string       `json:"address"`
}

// A Task is a piece of long work, seen from the node that does it.
type Task struct {
	ID      model.TaskID `json:"id"`
	Kind    string       `json:"kind"`   // such as image.import or vm.create
	Object  string       `json:"object"` // name of what it makes or changes
	State   TaskState    `json:"state" enum:"running,done,failed,cancelled"`
	Done    model.Bytes  `json:"done_bytes"`
	Total   model.Bytes  `json:"total_bytes"` // zero: not known
	Error   string       `json:"error"`       // one sentence; empty unless failed
	Started time.Time    `json:"started"`
	Ended   time.Time    `json:"ended,omitzero"`
}

// A TaskState says how a task stands.
type TaskState string

// The states of a task, complete.
const (
	TaskRunning   TaskState = "running"
	TaskDone      TaskState = "done"
	TaskFailed    TaskState = "failed"
	TaskCancelled TaskState = "cancelled"
)
