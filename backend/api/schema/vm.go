package schema

import (
	"time"

	"drystone.example/drystone/backend/model"
)

// A VM is one virtual machine.
type VM struct {
	ID       model.VMID       `json:"id"`
	Name     string           `json:"name"`
	CPUs     int              `json:"cpus"`
	Memory   model.Bytes      `json:"memory_bytes"`
	Priority model.Priority   `json:"priority" enum:"low,normal,high"`
	Disks    []VMDisk         `json:"disks"`
	NICs     []NIC            `json:"nics"`
	Tags     []string         `json:"tags" doc:"the first groups machines"`
	Boot     *model.Boot      `json:"boot,omitempty"`
	Power    model.PowerState `json:"power" enum:"on,off"`
	Node     model.NodeID     `json:"node"` // where it runs or shall run; empty: nowhere yet
	NodeName string           `json:"node_name"`
	MovesTo  string           `json:"moves_to,omitempty"` // the node it is being migrated to
	Status   VMStatus         `json:"status"`
	Created  time.Time        `json:"created"`

	Description string `json:"description"`

	Prefer    string   `json:"prefer,omitempty" doc:"name of the node it rather runs on"`
	Backup    string   `json:"backup,omitempty" doc:"name of the node for where that one cannot be"`
	Strict    bool     `json:"strict" doc:"it runs on these two nodes only"`
	Apart     []string `json:"apart" doc:"groups of machines of which no two run on one node while another can take one"`
	ReturnsTo string   `json:"returns_to,omitempty" doc:"the node that a drain took it from"`

	Limits IOLimits `json:"limits" doc:"of each of its disks"`

	CDROMs    []CDROM        `json:"cdroms"`
	BootOrder []string       `json:"boot_order" doc:"disk1, cdrom1, nic1 and so on"`
	CloudInit bool           `json:"cloud_init" doc:"whether there is something for cloud-init to read"`
	Firmware  model.Firmware `json:"firmware" enum:"bios,uefi,uefi-secure" doc:"what starts it"`
	NVRAM     *VMDisk        `json:"nvram,omitempty" doc:"the volume with what its firmware remembers, if that is UEFI; it is none of its disks"`
}

// IOLimits bound what each disk of a machine does.
type IOLimits struct {
	IOPS  int64       `json:"iops" doc:"requests a second; 0: no limit"`
	Bytes model.Bytes `json:"bytes_per_second" doc:"read and written; 0: no limit"`
	Burst int64       `json:"burst_seconds" doc:"so many seconds' worth that it left unused it may make up for at once"`
}

// A VMStatus is the last report about a machine.
type VMStatus struct {
	State  model.VMState `json:"state" enum:"stopped,starting,running,stopping,failed,unknown"`
	Node   model.NodeID  `json:"node"`
	Reason string        `json:"reason"`
	Since  time.Time     `json:"since,omitzero"`
}

// A VMDisk is a volume attached to a machine.
type VMDisk struct {
	Volume model.VolumeID `json:"volume"`
	Device string         `json:"device" doc:"disk1, disk2, ..., by its slot, which it keeps; on virtio guests usually call the first vda"`
	Name   string         `json:"name"`
	Bus    DiskBus        `json:"bus" enum:"virtio,sata"`
	Size   model.Bytes    `json:"size_bytes"`
	Used   model.Bytes    `json:"used_bytes"`
	State  VolumeState    `json:"state" enum:"healthy,degraded,unavailable"`
}

// A DiskBus is how a guest sees a disk.
type DiskBus string

// The buses, complete.
const (
	DiskVirtio DiskBus = "virtio"
	DiskSATA   DiskBus = "sata"
)

// A VMSpec asks for a machine.
type VMSpec struct {
	Name   string      `json:"name" maxLength:"63"`
	CPUs   int         `json:"cpus"`
	Memory model.Bytes `json:"memory_bytes"`
	Disks  []DiskFrom  `json:"disks" maxItems:"16"`
	Boot   *model.Boot `json:"boot,omitempty"`

	NICs []NICSpec `json:"nics,omitempty" maxItems:"8"`

	Tags        []string `json:"tags,omitempty" maxItems:"16" doc:"the first groups machines"`
	Description string   `json:"description,omitempty" maxLength:"1024"`

	CDROMs    []CDROMSpec    `json:"cdroms,omitempty" maxItems:"4"`
	BootOrder []string       `json:"boot_order,omitempty" maxItems:"28" doc:"disk1, cdrom1, nic1 and so on; the first disk, then the CD-ROM drives unless given"`
	CloudInit *CloudInit     `json:"cloud_init,omitempty"`
	Firmware  model.Firmware `json:"firmware,omitempty" enum:"bios,uefi,uefi-secure" doc:"what starts it; uefi-secure starts only what is signed with Microsoft's keys; bios unless given"`
	NVRAM     string         `json:"nvram,omitempty" maxLength:"63" doc:"a volume that is an NVRAM, as a clone of another machine's, for UEFI; a new one unless given"`

	Priority model.Priority `json:"priority,omitempty" enum:"low,normal,high" doc:"whose turn it is when a node is lost and the others have not room for all; normal where none is given"`
}

// A VMChange replaces what is given of a machine. Its name, processors and memory need it
// to be off. Network cards and disks are removed first, then changed, then added. A disk that is
// removed from a machine that runs is given back by its guest first; if it does not do so, the
// answer is conflict and nothing is changed.
type VMChange struct {
	Name     *string         `json:"name,omitempty" maxLength:"63"`
	CPUs     *int            `json:"cpus,omitempty"`
	Memory   *model.Bytes    `json:"memory_bytes,omitempty"`
	Priority *model.Priority `json:"priority,omitempty" enum:"low,normal,high"`

	Tags        *[]string `json:"tags,omitempty" maxItems:"16"`
	Description *string   `json:"description,omitempty" maxLength:"1024"`

	RemoveNICs []string    `json:"remove_nics,omitempty" maxItems:"8" doc:"their addresses"`
	SetNICs    []NICChange `json:"set_nics,omitempty" maxItems:"8"`
	AddNICs    []NICSpec   `json:"add_nics,omitempty" maxItems:"8"`

	RemoveDisks []string   `json:"remove_disks,omitempty" maxItems:"16" doc:"their volumes, which stay"`
	AddDisks    []DiskFrom `json:"add_disks,omitempty" maxItems:"16"`

	Prefer *string   `json:"prefer,omitempty" maxLength:"63" doc:"the node it rather runs on; empty: none"`
	Backup *string   `json:"backup,omitempty" maxLength:"63" doc:"the node for where that one cannot be; empty: none"`
	Strict *bool     `json:"strict,omitempty" doc:"it runs on these two nodes only"`
	Apart  *[]string `json:"apart,omitempty" maxItems:"8" doc:"groups of machines of which no two run on one node while another can take one"`

	CDROMs    *[]CDROMSpec    `json:"cdroms,omitempty" maxItems:"4" doc:"all of them; only what is in them changes while it is on"`
	BootOrder *[]string       `json:"boot_order,omitempty" maxItems:"28" doc:"needs it to be off; empty: the first disk, then the CD-ROM drives"`
	CloudInit *CloudInit      `json:"cloud_init,omitempty" doc:"read when it is started next; with nothing in it: none"`
	Firmware  *model.Firmware `json:"firmware,omitempty" enum:"bios,uefi,uefi-secure" doc:"with a new NVRAM; needs it to be off"`

	IOPS    *int64       `json:"limit_iops,omitempty" minimum:"0" maximum:"10000000" doc:"requests a second of each of its disks, 10 at least; 0: no limit"`
	IOBytes *model.Bytes `json:"limit_bytes_per_second,omitempty" minimum:"0" maximum:"1099511627776" doc:"read and written a second by each of its disks, 1 MiB at least; 0: no limit"`
	IOBurst *int64       `json:"limit_burst_seconds,omitempty" minimum:"0" maximum:"3600" doc:"so many seconds' worth that a disk left unused it may make up for at once"`
}

// A DiskFrom says where one disk of a new machine comes from, by exactly one of the
// size, the image and the volume.
type DiskFrom struct {
	Size   model.Bytes `json:"size_bytes,omitempty" doc:"a new, empty volume"`
	Image  string      `json:"image,omitempty" maxLength:"63" doc:"a new volume, a copy of this image"`
	Volume string      `json:"volume,omitempty" maxLength:"63" doc:"a volume that exists"`
	Bus    DiskBus     `json:"bus,omitempty" enum:"virtio,sata" doc:"virtio unless given"`
}

// A PowerAction is what to do to a machine.
type PowerAction string

// The actions, complete.
const (
	PowerStart    PowerAction = "start"
	PowerStop     PowerAction = "stop"     // at once, as if unplugged
	PowerShutdown PowerAction = "shutdown" // by asking the guest
	PowerReset    PowerAction = "reset"
)

// A StartSpec may name the node to start a machine on.
type StartSpec struct {
	Node string `json:"node,omitempty" maxLength:"63"`
}

// A MigrateSpec may name the node to move a machine to.
type MigrateSpec struct {
	Node    string `json:"node,omitempty" maxLength:"63"`
	Seconds int    `json:"limit_seconds,omitempty" minimum:"1" maximum:"86400" doc:"how long copying the memory may take; 600 unless given"`
}

// A ConsoleSpec asks for a way to a machine's console.
type ConsoleSpec struct {
	Kind string `json:"kind" enum:"screen,serial"`
	Mode string `json:"mode,omitempty" enum:"use,watch,take" doc:"use: write unless somebody else does, and watch otherwise; watch: only watch; take: write, and end the console of who did; use unless given"`
}

// A ConsoleTicket opens one console, once, within seconds, for the session that asked
// for it.
type ConsoleTicket struct {
	Ticket  string    `json:"ticket"`
	Expires time.Time `json:"expires"`
	URL     string    `json:"url"` // path of the websocket
}

// A ConsoleNotice is a text message of a console's websocket: who is there. It comes
// first, and again whenever that changes.
type ConsoleNotice struct {
	Writes   bool     `json:"writes"` // whether this websocket may write
	Writer   string   `json:"writer"` // who does; empty: nobody
	Watchers []string `json:"watchers"`
}

// CloseTaken is the code with which a console's websocket is closed when somebody
// takes over.
const CloseTaken = 4001
