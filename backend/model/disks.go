package model

import (
	"slices"
	"strconv"
)

// MaxDisks bounds the disks of a machine: vda to vdp.
const MaxDisks = 16

// A VMDisk attaches a volume to a machine. Where the guest finds one on virtio is its
// slot's: vda is slot 0, vdb slot 1, and so on.
type VMDisk struct {
	Volume VolumeID `json:"volume"`
	Bus    DriveBus `json:"bus,omitempty"`
	Slot   int      `json:"slot,omitempty"` // below MaxDisks, each once; see PlacedDisks
}

// Device is the disk's name, also in a boot order: it keeps it when another is taken out.
func (d VMDisk) Device() string { return string(BootDisk) + strconv.Itoa(d.Slot+1) }

// PlacedDisks are a machine's disks, each with the slot it is in. Records of before disks
// had slots, and those of new machines, have all in slot 0: they are in order.
func (v VM) PlacedDisks() []VMDisk {
	list := slices.Clone(v.Disks)
	if slices.ContainsFunc(list, func(d VMDisk) bool { return d.Slot != 0 }) {
		return list
	}
	for i := range list {
		list[i].Slot = i
	}
	return list
}

// HasDisk reports whether a volume is one of a machine's disks.
func (v VM) HasDisk(id VolumeID) bool {
	return slices.ContainsFunc(v.Disks, func(d VMDisk) bool { return d.Volume == id })
}

// FreeDiskSlot is the first slot none of the disks, which are placed, is in, or MaxDisks.
func FreeDiskSlot(disks []VMDisk) int {
	for slot := range MaxDisks {
		if !slices.ContainsFunc(disks, func(d VMDisk) bool { return d.Slot == slot }) {
			return slot
		}
	}
	return MaxDisks
}

func (v VM) validateDisks() error {
	if len(v.Disks) > MaxDisks {
		return Errorf(Invalid, "a vm has at most %d disks, not %d", MaxDisks, len(v.Disks))
	}
	placed := v.PlacedDisks()
	for i, d := range placed {
		if d.Slot < 0 || d.Slot >= MaxDisks || slices.ContainsFunc(placed[:i], func(o VMDisk) bool { return o.Slot == d.Slot }) {
			return Errorf(Invalid, "the slot %d is not one for a disk, or another's", d.Slot)
		}
	}
	return nil
}
