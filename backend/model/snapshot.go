package model

import "time"

// A Snapshot is a volume as it was at one moment. It never changes: what is
// written to the volume later is written in a later epoch.
type Snapshot struct {
	ID      SnapshotID `json:"id"`
	Name    string     `json:"name"` // unique among those of its volume
	Volume  VolumeID   `json:"volume"`
	Epoch   Epoch      `json:"epoch"`      // the last one that is in it
	Size    Bytes      `json:"size_bytes"` // of the volume at that moment
	Created time.Time  `json:"created"`

	// Group is the first of the snapshots that were cut with this one at one moment, of
	// other volumes; zero: it was cut alone.
	Group SnapshotID `json:"group,omitzero"`
}

// A Cut is what cutting snapshots came to: the records of the volumes as they are,
// and the snapshots, in the order they were asked for in.
type Cut struct {
	Volumes   []Volume   `json:"volumes"`
	Snapshots []Snapshot `json:"snapshots"`
}

// A Cloned is what cloning a volume came to: the record of the volume as it is, and
// the clone.
type Cloned struct {
	Volume Volume `json:"volume"`
	Clone  Volume `json:"clone"`
}

// MaxCut is the most volumes that are cut at one moment.
const MaxCut = 64
