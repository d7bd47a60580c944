package model

import (
	"cmp"
	"slices"
	"time"
)

// A MemberState says what a disk's part in a column may be used for.
type MemberState string

// The states of a member, complete.
const (
	Active  MemberState = "active"  // has everything; is read
	Joining MemberState = "joining" // gets every new write and is being filled; is not read
	Stale   MemberState = "stale"   // gets nothing; keeps its data and a cutoff
)

// A Member is one disk's part in a column. At most one member of a column lies
// on a disk.
type Member struct {
	Disk  DiskID      `json:"disk"`
	State MemberState `json:"state"`

	// Leaving: the member shall be let go once the column has all its copies
	// without it. Until then it is a member as any other.
	Leaving bool `json:"leaving,omitempty"`

	// Cutoff: what the disk holds at or below it is known to be right. It is
	// zero for an active member, and for a joining one that is new.
	Cutoff Stamp `json:"cutoff,omitzero"`
}

// A Column is one stripe's mirrored home. Stripe unit u of a volume lies in
// column u mod len(Columns).
type Column struct {
	Members []Member `json:"members"`
}

// Count returns how many members are in a state.
func (c Column) Count(s MemberState) (n int) {
	for _, m := range c.Members {
		if m.State == s {
			n++
		}
	}
	return n
}

// Staying returns how many members are active and shall remain.
func (c Column) Staying() (n int) {
	for _, m := range c.Members {
		if m.State == Active && !m.Leaving {
			n++
		}
	}
	return n
}

// Moving reports whether a member shall be let go for another.
func (c Column) Moving() bool {
	return slices.ContainsFunc(c.Members, func(m Member) bool { return m.Leaving })
}

// Whole reports whether a column has its copies, all on members that stay, and
// nothing else.
func (c Column) Whole(copies int) bool {
	return c.Staying() == copies && len(c.Members) == copies
}

// Member returns the part of a disk in the column, or false.
func (c Column) Member(d DiskID) (Member, bool) {
	for _, m := range c.Members {
		if m.Disk == d {
			return m, true
		}
	}
	return Member{}, false
}

// A VolumeKind says what a volume is for; it changes nothing about its data.
type VolumeKind string

// The kinds of volumes, complete.
const (
	VolumeDisk  VolumeKind = "disk"  // somebody's virtual disk
	VolumeImage VolumeKind = "image" // a disk that new ones are made from
	VolumeNVRAM VolumeKind = "nvram" // what the firmware of a machine remembers
)

// A Volume is the record of one virtual disk. It changes only when something
// fails, moves or is cut; writes do not touch it.
type Volume struct {
	ID         VolumeID   `json:"id"`
	Name       string     `json:"name"`
	Kind       VolumeKind `json:"kind"`
	Size       Bytes      `json:"size_bytes"`
	Copies     int        `json:"copies"`
	Columns    []Column   `json:"columns"`
	Generation Generation `json:"generation"`
	Revision   Revision   `json:"revision"` // of this record; every change adds one
	Epoch      Epoch      `json:"epoch"`
	Holder     NodeID     `json:"holder,omitzero"` // zero: nobody holds it
	Purpose    Purpose    `json:"purpose,omitempty"`
	Created    time.Time  `json:"created"`

	// Scrub is what the last comparison of its copies found.
	Scrub VolumeScrub `json:"scrub,omitzero"`

	Trim   Trim   `json:"trim,omitzero"`
	Revert Revert `json:"revert,omitzero"`
	// Origin is set while the volume still needs what it is a clone of.
	Origin Origin `json:"origin,omitzero"`
	// Family is the volume that this one descends from in the end, by way of clones, also
	// when that was deleted. Zero: it is no clone.
	Family VolumeID `json:"family,omitzero"`
}

// Root returns the volume that this one descends from in the end: itself if it is no clone.
// Volumes with the same root began with the same content in the same columns.
func (v Volume) Root() VolumeID { return cmp.Or(v.Family, v.ID) }

// Families returns the root of each volume that has a relative among these.
func Families(volumes []Volume) map[VolumeID]VolumeID {
	size := map[VolumeID]int{}
	for _, v := range volumes {
		size[v.Root()]++
	}
	of := map[VolumeID]VolumeID{}
	for _, v := range volumes {
		if root := v.Root(); size[root] > 1 {
			of[v.ID] = root
		}
	}
	return of
}

// A VolumeScrub is what a comparison of a volume's copies found.
type VolumeScrub struct {
	Ended     time.Time `json:"ended"`
	Compared  Bytes     `json:"compared_bytes"` // of its address space
	Skipped   Bytes     `json:"skipped_bytes"`  // that had one copy in reach
	Different int       `json:"different"`      // pages that had an older copy, or none; they were made equal
	Diverged  int       `json:"diverged"`       // pages with copies that claim to be the same and are not
}

// A LostRange is a part of a volume that no disk has a good copy of; reads of it
// fail until it is written again.
type LostRange struct {
	Offset   Bytes `json:"offset_bytes"`
	Length   Bytes `json:"length_bytes"`
	Snapshot bool  `json:"snapshot,omitempty"` // it was written again; only snapshots lack it
}

// An Origin is what a clone begins as: another volume as it was at the end of an
// epoch. It is needed until the disks of the clone have noted it, which they do with
// their first promise; from then on the clone needs nothing and nobody.
//
// Invariant: while a record names an origin, no disk frees anything of that volume
// that is visible in that epoch, even when the volume is deleted.
type Origin struct {
	Volume VolumeID `json:"volume"`
	Epoch  Epoch    `json:"epoch"`
}

// A Purpose is why a node holds a volume.
type Purpose string

// The purposes, complete. A holder for maintenance gives way when asked.
const (
	ForGuest       Purpose = "guest"
	ForExport      Purpose = "export"
	ForMaintenance Purpose = "maintenance"
)

// A MemberChange is one row of a compare-and-swap of a volume's columns.
type MemberChange struct {
	Column int         `json:"column"`
	Disk   DiskID      `json:"disk"`
	State  MemberState `json:"state,omitempty"` // empty: the member is let go
	Cutoff Stamp       `json:"cutoff,omitzero"`
}

// A Move is the wish that another disk takes over a disk's part in a column.
type Move struct {
	Column int    `json:"column"`
	From   DiskID `json:"from"`
	To     DiskID `json:"to,omitzero"` // zero: the wish is taken back
}

// The bounds of a volume.
const (
	MaxColumns    = 512 // the number of columns is a power of two
	MaxMembers    = 8   // of one column, stale ones included
	MinVolumeSize = Bytes(1 << 20)
	MaxVolumeSize = Bytes(256 << 40)
)

// ValidateVolume says what is wrong with a new volume, or nil.
func ValidateVolume(name string, size Bytes, copies int) error {
	if err := ValidateName("volume", name); err != nil {
		return err
	}
	if copies != 2 && copies != 3 {
		return Errorf(Invalid, "a volume has 2 or 3 copies, not %d", copies)
	}
	return ValidateSize(size)
}

// ValidateSize says what is wrong with a volume's size, or nil.
func ValidateSize(size Bytes) error {
	switch {
	case size < MinVolumeSize:
		return Errorf(Invalid, "a volume of %d bytes is too small; the least is %d", size, MinVolumeSize)
	case size > MaxVolumeSize:
		return Errorf(Invalid, "a volume of %d bytes is too large; the most is %d", size, MaxVolumeSize)
	case size%SectorSize != 0:
		return Errorf(Invalid, "a volume of %d bytes is not a multiple of %d", size, SectorSize)
	}
	return nil
}
