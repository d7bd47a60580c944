package volume

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"drystone.example/drystone/backend/model"
)

// cutHold is how long writes are held for those in flight to end before a cut is
// given up.
const cutHold = 500 * time.Millisecond

// Cut ends the present epoch of volumes at one moment. It holds their writes,
// waits until none is in flight, and has commit put the cut into the record;
// reads go on. recs are the volumes' records as their holders know them.
//
// commit is a compare-and-swap as Record.ChangeMembers is: model.Conflict comes
// with the records as they are, a code other than model.Unavailable and
// model.Internal means that it will never be applied, and after any other error
// it may still be. It must be safe to repeat: applied once, it answers as it did.
//
// Invariant: no write of the old epoch is begun after the cut may have been
// recorded. So once commit has been called, writes stay held until it has given a
// definite answer, also when ctx ends: without a quorum they would be held soon
// anyway, for want of a lease.
//
// An error means that nothing was cut, unless all of the volumes ended meanwhile:
// then the record alone knows.
func Cut(ctx context.Context, volumes []*Volume,
	commit func(ctx context.Context, recs []model.Volume) ([]model.Volume, error),
) error {
	for _, v := range volumes {
		if err := v.leased(ctx); err != nil {
			return err
		}
	}
	hold, cancel := context.WithTimeout(ctx, cutHold)
	defer cancel()
	spans := make([]span, len(volumes))
	for i, v := range volumes {
		if v.plant.cutUnheld {
			continue
		}
		// Shared and over everything: it waits for each write and no write passes it.
		spans[i] = span{hi: math.MaxInt64}
		if err := v.spans.acquire(hold, &spans[i]); err != nil {
			if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
				if id := v.fullDisk(); id != 0 {
					return model.Errorf(model.NoSpace,
						"writes to volume %s wait for room on disk %s; nothing was cut", v.id, id)
				}
				return model.Errorf(model.Unavailable,
					"writes to volume %s under way did not end within %s; nothing was cut", v.id, cutHold)
			}
			return err
		}
		defer v.spans.release(&spans[i])
	}
	return decideCut(ctx, hold, volumes, commit)
}

// decideCut calls commit until the outcome is known; the volumes' writes are held.
// What was refused because a record has changed is tried again while hold lasts,
// and what has no definite answer until there is one.
func decideCut(ctx, hold context.Context, volumes []*Volume,
	commit func(ctx context.Context, recs []model.Volume) ([]model.Volume, error),
) error {
	told := false
	for pause := commitMin; ; pause = min(2*pause, commitMax) {
		recs := make([]model.Volume, len(volumes))
		for i, v := range volumes {
			recs[i] = v.known()
		}
		try, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
		now, err := commit(try, recs)
		cancel()
		moved := adoptAll(volumes, recs, now)
		switch code := model.CodeOf(err); {
		case err == nil:
			return nil
		case code == model.Conflict && moved && hold.Err() == nil:
			continue
		case code != model.Unavailable && code != model.Internal || volumes[0].plant.cutForgets:
			return err
		}
		if !slices.ContainsFunc(volumes, func(v *Volume) bool { return v.Err() == nil }) {
			return fmt.Errorf("the volume ended before its cut was decided: %w", err)
		}
		if !told {
			volumes[0].log.Warn("cut is not decided yet", "volume", volumes[0].id, "err", err)
		}
		told = true
		time.Sleep(pause)
	}
}

// adoptAll gives volumes the records that are theirs and reports whether one of
// them knows by now of a newer one than was proposed for: from these, or because it
// followed the record meanwhile.
func adoptAll(volumes []*Volume, proposed, recs []model.Volume) (moved bool) {
	for i, v := range volumes {
		v.mu.Lock()
		for _, rec := range recs {
			if rec.ID == v.id && v.err == nil {
				v.adopt(rec)
			}
		}
		moved = moved || v.err == nil && v.rec.Revision > proposed[i].Revision
		v.unlock()
	}
	return moved
}

// known returns the record as the holder knows it. Its columns are not changed
// by anybody.
func (v *Volume) known() model.Volume {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.rec
}
