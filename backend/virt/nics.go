package virt

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"

	"drystone.example/drystone/backend/model"
)

// A NIC is a network card. Where the guest finds it is its slot's.
type NIC struct {
	MAC       model.MAC
	Model     model.NICModel
	Slot      int    // below model.MaxNICs, each once
	Bridge    string // of this node; empty: a user-mode network
	VLAN      int    // zero: none
	Connected bool
	Boot      int // as in Disk
}

const maxNICs = model.MaxNICs

func (d Domain) validateNICs() error {
	if d.Hardware < Placed && len(d.NICs) > 0 {
		return model.Errorf(model.Invalid, "a machine with devices of version %d has no network cards", d.Hardware)
	}
	for i, n := range d.NICs {
		switch {
		case model.NIC{MAC: n.MAC, Model: n.Model, Network: 1}.Validate() != nil:
			return model.Errorf(model.Invalid, "network card %d is not one: %s %s", i, n.Model, n.MAC)
		case n.Slot < 0 || n.Slot >= maxNICs:
			return model.Errorf(model.Invalid, "network card %d has no slot %d", i, n.Slot)
		case slices.ContainsFunc(d.NICs[:i], func(o NIC) bool { return o.Slot == n.Slot || o.MAC == n.MAC }):
			return model.Errorf(model.Invalid, "network card %d has the slot or the address of another", i)
		case n.VLAN < 0 || n.VLAN > model.MaxVLAN || n.VLAN != 0 && n.Bridge == "":
			return model.Errorf(model.Invalid, "network card %d cannot have the vlan %d", i, n.VLAN)
		}
		if err := printable("bridge", n.Bridge); err != nil {
			return err
		}
	}
	return nil
}

func (n NIC) xml() libvirtxml.DomainInterface {
	out := libvirtxml.DomainInterface{
		MAC:     &libvirtxml.DomainInterfaceMAC{Address: string(n.MAC)},
		Source:  &libvirtxml.DomainInterfaceSource{User: &libvirtxml.DomainInterfaceSourceUser{}},
		Model:   &libvirtxml.DomainInterfaceModel{Type: string(n.Model)},
		Link:    &libvirtxml.DomainInterfaceLink{State: "up"},
		ROM:     &libvirtxml.DomainROM{Enabled: "no"}, // with it a machine would try the network, unasked
		Boot:    bootOrder(n.Boot),
		Address: pciAddress(uint(nicBus+n.Slot), 0, 0),
	}
	if n.Bridge != "" {
		out.Source = &libvirtxml.DomainInterfaceSource{
			Bridge: &libvirtxml.DomainInterfaceSourceBridge{Bridge: n.Bridge},
		}
	}
	if n.Boot != 0 {
		out.ROM = nil
	}
	if n.VLAN != 0 {
		out.VLan = &libvirtxml.DomainInterfaceVLan{Tags: []libvirtxml.DomainInterfaceVLanTag{{ID: uint(n.VLAN)}}}
	}
	if !n.Connected {
		out.Link.State = "down"
	}
	return out
}

// nicOf reads a card back from libvirt.
func nicOf(in libvirtxml.DomainInterface) NIC {
	n := NIC{Slot: -1, Connected: in.Link == nil || in.Link.State != "down"}
	if in.MAC != nil {
		n.MAC = model.MAC(in.MAC.Address)
	}
	if in.Model != nil {
		n.Model = model.NICModel(in.Model.Type)
	}
	if in.Source != nil && in.Source.Bridge != nil {
		n.Bridge = in.Source.Bridge.Bridge
	}
	if in.VLan != nil && len(in.VLan.Tags) == 1 {
		n.VLAN = int(in.VLan.Tags[0].ID)
	}
	if in.Boot != nil {
		n.Boot = int(in.Boot.Order)
	}
	if a := in.Address; a != nil && a.PCI != nil && a.PCI.Bus != nil {
		n.Slot = int(*a.PCI.Bus) - nicBus
	}
	return n
}

// A nicStep is one thing to do about one card.
type nicStep struct {
	do  string // remove, update, add
	nic NIC
}

// nicSteps says what makes the cards a guest has those it should have. A card whose slot
// another still has waits for that one to go.
func nicSteps(have, want []NIC) (steps []nicStep) {
	at := func(list []NIC, slot int) (NIC, bool) {
		i := slices.IndexFunc(list, func(n NIC) bool { return n.Slot == slot })
		if i < 0 {
			return NIC{}, false
		}
		return list[i], true
	}
	for _, h := range have {
		w, wanted := at(want, h.Slot)
		switch {
		case !wanted || w.MAC != h.MAC || w.Model != h.Model || (w.Bridge == "") != (h.Bridge == ""):
			steps = append(steps, nicStep{"remove", h})
		case w != h:
			steps = append(steps, nicStep{"update", w})
		}
	}
	for _, w := range want {
		_, taken := at(have, w.Slot)
		moved := slices.ContainsFunc(have, func(h NIC) bool { return h.MAC == w.MAC })
		if !taken && !moved {
			steps = append(steps, nicStep{"add", w})
		}
	}
	return steps
}

// MatchNICs makes the network cards of a running guest those; they are validated. It
// reports whether they are: a guest lets a card go in its own time, and if it knows of no
// such thing, never. Call it again then.
func (h *Hypervisor) MatchNICs(ctx context.Context, vm model.VMID, want []NIC) (done bool, err error) {
	if err := (Domain{NICs: want, Hardware: Hardware}).validateNICs(); err != nil {
		return false, text(err, "change the network cards of machine %s", vm)
	}
	for range 2 { // what is removed at once makes room for what is added
		have, err := h.nics(ctx, vm)
		if err != nil {
			return false, text(err, "look at the network cards of machine %s", vm)
		}
		steps := nicSteps(have, want)
		if len(steps) == 0 {
			return len(have) == len(want), nil
		}
		for _, s := range steps {
			if err := h.nicStep(ctx, vm, s); err != nil {
				return false, text(err, "%s network card %s of machine %s", s.do, s.nic.MAC, vm)
			}
		}
	}
	have, err := h.nics(ctx, vm)
	if err != nil {
		return false, text(err, "look at the network cards of machine %s", vm)
	}
	return len(have) == len(want) && len(nicSteps(have, want)) == 0, nil
}

// nics are the cards of a guest as libvirt knows them.
func (h *Hypervisor) nics(ctx context.Context, vm model.VMID) (list []NIC, err error) {
	d, err := h.described(ctx, vm)
	if err != nil {
		return nil, err
	}
	if d.Devices != nil {
		for _, in := range d.Devices.Interfaces {
			list = append(list, nicOf(in))
		}
	}
	return list, nil
}

// described is a domain as libvirt knows it now.
func (h *Hypervisor) described(ctx context.Context, vm model.VMID) (d libvirtxml.Domain, err error) {
	var doc string
	err = h.do(ctx, monitorWait, func(l *libvirt.Libvirt) (err error) {
		doc, err = l.DomainGetXMLDesc(domain(vm), 0)
		return err
	})
	if err != nil {
		return d, err
	}
	if err := d.Unmarshal(doc); err != nil {
		return d, fmt.Errorf("read libvirt's description: %w", err)
	}
	return d, nil
}

// inOrderOf puts the network cards and disks of a description in the order in which a
// guest has them, which is that of their coming: libvirt compares the first with the
// first.
func inOrderOf(have libvirtxml.Domain, doc string) (string, error) {
	var d libvirtxml.Domain
	if err := d.Unmarshal(doc); err != nil {
		return "", fmt.Errorf("read a description: %w", err)
	}
	if d.Devices == nil || have.Devices == nil {
		return doc, nil
	}
	card := func(in libvirtxml.DomainInterface) int {
		return slices.IndexFunc(have.Devices.Interfaces, func(h libvirtxml.DomainInterface) bool { return nicOf(h).Slot == nicOf(in).Slot })
	}
	slices.SortStableFunc(d.Devices.Interfaces, func(a, b libvirtxml.DomainInterface) int { return cmp.Compare(card(a), card(b)) })
	disk := func(in libvirtxml.DomainDisk) int {
		return slices.IndexFunc(have.Devices.Disks, func(h libvirtxml.DomainDisk) bool {
			return h.Target != nil && in.Target != nil && h.Target.Dev == in.Target.Dev
		})
	}
	slices.SortStableFunc(d.Devices.Disks, func(a, b libvirtxml.DomainDisk) int { return cmp.Compare(disk(a), disk(b)) })
	out, err := d.Marshal()
	if err != nil {
		return "", fmt.Errorf("write a description: %w", err)
	}
	return out, nil
}

func (h *Hypervisor) nicStep(ctx context.Context, vm model.VMID, s nicStep) error {
	card := s.nic.xml()
	doc, err := card.Marshal()
	if err != nil {
		return fmt.Errorf("describe the card: %w", err)
	}
	return h.do(ctx, monitorWait, func(l *libvirt.Libvirt) error {
		const live = uint32(libvirt.DomainDeviceModifyLive)
		switch s.do {
		case "remove":
			return l.DomainDetachDeviceFlags(domain(vm), doc, live)
		case "update":
			return l.DomainUpdateDeviceFlags(domain(vm), doc, libvirt.DomainDeviceModifyLive)
		default:
			return l.DomainAttachDeviceFlags(domain(vm), doc, live)
		}
	})
}
