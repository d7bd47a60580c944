package agent

import (
	"context"
	"fmt"
	"sync"
	"time"

	"drystone.example/drystone/backend/block/volume"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
)

// How long letting a volume go may take, and how often a volume that cannot be
// had yet is asked for again.
const (
	releaseTime  = 15 * time.Second
	acquireAgain = 250 * time.Millisecond
)

// A Hold is a volume that this node holds, shared by all who use it here.
type Hold struct {
	id      model.VolumeID
	purpose model.Purpose

	ready chan struct{} // closed when volume or err is set
	gone  chan struct{} // closed when the record does not name us any more

	wanted     chan struct{} // closed when somebody else wants the volume
	wantedOnce sync.Once

	// Written before ready is closed, never after.
	volume *volume.Volume
	err    error

	users int // guarded by holds.mu
}

// Volume is what is held. It is a device for the front ends.
func (h *Hold) Volume() *volume.Volume { return h.volume }

// holds knows the volumes this node holds or is about to hold.
type holds struct {
	mu  sync.Mutex // guards all and the users of each; nothing blocks under it
	all map[model.VolumeID]*Hold
}

// Acquire makes this node the holder of a volume, or joins those who hold it here
// already for the same purpose. It waits until the holder before has let go or
// lost its lease, at most until ctx ends. Each Acquire needs one Release.
func (a *Agent) Acquire(ctx context.Context, id model.VolumeID, purpose model.Purpose) (*Hold, error) {
	if err := a.finds.await(ctx); err != nil {
		return nil, err
	}
	for {
		h, mine, err := a.holds.join(id, purpose)
		switch {
		case err != nil:
			return nil, err
		case h == nil: // held here for maintenance, which gives way
			if err := a.reverting(id); err != nil {
				return nil, err
			}
			if err := a.yield(ctx, id); err != nil {
				return nil, err
			}
			continue
		case mine:
			h.volume, h.err = a.open(ctx, id, purpose)
			if h.err != nil {
				a.holds.drop(h)
			}
			close(h.ready)
		}
		select {
		case <-h.ready:
		case <-ctx.Done():
			a.Release(h)
			return nil, waiting(ctx, "volume %s is being taken", id)
		}
		if h.err != nil {
			return nil, h.err
		}
		return h, nil
	}
}

// reverting is why a volume cannot be had now, as this node knows: who reverts it
// shall not be disturbed for nothing.
func (a *Agent) reverting(id model.VolumeID) error {
	rec, err := a.cfg.Meta.Local().Volume(id)
	if err != nil || !rec.Revert.Due() {
		return nil //nolint:nilerr // acquiring it will say what is wrong
	}
	return model.Errorf(model.Conflict, "the volume %q is being reverted to its snapshot %q", rec.Name, rec.Revert.Name)
}

// join finds or makes the Hold of a volume. mine says that the caller has to
// open it; no Hold and no error that a maintenance hold is in the way.
func (s *holds) join(id model.VolumeID, purpose model.Purpose) (h *Hold, mine bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h = s.all[id]
	switch {
	case h == nil:
		h = &Hold{
			id: id, purpose: purpose, users: 1,
			ready: make(chan struct{}), gone: make(chan struct{}), wanted: make(chan struct{}),
		}
		s.all[id] = h
		return h, true, nil
	case h.purpose == purpose && purpose != model.ForMaintenance && h.users > 0:
		h.users++
		return h, false, nil
	case h.purpose == model.ForMaintenance && purpose != model.ForMaintenance, h.users == 0:
		return nil, false, nil
	}
	return nil, false, model.Errorf(model.Conflict, "the volume is in use here for another purpose: %s", h.purpose)
}

// drop forgets a Hold that nobody may join any more.
func (s *holds) drop(h *Hold) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all[h.id] == h {
		delete(s.all, h.id)
		close(h.gone)
	}
}

// list returns the Holds there are.
func (s *holds) list() []*Hold {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*Hold, 0, len(s.all))
	for _, h := range s.all {
		out = append(out, h)
	}
	return out
}

// serving returns the Hold of a volume that is ready here, or nil.
func (s *holds) serving(id model.VolumeID) *Hold {
	s.mu.Lock()
	h := s.all[id]
	s.mu.Unlock()
	if h == nil {
		return nil
	}
	select {
	case <-h.ready:
		if h.err == nil {
			return h
		}
	default:
	}
	return nil
}

// used reports whether somebody uses a Hold: else it is being let go.
func (s *holds) used(h *Hold) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return h.users > 0
}

// open acquires the volume in the record and takes it over.
func (a *Agent) open(ctx context.Context, id model.VolumeID, purpose model.Purpose) (*volume.Volume, error) {
	rec, err := a.acquire(ctx, id, purpose)
	if err != nil {
		return nil, fmt.Errorf("acquire volume: %w", err)
	}
	cfg := volume.Default()
	cfg.Disks, cfg.Record, cfg.Lease, cfg.Log = pool{a}, record{a}, a.lease(rec), a.log
	cfg.Grace = a.patience(a.cfg.Meta.Local(), 0)
	v, err := volume.Open(ctx, rec, cfg)
	if err != nil {
		a.letGo(id, rec.Generation)
		return nil, fmt.Errorf("take volume over: %w", err)
	}
	if rec.Origin.Volume != 0 {
		a.work.Go(func() { a.detach(v, rec) })
	}
	return v, nil
}

// acquire raises the generation in the record. While another node holds the
// volume it asks that node to let go, and tries again.
func (a *Agent) acquire(ctx context.Context, id model.VolumeID, purpose model.Purpose) (model.Volume, error) {
	for {
		view, err := a.cfg.Meta.View(ctx)
		if err != nil {
			return model.Volume{}, err
		}
		rec, err := view.Volume(id)
		if err != nil {
			return model.Volume{}, err
		}
		if rec.Holder != 0 && rec.Holder != a.cfg.Self && !rec.Revert.Due() {
			a.askYield(ctx, rec)
		}
		out, err := a.cfg.Meta.Apply(ctx, model.System, command.VolumeAcquire{
			Volume: id, Node: a.cfg.Self, Purpose: purpose, Generation: rec.Generation, Revision: rec.Revision,
		})
		if err == nil {
			return out.(model.Volume), nil //nolint:errcheck,forcetypeassert // the command says what it returns
		}
		now, _ := out.(model.Volume) // it comes with a Conflict too
		if !again(err, rec, now, purpose) {
			return model.Volume{}, err
		}
		select {
		case <-ctx.Done():
			return model.Volume{}, err
		case <-time.After(acquireAgain):
		}
	}
}

// again reports whether an acquisition that was refused is worth another try: the
// record changed meanwhile, or its holder is still there for a reason that ends.
func again(err error, was, now model.Volume, purpose model.Purpose) bool {
	switch model.CodeOf(err) { //nolint:exhaustive // the others do not pass with time
	case model.Unavailable:
		return true
	case model.Conflict:
		moved := now.ID == was.ID && now.Revision != was.Revision
		return moved || purpose == model.ForGuest && was.Holder != 0
	}
	return false
}

// Release gives up one use of a Hold; the last one closes the volume and frees
// it in the record, in the background. It reports whether it was the last.
func (a *Agent) Release(h *Hold) (last bool) {
	a.holds.mu.Lock()
	h.users--
	last = h.users == 0
	a.holds.mu.Unlock()
	if last {
		a.work.Go(func() { a.close(h) })
	}
	return last
}

// close ends a Hold that nobody uses any more.
func (a *Agent) close(h *Hold) {
	<-h.ready
	defer a.holds.drop(h)
	if h.err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), releaseTime)
	defer cancel()
	generation := h.volume.Status().Generation
	if err := h.volume.Close(ctx); err != nil && model.CodeOf(err) != model.Fenced {
		a.log.Warn("volume was not closed cleanly", "volume", h.id, "err", err)
	}
	a.letGo(h.id, generation)
}

// letGo says in the record that nobody holds a volume. What fails here is made
// good by tidying, or when the node's lease ends.
func (a *Agent) letGo(id model.VolumeID, generation model.Generation) {
	ctx, cancel := context.WithTimeout(context.Background(), releaseTime)
	defer cancel()
	_, err := a.cfg.Meta.Apply(ctx, model.System, command.VolumeRelease{
		Volume: id, Node: a.cfg.Self, Generation: generation,
	})
	switch model.CodeOf(err) { //nolint:exhaustive // the rest is worth a line
	case "", model.Fenced, model.NotFound:
	default:
		a.log.Warn("volume was not released", "volume", id, "err", err)
	}
}

// tidying releases the volumes that the record says this node holds and that it
// does not: those of a daemon before this one, which died. Nobody else could have
// them while this node has its lease.
func (a *Agent) tidying(ctx context.Context) {
	for {
		view := a.cfg.Meta.Local()
		for _, rec := range view.Volumes() {
			if rec.Holder == a.cfg.Self && !a.holds.known(rec.ID) {
				a.letGo(rec.ID, rec.Generation)
			}
		}
		if !a.sleepUntilChange(ctx, view, state.Volumes, 0, time.Minute) {
			return
		}
	}
}

// known reports whether a volume is held here, or is about to be.
func (s *holds) known(id model.VolumeID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[id] != nil
}

// waiting is the error of who gave up waiting.
func waiting(ctx context.Context, format string, args ...any) error {
	return model.Errorf(model.Unavailable, format+": %w", append(args, context.Cause(ctx))...)
}
