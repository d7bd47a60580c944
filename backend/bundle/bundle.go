// Package bundle describes machines in files, so that one can leave a cluster and come
// into another: as a description of our own (machine.json, docs/FORMATS.md), or as the OVF
// descriptor of an OVA. Both lie in a tar archive beside the machine's disks, or in a folder.
//
// It knows the descriptions and the archives. What a disk's image has in it is for others
// to judge.
package bundle

import (
	"encoding/json"
	"strings"
	"time"

	"drystone.example/drystone/backend/model"
)

// What our own description is called and says of itself.
const (
	File    = "machine.json"
	Kind    = "drystone-machine"
	Version = 1
)

// The bounds of what strangers describe.
const (
	maxDescription = 1 << 20 // bytes
	maxDisks       = 16
)

// A Machine is a machine as a description has it. From an OVF not all is known.
type Machine struct {
	Kind     string    `json:"kind"`
	Version  int       `json:"version"`
	Exported time.Time `json:"exported,omitzero"`
	Snapshot string    `json:"snapshot,omitempty"` // it is as this was; empty: as when it was off

	Name        string         `json:"name"`
	Description string         `json:"description,omitempty"`
	Tags        []string       `json:"tags,omitempty"`
	CPUs        int            `json:"cpus"`
	Memory      model.Bytes    `json:"memory_bytes"`
	Priority    model.Priority `json:"priority,omitempty"`
	Firmware    model.Firmware `json:"firmware,omitempty"` // empty: bios
	Boot        *model.Boot    `json:"boot,omitempty"`     // the files are not in the export
	Disks       []Disk         `json:"disks"`
	NICs        []NIC          `json:"nics,omitempty"`

	CDROMs    []model.DriveBus `json:"cdroms,omitempty"` // their buses; what is in them is not in the export
	BootOrder []string         `json:"boot_order,omitempty"`
}

// A Disk is one disk of a machine, in the order the guest sees them.
type Disk struct {
	File     string      `json:"file,omitempty"` // beside the description; empty: the disk is
	Format   string      `json:"format"`         // as qemu-img calls it; empty: it is found
	Size     model.Bytes `json:"size_bytes"`     // of the disk
	FileSize model.Bytes `json:"file_bytes"`
	SHA256   string      `json:"sha256,omitempty"` // of the file, in lower-case hex

	Bus model.DriveBus `json:"bus,omitempty"`

	sha1 string // what older OVAs have
}

// A NIC is one network card of a machine.
type NIC struct {
	Network      string         `json:"network"` // its name where it came from
	Model        model.NICModel `json:"model"`
	MAC          model.MAC      `json:"mac,omitempty"`
	Disconnected bool           `json:"disconnected,omitempty"`
}

// Marshal is the machine's own description.
func (m Machine) Marshal() ([]byte, error) {
	m.Kind, m.Version = Kind, Version
	text, err := json.MarshalIndent(m, "", "  ")
	return append(text, '\n'), err
}

// Unmarshal reads what Marshal wrote, of this version. The code is Invalid for all else.
func Unmarshal(text []byte) (m Machine, err error) {
	if err := json.Unmarshal(text, &m); err != nil {
		return m, model.Errorf(model.Invalid, "the description of the machine cannot be read: %w", err)
	}
	switch {
	case m.Kind != Kind:
		return m, model.Errorf(model.Invalid, "%s describes no machine", File)
	case m.Version != Version:
		return m, model.Errorf(model.Invalid, "the machine is described in version %d, and only %d is understood here", m.Version, Version)
	}
	for _, d := range m.Disks {
		if d.File == "" || d.SHA256 == "" {
			return m, model.Errorf(model.Invalid, "the description of the machine lacks a disk's file or digest")
		}
	}
	return m, m.check()
}

// check refuses a description whose files could lie elsewhere.
func (m Machine) check() error {
	if len(m.Disks) > maxDisks {
		return model.Errorf(model.Invalid, "the machine has %d disks; at most %d are taken", len(m.Disks), maxDisks)
	}
	seen := map[string]bool{File: true}
	for _, d := range m.Disks {
		switch {
		case d.File == "":
		case strings.ContainsAny(d.File, "/\x00"), d.File == ".", d.File == "..":
			return model.Errorf(model.Invalid, "a disk's file lies beside the description, %.100q does not", d.File)
		case seen[d.File]:
			return model.Errorf(model.Invalid, "the file %.100q is named twice", d.File)
		}
		seen[d.File] = true
	}
	return nil
}
