package command

import "drystone.example/drystone/backend/model"

// VolumeMove wishes that members of columns be replaced by other disks, or takes
// that back. It is compare-and-swap on the record's revision. The member is marked
// as leaving, and the other disk joins the column; filling it, making it active and
// letting the old one go is the holder's (VolumeMembers). It is refused with
// model.Conflict where a column does not have all its copies: what is lost is
// restored first. One whose other disk is active already cannot be taken back: it ends.
// Returns the model.Volume, also with the Conflict.
type VolumeMove struct {
	Volume   model.VolumeID `json:"volume"`
	Revision model.Revision `json:"revision"`
	Moves    []model.Move   `json:"moves"`
}

// DiskDrain wishes that a disk leaves the pool, or with Cancel that it stays after
// all. With Errors, so many of its blocks were found damaged: the leader retires it for
// that, and with Cancel they are forgiven. Returns the model.Disk.
type DiskDrain struct {
	Disk   model.DiskID `json:"disk"`
	Cancel bool         `json:"cancel,omitempty"`
	Errors uint64       `json:"errors,omitempty"`
}

// DiskRemove takes a disk out of the pool for ever. It is refused while the disk is
// not to leave or was retired, and while a column has a member on it. Returns the model.Disk as it
// was.
type DiskRemove struct {
	Disk model.DiskID `json:"disk"`
}

// ClusterSet changes the settings that are given. Returns the model.Cluster.
type ClusterSet struct {
	Balance      *bool  `json:"balance,omitempty"`
	RebuildAfter *int64 `json:"rebuild_after,omitempty"` // seconds
}

// Kind implements Command, here and below.
func (VolumeMove) Kind() Kind { return KindVolumeMove }
func (DiskDrain) Kind() Kind  { return KindDiskDrain }
func (DiskRemove) Kind() Kind { return KindDiskRemove }
func (ClusterSet) Kind() Kind { return KindClusterSet }

// Object implements Command, here and below.
func (c VolumeMove) Object() string { return "volume " + c.Volume.String() }
func (c DiskDrain) Object() string  { return "disk " + c.Disk.String() }
func (c DiskRemove) Object() string { return "disk " + c.Disk.String() }
func (c ClusterSet) Object() string { return "cluster" }
