package schema

import "drystone.example/drystone/backend/model"

// A SnapshotDiff is what was changed from one snapshot of a volume to another. It
// comes in lines: the first says what is compared, each has the ranges up to
// done_bytes that were not told before, and the last ends at size_bytes or has an error.
type SnapshotDiff struct {
	From   *Snapshot   `json:"from,omitempty"`
	To     *Snapshot   `json:"to,omitempty" doc:"absent: the volume as it is"`
	Size   model.Bytes `json:"size_bytes" doc:"of the later side; what lies beyond it is gone"`
	Page   model.Bytes `json:"page_bytes" doc:"ranges are multiples of it, but for the end"`
	Done   model.Bytes `json:"done_bytes" doc:"all ranges below it are told"`
	Ranges []ByteRange `json:"ranges"`
	Error  *LineError  `json:"error,omitempty"`
}

// A ByteRange is a stretch of a volume.
type ByteRange struct {
	Offset model.Bytes `json:"offset"`
	Length model.Bytes `json:"length"`
}
