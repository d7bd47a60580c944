package model

import "slices"

// A Trim says that snapshots of a volume were deleted and that its members may
// still have versions of pages that nobody can see any more. It is zero when there
// are none.
type Trim struct {
	Since Revision `json:"since"` // of the record when the last one was deleted

	// Rests says that all that could be freed was. What is left is seen by the volume
	// itself, until it is written to.
	Rests bool `json:"rests,omitempty"`
}

// Due reports whether there is something to free now.
func (t Trim) Due() bool { return t.Since != 0 && !t.Rests }

// A Revert says that a volume is becoming what it was when a snapshot was cut. No
// guest and no export has it meanwhile. It is zero when nothing of the kind goes on.
type Revert struct {
	Snapshot SnapshotID `json:"snapshot"`
	Name     string     `json:"name"`
	Epoch    Epoch      `json:"epoch"` // of the snapshot
	Size     Bytes      `json:"size_bytes"`
	Began    Revision   `json:"began"`             // of the record; tells this one from all others
	Running  bool       `json:"running,omitempty"` // something may have been changed
}

// Due reports whether a revert is under way.
func (r Revert) Due() bool { return r.Began != 0 }

// A Tended says what the holder of a volume did: one of these, and the others are
// zero.
type Tended struct {
	Trimmed  Revision `json:"trimmed,omitzero"`  // nothing is left of that Trim
	Rests    Revision `json:"rests,omitzero"`    // that Trim rests
	Begun    Revision `json:"begun,omitzero"`    // that Revert is about to change something
	Reverted Revision `json:"reverted,omitzero"` // that Revert is complete
}

// KeptEpochs returns the epochs as of which a volume is read, or may be, in order;
// the present one is the last. It is the one place that says what may be freed:
// from a kept epoch the newest version at or below it is seen, and a version that
// is seen from no kept epoch goes. Whoever needs an epoch for longer than there is a
// snapshot of it writes that into the record and adds it here, as clones do: an epoch
// that one of them begins as is kept until its disks have noted that.
//
// A cut keeps the epoch it ends, and nothing else ever comes to be kept that was
// not. So a version at or below the present epoch of a record that none of the
// epochs kept by that record sees is seen by nobody now, however old the record is.
func (v Volume) KeptEpochs(snapshots []Snapshot, volumes []Volume) []Epoch {
	kept := []Epoch{v.Epoch}
	for _, clone := range volumes {
		if clone.Origin.Volume == v.ID {
			kept = append(kept, clone.Origin.Epoch)
		}
	}
	for _, s := range snapshots {
		if s.Volume == v.ID {
			kept = append(kept, s.Epoch)
		}
	}
	if v.Revert.Due() {
		kept = append(kept, v.Revert.Epoch)
	}
	slices.Sort(kept)
	return slices.Compact(kept)
}
