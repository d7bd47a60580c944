package command

import "drystone.example/drystone/backend/model"

// VolumeCreate makes a volume whose columns the proposer has dealt: a power of
// two of them, each with as many new active members as there are copies, on
// different disks that are online. Returns the model.Volume.
type VolumeCreate struct {
	ID      model.VolumeID   `json:"id"`
	Name    string           `json:"name"`
	Use     model.VolumeKind `json:"use"` // what the record calls the kind of a volume
	Size    model.Bytes      `json:"size"`
	Copies  int              `json:"copies"`
	Columns []model.Column   `json:"columns"`
}

// VolumeResize grows a volume. Returns the model.Volume.
type VolumeResize struct {
	Volume model.VolumeID `json:"volume"`
	Size   model.Bytes    `json:"size"`
}

// VolumeDelete forgets a volume, with its snapshots, that no machine has and that nobody holds for a
// guest or an export. Its identifier is kept, so that disks know what to clean
// and it never comes back. Returns the model.Volume as it was.
type VolumeDelete struct {
	Volume model.VolumeID `json:"volume"`
}

// VolumeAcquire makes a node the holder, under the next generation. It is
// compare-and-swap: if the volume is not at Generation and Revision it is
// refused with model.Conflict. For a guest, the volume's machine must be placed
// on the node; for an export, no machine that has the volume may be on. That the
// holder before released it or has lost its lease is the leader's to see, before
// it proposes. Returns the model.Volume, also with the Conflict.
type VolumeAcquire struct {
	Volume     model.VolumeID   `json:"volume"`
	Node       model.NodeID     `json:"node"`
	Purpose    model.Purpose    `json:"purpose"`
	Generation model.Generation `json:"generation"`
	Revision   model.Revision   `json:"revision"`
}

// VolumeRelease ends a reign: nobody holds the volume. Released twice is released
// once; under another generation it is refused with model.Fenced. Returns the
// model.Volume.
type VolumeRelease struct {
	Volume     model.VolumeID   `json:"volume"`
	Node       model.NodeID     `json:"node"`
	Generation model.Generation `json:"generation"`
}

// VolumeMembers changes members of a volume's columns, all or none. It is
// compare-and-swap: another generation than the present one is refused with
// model.Fenced, another revision with model.Conflict. The legal steps:
//
//	(none)  -> joining   a new member, with a zero cutoff
//	joining -> active    it has everything; the cutoff ends
//	active  -> stale     with the cutoff given, of this generation or before
//	joining -> stale     keeping its cutoff
//	stale   -> joining   keeping its cutoff
//	any     -> (none)    let go; an active one only if as many stay active as there
//	                     are copies, all of them active before
//
// A column keeps at least one active member that was active before, whatever
// happens. A cutoff that is kept is given as it is, or as zero. Returns the
// model.Volume, also with the Conflict.
type VolumeMembers struct {
	Volume     model.VolumeID       `json:"volume"`
	Generation model.Generation     `json:"generation"`
	Revision   model.Revision       `json:"revision"`
	Changes    []model.MemberChange `json:"changes"`
}

// VolumeScrubbed notes what a comparison of a volume's copies found; Ended is set by
// the record. It changes nothing that a holder goes by, and not the revision. Returns
// the model.Volume.
type VolumeScrubbed struct {
	Volume model.VolumeID    `json:"volume"`
	Scrub  model.VolumeScrub `json:"scrub"`
}

// Kind implements VolumeScrubbed.
func (VolumeScrubbed) Kind() Kind { return KindVolumeScrubbed }

// Object implements Command.
func (c VolumeScrubbed) Object() string { return "volume " + c.Volume.String() }

// Kind implements Command, here and below.
func (VolumeCreate) Kind() Kind  { return KindVolumeCreate }
func (VolumeResize) Kind() Kind  { return KindVolumeResize }
func (VolumeDelete) Kind() Kind  { return KindVolumeDelete }
func (VolumeAcquire) Kind() Kind { return KindVolumeAcquire }
func (VolumeRelease) Kind() Kind { return KindVolumeRelease }
func (VolumeMembers) Kind() Kind { return KindVolumeMembers }

// Object implements Command, here and below.
func (c VolumeCreate) Object() string  { return "volume " + c.ID.String() }
func (c VolumeResize) Object() string  { return "volume " + c.Volume.String() }
func (c VolumeDelete) Object() string  { return "volume " + c.Volume.String() }
func (c VolumeAcquire) Object() string { return "volume " + c.Volume.String() }
func (c VolumeRelease) Object() string { return "volume " + c.Volume.String() }
func (c VolumeMembers) Object() string { return "volume " + c.Volume.String() }
