package command

import "drystone.example/drystone/backend/model"

// VMCreate makes a machine that is off. Its volumes must be there and belong to
// no other machine. Returns the model.VM.
type VMCreate struct {
	ID     model.VMID     `json:"id"`
	Name   string         `json:"name"`
	CPUs   int            `json:"cpus"`
	Memory model.Bytes    `json:"memory"`
	Disks  []model.VMDisk `json:"disks"`
	Boot   *model.Boot    `json:"boot,omitempty"`

	Priority model.Priority `json:"priority,omitempty"`
	NICs     []model.NIC    `json:"nics,omitempty"` // their slots are set by the record

	Tags        []string `json:"tags,omitempty"`
	Description string   `json:"description,omitempty"`

	CDROMs    []model.CDROM  `json:"cdroms,omitempty"`
	BootOrder []string       `json:"boot_order,omitempty"`
	Seed      *Seed          `json:"seed,omitempty"`
	Firmware  model.Firmware `json:"firmware,omitempty"`
	NVRAM     model.VolumeID `json:"nvram,omitzero"` // for UEFI and only for that
}

// A Seed is a model.Seed that crosses the log.
type Seed struct {
	User Secret `json:"user"`
	Meta Secret `json:"meta"`
}

// Model is what it says.
func (s Seed) Model() model.Seed { return model.Seed{User: s.User.Secret, Meta: s.Meta.Secret} }

// VMUpdate replaces what is not nil of a machine, which has to be off for all but the
// priority, the affinity, the limits, the network cards, the disks that come and go, the
// images in its CD-ROM drives, what cloud-init reads if it reads something, the tags and
// the description.
// Cards are removed first, then changed, then added; the slots of those added are set by
// the record. So are disks. While a machine is being migrated its cards and disks stay as
// they are. Returns the model.VM.
type VMUpdate struct {
	VM     model.VMID      `json:"vm"`
	Name   *string         `json:"name,omitempty"`
	CPUs   *int            `json:"cpus,omitempty"`
	Memory *model.Bytes    `json:"memory,omitempty"`
	Disks  *[]model.VMDisk `json:"disks,omitempty"`
	Boot   *model.Boot     `json:"boot,omitempty"`

	Priority *model.Priority `json:"priority,omitempty"`

	// Of the affinity; zero and empty take away.
	Prefer *model.NodeID `json:"prefer,omitempty"`
	Backup *model.NodeID `json:"backup,omitempty"`
	Strict *bool         `json:"strict,omitempty"`
	Apart  *[]string     `json:"apart,omitempty"`

	Tags        *[]string `json:"tags,omitempty"`
	Description *string   `json:"description,omitempty"`

	RemoveNICs []model.MAC       `json:"remove_nics,omitempty"`
	SetNICs    []model.NICChange `json:"set_nics,omitempty"`
	AddNICs    []model.NIC       `json:"add_nics,omitempty"`

	RemoveDisks []model.VolumeID `json:"remove_disks,omitempty"`
	AddDisks    []model.VolumeID `json:"add_disks,omitempty"`
	Released    model.NodeID     `json:"released,omitzero"` // whose guest has given back the disks to remove

	// Of the limits.
	IOPS    *int64       `json:"iops,omitempty"`
	IOBytes *model.Bytes `json:"io_bytes,omitempty"`
	IOBurst *int64       `json:"io_burst,omitempty"`

	CDROMs    *[]model.CDROM `json:"cdroms,omitempty"` // while it is on only the images in them change
	BootOrder *[]string      `json:"boot_order,omitempty"`
	Seed      *Seed          `json:"seed,omitempty"` // with nothing in it: there is none any more
	// Firmware comes with an NVRAM of its own, if it is UEFI; that of the firmware before
	// is forgotten, unless it has snapshots: then it is a Conflict.
	Firmware *model.Firmware `json:"firmware,omitempty"`
	NVRAM    model.VolumeID  `json:"nvram,omitzero"`
}

// HasNICs reports whether something of the network cards is to change.
func (c VMUpdate) HasNICs() bool { return len(c.RemoveNICs)+len(c.SetNICs)+len(c.AddNICs) > 0 }

// HasDisks reports whether disks are to come or go.
func (c VMUpdate) HasDisks() bool { return len(c.RemoveDisks)+len(c.AddDisks) > 0 }

// NeedsOff reports whether something is to change that no running machine can change.
func (c VMUpdate) NeedsOff() bool {
	return c.Name != nil || c.CPUs != nil || c.Memory != nil || c.Disks != nil || c.Boot != nil || c.BootOrder != nil ||
		c.Firmware != nil
}

// VMPower says what a machine shall be. With a node, a machine that is stopped
// is also placed there; one that is not stopped is not moved by it, and another
// node than its own is refused. Returns the model.VM.
type VMPower struct {
	VM    model.VMID       `json:"vm"`
	Power model.PowerState `json:"power"`
	Node  model.NodeID     `json:"node,omitzero"`
}

// VMPlace says where a machine shall run; zero is nowhere. It is compare-and-swap
// on the node it is placed on. That the guest does not run any more where it was
// (its node said so, or has lost its lease) is the leader's to see, before it
// proposes. Returns the model.VM, also with the Conflict.
type VMPlace struct {
	VM       model.VMID   `json:"vm"`
	Node     model.NodeID `json:"node"`
	Expected model.NodeID `json:"expected"`
}

// VMReport is a node's word about a machine placed on it; from any other node it
// is refused with model.Conflict and changes nothing. Returns the model.VM, also
// with the Conflict.
type VMReport struct {
	VM     model.VMID    `json:"vm"`
	Node   model.NodeID  `json:"node"`
	State  model.VMState `json:"state"`
	Reason string        `json:"reason,omitempty"`
}

// VMMigrate begins a live migration of a machine that runs on From. Returns the
// model.VM.
type VMMigrate struct {
	VM   model.VMID   `json:"vm"`
	Task model.TaskID `json:"task"`
	From model.NodeID `json:"from"`
	To   model.NodeID `json:"to"`

	For model.MoveReason `json:"for,omitempty"`
}

// VMMigrateEnd decides how a live migration ended. Moved: all of the guest's memory is
// on the other node, and the guest at rest on this one; from now on it may run there,
// and here never again. Otherwise it runs on here. Conflict: another end was decided
// before, or the machine is not being migrated; nothing is changed. Returns the
// model.VM, also with the Conflict.
type VMMigrateEnd struct {
	VM    model.VMID   `json:"vm"`
	Task  model.TaskID `json:"task"`
	From  model.NodeID `json:"from"`
	Moved bool         `json:"moved"`
}

// VMConsole says that somebody opened a machine's console, or closed it. It changes
// nothing: it is for the audit log. Returns nothing.
type VMConsole struct {
	VM      model.VMID `json:"vm"`
	Console string     `json:"console"` // "screen" or "serial"
	Writes  bool       `json:"writes,omitempty"`
	Closed  bool       `json:"closed,omitempty"`
}

// VMDelete forgets a machine that is off and stopped, and with Disks its volumes
// too, by the rules of VolumeDelete: all or nothing. Returns the model.VM as it
// was.
type VMDelete struct {
	VM    model.VMID `json:"vm"`
	Disks bool       `json:"disks,omitempty"`
}

// Kind implements Command, here and below.
func (VMCreate) Kind() Kind { return KindVMCreate }
func (VMUpdate) Kind() Kind { return KindVMUpdate }
func (VMPower) Kind() Kind  { return KindVMPower }
func (VMPlace) Kind() Kind  { return KindVMPlace }
func (VMReport) Kind() Kind { return KindVMReport }
func (VMDelete) Kind() Kind { return KindVMDelete }

func (VMMigrate) Kind() Kind    { return KindVMMigrate }
func (VMMigrateEnd) Kind() Kind { return KindVMMigrateEnd }
func (VMConsole) Kind() Kind    { return KindVMConsole }

// Object implements Command, here and below.
func (c VMCreate) Object() string { return "vm " + c.ID.String() }
func (c VMUpdate) Object() string { return "vm " + c.VM.String() }
func (c VMPower) Object() string  { return "vm " + c.VM.String() }
func (c VMPlace) Object() string  { return "vm " + c.VM.String() }
func (c VMReport) Object() string { return "vm " + c.VM.String() }
func (c VMDelete) Object() string { return "vm " + c.VM.String() }

func (c VMMigrate) Object() string    { return "vm " + c.VM.String() }
func (c VMMigrateEnd) Object() string { return "vm " + c.VM.String() }
func (c VMConsole) Object() string    { return "vm " + c.VM.String() }
