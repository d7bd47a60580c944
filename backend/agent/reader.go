package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"drystone.example/drystone/backend/block/volume"
	"drystone.example/drystone/backend/model"
)

// Snapshots are read where their volume is held: by this node if it holds it for
// whatever purpose, else through the node that does. While nobody holds it, the
// node that wants to read does so itself, for maintenance, and so gives way to who
// wants to use the volume; reading then goes on through that holder.
//
// Invariant: what was read of a snapshot is handed out only if the holder's own
// record had the snapshot after it was read. Of a snapshot that is deleted nothing
// is freed before the holder's record says so.

const (
	callParts = "snapshot.parts"

	// readPatience is how long a read waits for a holder that answers.
	readPatience = time.Minute
	readAgain    = 100 * time.Millisecond
	// settleTime is how often a reader looks whether its volume is held. Where nobody
	// was found holding it twice, nobody is about to.
	settleTime = time.Second
	// holdPatience is for how long a volume whose holder is away is asked for before it
	// is looked at again.
	holdPatience = 10 * time.Second
)

// A reader reads one snapshot, or asks what was changed up to it or in a volume up
// to now, wherever the volume is held.
type reader struct {
	agent  *Agent
	volume model.VolumeID
	snap   model.SnapshotID // zero: the volume as it is
	stop   context.CancelFunc
	work   sync.WaitGroup
}

// read begins to read; the caller closes the reader.
func (a *Agent) read(id model.VolumeID, snap model.SnapshotID) *reader {
	ctx, stop := context.WithCancel(a.ctx)
	r := &reader{agent: a, volume: id, snap: snap, stop: stop}
	r.work.Go(func() { r.keepHeld(ctx) })
	return r
}

// close gives up what the reader holds, and waits for it.
func (r *reader) close() {
	r.stop()
	r.work.Wait()
}

// keepHeld holds the volume whenever nobody else does, or who does is away, until ctx
// ends or there is no such volume any more. That who is away does not serve it any more
// is the leader's to see.
func (r *reader) keepHeld(ctx context.Context) {
	for free := 1; ctx.Err() == nil; free++ { // the first time it is not waited for
		rec, err := r.agent.cfg.Meta.Local().Volume(r.volume)
		switch {
		case err != nil:
			return
		case rec.Holder == r.agent.cfg.Self, rec.Holder != 0 && r.agent.cfg.Up(rec.Holder):
			free = 0
		case free > 0:
			r.hold(ctx)
			free = 0
		}
		select {
		case <-ctx.Done():
		case <-time.After(settleTime):
		}
	}
}

// hold holds the volume until somebody wants it, ctx ends or it is lost.
func (r *reader) hold(ctx context.Context) {
	try, cancel := context.WithTimeout(ctx, holdPatience)
	h, err := r.agent.Acquire(try, r.volume, model.ForMaintenance)
	cancel()
	if err != nil {
		if ctx.Err() == nil {
			r.agent.log.Debug("volume was not taken to be read", "volume", r.volume, "err", err)
		}
		return
	}
	select {
	case <-h.wanted:
	case <-h.volume.Done():
	case <-ctx.Done():
	}
	r.agent.releaseWait(h)
}

// there returns model.NotFound once what is read is deleted, or the other snapshot
// that it is compared with.
func (r *reader) there(since model.SnapshotID) error {
	view := r.agent.cfg.Meta.Local()
	if _, err := view.Volume(r.volume); err != nil {
		return err
	}
	for _, id := range []model.SnapshotID{r.snap, since} {
		if id == 0 {
			continue
		}
		if _, err := view.Snapshot(id); err != nil {
			return err
		}
	}
	return nil
}

// do does something here, if the volume is held here, or on the node that holds it.
// It waits for a holder, but not for ever.
func (r *reader) do(ctx context.Context, since model.SnapshotID, here func(context.Context) error,
	elsewhere func(context.Context, model.NodeID) error,
) error {
	ctx, cancel := context.WithTimeout(ctx, readPatience)
	defer cancel()
	for {
		err := r.try(ctx, here, elsewhere)
		switch code := model.CodeOf(err); {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return waiting(ctx, "volume %s is read (%w)", r.volume, err)
		case code != model.Unavailable && code != model.Fenced && code != model.NotFound:
			return err
		}
		// Not found is what the holder may say that has not heard of a new snapshot yet.
		if gone := r.there(since); gone != nil {
			return gone
		}
		select {
		case <-ctx.Done():
			return waiting(ctx, "volume %s is read (%w)", r.volume, err)
		case <-time.After(readAgain):
		}
	}
}

func (r *reader) try(ctx context.Context, here func(context.Context) error,
	elsewhere func(context.Context, model.NodeID) error,
) error {
	if r.agent.holds.serving(r.volume) != nil {
		return here(ctx)
	}
	rec, err := r.agent.cfg.Meta.Local().Volume(r.volume)
	switch {
	case err != nil:
		return err
	case rec.Holder == 0 || rec.Holder == r.agent.cfg.Self:
		return model.Errorf(model.Unavailable, "nobody holds the volume %s now", rec.Name)
	}
	return elsewhere(ctx, rec.Holder)
}

// readAt fills p with what lay at off when the snapshot was cut, or lies there now. p is
// aligned (package iobuf).
func (r *reader) readAt(ctx context.Context, p []byte, off int64) error {
	if r.snap == 0 {
		return r.do(ctx, 0,
			func(ctx context.Context) error { return r.agent.readVolumeHere(ctx, r.volume, p, off) },
			func(ctx context.Context, node model.NodeID) error { return r.readFrom(ctx, node, p, off) })
	}
	return r.do(ctx, 0,
		func(ctx context.Context) error { return r.agent.readHere(ctx, r.snap, p, off) },
		func(ctx context.Context, node model.NodeID) error { return r.readFrom(ctx, node, p, off) })
}

// readVolumeHere reads from a volume that this node holds.
func (a *Agent) readVolumeHere(ctx context.Context, id model.VolumeID, p []byte, off int64) error {
	h := a.holds.serving(id)
	if h == nil {
		return model.Errorf(model.Unavailable, "volume %s is not served here", id)
	}
	if size := h.volume.Size(); off < 0 || off > size || int64(len(p)) > size-off {
		return model.Errorf(model.Invalid, "%d bytes at %d end after %d", len(p), off, size)
	}
	return h.volume.ReadAt(ctx, p, off)
}

// readHere reads from a snapshot of a volume that this node holds.
func (a *Agent) readHere(ctx context.Context, id model.SnapshotID, p []byte, off int64) error {
	at, err := a.snapshotHere(id)
	if err != nil {
		return err
	}
	if err := at.ReadAt(ctx, p, off); err != nil {
		return err
	}
	_, err = a.cfg.Meta.Local().Snapshot(id)
	return err
}

// snapshotHere finds a snapshot of a volume that this node holds.
func (a *Agent) snapshotHere(id model.SnapshotID) (*volume.Snapshot, error) {
	s, err := a.cfg.Meta.Local().Snapshot(id)
	if err != nil {
		return nil, err
	}
	h := a.holds.serving(s.Volume)
	if h == nil {
		return nil, model.Errorf(model.Unavailable, "volume %s is not served here", s.Volume)
	}
	at, err := h.volume.At(s)
	if err != nil { // it was cut while the holder was not asked, which hears of it soon
		return nil, model.Errorf(model.Unavailable, "the holder has not heard of the snapshot yet: %w", err)
	}
	return at, nil
}

// A partsCall asks the holder of a volume about parts of it, or of a snapshot of it.
type partsCall struct {
	Volume   model.VolumeID   `json:"volume"`
	Snapshot model.SnapshotID `json:"snapshot,omitzero"` // zero: the volume as it is
	Since    model.SnapshotID `json:"since,omitzero"`    // zero: which hold data; else which were changed since
	Offset   int64            `json:"offset"`
	Length   int64            `json:"length"`
}

// A part is a stretch that is, or is not, what was asked for.
type part struct {
	Length model.Bytes `json:"length"`
	Is     bool        `json:"is"`
}

// parts says which parts of [off, off+n) hold data or, if since is given, were
// changed since that snapshot. It may answer for less than n bytes, never for none.
func (r *reader) parts(ctx context.Context, since model.SnapshotID, off, n int64) (out []part, err error) {
	call := partsCall{Volume: r.volume, Snapshot: r.snap, Since: since, Offset: off, Length: n}
	err = r.do(ctx, since,
		func(ctx context.Context) (err error) {
			out, err = r.agent.partsHere(ctx, call)
			return err
		},
		func(ctx context.Context, node model.NodeID) error {
			return r.agent.cfg.Wire.Call(ctx, node, callParts, call, &out)
		})
	if err != nil {
		return nil, err
	}
	left := n
	for _, p := range out {
		if p.Length <= 0 || int64(p.Length) > left {
			return nil, model.Errorf(model.Internal, "a part of %d bytes of %d was told of volume %s", p.Length, n, r.volume)
		}
		left -= int64(p.Length)
	}
	if len(out) == 0 && n > 0 {
		return nil, model.Errorf(model.Internal, "nothing was told of %d bytes at %d of volume %s", n, off, r.volume)
	}
	return out, nil
}

func (a *Agent) handleParts(ctx context.Context, _ model.NodeID, body json.RawMessage) (any, error) {
	var call partsCall
	if err := json.Unmarshal(body, &call); err != nil {
		return nil, model.Errorf(model.Invalid, "read request: %w", err)
	}
	return a.partsHere(ctx, call)
}

// partsHere answers for a volume that this node holds.
func (a *Agent) partsHere(ctx context.Context, call partsCall) ([]part, error) {
	h := a.holds.serving(call.Volume)
	if h == nil {
		return nil, model.Errorf(model.Unavailable, "volume %s is not served here", call.Volume)
	}
	var out []part
	var err error
	switch {
	case call.Since != 0:
		out, err = a.changesHere(ctx, h.volume, call)
	case call.Snapshot != 0:
		out, err = a.extentsHere(ctx, call)
	default:
		return nil, model.Errorf(model.Invalid, "neither a snapshot nor a change of it is asked for")
	}
	if err != nil {
		return nil, err
	}
	for _, id := range []model.SnapshotID{call.Snapshot, call.Since} {
		if id == 0 {
			continue
		}
		if _, err := a.cfg.Meta.Local().Snapshot(id); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (a *Agent) extentsHere(ctx context.Context, call partsCall) ([]part, error) {
	at, err := a.snapshotHere(call.Snapshot)
	if err != nil {
		return nil, err
	}
	runs, err := at.Extents(ctx, call.Offset, call.Length)
	out := make([]part, len(runs))
	for i, run := range runs {
		out[i] = part{run.Length, !run.Zero}
	}
	return out, err
}

func (a *Agent) changesHere(ctx context.Context, v *volume.Volume, call partsCall) ([]part, error) {
	since, err := a.cfg.Meta.Local().Snapshot(call.Since)
	if err != nil {
		return nil, err
	}
	ask := v.Changes
	if call.Snapshot != 0 {
		at, err := a.snapshotHere(call.Snapshot)
		if err != nil {
			return nil, err
		}
		ask = at.Changes
	}
	found, err := ask(ctx, since, call.Offset, call.Length)
	out := make([]part, len(found))
	for i, c := range found {
		out[i] = part{c.Length, c.Changed}
	}
	if err != nil {
		return nil, fmt.Errorf("list changes: %w", err)
	}
	return out, nil
}
