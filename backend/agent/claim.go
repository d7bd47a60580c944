package agent

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"drystone.example/drystone/backend/block/device"
	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/meta"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
)

// How often a node looks for disks: while one of the pool is missing, and otherwise;
// and how long its start waits for the cluster to say whose they are.
const (
	lookSoon     = 10 * time.Second
	lookEvery    = 10 * time.Minute
	awaitCluster = 5 * time.Second
)

// finds is what a node remembers of looking for disks.
type finds struct {
	looked chan struct{} // closed when it has looked once, with a lease

	last time.Time // of the goroutine that looks; zero: look now

	mu    sync.Mutex // guards what follows
	said  map[string]string
	tried map[model.DiskID]attempt
}

// An attempt is the last one to open a disk, which failed.
type attempt struct {
	path string
	at   time.Time
	why  string
}

func newFinds() finds {
	return finds{looked: make(chan struct{}), said: map[string]string{}, tried: map[model.DiskID]attempt{}}
}

// news reports whether something is said of a subject that was not said last.
func (f *finds) news(subject, text string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.said[subject] == text {
		return false
	}
	f.said[subject] = text
	return true
}

func (f *finds) failed(id model.DiskID, path string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tried[id] = attempt{path, time.Now(), Sentence(err)}
}

func (f *finds) found(id model.DiskID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.tried, id)
	delete(f.said, id.String())
}

// rests reports whether opening a disk failed a short time ago at the same path.
func (f *finds) rests(id model.DiskID, path string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	t, ok := f.tried[id]
	return ok && t.path == path && time.Since(t.at) < lookEvery
}

// why says why a disk is not open.
func (f *finds) why(id model.DiskID) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t, ok := f.tried[id]; ok {
		return t.why
	}
	return "the disk was not found"
}

// await waits until the node knows which of its disks are there, and has them open.
func (f *finds) await(ctx context.Context) error {
	select {
	case <-f.looked:
		return nil
	case <-ctx.Done():
		return model.Errorf(model.Unavailable, "the disks of this node are not open yet: %w", ctx.Err())
	}
}

// hasLooked reports whether the node knows which of its disks are there.
func (f *finds) hasLooked() bool {
	select {
	case <-f.looked:
		return true
	default:
		return false
	}
}

// finding is what opens the disks of this node, wherever they are plugged in, says
// which are not there, and lets go of those that are no longer the node's.
//
// The invariant: a disk is open on one node at most, and that is the one that the
// record gives it to. So it is opened only after a claim (command.DiskFound), which
// is refused while another node may have it open; a node says that it has not got a
// disk only from here, where it would be opened; and a node without a lease for so
// long that another may claim its disks has closed them.
func (a *Agent) finding(ctx context.Context) {
	lease := a.cfg.Meta.Lease()
	for {
		view, renewed := a.cfg.Meta.Local(), lease.Renewed()
		if !lease.Valid() {
			select {
			case <-renewed:
			case <-time.After(lookSoon):
			case <-ctx.Done():
				return
			}
		}
		if err := a.tendDisks(ctx, lease); err != nil && ctx.Err() == nil && model.CodeOf(err) != model.Unavailable {
			a.log.Warn("disks were not looked after", "err", err)
		}
		if !a.sleepUntilChange(ctx, view, state.Disks, 0, lookSoon) {
			return
		}
	}
}

// A diskLease is the lease of the node; *meta.Lease is one.
type diskLease interface {
	Valid() bool
	Over() time.Duration
}

// tendDisks does once what finding does.
func (a *Agent) tendDisks(ctx context.Context, lease diskLease) error {
	if lease.Over() >= meta.LeaseDisks {
		return a.closeDisks()
	}
	if !lease.Valid() {
		return nil
	}
	if err := a.forgetDisks(ctx); err != nil {
		return err
	}
	if err := a.lockSaving(ctx); err != nil {
		return err
	}
	defer func() { <-a.saving }()
	if view := a.cfg.Meta.Local(); a.lookDue(view) {
		a.look(ctx, view)
	}
	view := a.cfg.Meta.Local()
	return errors.Join(a.sayAbsent(ctx, view), a.rememberDisks(view))
}

// closeDisks closes all disks: the cluster has not heard of this node for so long that
// others may have them.
func (a *Agent) closeDisks() error {
	a.finds.last = time.Time{}
	var wait sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for id, d := range a.disks.all() {
		a.disks.remove(id)
		a.log.Warn("disk is closed, as the cluster was not in reach for long", "disk", id)
		wait.Go(func() {
			err := a.shutDisk(d)
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

// lookDue reports whether it is time to look for disks.
func (a *Agent) lookDue(view *state.View) bool {
	since := time.Since(a.finds.last)
	if a.finds.last.IsZero() || since >= lookEvery {
		return true
	}
	return since >= lookSoon && slices.ContainsFunc(view.Disks(), func(d model.Disk) bool {
		_, open := a.disks.get(d.ID)
		switch {
		case d.Twin.Node == a.cfg.Self:
			return true
		case d.Node == a.cfg.Self:
			return !open && !a.disks.hasFailed(d.ID)
		}
		return d.State == model.DiskOffline || !a.cfg.Up(d.Node)
	})
}

// look opens what it finds of this node's disks, takes over what may be taken over, and
// says what is there twice; a.saving is held.
func (a *Agent) look(ctx context.Context, view *state.View) {
	found := a.search(view.Disks())
	var wait sync.WaitGroup
	for id, places := range found {
		wait.Go(func() { a.tendFound(ctx, view, id, places) })
	}
	wait.Wait()
	for _, rec := range view.Disks() {
		if at := rec.Twin; at.Node == a.cfg.Self &&
			!slices.ContainsFunc(found[rec.ID], func(p place) bool { return p.path == at.Path }) {
			a.tell(ctx, command.DiskFound{Disk: rec.ID, Node: a.cfg.Self, Claims: rec.Claims, Twin: true})
		}
	}
	a.finds.last = time.Now()
	if !a.finds.hasLooked() && ctx.Err() == nil {
		close(a.finds.looked)
	}
}

// tendFound does what there is to do about a disk that was found.
func (a *Agent) tendFound(ctx context.Context, view *state.View, id model.DiskID, places []place) {
	rec, err := view.Disk(id)
	if err != nil {
		// At the first look it may be on its way into the pool.
		if !a.finds.news(id.String(), "found") && a.finds.news(id.String()+" again", "found") {
			a.log.Warn("a disk of this cluster that is not in the pool is left alone", "disk", id, "path", places[0].path)
		}
		return
	}
	if _, open := a.disks.get(id); open {
		path, f := a.disks.pathOf(id), a.disks.fileOf(id)
		others := slices.DeleteFunc(slices.Clone(places), func(p place) bool { return p.is(path, f) })
		if len(others) > 0 {
			a.twin(ctx, rec, others[0])
		}
		return
	}
	switch {
	case a.disks.hasFailed(id): // it stays out until the daemon starts again
	case rec.Node == a.cfg.Self:
		a.tendOwn(ctx, rec, places)
	default:
		a.tendOther(ctx, rec, places)
	}
}

// tendOwn opens a disk that the record gives to this node. Of two the file at the path
// in the record is the disk; of two devices nobody knows.
func (a *Agent) tendOwn(ctx context.Context, rec model.Disk, places []place) {
	at := places[0]
	if len(places) > 1 {
		i := slices.IndexFunc(places, func(p place) bool { return p.dev == nil && p.path == rec.Path })
		if i < 0 {
			a.finds.failed(rec.ID, "", model.Errorf(model.Conflict, "the disk was found twice: one is an image of the other"))
			a.twin(ctx, rec, places[1])
			return
		}
		at = places[i]
		a.twin(ctx, rec, places[(i+1)%len(places)])
	}
	a.claim(ctx, rec, at, false)
}

// tendOther claims a disk of another node that does not have it any more.
func (a *Agent) tendOther(ctx context.Context, rec model.Disk, places []place) {
	at := places[0]
	has, answered := a.opened(ctx, rec.Node, rec.ID)
	switch {
	case rec.Twin.Node != 0: // an alarm says so
	case has, len(places) > 1:
		a.twin(ctx, rec, at)
	case answered && rec.State != model.DiskOffline:
		// It will say so, or open another; unless the disk failed there.
	default:
		a.claim(ctx, rec, at, rec.State != model.DiskOffline)
	}
}

// opened asks a node whether it has a disk open.
func (a *Agent) opened(ctx context.Context, node model.NodeID, id model.DiskID) (open, answered bool) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	var got Usage
	if err := a.cfg.Wire.Call(ctx, node, callUsage, struct{}{}, &got); err != nil {
		return false, false
	}
	return slices.ContainsFunc(got.Disks, func(d model.DiskUsage) bool { return d.Disk == id }), true
}

// twin says that a disk was found in a second place.
func (a *Agent) twin(ctx context.Context, rec model.Disk, at place) {
	if a.finds.news(rec.ID.String(), at.path) {
		a.log.Error("disk was found twice, one is an image of the other and is not used",
			"disk", rec.ID, "node", rec.Node, "path", rec.Path, "other_path", at.path)
	}
	a.tell(ctx, command.DiskFound{Disk: rec.ID, Node: a.cfg.Self, Claims: rec.Claims, Path: at.path, Twin: true})
}

// tell makes the record say what was found, or fails and is tried at the next look.
func (a *Agent) tell(ctx context.Context, cmd command.DiskFound) {
	_, err := a.cfg.Meta.Apply(ctx, model.System, cmd)
	if err != nil && model.CodeOf(err) != model.Unavailable && a.finds.news(cmd.Disk.String(), err.Error()) {
		a.log.Warn("what was found of a disk was not noted", "disk", cmd.Disk, "err", err)
	}
}

// claim makes a disk this node's, and opens it.
func (a *Agent) claim(ctx context.Context, rec model.Disk, at place, gone bool) {
	if a.finds.rests(rec.ID, at.path) {
		return
	}
	_, err := a.cfg.Meta.Apply(ctx, model.System, command.DiskFound{
		Disk: rec.ID, Node: a.cfg.Self, Claims: rec.Claims, Path: at.path, Journal: at.Journal, Gone: gone,
	})
	switch code := model.CodeOf(err); {
	case code == model.Unavailable && gone:
		if a.finds.news(rec.ID.String(), "waits") {
			a.log.Info("a disk of another node is here, and is taken over when that node has been away for long enough",
				"disk", rec.ID, "node", rec.Node, "path", at.path, "away", meta.LeaseDisks)
		}
		return
	case err != nil:
		a.refused(rec, at, err)
		return
	}
	d, err := a.openPlace(ctx, at)
	if err != nil {
		a.refused(rec, at, err)
		return
	}
	if rec.Node != a.cfg.Self {
		a.log.Info("disk of another node is this node's now", "disk", rec.ID, "from", rec.Node, "path", at.path)
	}
	a.finds.found(rec.ID)
	a.serveDisk(d, at.path)
}

// refused says why a disk is not open, and lets it rest.
func (a *Agent) refused(rec model.Disk, at place, err error) {
	if a.finds.news(rec.ID.String(), err.Error()) {
		a.log.Error("disk was not opened", "disk", rec.ID, "path", at.path, "err", err)
	}
	if model.CodeOf(err) != model.Unavailable {
		a.finds.failed(rec.ID, at.path, err)
	}
}

func (a *Agent) openPlace(ctx context.Context, at place) (*disk.Disk, error) {
	if at.dev != nil {
		return device.Open(ctx, *at.dev, a.cfg.Mounts, a.diskOptions())
	}
	return disk.Open(ctx, at.path, a.diskOptions())
}

// sayAbsent tells the record which disks of this node are not open; a.saving is held.
// One that has failed is reported as that, by who saw it fail.
func (a *Agent) sayAbsent(ctx context.Context, view *state.View) error {
	if !a.finds.hasLooked() {
		return nil
	}
	var errs []error
	for _, rec := range view.Disks() {
		_, open := a.disks.get(rec.ID)
		if rec.Node != a.cfg.Self || rec.State != model.DiskOnline || open || a.disks.hasFailed(rec.ID) {
			continue
		}
		_, err := a.cfg.Meta.Apply(ctx, model.System, command.DiskFound{
			Disk: rec.ID, Node: a.cfg.Self, Claims: rec.Claims, Error: a.finds.why(rec.ID),
		})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// rememberDisks keeps where this node's disks are, as the record has it; a.saving is
// held.
func (a *Agent) rememberDisks(view *state.View) error {
	paths, devices := []string{}, []model.DiskID{}
	for _, rec := range view.Disks() {
		switch {
		case rec.Node != a.cfg.Self:
		case onDevice(rec.Path):
			devices = append(devices, rec.ID)
		default:
			paths = append(paths, rec.Path)
		}
	}
	if alike(paths, a.cfg.Disks) && alike(devices, a.cfg.Devices) {
		return nil
	}
	if err := a.cfg.SaveDisks(paths, devices); err != nil {
		return err
	}
	a.cfg.Disks, a.cfg.Devices = paths, devices
	return nil
}

// alike reports whether two lists have the same in them, in any order.
func alike[T cmp.Ordered](a, b []T) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}
