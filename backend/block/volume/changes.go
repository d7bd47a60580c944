package volume

import (
	"context"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/model"
)

// A Change is a stretch of a volume that was, or was not, written between two
// moments.
type Change struct {
	Length  model.Bytes
	Changed bool
}

// Changes says which parts of [off, off+n) were changed since a snapshot of the
// volume was cut, in whole pages. It may answer for less than n bytes, never for
// none. Of a part that is written to meanwhile it says either.
//
// Invariant: where it says "not changed", the volume reads as the snapshot did,
// beyond whose end lie zeros. See changed for the rule.
func (v *Volume) Changes(ctx context.Context, since model.Snapshot, off, n int64) ([]Change, error) {
	if _, err := v.At(since); err != nil {
		return nil, err
	}
	if err := v.within(off, n); err != nil {
		return nil, err
	}
	return v.changes(ctx, since.Epoch, newestEpoch, off, n)
}

// Changes is Volume.Changes from an older snapshot to this one.
func (s *Snapshot) Changes(ctx context.Context, since model.Snapshot, off, n int64) ([]Change, error) {
	if _, err := s.v.At(since); err != nil {
		return nil, err
	}
	if since.Epoch > s.of.Epoch {
		return nil, model.Errorf(model.Invalid, "the snapshot %s is younger than %s", since.ID, s.of.ID)
	}
	if err := s.within(off, n); err != nil {
		return nil, err
	}
	return s.v.changes(ctx, since.Epoch, s.of.Epoch, off, n)
}

func (v *Volume) changes(ctx context.Context, since, until model.Epoch, off, n int64) ([]Change, error) {
	found, err := v.stretches(ctx, off, n, func(versions []disk.Version) uint16 {
		if changed(versions, since, until) {
			return 1<<model.BlocksPerPage - 1
		}
		return 0
	})
	for _, e := range []model.Epoch{since, until} { // asked after it was read: see trim
		if err == nil {
			err = v.keeps(e)
		}
	}
	if err != nil {
		return nil, err
	}
	out := make([]Change, len(found))
	for i, s := range found {
		out[i] = Change{Length: model.Bytes(s.length), Changed: s.set}
	}
	return out, nil
}

// changed is the rule by which a page was changed between two epochs of which each
// is that of a snapshot, or the present one: what is read of it as of the second
// was written after the first. versions are all of the page.
//
//   - The version that a snapshot shows is kept as long as the snapshot. So it does
//     not matter which snapshots there were between the two.
//   - A page that is written again is changed, also if the bytes are the same: equal
//     sums prove nothing.
//   - A discard is a change like any other: it leaves a tombstone where something
//     older lies below. Where both sides show nothing, or a tombstone, both read as
//     zeros and nothing was changed; so it does not matter when a tombstone that
//     nothing needs any more is forgotten.
//   - Growing changes nothing: what was not written beyond the old end has no
//     version, and reads as zeros.
func changed(versions []disk.Version, since, until model.Epoch) bool {
	now := visible(versions, until)
	if now == nil || now.Epoch <= since {
		return false
	}
	if was := visible(versions, since); now.Mask == 0 && (was == nil || was.Mask == 0) {
		return false
	}
	return true
}
