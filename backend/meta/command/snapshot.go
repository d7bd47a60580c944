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
