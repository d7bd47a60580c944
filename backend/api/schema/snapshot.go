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

// A SnapshotSpec asks for a snapshot.
type SnapshotSpec struct {
	Name string `json:"name" maxLength:"63"`
}
