package virt

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"

	"drystone.example/drystone/backend/model"
)

// Disks on SATA and CD-ROM drives are served by NBD. QEMU connects when the machine
// starts, also as one that waits for a guest's memory, and again whenever the connection
// is lost; what was not answered it asks once more then.
//
// A QEMU that waits for a guest's memory must not need what is on a disk: the disk is
// the other node's still. So it is told the disk's geometry, which it would read from it.

// A CDROM is a CD-ROM drive.
type CDROM struct {
	Bus    model.DriveBus
	Slot   int    // on its bus: from 0, each once
	Socket string // of the NBD server of what is in it; empty: nothing is
	Boot   int    // as in Disk
}

const (
	scsiSlots = model.MaxCDROMs + 1 // one more than a person fills
	scsiPCI   = 16                  // slot of the SCSI controller on bus 0

	// reconnectTime is for how long QEMU lets the guest wait for a daemon, in seconds.
	reconnectTime = "86400"

	ataHeads, ataSectors = 16, 63
	ataCylinders         = 16383 // the most, and what every larger disk says
)

func (d Domain) validateDrives() error {
	sata := 0
	for i, disk := range d.Disks {
		if disk.Bus == model.BusVirtio {
			continue
		}
		if disk.Bus != model.BusSATA || disk.Size < model.MinVolumeSize {
			return model.Errorf(model.Invalid, "disk %d cannot have %d bytes on the bus %q", i, disk.Size, disk.Bus)
		}
		if err := printable("disk's serial number", disk.Serial); err != nil {
			return err
		}
		sata++
	}
	seen := map[string]bool{}
	for i, c := range d.CDROMs {
		slots := scsiSlots
		switch c.Bus { //nolint:exhaustive // the others are refused
		case model.BusSATA:
			slots = model.MaxSATA - sata
		case model.BusSCSI:
		default:
			return model.Errorf(model.Invalid, "cd-rom drive %d cannot be on the bus %q", i, c.Bus)
		}
		if c.Slot < 0 || c.Slot >= slots || seen[c.target()] {
			return model.Errorf(model.Invalid, "cd-rom drive %d has no slot %d on %s", i, c.Slot, c.Bus)
		}
		seen[c.target()] = true
		if c.Socket != "" && (!filepath.IsAbs(c.Socket) || len(c.Socket) > maxSocketPath) {
			return model.Errorf(model.Invalid, "cd-rom drive %d: the socket %q is not an absolute path of at most %d bytes",
				i, c.Socket, maxSocketPath)
		}
	}
	return nil
}

// unit is where a drive is on its bus. Disks on SATA come from the front, CD-ROM drives
// from the end, so that none of one moves another of the other.
func (c CDROM) unit() int {
	if c.Bus == model.BusSATA {
		return model.MaxSATA - 1 - c.Slot
	}
	return c.Slot
}

// target is libvirt's name of the drive.
func (c CDROM) target() string {
	if c.Bus == model.BusSATA {
		return sdName(c.unit())
	}
	return sdName(model.MaxSATA + c.unit())
}

func sdName(n int) string { return "sd" + string(rune('a'+n)) }

func driveAddress(unit int) *libvirtxml.DomainAddress {
	zero, at := uint(0), uint(unit)
	return &libvirtxml.DomainAddress{Drive: &libvirtxml.DomainAddressDrive{
		Controller: &zero, Bus: &zero, Target: &zero, Unit: &at,
	}}
}

func nbdSource(socket string) *libvirtxml.DomainDiskSource {
	return &libvirtxml.DomainDiskSource{Network: &libvirtxml.DomainDiskSourceNetwork{
		Protocol:  "nbd",
		Hosts:     []libvirtxml.DomainDiskSourceHost{{Transport: "unix", Socket: socket}},
		Reconnect: &libvirtxml.DomainDiskSourceNetworkReconnect{Delay: reconnectTime},
	}}
}

func (c CDROM) xml() libvirtxml.DomainDisk {
	out := libvirtxml.DomainDisk{
		Device:   "cdrom",
		Driver:   &libvirtxml.DomainDiskDriver{Name: "qemu", Type: "raw"},
		Target:   &libvirtxml.DomainDiskTarget{Dev: c.target(), Bus: string(c.Bus)},
		ReadOnly: &libvirtxml.DomainDiskReadOnly{},
		Boot:     bootOrder(c.Boot),
		Address:  driveAddress(c.unit()),
	}
	if c.Socket != "" {
		out.Source = nbdSource(c.Socket)
	}
	return out
}

// sataDisk is the n-th disk on SATA.
func sataDisk(n int, disk Disk) libvirtxml.DomainDisk {
	cylinders := min(max(disk.Size/(ataHeads*ataSectors*model.SectorSize), 2), ataCylinders)
	return libvirtxml.DomainDisk{
		Device:   "disk",
		Snapshot: "no",
		Driver: &libvirtxml.DomainDiskDriver{
			Name: "qemu", Type: "raw", Cache: "none", Discard: "unmap", // QEMU moves no disk that it caches
		},
		Source:   nbdSource(disk.Socket),
		Geometry: &libvirtxml.DomainDiskGeometry{Cylinders: uint(cylinders), Headers: ataHeads, Sectors: ataSectors},
		Target:   &libvirtxml.DomainDiskTarget{Dev: sdName(n), Bus: string(model.BusSATA)},
		Serial:   disk.Serial,
		Boot:     bootOrder(disk.Boot),
		Address:  driveAddress(n),
	}
}

func bootOrder(n int) *libvirtxml.DomainDeviceBoot {
	if n == 0 {
		return nil
	}
	return &libvirtxml.DomainDeviceBoot{Order: uint(n)}
}

// drives adds what is not on virtio.
func drives(list *libvirtxml.DomainDeviceList, d Domain) {
	for _, c := range d.CDROMs {
		list.Disks = append(list.Disks, c.xml())
	}
	if slices.ContainsFunc(d.CDROMs, func(c CDROM) bool { return c.Bus == model.BusSCSI }) {
		zero := uint(0)
		list.Controllers = append(list.Controllers, libvirtxml.DomainController{
			Type: "scsi", Index: &zero, Model: "virtio-scsi", Address: pciAddress(0, scsiPCI, 0),
		})
	}
}

// MatchCDROMs makes what is in the CD-ROM drives of a running guest what it should be. A
// drive that the guest has locked is opened all the same, as by the hole in its front.
func (h *Hypervisor) MatchCDROMs(ctx context.Context, vm model.VMID, want []CDROM) error {
	if err := (Domain{CDROMs: want}).validateDrives(); err != nil {
		return text(err, "change the cd-rom drives of machine %s", vm)
	}
	have, err := h.media(ctx, vm)
	if err != nil {
		return text(err, "look at the cd-rom drives of machine %s", vm)
	}
	for i, c := range want {
		socket, there := have[c.target()]
		if !there {
			return model.Errorf(model.Conflict, "machine %s runs without its cd-rom drive %d", vm, i+1)
		}
		if socket == c.Socket {
			continue
		}
		drive := c.xml()
		doc, err := drive.Marshal()
		if err != nil {
			return fmt.Errorf("describe a cd-rom drive: %w", err)
		}
		err = h.do(ctx, monitorWait, func(l *libvirt.Libvirt) error {
			return l.DomainUpdateDeviceFlags(domain(vm), doc, libvirt.DomainDeviceModifyLive|libvirt.DomainDeviceModifyForce)
		})
		if err != nil {
			return text(err, "change what is in cd-rom drive %d of machine %s", i+1, vm)
		}
	}
	return nil
}

// media are the sockets of what is in the CD-ROM drives of a guest, by libvirt's names of
// the drives.
func (h *Hypervisor) media(ctx context.Context, vm model.VMID) (map[string]string, error) {
	d, err := h.described(ctx, vm)
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	if d.Devices == nil {
		return found, nil
	}
	for _, disk := range d.Devices.Disks {
		if disk.Device != "cdrom" || disk.Target == nil {
			continue
		}
		socket := ""
		if s := disk.Source; s != nil && s.Network != nil && len(s.Network.Hosts) == 1 {
			socket = s.Network.Hosts[0].Socket
		}
		found[disk.Target.Dev] = socket
	}
	return found, nil
}

// BootOrders are the places of a machine's devices in its boot order, from 1; 0: it does
// not start from that one.
type BootOrders map[string]int

// Orders numbers names such as disk1.
func Orders(names []string) BootOrders {
	orders := BootOrders{}
	for i, name := range names {
		kind, index, err := model.ParseBootDevice(name)
		if err == nil {
			orders[string(kind)+strconv.Itoa(index)] = i + 1
		}
	}
	return orders
}

// Of is the place of the index-th device of a kind, counted from 0.
func (b BootOrders) Of(kind model.BootKind, index int) int {
	return b[string(kind)+strconv.Itoa(index)]
}
