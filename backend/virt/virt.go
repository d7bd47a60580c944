// Package virt runs machines through libvirt: it turns a Domain into libvirt's
// XML, starts and stops it, says what runs, and opens its consoles.
//
// It decides nothing and remembers nothing: libvirt and QEMU keep their state
// through a restart of the daemon, and a new Hypervisor finds everything again.
//
// Every call is bounded. A QEMU whose main loop hangs (a vhost-user back end that
// does not answer does that) makes calls about that machine fail with Unavailable
// after their time, never the ones about others; Destroy ends it all the same.
//
// Codes: NotFound (no such machine here), Conflict (it is in another state),
// Invalid (libvirt or QEMU will never accept it), Unavailable (no libvirt, or no
// answer in time: nothing is known of the outcome, look again).
package virt

import (
	"log/slog"
	"time"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/proc"
)

// SystemURI is the machine's own libvirtd.
const SystemURI = "qemu+unix:///system?socket=/run/libvirt/libvirt-sock"

// A Config says where machines run.
type Config struct {
	// URI of libvirtd in libvirt's own notation, with the socket's path in it:
	// qemu+unix:///system?socket=PATH. `virsh -c URI` takes it too.
	URI string

	// Dir is where each machine's folder is made: sockets and the serial log.
	// QEMU's user must be able to pass through the folders above it.
	Dir string

	// Accelerator is what runs the guests' code; see Accelerator.
	Accelerator Accelerator

	Log *slog.Logger
}

// A Domain is a machine as it is to be started: what of its record the hypervisor
// needs, with every reference resolved to a path on this node.
type Domain struct {
	ID       model.VMID
	Name     string // shown by virsh; changes nothing
	Revision uint64 // of the record it was made from; Guest gives it back
	CPUs     int
	Memory   model.Bytes
	Disks    []Disk
	NICs     []NIC
	CDROMs   []CDROM
	Kernel   *Kernel   // nil: it boots from what has a place in the boot order
	Firmware *Firmware // nil: BIOS
	Hardware int       // the version of its devices: Hardware, or that of a guest that runs
}

// Hardware is the version of the devices that a machine is started with: 1 has a USB
// bus with a tablet, by which a guest's pointer is where the person's is; 2 has fixed
// addresses and room for devices that come and go, network cards among them. A guest keeps
// its version until it is started anew, also when it moves: QEMU takes a guest's state
// only into the same devices.
const Hardware = 2

// Placed is the first version of the devices that has fixed addresses.
const Placed = 2

// A Disk is a vhost-user-blk back end. The guest finds it where its slot is: vda is slot
// 0, vdb slot 1, ... QEMU connects to
// the socket when the machine starts and again, once a second, whenever the
// connection is lost. A disk on SATA is an NBD server instead.
type Disk struct {
	Socket    string
	Bus       model.DriveBus // virtio or SATA
	Slot      int            // below model.MaxDisks, each once
	Size      model.Bytes    // on SATA
	Serial    string         // on SATA
	Boot      int            // its place in the boot order, from 1; zero: the machine does not start from it
	Queues    int            // zero: one per CPU, at most 4
	QueueSize int            // zero: 128
}

// A Kernel starts a machine without a boot loader. The paths are on this node.
type Kernel struct {
	Path   string
	Initrd string // empty: none
	Append string
}

// A State is what libvirt says of a machine.
type State string

// The states, complete.
const (
	Running  State = "running"
	Paused   State = "paused"   // vCPUs stopped: a save, a migration, an I/O error
	Stopping State = "stopping" // the guest is shutting down
	Stopped  State = "stopped"  // defined, no process
	Crashed  State = "crashed"  // the guest's kernel gave up, or QEMU died
)

// A Guest is a machine libvirt knows.
type Guest struct {
	VM       model.VMID
	Revision uint64
	Hardware int // of Domain
	State    State
	Reason   string  // libvirt's word for why: booted, shutdown, destroyed, crashed, failed, ...
	Process  proc.ID // zero unless there is a QEMU
}

// An Event says that a machine's state changed. Events are hints: they may come
// twice, late, and in a burst as one Resync; look at the machine itself.
type Event struct {
	VM     model.VMID // zero: Resync
	State  State
	Reason string

	// Resync says that events may have been missed (libvirtd came back, or the
	// reader was slow): list the guests again. It is the first event there is.
	Resync bool
}

// Stats is what a machine has used. CPU and Resident are always right; the
// others come from QEMU by way of libvirt and are zero when it does not say.
type Stats struct {
	VM       model.VMID
	CPU      time.Duration // of the whole QEMU process since its start
	Resident model.Bytes   // of the host's memory
	Memory   model.Bytes   // what the guest has now, by its balloon
	Unused   model.Bytes   // what the guest's kernel has free, if its driver says
	Usable   model.Bytes   // what it could free without swapping, if its driver says
}
