package virt

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"libvirt.org/go/libvirtxml"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/proc"
)

// metadataURI names the element in which a domain carries its record's identity.
const metadataURI = "https://drystone.example/libvirt/1"

// metadata is that element. libvirt gives it back without its name space.
type metadata struct {
	XMLName  xml.Name   `xml:"machine"`
	Space    string     `xml:"xmlns,attr"`
	ID       model.VMID `xml:"id"`
	Revision uint64     `xml:"revision"`
	Hardware int        `xml:"hardware,omitempty"`
}

// The bounds that keep a mistake from libvirt's more obscure errors.
const (
	maxDisks      = model.MaxDisks
	maxQueues     = 16
	maxQueueSize  = 1024
	defaultQueues = 4
	defaultSize   = 128
	maxSocketPath = 107
)

// domainName is what libvirt calls a machine.
func domainName(vm model.VMID) string { return proc.GuestPrefix + vm.String() }

// domainUUID derives a machine's UUID, which its guest sees too, from its
// identifier: the same on every node and for ever.
func domainUUID(vm model.VMID) (uuid [16]byte) {
	var id [8]byte
	binary.BigEndian.PutUint64(id[:], uint64(vm))
	sum := sha256.Sum256(append([]byte("drystone machine "), id[:]...))
	copy(uuid[:], sum[:])
	uuid[6] = uuid[6]&0x0f | 0x80 // version 8: made by a rule of our own
	uuid[8] = uuid[8]&0x3f | 0x80
	return uuid
}

func formatUUID(u [16]byte) string {
	s := hex.EncodeToString(u[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

// validate says what is wrong with a domain, or nil.
func (d Domain) validate() error {
	switch {
	case d.ID == 0:
		return model.Errorf(model.Invalid, "a machine needs an identifier")
	case d.CPUs < 1 || d.CPUs > model.MaxCPUs:
		return model.Errorf(model.Invalid, "a machine has 1 to %d cpus, not %d", model.MaxCPUs, d.CPUs)
	case d.Memory < model.MinMemory || d.Memory > model.MaxMemory || d.Memory%(1<<20) != 0:
		return model.Errorf(model.Invalid, "a machine cannot have %d bytes of memory", d.Memory)
	case len(d.Disks) > maxDisks:
		return model.Errorf(model.Invalid,
			"a machine has at most %d disks, not %d", maxDisks, len(d.Disks))
	case len(d.Disks) == 0 && len(d.CDROMs) == 0 && d.Kernel == nil:
		return model.Errorf(model.Invalid, "a machine needs a disk or a kernel to start from, or a cd-rom drive")
	case d.Kernel != nil && !filepath.IsAbs(d.Kernel.Path):
		return model.Errorf(model.Invalid, "the kernel's path %q is not absolute", d.Kernel.Path)
	case d.Kernel != nil && d.Kernel.Initrd != "" && !filepath.IsAbs(d.Kernel.Initrd):
		return model.Errorf(model.Invalid, "the initrd's path %q is not absolute", d.Kernel.Initrd)
	}
	if d.Firmware != nil {
		if err := d.Firmware.validate(); err != nil {
			return err
		}
	}
	if err := printable("name", d.Name); err != nil {
		return err
	}
	if d.Kernel != nil {
		if err := printable("kernel command line", d.Kernel.Append); err != nil {
			return err
		}
	}
	for i, disk := range d.Disks {
		switch {
		case !filepath.IsAbs(disk.Socket) || len(disk.Socket) > maxSocketPath:
			return model.Errorf(model.Invalid,
				"disk %d: the socket %q is not an absolute path of at most %d bytes",
				i, disk.Socket, maxSocketPath)
		case disk.Slot < 0 || disk.Slot >= maxDisks || d.Hardware < Placed && disk.Slot != i ||
			slices.ContainsFunc(d.Disks[:i], func(o Disk) bool { return o.Slot == disk.Slot }):
			return model.Errorf(model.Invalid, "disk %d cannot have the slot %d", i, disk.Slot)
		case disk.Queues < 0 || disk.Queues > maxQueues:
			return model.Errorf(model.Invalid,
				"disk %d has at most %d queues, not %d", i, maxQueues, disk.Queues)
		case disk.QueueSize != 0 && (disk.QueueSize < 2 || disk.QueueSize > maxQueueSize ||
			disk.QueueSize&(disk.QueueSize-1) != 0):
			return model.Errorf(model.Invalid,
				"disk %d: a queue's size is a power of two up to %d, not %d",
				i, maxQueueSize, disk.QueueSize)
		}
	}
	if err := d.validateDrives(); err != nil {
		return err
	}
	return d.validateNICs()
}

// printable refuses what XML or QEMU's command line could not carry unchanged.
func printable(what, s string) error {
	for _, r := range s {
		if r < ' ' || r == 0x7f || r == 0xfffd || r == 0xfffe || r == 0xffff {
			return model.Errorf(model.Invalid, "the %s of a machine holds the character %U", what, r)
		}
	}
	return nil
}

// xml makes libvirt's description of a validated domain.
func (h *Hypervisor) xml(d Domain) (string, error) {
	meta, err := xml.Marshal(metadata{Space: metadataURI, ID: d.ID, Revision: d.Revision, Hardware: d.Hardware})
	if err != nil {
		return "", fmt.Errorf("describe machine %s: %w", d.ID, err)
	}
	doc := libvirtxml.Domain{
		Type:     "qemu",
		Name:     domainName(d.ID),
		UUID:     formatUUID(domainUUID(d.ID)),
		Title:    d.Name,
		Metadata: &libvirtxml.DomainMetadata{XML: string(meta)},
		Memory:   &libvirtxml.DomainMemory{Value: uint(d.Memory >> 10), Unit: "KiB"},
		MemoryBacking: &libvirtxml.DomainMemoryBacking{ // vhost-user back ends map it
			MemorySource: &libvirtxml.DomainMemorySource{Type: "memfd"},
			MemoryAccess: &libvirtxml.DomainMemoryAccess{Mode: "shared"},
		},
		VCPU: &libvirtxml.DomainVCPU{Value: uint(d.CPUs)},
		OS: &libvirtxml.DomainOS{
			Type: &libvirtxml.DomainOSType{Arch: "x86_64", Machine: "q35", Type: "hvm"},
		},
		Features: &libvirtxml.DomainFeatureList{
			ACPI: &libvirtxml.DomainFeature{},
			APIC: &libvirtxml.DomainFeatureAPIC{},
		},
		CPU:        &libvirtxml.DomainCPU{Mode: "maximum"},
		Clock:      &libvirtxml.DomainClock{Offset: "utc"},
		OnPoweroff: "destroy",
		OnReboot:   "restart",
		OnCrash:    "destroy",
		Devices:    h.devices(d),
		// QEMU runs as this user and nothing is given to it: files it only reads
		// (kernels, shared by machines) stay somebody else's.
		SecLabel: []libvirtxml.DomainSecLabel{{
			Type: "static", Model: "dac", Relabel: "no",
			Label: fmt.Sprintf("+%d:+%d", h.user.uid, h.user.gid),
		}},
	}
	if h.accel == KVM {
		doc.Type = "kvm"
		doc.CPU = &libvirtxml.DomainCPU{Mode: "host-passthrough", Migratable: "on"}
	}
	if d.Kernel != nil {
		doc.OS.Kernel, doc.OS.Initrd, doc.OS.Cmdline = d.Kernel.Path, d.Kernel.Initrd, d.Kernel.Append
	}
	if d.Firmware != nil {
		if err := d.Firmware.describe(&doc); err != nil {
			return "", err
		}
	}
	out, err := doc.Marshal()
	if err != nil {
		return "", fmt.Errorf("describe machine %s: %w", d.ID, err)
	}
	return out, nil
}

func (h *Hypervisor) devices(d Domain) *libvirtxml.DomainDeviceList {
	zero := uint(0)
	list := &libvirtxml.DomainDeviceList{
		Controllers: []libvirtxml.DomainController{{Type: "usb", Model: "none"}},
		Serials: []libvirtxml.DomainSerial{{
			Source: unixListener(h.serialSocket(d.ID)),
			Target: &libvirtxml.DomainSerialTarget{Type: "isa-serial", Port: &zero},
			Log:    &libvirtxml.DomainChardevLog{File: h.serialLog(d.ID), Append: "on"},
		}},
		Channels: []libvirtxml.DomainChannel{{ // libvirt itself is its reader
			Source: unixListener(""),
			Target: &libvirtxml.DomainChannelTarget{
				VirtIO: &libvirtxml.DomainChannelTargetVirtIO{Name: "org.qemu.guest_agent.0"},
			},
		}},
		Graphics: []libvirtxml.DomainGraphic{{VNC: &libvirtxml.DomainGraphicVNC{
			SharePolicy: "force-shared",
			Listeners: []libvirtxml.DomainGraphicListener{{
				Socket: &libvirtxml.DomainGraphicListenerSocket{Socket: h.displaySocket(d.ID)},
			}},
		}}},
		Videos: []libvirtxml.DomainVideo{{
			Model: libvirtxml.DomainVideoModel{Type: "vga", VRam: 16 << 10},
		}},
		MemBalloon: &libvirtxml.DomainMemBalloon{
			Model: "virtio", Stats: &libvirtxml.DomainMemBalloonStats{Period: balloonPeriod},
		},
		RNGs: []libvirtxml.DomainRNG{{
			Model: "virtio",
			Backend: &libvirtxml.DomainRNGBackend{
				Random: &libvirtxml.DomainRNGBackendRandom{Device: "/dev/urandom"},
			},
		}},
	}
	if d.Hardware >= 1 { // keys are the PS/2 keyboard's, which every guest can read
		list.Controllers[0].Model = "qemu-xhci"
		list.Inputs = []libvirtxml.DomainInput{{ // libvirt compares the address when a guest moves
			Type: "tablet", Bus: "usb",
			Address: &libvirtxml.DomainAddress{USB: &libvirtxml.DomainAddressUSB{Bus: &zero, Port: "1"}},
		}}
	}
	sata := 0
	for _, disk := range d.Disks {
		if disk.Bus == model.BusSATA {
			list.Disks = append(list.Disks, sataDisk(sata, disk))
			sata++
			continue
		}
		list.Disks = append(list.Disks, vhostDisk(disk, d))
	}
	for _, nic := range d.NICs {
		list.Interfaces = append(list.Interfaces, nic.xml())
	}
	if d.Hardware >= Placed {
		place(list)
	}
	drives(list, d)
	return list
}

// balloonPeriod is how often a guest's driver is asked for its memory, in seconds.
const balloonPeriod = 5

func unixListener(path string) *libvirtxml.DomainChardevSource {
	return &libvirtxml.DomainChardevSource{
		UNIX: &libvirtxml.DomainChardevSourceUNIX{Mode: "bind", Path: path},
	}
}

func vhostDisk(disk Disk, d Domain) libvirtxml.DomainDisk {
	queues, size := uint(min(d.CPUs, defaultQueues)), uint(defaultSize)
	if disk.Queues != 0 {
		queues = uint(disk.Queues)
	}
	if disk.QueueSize != 0 {
		size = uint(disk.QueueSize)
	}
	retry := uint(1) // seconds
	out := libvirtxml.DomainDisk{
		Device:   "disk",
		Snapshot: "no",
		Driver: &libvirtxml.DomainDiskDriver{
			Name: "qemu", Type: "raw", Queues: &queues, QueueSize: &size,
		},
		Source: &libvirtxml.DomainDiskSource{
			VHostUser: &libvirtxml.DomainDiskSourceVHostUser{
				UNIX: &libvirtxml.DomainChardevSourceUNIX{
					Path: disk.Socket,
					Reconnect: &libvirtxml.DomainChardevSourceReconnect{
						Enabled: "yes", Timeout: &retry,
					},
				},
			},
		},
		Target: &libvirtxml.DomainDiskTarget{Dev: targetOf(disk.Slot), Bus: "virtio"},
		Boot:   bootOrder(disk.Boot),
	}
	if d.Hardware >= Placed {
		out.Address = pciAddress(uint(diskBus+disk.Slot), 0, 0)
	}
	return out
}

// parseMetadata reads the element back from libvirt.
func parseMetadata(doc string) (m metadata, err error) {
	if err := xml.Unmarshal([]byte(doc), &m); err != nil {
		return m, fmt.Errorf("read a machine's metadata: %w", err)
	}
	return m, nil
}

// vmOf reads a machine's identifier from its name, if it is ours.
func vmOf(name string) (model.VMID, bool) {
	text, ok := strings.CutPrefix(name, proc.GuestPrefix)
	if !ok {
		return 0, false
	}
	vm, err := model.ParseID[model.VMID](text)
	return vm, err == nil
}

// memory reads a number of KiB among libvirt's typed parameters.
func memory(v any) model.Bytes {
	n, err := strconv.ParseInt(fmt.Sprint(v), 10, 64)
	if err != nil || n < 0 || n > int64(model.MaxMemory>>10) {
		return 0
	}
	return model.Bytes(n << 10)
}
