package schema

import (
	"time"

	"drystone.example/drystone/backend/model"
)

// A VolumeState says how well a volume is protected.
type VolumeState string

// The states of a volume, complete.
const (
	VolumeHealthy     VolumeState = "healthy"     // every column has all its copies
	VolumeDegraded    VolumeState = "degraded"    // some column has fewer copies than asked for
	VolumeUnavailable VolumeState = "unavailable" // some column has no copy within reach
)

// A Volume is one virtual disk. Lists leave Columns out.
type Volume struct {
	ID               model.VolumeID   `json:"id"`
	Name             string           `json:"name"`
	Kind             model.VolumeKind `json:"kind" enum:"disk,image,nvram"`
	Size             model.Bytes      `json:"size_bytes"`
	Used             model.Bytes      `json:"used_bytes" doc:"what its data takes on the disks, in pages of 64 KiB, one copy counted; those it shares with clones count in full for each"`
	Copies           int              `json:"copies"`
	Holder           model.NodeID     `json:"holder"`
	HolderName       string           `json:"holder_name"`
	Purpose          model.Purpose    `json:"purpose"`
	Generation       model.Generation `json:"generation"`
	Epoch            model.Epoch      `json:"epoch"`
	State            VolumeState      `json:"state" enum:"healthy,degraded,unavailable"`
	Waits            string           `json:"waits,omitempty" doc:"why requests to it wait, or fail, such as that a disk has no room; absent: they do not"`
	Fill             *Fill            `json:"fill,omitempty"`
	Lost             *Lost            `json:"lost,omitempty" doc:"what has no good copy any more; absent if nothing"`
	Scrub            *VolumeScrub     `json:"scrub,omitempty" doc:"what the last comparison of its copies found; absent: there was none"`
	Tending          *Tending         `json:"tending,omitempty"`
	AttachedTo       model.VMID       `json:"attached_to,omitzero"`
	Created          time.Time        `json:"created"`
	ColumnsTotal     int              `json:"columns_total"`
	ColumnsOutOfSync int              `json:"columns_out_of_sync"`
	Columns          []Column         `json:"columns,omitempty"`

	CloneOf model.VolumeID `json:"clone_of,omitzero" doc:"the volume it is a clone of, for the moment it still needs it"`
}

// A Lost is the part of a volume that no disk has a good copy of. Reads of it fail
// until it is written again.
type Lost struct {
	Size   model.Bytes       `json:"size_bytes"`
	Count  int               `json:"count" doc:"how many ranges that is"`
	Ranges []model.LostRange `json:"ranges" doc:"the first hundred; those that only snapshots lack come last"`
}

// A VolumeScrub is what a comparison of a volume's copies found.
type VolumeScrub struct {
	Ended     time.Time   `json:"ended"`
	Compared  model.Bytes `json:"compared_bytes"`
	Skipped   model.Bytes `json:"skipped_bytes" doc:"of which one copy was in reach"`
	Different int         `json:"different_pages" doc:"that had an older copy, or none, which cannot be; they were made equal"`
	Diverged  int         `json:"diverged_pages" doc:"whose copies claim to be the same and are not; nothing was changed"`
}

// A Fill is how far the copying to joining members has come.
type Fill struct {
	Done  model.Bytes `json:"done_bytes"`
	Total model.Bytes `json:"total_bytes"`
}

// A Tending is what goes on with a volume's snapshots in the background: what
// deleted ones have left is freed, or the volume is reverted to one and cannot be
// used meanwhile.
type Tending struct {
	Kind     TendingKind `json:"kind" enum:"freeing,reverting"`
	Snapshot string      `json:"snapshot,omitempty" doc:"that the volume is reverted to"`
	Done     model.Bytes `json:"done_bytes"`
	Total    model.Bytes `json:"total_bytes" doc:"zero while nobody is at it"`
	Error    string      `json:"error,omitempty" doc:"why it does not get on"`
}

// A TendingKind is what is done.
type TendingKind string

// The kinds, complete.
const (
	Freeing   TendingKind = "freeing"
	Reverting TendingKind = "reverting"
)

// A Column is one stripe's mirrored home.
type Column struct {
	Members []Member `json:"members"`
}

// A Member is one disk's part in a column.
type Member struct {
	Disk  model.DiskID      `json:"disk"`
	Node  model.NodeID      `json:"node"`
	State model.MemberState `json:"state" enum:"active,joining,stale"`
}

// A CloneSpec asks for a clone of a volume.
type CloneSpec struct {
	Name     string `json:"name" maxLength:"63"`
	Snapshot string `json:"snapshot,omitempty" maxLength:"63" doc:"name of a snapshot of the volume; without it, as it is now"`
}

// A VolumeSpec asks for a volume.
type VolumeSpec struct {
	Name   string      `json:"name" maxLength:"63"`
	Size   model.Bytes `json:"size_bytes"`
	Copies int         `json:"copies,omitempty" default:"2"`
	Force  bool        `json:"force,omitempty" doc:"also if the pool is so full that new volumes are refused"`
}

// A VolumeChange asks for a volume to be another size.
type VolumeChange struct {
	Size model.Bytes `json:"size_bytes"`
}

// An ExportSpec asks a node to serve a volume to a program beside it.
type ExportSpec struct {
	Kind ExportKind `json:"kind" enum:"nbd,vhost"`
	Path string     `json:"path,omitempty" maxLength:"4096" doc:"absolute path of the socket; only over the node's own socket"`
}

// An ExportKind names a protocol that a volume can be served by.
type ExportKind string

// The kinds of exports, complete.
const (
	ExportNBD   ExportKind = "nbd"
	ExportVhost ExportKind = "vhost"
)

// An ExportEvent is one line of the answer to an export: the first one says
// where it is ready, a last one with Error says why it ended.
type ExportEvent struct {
	Ready string     `json:"ready,omitempty"`
	Error *LineError `json:"error,omitempty"`
}

// An ImageFormat names a format that images are read in. It is said, or found by the node.
// No tool guesses it.
type ImageFormat string

// The formats of images, complete.
const (
	Qcow2 ImageFormat = "qcow2"
	Raw   ImageFormat = "raw"
	VMDK  ImageFormat = "vmdk"
	VHDX  ImageFormat = "vhdx"
	VHD   ImageFormat = "vhd"
	OVA   ImageFormat = "ova" // an archive with one disk

	FoundFormat ImageFormat = "" // the node finds it by what is in the file
)

// ImageFormats are the formats that can be named.
var ImageFormats = []ImageFormat{Qcow2, Raw, VMDK, VHDX, VHD, OVA}

// Tool is what qemu-img calls a format.
func (f ImageFormat) Tool() string {
	if f == VHD {
		return "vpc"
	}
	return string(f)
}

// The phases of an import, complete.
const (
	PhaseUpload  = "upload"
	PhaseVerify  = "verify" // what arrived is compared with its digest
	PhaseConvert = "convert"
)

// An ImportEvent is one line of the answer to an import. The last one has one
// of Volume, VM and Error.
type ImportEvent struct {
	Phase  string      `json:"phase,omitempty" enum:"upload,verify,convert"`
	Done   model.Bytes `json:"done_bytes,omitempty"`
	Total  model.Bytes `json:"total_bytes,omitempty"`
	Volume *Volume     `json:"volume,omitempty"`
	Error  *LineError  `json:"error,omitempty"`

	VM    *VM      `json:"vm,omitempty" doc:"the machine, where one was imported"`
	Notes []string `json:"notes,omitempty" doc:"what of the machine could not be taken over"`
}

// A LineError is an error inside a stream whose status is long sent.
type LineError struct {
	Code   model.Code `json:"code"`
	Detail string     `json:"detail"`
}
