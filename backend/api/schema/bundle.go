package schema

import (
	"time"

	"drystone.example/drystone/backend/model"
)

// An ExportFormat says as what a machine is exported.
type ExportFormat string

// The formats of exports, complete.
const (
	ExportQcow2 ExportFormat = "qcow2" // qcow2 images and our own description
	ExportOVA   ExportFormat = "ova"   // for other products
)

// A VMExportSpec asks for an export of a machine.
type VMExportSpec struct {
	Format   ExportFormat `json:"format" enum:"qcow2,ova"`
	Snapshot string       `json:"snapshot,omitempty" maxLength:"63" doc:"of all its disks, cut at one moment; without it, the machine is to be off"`
	Path     string       `json:"path,omitempty" maxLength:"1024" doc:"on the node, in a folder that export_dirs of its node.json names; without it, the export can be downloaded for an hour"`
}

// PhasePack follows PhaseConvert; an export has no other phases.
const PhasePack = "pack"

// A VMExportEvent is one line of the answer to an export. The last one has one of Download,
// Path and Error.
type VMExportEvent struct {
	Phase    string      `json:"phase,omitempty" enum:"convert,pack"`
	Done     model.Bytes `json:"done_bytes,omitempty"`
	Total    model.Bytes `json:"total_bytes,omitempty"`
	Download *Download   `json:"download,omitempty"`
	Path     string      `json:"path,omitempty"`
	Error    *LineError  `json:"error,omitempty"`
}

// A Download is a file that a node made, and keeps until it expires.
type Download struct {
	ID      model.DownloadID `json:"id"`
	File    string           `json:"file"`
	Size    model.Bytes      `json:"size_bytes"`
	Expires time.Time        `json:"expires"`
}

// A VMImportSpec says that all of an archive was sent that is to become a machine.
type VMImportSpec struct {
	Name   string `json:"name,omitempty" maxLength:"63" doc:"without it, as the archive says"`
	SHA256 string `json:"sha256,omitempty" maxLength:"64" doc:"of the whole file, in lower-case hex; it is compared first"`
}
