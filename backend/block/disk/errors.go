package disk

import (
	"fmt"

	"drystone.example/drystone/backend/block/layout"
	"drystone.example/drystone/backend/model"
)

// ErrGap refuses an op whose Prev is not the last number applied.
var ErrGap = model.Errorf(model.Conflict, "a message of this volume before this one is missing")

// ErrClosed refuses everything after Close.
var ErrClosed = model.Errorf(model.Unavailable, "the disk is closed")

// A CorruptError names the blocks of a column that did not match their sums, or
// could not be read. The other blocks of the request are in the caller's buffer
// and right.
type CorruptError struct {
	Volume model.VolumeID
	Column uint32
	Blocks []layout.Block
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%d damaged blocks in column %d of volume %s, the first is %d",
		len(e.Blocks), e.Column, e.Volume, e.Blocks[0])
}

// Unwrap gives the error its code, model.Corrupt.
func (e *CorruptError) Unwrap() error {
	return &model.Error{Code: model.Corrupt, Text: "stored data did not match its checksum"}
}
