package model

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A DriveBus is how a guest sees a disk or a CD-ROM drive.
type DriveBus string

// The buses, complete. A disk is on virtio or, for guests without a driver for that, on
// SATA; a CD-ROM drive is on SATA or, for guests without a driver for that, on SCSI.
const (
	BusVirtio DriveBus = "" // disks only
	BusSATA   DriveBus = "sata"
	BusSCSI   DriveBus = "scsi" // virtio; CD-ROM drives only
)

// A CDROM is a CD-ROM drive of a machine. The image in it is read by as many machines at
// the same time as want to.
//
// Invariant: an image in a drive is nobody's disk and is not deleted, so what a guest
// reads of it does not change.
type CDROM struct {
	Image VolumeID `json:"image,omitzero"` // zero: the drive is empty
	Bus   DriveBus `json:"bus"`
}

// The bounds of a machine's drives.
const (
	MaxCDROMs = 4
	MaxSATA   = 6        // disks and CD-ROM drives
	MaxSeed   = 64 << 10 // bytes, of the user data and of the meta data
)

// OnBus returns a machine's disks on one bus.
func (v VM) OnBus(bus DriveBus) (disks []VMDisk) {
	for _, d := range v.Disks {
		if d.Bus == bus {
			disks = append(disks, d)
		}
	}
	return disks
}

// HasImage reports whether a volume is in a CD-ROM drive of the machine.
func (v VM) HasImage(id VolumeID) bool {
	return id != 0 && slices.ContainsFunc(v.CDROMs, func(d CDROM) bool { return d.Image == id })
}

func (v VM) validateDrives() error {
	if len(v.CDROMs) > MaxCDROMs {
		return Errorf(Invalid, "a vm has at most %d cd-rom drives, not %d", MaxCDROMs, len(v.CDROMs))
	}
	sata := 0
	for _, d := range v.Disks {
		switch d.Bus { //nolint:exhaustive // the others are refused
		case BusVirtio:
		case BusSATA:
			sata++
		default:
			return Errorf(Invalid, "a disk is on virtio or sata, not on %q", d.Bus)
		}
	}
	for _, d := range v.CDROMs {
		switch d.Bus { //nolint:exhaustive // the others are refused
		case BusSCSI:
		case BusSATA:
			sata++
		default:
			return Errorf(Invalid, "a cd-rom drive is on sata or scsi, not on %q", d.Bus)
		}
	}
	if sata > MaxSATA {
		return Errorf(Invalid, "a vm has at most %d drives on sata, not %d", MaxSATA, sata)
	}
	return nil
}

// A BootKind is what a machine may start from.
type BootKind string

// The kinds, complete.
const (
	BootDisk  BootKind = "disk"
	BootCDROM BootKind = "cdrom"
	BootNIC   BootKind = "nic"
)

// ParseBootDevice reads the name of what a machine may start from: disk, cdrom or nic,
// and which of these, from 1; the first where that is not said. Disks and network cards are
// counted by their slot, so that they keep their names when another is taken out.
func ParseBootDevice(name string) (kind BootKind, index int, err error) {
	for _, kind := range []BootKind{BootDisk, BootCDROM, BootNIC} {
		number, ok := strings.CutPrefix(name, string(kind))
		if !ok {
			continue
		}
		n, err := strconv.Atoi(number)
		if number == "" {
			n, err = 1, nil
		}
		if err == nil && n >= 1 && n <= maxBootIndex && (number == "" || number == strconv.Itoa(n)) {
			return kind, n - 1, nil
		}
	}
	return "", 0, Errorf(Invalid, "a machine starts from disk1, cdrom1, nic1 and so on, not from %.20q", name)
}

const maxBootIndex = 64

// ValidateBootOrder says what is wrong with a new boot order of the machine, or nil.
// Something that is taken out later is passed over.
func (v VM) ValidateBootOrder(order []string) error {
	type device struct {
		kind  BootKind
		index int
	}
	seen := map[device]bool{}
	for _, name := range order {
		kind, i, err := ParseBootDevice(name)
		if err != nil {
			return err
		}
		there := false
		switch kind {
		case BootDisk:
			there = slices.ContainsFunc(v.PlacedDisks(), func(d VMDisk) bool { return d.Slot == i })
		case BootCDROM:
			there = i < len(v.CDROMs)
		case BootNIC:
			there = slices.ContainsFunc(v.NICs, func(n NIC) bool { return n.Slot == i })
		}
		if !there {
			return Errorf(Invalid, "the machine has no %s%d to start from", kind, i+1)
		}
		if seen[device{kind, i}] {
			return Errorf(Invalid, "the machine is to start from %s%d twice", kind, i+1)
		}
		seen[device{kind, i}] = true
	}
	return nil
}

// BootOrderOf returns what the machine starts from, in order: as was wished, or from its
// first disk and then its CD-ROM drives.
func (v VM) BootOrderOf() []string {
	if len(v.BootOrder) > 0 {
		return v.BootOrder
	}
	var order []string
	if disks := v.PlacedDisks(); len(disks) > 0 {
		order = append(order, disks[0].Device())
	}
	for i := range v.CDROMs {
		order = append(order, string(BootCDROM)+strconv.Itoa(i+1))
	}
	return order
}

// A Seed is what cloud-init in a guest reads at its first start (NoCloud). It may hold
// passwords, so it is kept beside the machine's record and shown to nobody.
type Seed struct {
	User Secret // user data
	Meta Secret // meta data; empty: the machine's identifier and name
}

// Validate says what is wrong with a seed, or nil. It does not quote it.
func (s Seed) Validate() error {
	for what, text := range map[string]string{"user data": s.User.Reveal(), "meta data": s.Meta.Reveal()} {
		if len(text) > MaxSeed || !utf8.ValidString(text) {
			return Errorf(Invalid, "the %s is text of at most %d bytes", what, MaxSeed)
		}
	}
	return nil
}
