package command

import "drystone.example/drystone/backend/model"

// DiskFound is what a node has found of a disk of the pool. It is compare-and-swap on
// how often the disk was claimed.
//
// With a Path it is a claim, which a node makes before each time it opens the disk:
// when it is applied the disk is that node's and online. It is refused with
// model.Conflict if the disk is another node's, unless that one has said that it has
// not got it, or is Gone; if the disk was seen twice; and if Journal says that this is
// an older image of it. The leader proposes Gone only when the other node has let go
// of its disks, because it has had no lease for so long. A disk that has failed stays
// failed.
//
// Without a Path the disk's node says that it has not got the disk open; Error says
// why. With Twin nothing is claimed: the node says where it found a second one, or
// with no Path that it is not there any more.
//
// Returns the model.Disk, also with the Conflict.
type DiskFound struct {
	Disk    model.DiskID `json:"disk"`
	Node    model.NodeID `json:"node"`
	Claims  uint64       `json:"claims,omitempty"` // as the node knows it
	Path    string       `json:"path,omitempty"`
	Journal uint64       `json:"journal,omitempty"`
	Error   string       `json:"error,omitempty"`
	Gone    bool         `json:"gone,omitempty"`
	Twin    bool         `json:"twin,omitempty"`
}

// Kind implements Command.
func (DiskFound) Kind() Kind { return KindDiskFound }

// Object implements Command.
func (c DiskFound) Object() string { return "disk " + c.Disk.String() }
