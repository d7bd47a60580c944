package command

import "drystone.example/drystone/backend/model"

// VolumeClone makes a volume that begins as another one is, or was when a snapshot
// was cut. The clone has the columns of the volume with its active members; what they
// hold of it is the clone's from then on. The holder of the volume proposes it while
// it serves, for then its active members hold the same; without a snapshot the
// present epoch is ended, and the holder sees to it that no write is in flight until it
// is decided. It is compare-and-swap: if the volume is at another generation it is
// refused with model.Fenced, at another revision or with another holder with
// model.Conflict. Proposed again with the same identifier it is answered and not done
// again. Returns the model.Cloned; with a Fenced or a Conflict one with the volume as it
// is.
type VolumeClone struct {
	ID         model.VolumeID   `json:"id"` // of the clone
	Name       string           `json:"name"`
	Use        model.VolumeKind `json:"use"`
	Volume     model.VolumeID   `json:"volume"`
	Snapshot   model.SnapshotID `json:"snapshot,omitzero"` // zero: the volume as it is now
	Holder     model.NodeID     `json:"holder"`            // who proposes it
	Generation model.Generation `json:"generation"`
	Revision   model.Revision   `json:"revision"`
}

// VolumeDetach says that all members of a clone have noted its origin: the record does
// not name it any more. The clone's holder proposes it when it serves; under another
// generation it is refused with model.Fenced. Returns the model.Volume.
type VolumeDetach struct {
	Volume     model.VolumeID   `json:"volume"`
	Generation model.Generation `json:"generation"`
}

// Kind implements Command, here and below.
func (VolumeClone) Kind() Kind  { return KindVolumeClone }
func (VolumeDetach) Kind() Kind { return KindVolumeDetach }

// Object implements Command, here and below.
func (c VolumeClone) Object() string  { return "volume " + c.ID.String() }
func (c VolumeDetach) Object() string { return "volume " + c.Volume.String() }
