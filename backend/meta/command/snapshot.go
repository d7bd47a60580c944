package command

import "drystone.example/drystone/backend/model"

// SnapshotCreate ends the present epoch of one or more volumes at one moment and
// gives what is in it a name. Whoever proposes it sees to it that no write to any
// of the volumes is in flight until it is decided. It is compare-and-swap: of a
// volume that is at another generation it is refused with model.Fenced, at
// another revision or with another holder with model.Conflict. Proposed again
// with the same identifiers it is answered and not done again. Returns the
// model.Cut; with a Fenced or a Conflict one with the volumes as they are.
type SnapshotCreate struct {
	Name string        `json:"name"`
	Cuts []SnapshotCut `json:"cuts"`
}

// A SnapshotCut is one volume of a SnapshotCreate.
type SnapshotCut struct {
	ID         model.SnapshotID `json:"id"`
	Volume     model.VolumeID   `json:"volume"`
	Holder     model.NodeID     `json:"holder,omitzero"` // who proposes it; zero: nobody holds the volume
	Generation model.Generation `json:"generation"`
	Revision   model.Revision   `json:"revision"`
}

// Kind implements Command.
func (SnapshotCreate) Kind() Kind { return KindSnapshotCreate }

// Object implements Command.
func (c SnapshotCreate) Object() string { return "snapshot " + c.Name }

// SnapshotDelete takes a snapshot out of the record. What only it kept is freed by
// the volume's holder in its own time (model.Trim). Returns the model.Snapshot.
type SnapshotDelete struct {
	Snapshot model.SnapshotID `json:"snapshot"`
}

// Kind implements Command.
func (SnapshotDelete) Kind() Kind { return KindSnapshotDelete }

// Object implements Command.
func (c SnapshotDelete) Object() string { return "snapshot " + c.Snapshot.String() }

// SnapshotRevert begins to make a volume what it was when a snapshot of it was cut,
// or with Cancel ends that if nothing was changed yet. It is refused while a guest
// or an export has the volume. If Keep is given, the volume as it is becomes a
// snapshot of that identifier and name first. A revert that is under way may be
// replaced by another. Returns the model.Volume.
type SnapshotRevert struct {
	Volume   model.VolumeID   `json:"volume"`
	Snapshot model.SnapshotID `json:"snapshot,omitzero"`
	Keep     model.SnapshotID `json:"keep,omitzero"`
	KeepName string           `json:"keep_name,omitempty"`
	Cancel   bool             `json:"cancel,omitempty"`
}

// Kind implements Command.
func (SnapshotRevert) Kind() Kind { return KindSnapshotRevert }

// Object implements Command.
func (c SnapshotRevert) Object() string { return "volume " + c.Volume.String() }

// VolumeTended is how a holder says what it did for the volume's snapshots. Each
// names the model.Trim or model.Revert it is about by the revision that one has; if
// that is another one by now, the command is refused with model.Conflict. Applied
// again it is answered. Returns the model.Volume; with a Conflict or Fenced the one
// there is.
type VolumeTended struct {
	Volume     model.VolumeID   `json:"volume"`
	Generation model.Generation `json:"generation"`
	model.Tended
}

// Kind implements Command.
func (VolumeTended) Kind() Kind { return KindVolumeTended }

// Object implements Command.
func (c VolumeTended) Object() string { return "volume " + c.Volume.String() }
