package model

import (
	"slices"
	"time"
	"unicode/utf8"
)

// A PowerState is what a machine should be, by its owner's will.
type PowerState string

// The states to wish for, complete.
const (
	PowerOn  PowerState = "on"
	PowerOff PowerState = "off"
)

// A VMState is what a machine is, by the report of the node it is placed on.
type VMState string

// The states of a machine, complete.
const (
	VMStopped  VMState = "stopped"
	VMStarting VMState = "starting"
	VMRunning  VMState = "running"
	VMStopping VMState = "stopping"
	VMFailed   VMState = "failed"  // Reason says why
	VMUnknown  VMState = "unknown" // its node is away
)

// A Priority says whose turn it is where there is not room for all machines.
type Priority string

// The priorities, complete, and from the last to the first.
const (
	PriorityLow    Priority = "low"
	PriorityNormal Priority = "normal"
	PriorityHigh   Priority = "high"
)

// Rank orders priorities: the higher comes first.
func (p Priority) Rank() int {
	switch p {
	case PriorityLow:
		return -1
	case PriorityNormal:
	case PriorityHigh:
		return 1
	}
	return 0
}

// A VM is the record of one virtual machine.
type VM struct {
	ID       VMID       `json:"id"`
	Name     string     `json:"name"`
	CPUs     int        `json:"cpus"`
	Memory   Bytes      `json:"memory_bytes"`
	Priority Priority   `json:"priority,omitzero"` // empty: normal
	Disks    []VMDisk   `json:"disks"`
	NICs     []NIC      `json:"nics,omitempty"` // in order of slot
	Tags     []string   `json:"tags,omitempty"` // the first groups machines
	Boot     *Boot      `json:"boot,omitempty"`
	Power    PowerState `json:"power"`
	Node     NodeID     `json:"node,omitzero"` // where it runs or shall run; zero: nowhere yet
	Status   VMStatus   `json:"status"`
	Created  time.Time  `json:"created"`

	Description string `json:"description,omitempty"` // for people

	CDROMs    []CDROM  `json:"cdroms,omitempty"`
	BootOrder []string `json:"boot_order,omitempty"` // empty: BootOrderOf says
	// Seed is the state of what cloud-init reads; zero: there is nothing to read.
	Seed uint64 `json:"seed,omitempty"`

	Migration *Migration `json:"migration,omitempty"` // under way; Node is where from
	Affinity  Affinity   `json:"affinity,omitzero"`
	Limits    IOLimits   `json:"limits,omitzero"`
	Moved     Moved      `json:"moved,omitzero"`
	Home      NodeID     `json:"home,omitzero"` // which a drain took it from; zero: none, or somebody moved it since

	Firmware Firmware `json:"firmware,omitempty"` // empty: BIOS
	NVRAM    VolumeID `json:"nvram,omitzero"`     // a volume of that kind; zero exactly with BIOS
}

// Runs reports whether a machine's guest may be running on its node.
func (v VM) Runs() bool {
	return v.Node != 0 && v.Status.State != VMStopped && v.Status.State != VMFailed
}

// A Migration moves a machine to another node while it runs. Until the record says
// that it has moved, its guest runs on the node it came from or nowhere; from then on,
// on the other or nowhere.
type Migration struct {
	Task  TaskID    `json:"task"` // of the node it comes from
	To    NodeID    `json:"to"`
	Began time.Time `json:"began"`

	For MoveReason `json:"for,omitempty"`
}

// Boot starts a machine from a kernel of its own instead of from its disk.
type Boot struct {
	Kernel FileRef `json:"kernel"`
	Initrd FileRef `json:"initrd,omitzero"`
	Append string  `json:"append,omitempty"`
}

// A FileRef names a small file that every node can fetch by its digest.
type FileRef struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"` // lower-case hex
	Size   Bytes  `json:"size_bytes"`
}

// A VMStatus is a node's last report about a machine.
type VMStatus struct {
	State  VMState   `json:"state"`
	Node   NodeID    `json:"node,omitzero"` // which node reports it
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since,omitzero"`
}

// The bounds of a machine.
const (
	MaxCPUs   = 128
	MinMemory = Bytes(32 << 20)
	MaxMemory = Bytes(4 << 40)
)

// Validate says what is wrong with a new machine, or nil.
func (v VM) Validate() error {
	if err := ValidateName("vm", v.Name); err != nil {
		return err
	}
	switch {
	case v.CPUs < 1 || v.CPUs > MaxCPUs:
		return Errorf(Invalid, "a vm has 1 to %d cpus, not %d", MaxCPUs, v.CPUs)
	case v.Memory < MinMemory || v.Memory > MaxMemory:
		return Errorf(Invalid, "a vm has %d to %d bytes of memory, not %d", MinMemory, MaxMemory, v.Memory)
	case v.Memory%(1<<20) != 0:
		return Errorf(Invalid, "memory of %d bytes is not a multiple of 1 MiB", v.Memory)
	case v.Priority != "" && v.Priority != PriorityLow && v.Priority != PriorityNormal && v.Priority != PriorityHigh:
		return Errorf(Invalid, "a vm's priority is low, normal or high, not %q", v.Priority)
	case len(v.Disks) == 0 && len(v.CDROMs) == 0 && v.Boot == nil:
		return Errorf(Invalid, "a vm needs a disk or a kernel to start from, or a cd-rom drive")
	case v.Boot != nil && len(v.Boot.Append) > 2000:
		return Errorf(Invalid, "a kernel command line has at most 2000 bytes, not %d", len(v.Boot.Append))
	case len(v.NICs) > MaxNICs:
		return Errorf(Invalid, "a vm has at most %d network cards, not %d", MaxNICs, len(v.NICs))
	}
	if err := v.Firmware.Validate(); err != nil {
		return err
	}
	if err := v.validateDrives(); err != nil {
		return err
	}
	for _, n := range v.NICs {
		if err := n.Validate(); err != nil {
			return err
		}
	}
	if err := v.validateDisks(); err != nil {
		return err
	}
	return v.validateWords()
}

// The bounds of what people say about a machine.
const (
	MaxTags        = 16
	MaxDescription = 1024 // bytes
)

func (v VM) validateWords() error {
	if len(v.Tags) > MaxTags {
		return Errorf(Invalid, "a vm has at most %d tags, not %d", MaxTags, len(v.Tags))
	}
	for i, tag := range v.Tags {
		if err := ValidateName("tag", tag); err != nil {
			return err
		}
		if slices.Contains(v.Tags[:i], tag) {
			return Errorf(Invalid, "the tag %q is given twice", tag)
		}
	}
	if len(v.Description) > MaxDescription || !utf8.ValidString(v.Description) {
		return Errorf(Invalid, "a description is text of at most %d bytes", MaxDescription)
	}
	for _, r := range v.Description {
		if r < ' ' && r != '\n' || r == 0x7f {
			return Errorf(Invalid, "a description cannot hold the character %U", r)
		}
	}
	if err := v.Limits.Validate(); err != nil {
		return err
	}
	return v.Affinity.Validate()
}
