package schema

import (
	"time"

	"drystone.example/drystone/backend/model"
)

// A Snapshot is a volume as it was at one moment.
type Snapshot struct {
	ID         model.SnapshotID `json:"id"`
	Name       string           `json:"name" doc:"unique among the snapshots of its volume"`
	Volume     model.VolumeID   `json:"volume"`
	VolumeName string           `json:"volume_name"`
	Epoch      model.Epoch      `json:"epoch"`
	Size       model.Bytes      `json:"size_bytes" doc:"of the volume when it was cut"`
	Created    time.Time        `json:"created"`
	Group      model.SnapshotID `json:"group,omitzero" doc:"the same for all that were cut at one moment"`
}

// A RevertSpec says how a volume is reverted.
type RevertSpec struct {
	NoSnapshot bool   `json:"no_snapshot,omitempty" doc:"do not keep the volume as it is now"`
	Snapshot   string `json:"snapshot,omitempty" maxLength:"63" doc:"name for the volume as it is now; without one it is before-revert-TIME"`
}

// A SnapshotSpec asks for a snapshot.
type SnapshotSpec struct {
	Name string `json:"name" maxLength:"63"`
}
