package agent

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"drystone.example/drystone/backend/block/volume"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

// Once a day the copies of each volume are compared without reading them (see
// volume.Compare): by who holds it or, if nobody does, by the node of its first active
// member that is up, which holds it for maintenance meanwhile and gives way. What was
// found is in the record of the volume.

const (
	compareKind   = "volume.scrub" // of the task, and the call
	compareEvery  = 24 * time.Hour
	compareSpread = 4 * time.Hour // keeps volumes that were made together apart
)

// comparisons knows which volumes are compared here.
type comparisons struct {
	mu  sync.Mutex // guards all; nothing blocks under it
	all map[model.VolumeID]bool
}

func (c *comparisons) begin(id model.VolumeID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = map[model.VolumeID]bool{}
	}
	was := c.all[id]
	c.all[id] = true
	return !was
}

func (c *comparisons) end(id model.VolumeID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.all, id)
}

// compareDue reports whether the copies of a volume should be compared again.
func compareDue(rec model.Volume, now time.Time) bool {
	last := rec.Created
	if rec.Scrub.Ended.After(last) {
		last = rec.Scrub.Ended
	}
	return !now.Before(last.Add(compareEvery - time.Duration(uint64(rec.ID)%uint64(compareSpread))))
}

// comparing compares what is due, one volume after the other, until ctx ends.
func (a *Agent) comparing(ctx context.Context) {
	for wait := scrubFirst; ; wait = scrubLook {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		for _, rec := range a.cfg.Meta.Local().Volumes() {
			if ctx.Err() != nil || !compareDue(rec, time.Now()) || !a.compares(rec) || !a.busyComparing.begin(rec.ID) {
				continue
			}
			work, w := a.Tasks.Begin(ctx, compareKind, rec.Name)
			w.End(a.compare(work, rec, w))
		}
	}
}

// compares reports whether it is this node that compares a volume.
func (a *Agent) compares(rec model.Volume) bool {
	if rec.Holder != 0 {
		return rec.Holder == a.cfg.Self
	}
	view := a.cfg.Meta.Local()
	for _, c := range rec.Columns {
		for _, m := range c.Members {
			d, err := view.Disk(m.Disk)
			if err != nil || m.State != model.Active {
				continue
			}
			if d.Node == a.cfg.Self || a.cfg.Up(d.Node) {
				return d.Node == a.cfg.Self
			}
		}
	}
	return false
}

// compare compares the copies of a volume. Its error is what a person should know.
func (a *Agent) compare(ctx context.Context, rec model.Volume, w *Work) error {
	defer a.busyComparing.end(rec.ID)
	h := a.holds.serving(rec.ID)
	if h == nil || !a.holds.used(h) { // one that is being closed is waited for
		var err error
		if h, err = a.Acquire(ctx, rec.ID, model.ForMaintenance); err != nil {
			return err
		}
		defer a.Release(h)
	}
	wanted, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel(nil)
	watch.Go(func() {
		select {
		case <-h.wanted:
			cancel(model.Errorf(model.Unavailable, "volume %s was wanted while its copies were compared", rec.Name))
		case <-wanted.Done():
		}
	})
	found, err := h.volume.Compare(wanted, func(ctx context.Context) ([]model.Epoch, error) {
		view, err := a.cfg.Meta.View(ctx)
		if err != nil {
			return nil, err
		}
		var epochs []model.Epoch
		for _, s := range view.SnapshotsOf(rec.ID) {
			epochs = append(epochs, s.Epoch)
		}
		return epochs, nil
	}, w.Progress)
	switch {
	case err != nil && ctx.Err() == nil && wanted.Err() != nil:
		return context.Cause(wanted)
	case err != nil:
		return err
	}
	return a.compared(ctx, rec, found)
}

// compared puts what was found into the record, and makes an error of what is not well.
func (a *Agent) compared(ctx context.Context, rec model.Volume, found volume.Comparison) error {
	if _, err := a.cfg.Meta.Apply(ctx, model.System, command.VolumeScrubbed{Volume: rec.ID, Scrub: model.VolumeScrub{
		Compared: found.Compared, Skipped: found.Skipped, Different: found.Different, Diverged: found.Diverged,
	}}); err != nil {
		return err
	}
	switch {
	case found.Diverged > 0:
		return model.Errorf(model.Corrupt,
			"%d pages of volume %s have copies that say the same and are not: nobody can say which is right; the node's log names them",
			found.Diverged, rec.Name)
	case found.Different > 0:
		return model.Errorf(model.Corrupt,
			"%d pages of volume %s had different copies, which cannot be; they are equal now; the node's log names them",
			found.Different, rec.Name)
	case found.Skipped > 0:
		return model.Errorf(model.Unavailable, "parts of volume %s have one copy in reach; there was nothing to compare them with", rec.Name)
	}
	return nil
}

// ScrubVolume begins to compare the copies of a volume, on whichever node can, and
// returns the task. It is model.Conflict while that is done.
func (a *Agent) ScrubVolume(ctx context.Context, rec model.Volume) (Task, error) {
	node := rec.Holder
	if node == 0 {
		node = a.cfg.Self
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var out Task
	err := a.cfg.Wire.Call(ctx, node, compareKind, volumeCall{rec.ID}, &out)
	return out, err
}

func (a *Agent) handleCompare(ctx context.Context, _ model.NodeID, body json.RawMessage) (any, error) {
	var call volumeCall
	if err := json.Unmarshal(body, &call); err != nil {
		return nil, model.Errorf(model.Invalid, "read request: %w", err)
	}
	view, err := a.cfg.Meta.View(ctx)
	if err != nil {
		return nil, err
	}
	rec, err := view.Volume(call.Volume)
	switch {
	case err != nil:
		return nil, err
	case rec.Holder != 0 && rec.Holder != a.cfg.Self:
		return nil, model.Errorf(model.Unavailable, "volume %s changed its holder; try again", rec.Name)
	case !a.busyComparing.begin(rec.ID):
		return nil, model.Errorf(model.Conflict, "the copies of volume %s are being compared already", rec.Name)
	}
	work, w := a.Tasks.Begin(a.ctx, compareKind, rec.Name)
	task := w.now()
	a.work.Go(func() { w.End(a.compare(work, rec, w)) })
	return task, nil
}
