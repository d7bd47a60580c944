package virt

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"libvirt.org/go/libvirtxml"

	"drystone.example/drystone/backend/model"
)

// Where Debian's package ovmf puts the firmware. The code is the node's own, as QEMU is: a
// guest that moves brings the code that it runs.
const (
	uefiCode   = "/usr/share/OVMF/OVMF_CODE_4M.fd"
	secureCode = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd"
	uefiVars   = "/usr/share/OVMF/OVMF_VARS_4M.fd"
	secureVars = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd" // with Microsoft's keys
)

// FlashSize is the size of the NVRAM's flash, by what the code above expects.
const FlashSize = 528 << 10

// forever is how long QEMU holds what the guest writes to its flash when the back end is
// gone, in seconds: a flash has no way to say that a write failed, and QEMU would tell the
// guest that it was done.
const forever = 365 * 24 * 3600

// nvramNode is what QEMU calls the NVRAM.
const nvramNode = "drystone-nvram"

// A Firmware is UEFI. Nil in a Domain is BIOS.
type Firmware struct {
	Secure bool   // starts only what is signed
	NVRAM  string // the socket of an NBD export of FlashSize bytes, the default one
}

// NVRAMTemplate returns what an NVRAM holds when it is new.
func NVRAMTemplate(f model.Firmware) ([]byte, error) {
	path := uefiVars
	if f == model.FirmwareSecure {
		path = secureVars
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, noFirmware(err)
	}
	if len(data) != FlashSize {
		return nil, model.Errorf(model.Unavailable, "%s has %d bytes, not the %d that are known of", path, len(data), FlashSize)
	}
	return data, nil
}

func noFirmware(err error) error {
	return model.Errorf(model.Unavailable, "this node has no UEFI firmware; install the package ovmf: %w", err)
}

func (f Firmware) code() string {
	if f.Secure {
		return secureCode
	}
	return uefiCode
}

func (f Firmware) validate() error {
	if !filepath.IsAbs(f.NVRAM) || len(f.NVRAM) > maxSocketPath {
		return model.Errorf(model.Invalid, "the NVRAM's socket %q is not an absolute path of at most %d bytes", f.NVRAM, maxSocketPath)
	}
	return nil
}

// ready says what is missing on this node.
func (f Firmware) ready() error {
	if _, err := os.Stat(f.code()); err != nil {
		return noFirmware(err)
	}
	if info, err := os.Stat(f.NVRAM); err != nil || info.Mode().Type() != os.ModeSocket {
		return model.Errorf(model.Unavailable, "nothing serves the NVRAM at %s", f.NVRAM)
	}
	return nil
}

// describe adds the firmware to a machine's description. Secure boot needs the mode of the
// processor that keeps the operating system from the flash. The NVRAM is not libvirt's,
// which has no way before 9.1 to say that QEMU is to connect again.
func (f Firmware) describe(doc *libvirtxml.Domain) error {
	doc.OS.Loader = &libvirtxml.DomainLoader{Path: f.code(), Readonly: "yes", Type: "pflash", Stateless: "yes"}
	if f.Secure {
		doc.OS.Loader.Secure = "yes"
		doc.Features.SMM = &libvirtxml.DomainFeatureSMM{State: "on"}
	}
	type server struct {
		Type string `json:"type"`
		Path string `json:"path"`
	}
	type export struct {
		Driver    string `json:"driver"`
		Server    server `json:"server"`
		Reconnect int    `json:"reconnect-delay"`
	}
	drive, err := json.Marshal(struct {
		Node   string `json:"node-name"`
		Driver string `json:"driver"`
		File   export `json:"file"`
	}{nvramNode, "raw", export{"nbd", server{"unix", f.NVRAM}, forever}})
	if err != nil {
		return fmt.Errorf("describe NVRAM: %w", err)
	}
	doc.QEMUCommandline = &libvirtxml.DomainQEMUCommandline{Args: []libvirtxml.DomainQEMUCommandlineArg{
		{Value: "-blockdev"},
		{Value: string(drive)},
		{Value: "-machine"},
		{Value: "pflash1=" + nvramNode},
	}}
	return nil
}
