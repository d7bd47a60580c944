package virt

import (
	"context"
	"os"
	"slices"
	"time"

	"github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"

	"drystone.example/drystone/backend/model"
)

// How long a guest is given to let a disk go, how often it is looked, and how often it is
// asked again: a guest that starts forgets what it was asked before.
const (
	unplugWait = 25 * time.Second
	unplugLook = 250 * time.Millisecond
	unplugAsk  = 8 * time.Second
)

// targetOf is the name of a disk, by its slot.
func targetOf(slot int) string { return "vd" + string(rune('a'+slot)) }

// diskOf reads a disk back from libvirt; its slot is -1 if it is none of ours.
func diskOf(in libvirtxml.DomainDisk) Disk {
	d := Disk{Slot: -1}
	if in.Source != nil && in.Source.VHostUser != nil && in.Source.VHostUser.UNIX != nil {
		d.Socket = in.Source.VHostUser.UNIX.Path
	}
	for slot := range maxDisks {
		if in.Target != nil && in.Target.Dev == targetOf(slot) {
			d.Slot = slot
		}
	}
	return d
}

// Disks are the disks of a running guest, as socket and slot.
func (h *Hypervisor) Disks(ctx context.Context, vm model.VMID) (list []Disk, err error) {
	d, err := h.described(ctx, vm)
	if err != nil {
		return nil, text(err, "look at the disks of machine %s", vm)
	}
	if d.Devices != nil {
		for _, in := range d.Devices.Disks {
			if disk := diskOf(in); disk.Slot >= 0 && disk.Socket != "" {
				list = append(list, disk)
			}
		}
	}
	return list, nil
}

// Plug gives a running guest a disk; its socket is served. Conflict: the slot has another.
func (h *Hypervisor) Plug(ctx context.Context, vm model.VMID, disk Disk) error {
	d := Domain{ID: vm, CPUs: 1, Memory: model.MinMemory, Hardware: Hardware, Disks: []Disk{disk}}
	if err := d.validate(); err != nil {
		return text(err, "add a disk to machine %s", vm)
	}
	if info, err := os.Stat(disk.Socket); err != nil || info.Mode().Type() != os.ModeSocket {
		return model.Errorf(model.Unavailable, "nothing serves a disk of machine %s at %s", vm, disk.Socket)
	}
	device := vhostDisk(disk, d)
	doc, err := device.Marshal()
	if err != nil {
		return text(err, "describe a disk of machine %s", vm)
	}
	return text(h.do(ctx, startWait, func(l *libvirt.Libvirt) error {
		return l.DomainAttachDeviceFlags(domain(vm), doc, uint32(libvirt.DomainDeviceModifyLive))
	}), "add a disk to machine %s", vm)
}

// Unplug has a running guest give a disk back, and returns when QEMU has let it go; one
// that it does not have is no error. A guest that knows of no such thing never does:
// Conflict, and it has the disk. It may still give it back afterwards.
func (h *Hypervisor) Unplug(ctx context.Context, vm model.VMID, disk Disk) error {
	ctx, cancel := context.WithTimeoutCause(ctx, unplugWait,
		model.Errorf(model.Conflict, "the guest has not given the disk back within %v", unplugWait))
	defer cancel()
	var asked time.Time
	for {
		have, err := h.Disks(ctx, vm)
		if err == nil && !slices.ContainsFunc(have, func(d Disk) bool { return d.Socket == disk.Socket }) {
			return nil
		}
		if err == nil && time.Since(asked) > unplugAsk {
			asked = time.Now()
			err = h.unplug(ctx, vm, disk)
		}
		if err != nil && ctx.Err() == nil && model.CodeOf(err) != model.Unavailable {
			return err
		}
		select {
		case <-time.After(unplugLook):
		case <-ctx.Done():
			return text(context.Cause(ctx), "take a disk from machine %s", vm)
		}
	}
}

// unplug asks the guest once. What QEMU says of a request before that is pending is no
// error.
func (h *Hypervisor) unplug(ctx context.Context, vm model.VMID, disk Disk) error {
	device := vhostDisk(disk, Domain{CPUs: 1, Hardware: Hardware})
	doc, err := device.Marshal()
	if err != nil {
		return text(err, "describe a disk of machine %s", vm)
	}
	err = h.do(ctx, monitorWait, func(l *libvirt.Libvirt) error {
		return l.DomainDetachDeviceFlags(domain(vm), doc, uint32(libvirt.DomainDeviceModifyLive))
	})
	if err != nil && model.CodeOf(err) != model.Conflict {
		h.log.Debug("guest was not asked for a disk", "vm", vm, "err", err)
		return nil
	}
	return text(err, "take a disk from machine %s", vm)
}
