package model

// Firmware is what starts a machine before its operating system.
type Firmware string

// The firmware there is, complete.
const (
	FirmwareBIOS   Firmware = "bios"        // the empty Firmware means it too
	FirmwareUEFI   Firmware = "uefi"        // remembers in the machine's NVRAM
	FirmwareSecure Firmware = "uefi-secure" // and starts only what Microsoft's keys have signed
)

// NVRAMSize is the size of a volume that is a machine's NVRAM. The firmware's flash is at
// its beginning.
const NVRAMSize = MinVolumeSize

// UEFI reports whether the firmware has an NVRAM.
func (f Firmware) UEFI() bool { return f == FirmwareUEFI || f == FirmwareSecure }

// Validate says what is wrong with it, or nil.
func (f Firmware) Validate() error {
	switch f {
	case "", FirmwareBIOS, FirmwareUEFI, FirmwareSecure:
		return nil
	}
	return Errorf(Invalid, "a vm's firmware is bios, uefi or uefi-secure, not %.20q", f)
}

// Volumes are all volumes of a machine: those of its disks, then its NVRAM.
func (v VM) Volumes() []VolumeID {
	var all []VolumeID
	for _, d := range v.Disks {
		all = append(all, d.Volume)
	}
	if v.NVRAM != 0 {
		all = append(all, v.NVRAM)
	}
	return all
}
