package placement

import (
	"math"

	"drystone.example/drystone/backend/model"
)

// RoomForNew says why nothing new is made on a pool: no volume, clone, image or
// snapshot. It is the one place that decides it. Above model.FullNoNew percent what is
// there needs the rest; and where a disk takes no new data any more (model.FullCritical)
// a snapshot would make writes of guests wait that only overwrite now. Disks that are
// away do not count. The error has the code model.NoSpace.
func RoomForNew(disks []Disk) error {
	var size, free model.Bytes
	for _, d := range disks {
		if !d.Up {
			continue
		}
		size, free = size+d.Size, free+d.Free
		if more := missing(d.Size, d.Free, model.FullCritical); more > 0 {
			return model.Errorf(model.NoSpace, "disk %s is %d %% full and takes no new data, so nothing new is made: "+
				"%d MiB more must be free on it; add disks, or delete volumes or snapshots", d.ID, Full(d.Size-d.Free, d.Size), more)
		}
	}
	if more := missing(size, free, model.FullNoNew); more > 0 {
		return model.Errorf(model.NoSpace, "the pool is %d %% full, and from %d %% on nothing new is made: "+
			"%d MiB more must be free; add disks, or delete volumes or snapshots", Full(size-free, size), model.FullNoNew, more)
	}
	return nil
}

// Full is how full something is, in percent, and rounded: a disk is as full as it gets
// though what it refused last needed more than the one page that is missing. Size is not
// zero.
func Full(used, size model.Bytes) int { return int(math.Round(100 * float64(used) / float64(size))) }

// missing is how many MiB more must be free, rounded up, for something to be less full
// than so many percent; zero: none.
func missing(size, free model.Bytes, limit int) int64 {
	if size <= 0 || Full(size-free, size) < limit {
		return 0
	}
	want := size - model.Bytes(float64(size)*(float64(limit)-0.5)/100)
	return int64(max(want-free, 0)>>20) + 1
}
