package sim

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"drystone.example/drystone/backend/agent"
	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/disk/disktest"
	"drystone.example/drystone/backend/block/server"
	"drystone.example/drystone/backend/block/volume"
	"drystone.example/drystone/backend/meta"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/wire"
)

const port = "7420"

// A node is a machine. It outlives its processes.
type node struct {
	w     *world
	id    model.NodeID
	name  string
	dir   string
	tls   wire.Config // of which only TLS is set
	logs  vfs.FS
	peers []model.Node
	drive *disktest.Drive // nil: it holds volumes
	disk  model.DiskID
	saves func() // is called when the node remembers its disks

	mu   sync.Mutex
	live *process // nil: down
}

// A process is a node from its start to its end.
type process struct {
	rec    *meta.Record
	disk   *disk.Disk
	agent  *agent.Agent
	client *server.Client
	cancel context.CancelFunc
	ctx    context.Context
	work   sync.WaitGroup

	mu   sync.Mutex
	hold *agent.Hold // what is served here, or nil
}

func (p *process) serving() *volume.Volume {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hold == nil {
		return nil
	}
	return p.hold.Volume()
}

func (p *process) serve(h *agent.Hold) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hold = h
}

func (n *node) now() *process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.live
}

func (n *node) set(p *process) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.live = p
}

func (n *node) model() model.Node {
	return model.Node{ID: n.id, Name: n.name, Address: n.name, API: "https://" + n.name}
}

// start begins a process.
func (n *node) start() error {
	w, p := n.w, &process{}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	var members *meta.Record
	tr := wire.New(wire.Config{
		Self: n.id, Cluster: w.ca.ID, Listen: net.JoinHostPort(n.name, port),
		Network: w.net.Host(n.name), TLS: n.tls.TLS,
		Allowed: func(id model.NodeID) error { return members.Allowed(id) },
		Resolve: func(id model.NodeID) (string, error) {
			host, err := members.Address(id)
			return net.JoinHostPort(host, port), err
		},
	})
	var err error
	p.rec, err = meta.Open(p.ctx, meta.Config{
		Dir: filepath.Join(n.dir, "raft"), Self: n.id, Wire: tr, Peers: n.peers, LogFS: n.logs,
		Clock: func() time.Duration { return time.Since(w.began) },
	})
	if err != nil {
		return err
	}
	members = p.rec
	blocks := server.New(server.Config{})
	tr.Serve(server.Proto, blocks.Serve)
	if n.drive != nil {
		if p.disk, err = n.drive.Open(p.ctx, disk.Options{Cluster: w.ca.ID}); err != nil {
			return errors.Join(err, p.rec.Close())
		}
		blocks.Add(n.disk, p.disk)
	} else {
		p.client = server.NewClient(tr)
		p.agent = agent.New(agent.Config{
			Cluster: w.ca.ID, Self: n.id, Meta: p.rec, Wire: tr, Server: blocks,
			Run: n.dir, Files: filepath.Join(n.dir, "files"), Scratch: n.dir, State: n.dir,
			Remote: func(to model.NodeID, id model.DiskID) volume.Disk { return p.client.Disk(to, id) },
			Up:     w.up, Away: func(model.NodeID) time.Duration { return 0 }, Log: w.log(),
			SaveDisks: func([]string, []model.DiskID) error { n.saves(); return nil },
		})
		p.work.Go(func() { _ = p.agent.Run(p.ctx) })
		p.work.Go(func() { w.hold(n, p) })
	}
	p.work.Go(func() { _ = tr.Run(p.ctx) })
	n.set(p)
	return nil
}

var errCrash = model.Errorf(model.Unavailable, "the node died")

// crash ends the process, and cuts the power of its drive: of what was not synced a
// part is left, percent of it on average.
func (n *node) crash(percent int) {
	p := n.now()
	if p == nil {
		return
	}
	n.set(nil)
	n.w.net.Kill(n.name)
	if n.drive != nil {
		n.drive.Crash(percent)
	}
	if v := p.serving(); v != nil {
		v.Fence(errCrash)
	}
	p.cancel()
	_ = p.rec.Close()
	if p.client != nil {
		p.client.Close()
	}
	p.work.Wait()
	if p.disk != nil {
		_ = p.disk.Close()
	}
}

// hold takes the volume whenever it can be had, and lets it go after a while, until
// the process ends.
func (w *world) hold(n *node, p *process) {
	for p.ctx.Err() == nil && !w.stopped() {
		w.pause(p.ctx, w.between(0, 2*time.Second))
		ctx, cancel := context.WithTimeout(p.ctx, 40*time.Second)
		h, err := p.agent.Acquire(ctx, w.volume, model.ForExport)
		cancel()
		if err != nil {
			w.logf("%s: not taken: %v", n.name, err)
			continue
		}
		gen := uint64(h.Volume().Status().Generation)
		w.hist.Served(gen, w.now())
		w.logf("%s serves generation %d", n.name, gen)
		p.serve(h)
		select {
		case <-p.ctx.Done():
			h.Volume().Fence(errCrash) // crash may have come before serve
			return
		case <-h.Volume().Done():
			w.logf("%s: generation %d: %v", n.name, gen, h.Volume().Err())
		case <-time.After(w.reign()):
		case <-w.stop:
		}
		p.serve(nil)
		p.agent.Release(h)
	}
}

// reign is how long a node holds the volume.
func (w *world) reign() time.Duration {
	if w.steady {
		return time.Hour
	}
	return w.between(5*time.Second, time.Minute)
}

// join makes a node a member, a voter too.
func (w *world) join(n *node) {
	w.t.Helper()
	lead := w.leader()
	token := "t-" + n.name
	w.must(lead, command.TokenCreate{Token: model.JoinToken{
		ID: token, SecretHash: hash64, Uses: 1, Expires: time.Now().Add(time.Hour),
	}})
	w.must(lead, command.TokenRedeem{
		Token: token, SecretHash: hash64, Node: n.model(), KeyHash: n.id.String() + hash64[13:],
	})
	n.peers = lead.Local().Nodes()
	w.check(n.start())
	w.check(lead.AddVoter(w.t.Context(), n.id))
}

func (w *world) log() *slog.Logger {
	if *logged {
		return slog.New(slog.NewTextHandler(w, nil))
	}
	return slog.New(slog.DiscardHandler)
}
