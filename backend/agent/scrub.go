package agent

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/model"
)

// Every disk is scrubbed once a week by its node: all it holds is read and compared
// with its sums. A damaged page is reported to the holder of its volume, the one
// place that can replace it without overtaking a write; a volume that nobody holds is
// held for maintenance meanwhile.

const (
	scrubKind = "disk.scrub" // of the task

	scrubEvery = 7 * 24 * time.Hour
	// scrubSpread keeps disks that were added together apart.
	scrubSpread = 24 * time.Hour
	// scrubFirst and scrubLook are when a node looks for disks to scrub: soon after
	// its start, to go on with what its end interrupted, and then now and again.
	scrubFirst = 5 * time.Minute
	scrubLook  = time.Hour
	// scrubRetry is how long a pass that was cancelled, or failed, rests.
	scrubRetry = 24 * time.Hour

	repairTries = 5
	repairWait  = 40 * time.Second // longer than the holder tries
)

// The calls of scrubbing.
const (
	callScrub  = "disk.scrub"
	callRepair = "volume.repair"
)

// scrubs remembers which disks rest.
type scrubs struct {
	mu   sync.Mutex // guards rest; nothing blocks under it
	rest map[model.DiskID]time.Time
}

func (s *scrubs) put(id model.DiskID, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rest == nil {
		s.rest = map[model.DiskID]time.Time{}
	}
	s.rest[id] = until
}

func (s *scrubs) rests(id model.DiskID, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return now.Before(s.rest[id])
}

// scrubDue reports whether a pass over a disk should begin, or go on.
func scrubDue(rec model.Disk, u model.DiskUsage, now time.Time) bool {
	switch {
	case u.Scrub.Running:
		return false
	case !u.Scrub.Began.IsZero():
		return true
	}
	last := rec.Added
	if u.Scrubbed.After(last) {
		last = u.Scrubbed
	}
	spread := time.Duration(uint64(rec.ID) % uint64(scrubSpread))
	return !now.Before(last.Add(scrubEvery - spread))
}

// scrubbing begins the passes that are due until ctx ends.
func (a *Agent) scrubbing(ctx context.Context) {
	for wait := scrubFirst; ; wait = scrubLook {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		now := time.Now()
		for id, d := range a.disks.all() {
			rec, err := a.cfg.Meta.Local().Disk(id)
			if err != nil || a.scrubs.rests(id, now) || !scrubDue(rec, d.Usage(), now) {
				continue
			}
			if _, err := a.beginScrub(d); err != nil {
				a.log.Debug("disk was not scrubbed", "disk", id, "err", err)
			}
		}
	}
}

// beginScrub begins a pass over a disk of this node, as a task.
func (a *Agent) beginScrub(d *disk.Disk) (Task, error) {
	if d.Usage().Scrub.Running {
		return Task{}, model.Errorf(model.Conflict, "disk %s is being scrubbed already", d.ID())
	}
	ctx, w := a.Tasks.Begin(a.ctx, scrubKind, d.ID().String())
	task := w.now()
	a.work.Go(func() { w.End(a.scrub(ctx, d, w)) })
	return task, nil
}

// scrub makes a pass, or goes on with one. Its error is what a person should know:
// that it did not end, or what is left damaged.
func (a *Agent) scrub(ctx context.Context, d *disk.Disk, w *Work) error {
	var lost, left int
	kept := &keptHold{release: func(h *Hold) { a.Release(h) }, run: func(f func()) { a.work.Go(f) }}
	defer kept.end(nil)
	var progress sync.WaitGroup
	ended := make(chan struct{})
	progress.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				s := d.Usage().Scrub
				w.Progress(s.Done, s.Total)
				kept.idle(time.Now())
			case <-ended:
				return
			}
		}
	})
	err := d.Scrub(ctx, func(ctx context.Context, at disk.ScrubPoint) {
		err := a.repairDamage(ctx, repairCall{at.Volume, at.Column, at.Page, d.ID()}, kept)
		switch {
		case err == nil || ctx.Err() != nil:
			return
		case model.CodeOf(err) == model.Corrupt:
			lost++
			a.log.Error("data lost: no good copy", "disk", d.ID(), "volume", at.Volume, "column", at.Column, "page", at.Page, "err", err)
		default:
			left++
			a.log.Warn("damaged page not repaired", "disk", d.ID(), "volume", at.Volume, "column", at.Column, "page", at.Page, "err", err)
		}
	})
	close(ended)
	progress.Wait()
	switch {
	case err != nil:
		if a.ctx.Err() == nil {
			a.scrubs.put(d.ID(), time.Now().Add(scrubRetry))
		}
		return err
	case lost > 0:
		return model.Errorf(model.Corrupt, "%d pages have no good copy any more: reads of them fail; the node's log names them", lost)
	case left > 0:
		return model.Errorf(model.Unavailable, "%d damaged pages could not be repaired yet; the node's log names them", left)
	}
	return nil
}

// A repairCall names a page that is damaged on a disk.
type repairCall struct {
	Volume model.VolumeID `json:"volume"`
	Column uint32         `json:"column"`
	Page   uint32         `json:"page"`
	Disk   model.DiskID   `json:"disk"`
}

// repairDamage has a damaged page rewritten by whoever holds its volume, and tries
// again while the volume is on its way from one holder to another.
func (a *Agent) repairDamage(ctx context.Context, call repairCall, kept *keptHold) error {
	for try := 1; ; try++ {
		err := a.repairOnce(ctx, call, kept)
		code := model.CodeOf(err)
		passes := code == model.Unavailable || code == model.Conflict || code == model.Fenced
		if !passes || try == repairTries {
			return err
		}
		select {
		case <-time.After(time.Duration(try) * time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (a *Agent) repairOnce(ctx context.Context, call repairCall, kept *keptHold) error {
	ctx, cancel := context.WithTimeout(ctx, repairWait)
	defer cancel()
	view, err := a.cfg.Meta.View(ctx)
	if err != nil {
		return err
	}
	rec, err := view.Volume(call.Volume)
	if model.CodeOf(err) == model.NotFound || err == nil && !wants(rec, call) {
		return nil // nobody reads it; it will be freed
	}
	switch {
	case err != nil:
		return err
	case rec.Holder == 0, kept.has(call.Volume):
		return a.repairUnheld(ctx, call, kept)
	}
	return a.cfg.Wire.Call(ctx, rec.Holder, callRepair, call, nil)
}

// wants reports whether the record names the disk for that column.
func wants(rec model.Volume, call repairCall) bool {
	if int(call.Column) >= len(rec.Columns) {
		return false
	}
	_, member := rec.Columns[call.Column].Member(call.Disk)
	return member
}

// repairUnheld holds a volume while it is repaired, unless somebody wants it.
func (a *Agent) repairUnheld(ctx context.Context, call repairCall, kept *keptHold) error {
	h := kept.take(call.Volume)
	if h == nil {
		var err error
		if h, err = a.Acquire(ctx, call.Volume, model.ForMaintenance); err != nil {
			return err
		}
	}
	defer kept.put(h)
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-h.wanted:
			cancel()
		case <-ctx.Done():
		}
	})
	err := repairOn(ctx, h, call)
	cancel()
	watch.Wait()
	if errors.Is(err, context.Canceled) {
		return model.Errorf(model.Unavailable, "volume %s was wanted while it was repaired", call.Volume)
	}
	return err
}

func repairOn(ctx context.Context, h *Hold, call repairCall) error {
	_, err := h.volume.Repair(ctx, int(call.Column), call.Page, call.Disk)
	return err
}

func (a *Agent) handleRepair(ctx context.Context, _ model.NodeID, body json.RawMessage) (any, error) {
	var call repairCall
	if err := json.Unmarshal(body, &call); err != nil {
		return nil, model.Errorf(model.Invalid, "read request: %w", err)
	}
	h := a.holds.serving(call.Volume)
	if h == nil {
		return nil, model.Errorf(model.Unavailable, "volume %s is not served here", call.Volume)
	}
	return struct{}{}, repairOn(ctx, h, call)
}

type scrubCall struct {
	Disk model.DiskID `json:"disk"`
}

// ScrubDisk begins a pass over a disk of any node, or goes on with one that was
// interrupted, and returns its task. It is model.Conflict while one is made.
func (a *Agent) ScrubDisk(ctx context.Context, rec model.Disk) (Task, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var out Task
	err := a.cfg.Wire.Call(ctx, rec.Node, callScrub, scrubCall{rec.ID}, &out)
	return out, err
}

func (a *Agent) handleScrub(_ context.Context, _ model.NodeID, body json.RawMessage) (any, error) {
	var call scrubCall
	if err := json.Unmarshal(body, &call); err != nil {
		return nil, model.Errorf(model.Invalid, "read request: %w", err)
	}
	d, open := a.disks.get(call.Disk)
	if !open {
		return nil, model.Errorf(model.Unavailable, "disk %s is not in service", call.Disk)
	}
	return a.beginScrub(d)
}
