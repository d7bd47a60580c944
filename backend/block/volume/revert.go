package volume

import (
	"context"
	"errors"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
)

// Reverting makes the version that the present epoch sees of each page the same as
// the one that a snapshot's epoch sees. The record has begun an epoch for it, which
// nothing ends and in which no guest writes until it is done; so every older version
// stays, and with them all other snapshots.
//
// Invariant: what a revert writes is a new version, with a stamp of its own. If it
// had the stamp of the version it is a copy of, that could be below the cutoff of a
// member that was away, which would keep what an earlier revert gave it; and a
// takeover could take the older of two for the newer.
//
// A page is done if both epochs see the same, which is how a holder that begins
// again knows what is left.

// errAlike says that there is nothing to do for a page.
var errAlike = errors.New("the page is as it should be")

// revert makes one pass over the volume and says in the record that it is done.
func (v *Volume) revert(ctx context.Context, r model.Revert) error {
	v.tendingIs(func(t *Tending) { *t = Tending{Reverts: true} })
	if !r.Running {
		if err := v.tended(ctx, model.Tended{Begun: r.Began}); err != nil {
			return err
		}
	}
	goOn := func() bool { now := v.known().Revert; return now.Began == r.Began && now.Running }
	present := v.known().Epoch
	todo := func(have []disk.Version) bool { return !alike(seenFrom(have, present), seenFrom(have, r.Epoch)) }
	whole, err := v.eachPage(ctx, goOn, todo, func(ctx context.Context, c int, page uint32) error {
		return v.revertPage(ctx, r, c, page)
	})
	if err != nil || !whole {
		return err
	}
	if err := v.tended(ctx, model.Tended{Reverted: r.Began}); err != nil {
		return err
	}
	v.log.Info("volume reverted", "volume", v.id, "snapshot", r.Snapshot, "epoch", r.Epoch)
	return nil
}

// seenFrom returns the version of a page that an epoch sees; none is a zero one.
func seenFrom(have []disk.Version, e model.Epoch) disk.Version {
	if seen := visible(have, e); seen != nil {
		return *seen
	}
	return disk.Version{}
}

// alike reports whether two versions read the same.
func alike(a, b disk.Version) bool { return a.Mask == b.Mask && a.Sums == b.Sums }

func (v *Volume) revertPage(ctx context.Context, r model.Revert, c int, page uint32) error {
	began := time.Now()
	lo := v.pageAt(c, page)
	j := v.newJob()
	copied := model.Bytes(0)
	err := v.issue(ctx, j, lo, lo+int64(model.PageSize), func(ctx context.Context) (err error) {
		copied, err = v.restore(ctx, r, j, c, page)
		return err
	})
	switch {
	case errors.Is(err, errAlike):
		return nil
	case err != nil:
		return err
	}
	return v.throttle(ctx, copied, time.Since(began))
}

// restore makes the part that gives a page what the snapshot has of it; the page is
// locked.
func (v *Volume) restore(ctx context.Context, r model.Revert, j *job, c int, page uint32) (model.Bytes, error) {
	have, err := v.versions(ctx, c, page)
	if err != nil {
		return 0, err
	}
	rec := v.known()
	then := seenFrom(have, r.Epoch)
	if rec.Revert.Began != r.Began || alike(seenFrom(have, rec.Epoch), then) {
		return 0, errAlike // or it shall be something else by now
	}
	if then.Mask != 0 {
		buf := iobuf.Get(int(model.PageSize))
		if err := v.fetch(ctx, c, then, v.activeRows(c), buf.Bytes); err != nil {
			buf.Release()
			return 0, err
		}
		j.data = buf
		j.sums = compact(buf.Bytes, &then, j.sums)
	}
	made := disk.Version{Page: page, Epoch: rec.Epoch, Stamp: then.Stamp, Mask: then.Mask, Sums: then.Sums}
	j.parts = append(j.parts, part{
		kind: disk.Copy, column: c, page: page, version: made, fresh: !v.plant.revertOld || then.Mask == 0,
	})
	return model.Bytes(popcount(then.Mask)) * model.BlockSize, nil
}
