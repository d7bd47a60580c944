package api

import (
	"context"
	"io"
	"time"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/console"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

// A Service does what takes more than reading or writing the record: it decides
// where things go, reaches into other nodes, and moves bytes. Every method may be
// called from many goroutines at once, on any node; the actor has been allowed to
// do it, and its text (names, sizes) has not been validated beyond its JSON
// shape. Errors carry a model.Code; one without counts as internal and its text
// stays in the log. Methods return soon after ctx ends.
type Service interface {
	Storage
	Machines
	Members
	Reports
}

// Storage makes and moves volumes.
type Storage interface {
	// CreateVolume places a new volume's columns and records it.
	CreateVolume(ctx context.Context, by model.Actor, spec schema.VolumeSpec) (model.Volume, error)

	// ResizeVolume changes a volume's size, also under a running holder.
	ResizeVolume(ctx context.Context, by model.Actor, id model.VolumeID, size model.Bytes) (model.Volume, error)

	// DeleteVolume forgets a volume. It refuses one that a machine has or that
	// is held.
	DeleteVolume(ctx context.Context, by model.Actor, id model.VolumeID) error

	// CreateSnapshot cuts a snapshot of a volume at one moment, also while it is
	// written to. Its name is valid.
	CreateSnapshot(ctx context.Context, by model.Actor, id model.VolumeID, name string) (model.Snapshot, error)

	// DeleteSnapshot forgets a snapshot at once; its space is freed later.
	DeleteSnapshot(ctx context.Context, by model.Actor, id model.SnapshotID) error

	// RevertSnapshot begins to make the snapshot's volume what it was then. The
	// volume as it is becomes a snapshot of the name keep first, unless that is
	// empty. The volume must not be in use.
	RevertSnapshot(ctx context.Context, by model.Actor, s model.Snapshot, keep string) (model.Volume, error)

	// CancelRevert ends a revert that has not changed anything yet.
	CancelRevert(ctx context.Context, by model.Actor, id model.VolumeID) (model.Volume, error)
	// CloneVolume makes a volume that begins as another one is, or was when a snapshot
	// of it was cut; zero: as it is. It copies no data, and the clone needs neither
	// afterwards. Its name is valid.
	CloneVolume(ctx context.Context, by model.Actor, id model.VolumeID, at model.SnapshotID,
		name string) (model.Volume, error)

	// AddDisk makes a file or block device of a node part of the pool. With a
	// size, a file of that size is made first.
	AddDisk(ctx context.Context, by model.Actor, node model.NodeID, spec schema.DiskSpec) (model.Disk, error)

	// ScrubDisk begins to verify all data of a disk, or goes on with it, and returns
	// the task that does. It is a conflict while one does already.
	ScrubDisk(ctx context.Context, by model.Actor, d model.Disk) (schema.Task, error)

	// CreateVMSnapshots cuts all volumes of a machine at one moment, all or none. Their
	// name is valid.
	CreateVMSnapshots(ctx context.Context, by model.Actor, id model.VMID, name string) ([]model.Snapshot, error)

	// DiffSnapshots finds what was changed from one snapshot of a volume to a later
	// one, or up to now if that is zero, in a volume of so many bytes then. It calls
	// each with ranges in order, none of which touch, and up to where all were told.
	DiffSnapshots(ctx context.Context, from, to model.Snapshot, size model.Bytes,
		each func(done model.Bytes, ranges []schema.ByteRange) error) error

	// ScrubVolume begins to compare the copies of a volume, and returns the task that
	// does. It is a conflict while one does already.
	ScrubVolume(ctx context.Context, by model.Actor, v model.Volume) (schema.Task, error)

	// Export serves a volume from this node. It calls ready once, with the
	// URI, when clients can connect; then it blocks until ctx ends (which
	// ends the export cleanly, and then it returns nil) or the export fails.
	Export(ctx context.Context, by model.Actor, e Export, ready func(uri string) error) error

	// ImportImage reads an image file from body and makes a volume of it.
	// Progress is called as it goes on, never concurrently. If ctx ends or
	// the import fails nothing is left behind.
	ImportImage(ctx context.Context, by model.Actor, i Import, body io.Reader,
		progress func(schema.ImportEvent)) (model.Volume, error)

	// ImportFile makes a volume of an image file on this node, which it only reads.
	// Progress is called as it goes on, never concurrently. If ctx ends or the import
	// fails nothing is left behind; with model.Invalid it is the file's fault.
	ImportFile(ctx context.Context, by model.Actor, i Import, path string,
		progress func(schema.ImportEvent)) (model.Volume, error)

	// PutFile keeps a small file (a kernel, an initrd) where every node can
	// fetch it. It refuses a body that does not have the digest in ref; the
	// size in ref is what the client announced, or -1.
	PutFile(ctx context.Context, by model.Actor, ref model.FileRef, body io.Reader) (model.FileRef, error)
}

// An Export is a volume, or a snapshot of it, to serve from this node.
type Export struct {
	Volume   model.VolumeID
	Snapshot model.SnapshotID // of the volume, to be read; zero: the volume itself
	Kind     schema.ExportKind
	Path     string // absolute, of the socket; empty: the node chooses
}

// An Import is an image to make a volume of.
type Import struct {
	Name   string // of the volume, valid
	Format schema.ImageFormat
	Size   int64 // of the file, or -1
	Copies int
}

// Machines makes, starts and stops virtual machines.
type Machines interface {
	// CreateVM records a machine and makes the volumes it needs. If that
	// fails or ctx ends nothing is left behind.
	CreateVM(ctx context.Context, by model.Actor, spec VMSpec) (model.VM, error)

	// ChangeVM changes a machine's record, and makes volumes for the disks to add and, if
	// the firmware is to change, for its NVRAM; if that fails or ctx ends, none of those
	// is left behind. Disks to remove of a machine
	// that runs are given back by its guest first; what it keeps makes all of it fail
	// with Conflict, and nothing is changed.
	ChangeVM(ctx context.Context, by model.Actor, change command.VMUpdate, add []DiskFrom) (model.VM, error)

	// ExportVM writes a machine to a file in e.Dir, or to e.Path, and returns the path.
	// Progress is called as it goes on, never concurrently. If ctx ends or the export
	// fails nothing is left behind in e.Path or the record.
	ExportVM(ctx context.Context, by model.Actor, e VMExport, progress func(schema.VMExportEvent)) (string, error)

	// ImportVM makes a machine of an archive, and says in sentences what of it could
	// not be taken over. If ctx ends or the import fails nothing is left behind; with
	// model.Invalid it is the file's fault.
	ImportVM(ctx context.Context, by model.Actor, i VMImport, progress func(schema.ImportEvent)) (model.VM, []string, error)

	// Spare is what the nodes have for machines.
	Spare(ctx context.Context) schema.Spare

	// PowerVM wishes a machine into a state and returns its record after; it
	// does not wait for the guest. For start, node may name where; zero
	// lets the cluster choose.
	PowerVM(ctx context.Context, by model.Actor, id model.VMID, do schema.PowerAction,
		node model.NodeID) (model.VM, error)

	// MigrateVM begins to move a running machine to another node, which is chosen
	// if to is zero, and returns the task. It is given up after limit, or after a usual
	// time if that is zero.
	MigrateVM(ctx context.Context, by model.Actor, id model.VMID, to model.NodeID,
		limit time.Duration) (schema.Task, error)

	// DeleteVM forgets a machine that is off, and its volumes unless told to
	// keep them.
	DeleteVM(ctx context.Context, by model.Actor, id model.VMID, keepDisks bool) error

	// ConsoleTicket makes a ticket to a console of a running machine, which its
	// node keeps.
	ConsoleTicket(ctx context.Context, ask console.Ask) (console.Ticket, error)

	// OpenConsole opens a console with a ticket, on whichever node the machine
	// runs. The caller closes it; ctx bounds only the opening.
	OpenConsole(ctx context.Context, h console.Hello) (*console.Line, error)

	// Picture takes a screenshot of a running machine, as a PNG file.
	Picture(ctx context.Context, id model.VMID) ([]byte, error)
}

// A VMExport is what is to be made of a machine.
type VMExport struct {
	VM       model.VMID
	Snapshot string // empty: as it is, switched off
	Format   schema.ExportFormat
	Path     string // on this node, in a folder that its configuration allows; else Dir
	Dir      string // an empty folder of the node's own
}

// A VMImport is a machine to be made of an archive.
type VMImport struct {
	Name string // empty: as the archive says
	Path string // of the archive, on this node
}

// A VMSpec is a machine to be made, with its references resolved.
type VMSpec struct {
	Name   string
	CPUs   int
	Memory model.Bytes
	Disks  []DiskFrom
	NICs   []model.NIC
	Boot   *model.Boot

	Priority    model.Priority
	Tags        []string
	Description string

	CDROMs    []model.CDROM
	BootOrder []string
	Seed      *command.Seed
	Firmware  model.Firmware
	NVRAM     model.VolumeID // zero: a new one, if the firmware needs one
}

// A DiskFrom says where one disk comes from; exactly one of the first three fields is set.
type DiskFrom struct {
	Size   model.Bytes    // a new, empty volume
	Image  model.VolumeID // a new volume, a clone of this image
	Volume model.VolumeID // this volume

	Bus model.DriveBus
}

// Members changes who belongs to the cluster.
type Members interface {
	// DrainNode wishes that no machine runs on a node, or, with cancel, that they may
	// again. It returns the node's record, and why machines cannot leave it or come back.
	DrainNode(ctx context.Context, by model.Actor, id model.NodeID, cancel bool) (model.Node, map[model.VMID]string, error)

	// RemoveNode takes a node out for ever; its certificate is refused at once.
	RemoveNode(ctx context.Context, by model.Actor, id model.NodeID) error

	// CreateToken makes a join token. Its secret is in the answer and nowhere else.
	CreateToken(ctx context.Context, by model.Actor, spec schema.TokenSpec) (schema.NewToken, error)

	// Join redeems a token. The caller is not known; from is its address.
	// A wrong, used or expired token is one and the same error, model.Denied.
	Join(ctx context.Context, from string, req schema.JoinRequest) (schema.JoinAnswer, error)

	// RotateKey begins to replace the gossip key; it is a conflict while one is being
	// replaced. GossipKey says how far that is.
	RotateKey(ctx context.Context, by model.Actor) (schema.GossipKey, error)
	GossipKey(ctx context.Context) (schema.GossipKey, error)

	// RotateCA replaces the root that signs; it is a conflict while one is being
	// replaced. CA says how far that is. FinishCA stops trusting the root before,
	// though nodes that are away cannot come back then.
	RotateCA(ctx context.Context, by model.Actor) (schema.CA, error)
	CA(ctx context.Context) (schema.CA, error)
	FinishCA(ctx context.Context, by model.Actor) (schema.CA, error)
}

// Reports is what nodes say about themselves, as heard last. These methods do
// not wait for other nodes; who was never heard of is not in the answer.
type Reports interface {
	// Nodes is how the members are.
	Nodes(ctx context.Context) map[model.NodeID]NodeReport

	// Disks is how full the disks are, and their errors.
	Disks(ctx context.Context) map[model.DiskID]model.DiskUsage

	// Volumes is what the volumes take up, and how far their filling is.
	Volumes(ctx context.Context) map[model.VolumeID]VolumeReport

	// Leader is who leads, if that is known here; quorum is whether changes
	// can be made now.
	Leader() (id model.NodeID, quorum bool)

	// Leading is what the leader alone knows.
	Leading(ctx context.Context) model.Leading

	// Tasks is the long work of all nodes that can be reached, newest first.
	Tasks(ctx context.Context) ([]schema.Task, error)

	// CancelTask asks a running task to stop and leave nothing behind.
	CancelTask(ctx context.Context, by model.Actor, id model.TaskID) error
}

// A NodeReport is how a member is.
type NodeReport struct {
	Up         bool
	Since      time.Time // of Up
	Version    string
	CPUs       int
	Memory     model.Bytes
	Hypervisor bool
	Accel      string // kvm or tcg, with a hypervisor
}

// A VolumeReport is what the members of a volume and its holder say.
type VolumeReport struct {
	Used model.Bytes  // on the disks, one copy counted
	Fill *schema.Fill // while members are joining
	Lost []model.LostRange

	Waits   string          // why requests wait, or fail; empty: they do not
	Tending *schema.Tending // while its holder frees or reverts
}
