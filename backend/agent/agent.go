package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"drystone.example/drystone/backend/block/server"
	"drystone.example/drystone/backend/block/volume"
	"drystone.example/drystone/backend/console"
	"drystone.example/drystone/backend/guard"
	"drystone.example/drystone/backend/meta"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/virt"
	"drystone.example/drystone/backend/wire"
)

// Config is what the agent works with. Hypervisor and Guard are nil on a node
// that runs no guests; everything else must be set.
type Config struct {
	Cluster model.ClusterID
	Self    model.NodeID
	Disks   []string       // paths of disks in files; they are looked for beside these, too
	Devices []model.DiskID // disks on block devices, found by their superblock
	// MapMemory bounds the page map's cache of each disk; zero: disk.DefaultMapMemory.
	MapMemory model.Bytes
	Mounts    string // folder of files with disks, and that maps are mounted in; empty: no device is looked at
	Run       string // folder of sockets
	Files     string // folder of boot files
	Scratch   string // folder for uploads
	State     string // folder of what a front end remembers of QEMU, best on a tmpfs
	CPUs      int
	Memory    model.Bytes

	Meta   *meta.Record
	Wire   *wire.Transport
	Server *server.Server
	Remote func(model.NodeID, model.DiskID) volume.Disk
	Up     func(model.NodeID) bool          // whether a node seems alive; a hint
	Away   func(model.NodeID) time.Duration // how long one that does not has seemed so; a hint

	// Leading is what this node knows if it leads, set before Start.
	Leading func() model.Leading

	Hypervisor *virt.Hypervisor
	Guard      *guard.Client
	PIDs       string // libvirt's folder of pid files

	// SaveDisks remembers this node's disks: the paths of files, and what is on devices.
	SaveDisks func(paths []string, devices []model.DiskID) error
	Log       *slog.Logger
}

// An Agent is the hands of one node. It is safe for concurrent use.
type Agent struct {
	cfg           Config
	saving        chan struct{} // held by who changes cfg.Disks and cfg.Devices
	given         bool          // there were any when the daemon began
	log           *slog.Logger
	files         Files
	disks         disks
	finds         finds
	holds         holds
	usage         usage
	scrubs        scrubs
	wares         hardware
	reads         *reads
	busyComparing comparisons
	guests        *guests       // nil on a node that runs none
	consoles      *console.Desk // of the guests
	Tasks         Tasks

	ctx    context.Context // of everything that outlives a request; ends with Run
	cancel context.CancelFunc
	work   sync.WaitGroup // of every goroutine the agent started
}

// New makes an agent and registers its calls; nothing happens before Run.
func New(cfg Config) *Agent {
	ctx, cancel := context.WithCancel(context.Background())
	a := &Agent{
		cfg: cfg, log: cfg.Log, files: NewFiles(cfg.Files), ctx: ctx, cancel: cancel,
		disks: newDisks(), finds: newFinds(), saving: make(chan struct{}, 1),
		given: len(cfg.Disks)+len(cfg.Devices) > 0,
		holds: holds{all: map[model.VolumeID]*Hold{}},
		usage: usage{nodes: map[model.NodeID]Usage{}},
		reads: newReads(),
		wares: hardware{all: map[model.DiskID]model.Hardware{}},
	}
	if cfg.Hypervisor != nil {
		a.guests = &guests{
			agent: a, hypervisor: cfg.Hypervisor, guard: cfg.Guard, pids: cfg.PIDs,
			all: map[model.VMID]*guest{},
		}
		a.consoles = console.New(cfg.Hypervisor, cfg.Log)
	}
	cfg.Wire.Handle(callYield, a.handleYield)
	cfg.Wire.Handle(callMaintain, a.handleMaintain)
	cfg.Wire.Handle(callCut, a.handleCut)
	cfg.Wire.Handle(callCutAll, a.handleCutAll)
	cfg.Wire.Handle(callParts, a.handleParts)
	cfg.Wire.Handle(callClone, a.handleClone)
	cfg.Wire.Handle(callUsage, a.handleUsage)
	cfg.Wire.Handle(callAddDisk, a.handleAddDisk)
	cfg.Wire.Handle(callGuest, a.handleGuest)
	cfg.Wire.Handle(callMigrate, a.handleMigrate)
	cfg.Wire.Handle(callUnplug, a.handleUnplug)
	cfg.Wire.Handle(callDescribe, a.handleDescribe)
	cfg.Wire.Handle(callArrive, a.handleArrive)
	cfg.Wire.Handle(callLand, a.handleLand)
	cfg.Wire.Handle(callCancel, a.handleCancel)
	cfg.Wire.Handle(callFile, a.handleFile)
	cfg.Wire.Handle(callScrub, a.handleScrub)
	cfg.Wire.Handle(compareKind, a.handleCompare)
	cfg.Wire.Handle(callRepair, a.handleRepair)
	cfg.Wire.Serve(fileProto, func(_ context.Context, peer model.NodeID, conn net.Conn) {
		if err := a.files.serve(conn); err != nil && model.CodeOf(err) != model.NotFound {
			a.log.Debug("file was not sent", "node", peer, "err", err)
		}
	})
	cfg.Wire.Handle(callTicket, a.handleTicket)
	cfg.Wire.Serve(consoleProto, a.serveConsole)
	cfg.Wire.Serve(pictureProto, a.servePicture)
	cfg.Wire.Serve(snapshotProto, a.serveReads)
	cfg.Wire.Serve(volumeProto, a.serveVolumeReads)
	cfg.Wire.Serve(migrateProto, a.serveMigration)
	return a
}

// AwaitDisks waits until the disks that this node was given are open, as far as they
// are there and its own; at most five seconds, for it may be long until there is a
// cluster that says whose they are. Run opens them.
func (a *Agent) AwaitDisks(ctx context.Context) {
	if !a.given {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, awaitCluster)
	defer cancel()
	_ = a.finds.await(ctx) // the disks follow
}

// Run does the node's part until ctx ends; then it lets its volumes go and closes
// its disks. Guests run on: QEMU waits for the next daemon. Volumes are not taken
// before the node's disks are open: their members would be missed.
func (a *Agent) Run(ctx context.Context) error {
	a.sweepScratch()
	a.work.Go(func() { a.finding(a.ctx) })
	a.work.Go(func() { a.collecting(a.ctx) })
	a.work.Go(func() { a.tidying(a.ctx) })
	a.work.Go(func() { a.following(a.ctx) })
	a.work.Go(func() { a.relating(a.ctx) })
	a.work.Go(func() { a.scrubbing(a.ctx) })
	a.work.Go(func() { a.comparing(a.ctx) })
	a.work.Go(func() { a.missing(a.ctx) })
	a.work.Go(func() { a.inspecting(a.ctx) })
	if a.guests != nil {
		a.work.Go(func() { a.guests.renewing(a.ctx) })
		a.work.Go(func() {
			if err := a.guests.run(a.ctx); err != nil {
				a.log.Error("guests are not looked after any more", "err", err)
			}
		})
	}
	<-ctx.Done()
	a.cancel()
	if a.guests != nil {
		a.guests.closeAll()
	}
	a.work.Wait()
	if a.consoles != nil {
		a.consoles.Wait()
	}
	var errs []error
	for id, d := range a.disks.all() {
		a.cfg.Server.Remove(id)
		if err := d.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close disk %s: %w", id, err))
		}
	}
	return errors.Join(errs...)
}

// following gives every held volume the newest record of it: another than its
// holder may have made it larger, wish its members to move, have deleted a snapshot of
// it, or be its holder by now.
func (a *Agent) following(ctx context.Context) {
	for {
		view := a.cfg.Meta.Local()
		again := time.Hour
		for _, h := range a.holds.list() {
			if ready := a.holds.serving(h.id); ready != nil {
				a.follow(view, ready)
			} else {
				again = followAgain // it will not have seen what changed meanwhile
			}
		}
		if !a.sleepUntilChange(ctx, view, state.Volumes, 0, again) {
			return
		}
	}
}

// followAgain is how often a volume that is being taken is looked at.
const followAgain = time.Second

func (a *Agent) follow(view *state.View, h *Hold) {
	rec, err := view.Volume(h.id)
	if err == nil {
		err = a.named(rec, h.volume.Generation())
	}
	if model.CodeOf(err) == model.Fenced {
		h.volume.Fence(err)
	}
	if err != nil {
		return
	}
	before := h.volume.Size()
	if err := h.volume.Follow(rec); err != nil {
		a.log.Warn("volume did not follow its record", "volume", h.id, "err", err)
		return
	}
	if h.volume.Size() > before {
		a.resized(h.id)
	}
}

// sleepUntilChange returns true when the record of a noun is not that of view any
// more, and at least after has passed, or when most has passed; false when ctx
// ended.
func (a *Agent) sleepUntilChange(ctx context.Context, view *state.View, noun state.Noun,
	after, most time.Duration,
) bool {
	was := view.Changed(noun)
	end := time.NewTimer(most)
	defer end.Stop()
	for changed := false; !changed; {
		select {
		case <-ctx.Done():
			return false
		case <-end.C:
			return true
		case <-view.Next():
			view = a.cfg.Meta.Local()
			changed = view.Changed(noun) != was
		}
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(after):
		return true
	}
}

// retry does something until it succeeds, is refused for good, or the agent
// stops.
func (a *Agent) retry(failure string, do func(context.Context) error) {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 10*time.Second) {
		ctx, cancel := context.WithTimeout(a.ctx, 10*time.Second)
		err := do(ctx)
		cancel()
		switch model.CodeOf(err) { //nolint:exhaustive // the rest does not pass with time
		case "":
			return
		case model.Unavailable:
		default:
			if a.ctx.Err() == nil {
				a.log.Warn(failure, "err", err) //nolint:sloglint // constant at each caller
			}
			return
		}
		select {
		case <-a.ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

func compareID[T ~uint64](x, y T) int { return cmp.Compare(x, y) }
