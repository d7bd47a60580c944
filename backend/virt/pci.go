package virt

import "libvirt.org/go/libvirtxml"

// Where a guest finds its devices is said here and not left to libvirt, which would put
// them elsewhere when one was added or removed meanwhile: a guest that migrates must find
// each where it was. What may come and go while a guest runs has a root port of its own,
// for QEMU adds devices nowhere else.
//
//	bus 0          slot 1 the screen, 2 the channel's controller, 3 balloon, 4 random numbers,
//	               5 to 7 the root ports, eight in each, 8 USB, 16 SCSI where it is needed
//	bus 1 to 16    disks
//	bus 17 to 24   network cards
const (
	channelSlot = 2
	balloonSlot = 3
	randomSlot  = 4
	portSlot    = 5
	usbSlot     = portSlot + (lastBus-diskBus)/portsPerSlot + 1

	diskBus = 1
	nicBus  = diskBus + maxDisks
	lastBus = nicBus + maxNICs - 1

	portsPerSlot = 8
)

func pciAddress(bus, slot, function uint) *libvirtxml.DomainAddress {
	domain := uint(0)
	return &libvirtxml.DomainAddress{PCI: &libvirtxml.DomainAddressPCI{
		Domain: &domain, Bus: &bus, Slot: &slot, Function: &function,
	}}
}

// place gives every device of a machine its address.
func place(list *libvirtxml.DomainDeviceList) {
	zero := uint(0)
	list.MemBalloon.Address = pciAddress(0, balloonSlot, 0)
	list.RNGs[0].Address = pciAddress(0, randomSlot, 0)
	list.Controllers[0].Address = pciAddress(0, usbSlot, 0)
	list.Controllers = append(list.Controllers,
		libvirtxml.DomainController{Type: "virtio-serial", Index: &zero, Address: pciAddress(0, channelSlot, 0)},
		libvirtxml.DomainController{Type: "pci", Index: &zero, Model: "pcie-root"})
	for bus := uint(diskBus); bus <= lastBus; bus++ {
		n := bus - diskBus
		at := pciAddress(0, portSlot+n/portsPerSlot, n%portsPerSlot)
		if n%portsPerSlot == 0 {
			at.PCI.MultiFunction = "on"
		}
		list.Controllers = append(list.Controllers, libvirtxml.DomainController{
			Type: "pci", Index: &bus, Model: "pcie-root-port", Address: at,
		})
	}
}
