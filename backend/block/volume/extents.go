package volume

import (
	"context"
	"math"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/model"
)

// Extents says which parts of [off, off+n) hold data. It may answer for less
// than n bytes, never for none.
func (v *Volume) Extents(ctx context.Context, off, n int64) ([]Run, error) {
	if err := v.within(off, n); err != nil {
		return nil, err
	}
	return v.extents(ctx, off, n, newestEpoch)
}

// newestEpoch stands for the present one, also if the volume is cut meanwhile.
const newestEpoch = model.Epoch(math.MaxUint32)

// extents is Extents as of an epoch.
func (v *Volume) extents(ctx context.Context, off, n int64, epoch model.Epoch) ([]Run, error) {
	found, err := v.stretches(ctx, off, n, func(versions []disk.Version) uint16 {
		if newest := visible(versions, epoch); newest != nil {
			return newest.Mask
		}
		return 0
	})
	out := make([]Run, len(found))
	for i, s := range found {
		out[i] = Run{Length: model.Bytes(s.length), Zero: !s.set}
	}
	return out, err
}

// visible returns what is read of a page as of an epoch: the newest version at or
// below it. versions are all of the page, in order of epoch. Nil: nothing is stored.
func visible(versions []disk.Version, epoch model.Epoch) *disk.Version {
	for i := len(versions) - 1; i >= 0; i-- {
		if versions[i].Epoch <= epoch {
			return &versions[i]
		}
	}
	return nil
}
