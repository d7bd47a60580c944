package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"drystone.example/drystone/backend/agent"
	"drystone.example/drystone/backend/api"
	"drystone.example/drystone/backend/auth"
	"drystone.example/drystone/backend/block/server"
	"drystone.example/drystone/backend/block/volume"
	"drystone.example/drystone/backend/control"
	"drystone.example/drystone/backend/fetch"
	"drystone.example/drystone/backend/gossip"
	"drystone.example/drystone/backend/guard"
	"drystone.example/drystone/backend/meta"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/metrics"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/pki"
	"drystone.example/drystone/backend/shelf"
	"drystone.example/drystone/backend/spool"
	"drystone.example/drystone/backend/virt"
	"drystone.example/drystone/backend/wire"
	"drystone.example/drystone/frontend"
)

// A node is one running daemon: every part of it, and nothing else.
type node struct {
	dir     Dir
	cfg     Config
	log     *slog.Logger
	started time.Time

	keeper  *pki.Keeper
	wire    *wire.Transport
	meta    *meta.Record
	members atomic.Pointer[meta.Record] // meta, for the wire, which may ask before it is there
	gossip  *gossip.Gossip
	alive   *alive
	moved   moved
	blocks  *server.Server
	remotes *server.Client
	agent   *agent.Agent
	control *control.Control
	metrics *metrics.Metrics
	uploads *spool.Spool
	shelf   *shelf.Shelf
	api     *api.Server
}

// Run is the daemon: it runs the node of a folder until ctx ends, or until the
// node cannot take part any more. Guests run on when it returns.
func Run(ctx context.Context, dir Dir, log *slog.Logger) error {
	dir, err := absolute(dir)
	if err != nil {
		return err
	}
	cfg, err := ReadConfig(dir)
	if err != nil {
		return err
	}
	slog.SetDefault(log)
	n := &node{
		dir: dir, cfg: cfg, log: log, started: time.Now(),
		alive: &alive{all: map[model.NodeID]seen{}},
	}
	if err := n.build(ctx); err != nil {
		return errors.Join(err, n.close())
	}
	return errors.Join(n.run(ctx), n.close())
}

func absolute(dir Dir) (Dir, error) {
	path, err := filepath.Abs(string(dir))
	if err != nil {
		return "", fmt.Errorf("find folder: %w", err)
	}
	return Dir(path), nil
}

// build makes the parts, from the bottom up. The order matters: protocols are
// registered with the wire before it runs.
func (n *node) build(ctx context.Context) (err error) {
	if n.keeper, err = pki.OpenKeeper(n.dir.PKI()); err != nil {
		return fmt.Errorf("open certificates: %w", err)
	}
	if err := n.buildWire(ctx); err != nil {
		return err
	}
	if err := n.buildMeta(ctx); err != nil {
		return err
	}
	if err := n.buildGossip(); err != nil {
		return err
	}
	n.blocks = server.New(server.Config{MayHold: n.mayHold})
	n.wire.Serve(server.Proto, n.blocks.Serve)
	n.remotes = server.NewClient(n.wire)
	if err := n.buildAgent(ctx); err != nil {
		return err
	}
	n.control = control.New(control.Config{
		Self: n.cfg.Node, Meta: n.meta, Up: n.up, Met: n.alive.met, Hosts: n.hosts, Log: n.log,
		Maintain: n.agent.Maintain, Situation: n.agent.Situation, Ailments: n.agent.Ailments,
		Loads: n.loads, Migrate: n.migrate, Outcome: n.outcome,
	})
	n.metrics = metrics.New(metrics.Config{
		Cluster: n.cfg.Cluster, Self: n.cfg.Node, Source: n.agent, Peers: peers{n}, Log: n.log, Dir: n.dir.History(),
		Known: n.machines,
	})
	n.handleMetrics()
	n.handleMembers()
	return n.buildAPI()
}

func (n *node) buildWire(ctx context.Context) error {
	address, err := netip.ParseAddr(n.cfg.Address)
	if err != nil {
		return fmt.Errorf("read address: %w", err)
	}
	n.wire = wire.New(wire.Config{
		Self: n.cfg.Node, Cluster: n.cfg.Cluster, Listen: hostPort(n.cfg.Address, WirePort),
		Network: wire.TCP{Local: address}, TLS: n.keeper, Allowed: n.allowed, Resolve: n.resolve,
	})
	_, err = n.wire.Listen(ctx)
	return err
}

// allowed says whether a node is a member; see meta.Record.Allowed. While the
// record is being opened nothing is known yet, and the certificate counts.
func (n *node) allowed(id model.NodeID) error {
	if m := n.members.Load(); m != nil {
		return m.Allowed(id)
	}
	return nil
}

// resolve finds a node's port by the record, or by what is remembered of it.
func (n *node) resolve(id model.NodeID) (string, error) {
	m := n.members.Load()
	if m == nil {
		return "", model.Errorf(model.Unavailable, "the record is not open yet")
	}
	address, err := m.Address(id)
	if err != nil {
		return "", err
	}
	address = n.moved.of(id, address)
	return hostPort(address, WirePort), nil
}

func (n *node) buildMeta(ctx context.Context) (err error) {
	var peers []model.Node
	for _, p := range n.cfg.Peers {
		peers = append(peers, model.Node{ID: p.ID, Address: p.Address})
	}
	n.meta, err = meta.Open(ctx, meta.Config{Dir: n.dir.Raft(), Self: n.cfg.Node, Wire: n.wire, Peers: peers})
	if err != nil {
		return fmt.Errorf("open record: %w", err)
	}
	n.members.Store(n.meta)
	return nil
}

// bear completes what Init began: it makes this node the first of its cluster.
// Interrupted, it is done again.
func (n *node) bear(ctx context.Context) error {
	text, err := os.ReadFile(n.dir.Birth())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read birth: %w", err)
	}
	var first command.ClusterCreate
	if err := json.Unmarshal(text, &first); err != nil {
		return fmt.Errorf("read birth: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_, err = n.meta.Bootstrap(ctx, model.System, first)
	if err != nil && model.CodeOf(err) != model.Conflict {
		return fmt.Errorf("begin cluster: %w", err)
	}
	if err := os.Remove(n.dir.Birth()); err != nil {
		return fmt.Errorf("forget birth: %w", err)
	}
	return syncDir(string(n.dir))
}

func (n *node) buildGossip() error {
	raw, err := readKeyring(n.dir)
	if err != nil {
		return err
	}
	keys, err := gossipKeys(raw)
	if err != nil {
		return err
	}
	address, err := netip.ParseAddr(n.cfg.Address)
	if err != nil {
		return fmt.Errorf("read address: %w", err)
	}
	n.gossip, err = gossip.Open(gossip.Config{
		Node: n.cfg.Node, Name: n.cfg.Name, Version: model.Version, Keys: keys,
		Listen: netip.AddrPortFrom(address, GossipPort), Peers: n.gossipPeers,
	})
	if err != nil {
		return fmt.Errorf("open gossip: %w", err)
	}
	return nil
}

// gossipPeers lists where the others listen.
func (n *node) gossipPeers() []string {
	var out []string
	for _, rec := range n.meta.Local().Nodes() {
		if rec.ID != n.cfg.Node {
			out = append(out, hostPort(rec.Address, GossipPort))
		}
	}
	if len(out) == 0 {
		for _, p := range n.cfg.Peers {
			out = append(out, hostPort(p.Address, GossipPort))
		}
	}
	return out
}

// up is gossip's hint.
func (n *node) up(id model.NodeID) bool {
	return id == n.cfg.Node || n.gossip.Status(id) == gossip.Alive
}

func (n *node) buildAgent(ctx context.Context) error {
	cpus, memory, err := machine()
	if err != nil {
		return err
	}
	cfg := agent.Config{
		Cluster: n.cfg.Cluster, Self: n.cfg.Node, Disks: n.cfg.Disks,
		Devices: n.cfg.Devices, MapMemory: n.cfg.MapMemory, Mounts: n.dir.Disks(), Run: n.dir.Run(), Files: n.dir.Files(),
		Scratch: n.dir.Scratch(), State: n.dir.Run(), CPUs: cpus, Memory: memory,
		Meta: n.meta, Wire: n.wire, Server: n.blocks, Up: n.up, Away: n.awayFor, Log: n.log, SaveDisks: n.saveDisks,
		Leading: func() model.Leading { return n.control.Leading() },
		Remote:  func(node model.NodeID, id model.DiskID) volume.Disk { return n.remotes.Disk(node, id) },
	}
	if n.cfg.LibvirtURI != "" {
		cfg.Hypervisor, err = virt.New(virt.Config{ //nolint:contextcheck // it looks at the machine once, bounded
			URI: n.cfg.LibvirtURI, Dir: n.dir.VMs(), Accelerator: n.cfg.Accelerator, Log: n.log,
		})
		if err != nil {
			return fmt.Errorf("prepare hypervisor: %w", err)
		}
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find own program: %w", err)
		}
		err = guard.Spawn(ctx, n.dir.Guard(), n.dir.path("guard.log"),
			self, "guard", "--dir", string(n.dir), "--pids", n.cfg.LibvirtPIDs)
		if err != nil {
			return fmt.Errorf("start guard: %w", err)
		}
		cfg.Guard = guard.NewClient(n.dir.Guard())
	}
	n.agent = agent.New(cfg)
	return nil
}

// saveDisks remembers the node's disks.
func (n *node) saveDisks(paths []string, devices []model.DiskID) error {
	n.cfg.Disks, n.cfg.Devices = paths, devices
	return writeConfig(n.dir, n.cfg)
}

func (n *node) buildAPI() (err error) {
	n.uploads = spool.New(filepath.Join(n.dir.Scratch(), "uploads"), n.log)
	n.shelf = shelf.New(filepath.Join(n.dir.Scratch(), "exports"), n.log)
	n.api, err = api.New(api.Config{
		Self: n.cfg.Node, Version: model.Version, Record: n.meta, Service: service{n}, Metrics: n.metrics, Uploads: n.uploads, Shelf: n.shelf, Fetch: fetch.New(n.inside),
		Hasher: auth.NewHasher(auth.Strong), Log: n.log, Page: frontend.Handler(frontend.Policy{}),
		Listen: []string{hostPort(n.cfg.Address, APIPort)}, TLS: n.keeper.Web(), Socket: n.dir.Socket(),
	})
	if err != nil {
		return fmt.Errorf("build api: %w", err)
	}
	return nil
}

// inside lists what nothing is fetched from: the networks of this node, and every member.
func (n *node) inside() []netip.Prefix {
	out := fetch.Inside()
	for _, rec := range n.meta.Local().Nodes() {
		if a, err := netip.ParseAddr(rec.Address); err == nil {
			out = append(out, netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()))
		}
	}
	return out
}

// run runs the parts until ctx ends or one of them cannot go on. The wire and the
// record go last: the agent lets its volumes go through them.
func (n *node) run(ctx context.Context) error {
	base, stopBase := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBase()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var below errgroup.Group
	below.Go(func() error {
		defer cancel()
		return named("wire", n.wire.Run(base))
	})
	below.Go(func() error {
		select {
		case <-n.meta.Failed():
			cancel()
			return named("record", n.meta.Err())
		case <-base.Done():
			return nil
		}
	})
	err := n.runAbove(ctx)
	stopBase()
	return errors.Join(err, below.Wait())
}

// runAbove runs what stands on the wire and the record.
func (n *node) runAbove(ctx context.Context) error {
	if err := n.bear(ctx); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		// Disks first: a node that seems up without its disks would make holders think
		// that they are gone.
		n.agent.AwaitDisks(ctx)
		return named("gossip", n.gossip.Run(ctx))
	})
	group.Go(func() error { return named("members", n.alive.follow(ctx, n.gossip)) })
	group.Go(func() error { return named("agent", n.agent.Run(ctx)) })
	group.Go(func() error { return named("control", n.control.Run(ctx)) })
	group.Go(func() error { return named("metrics", n.metrics.Run(ctx)) })
	group.Go(func() error { return named("certificates", n.keeper.Run(ctx, n.renew)) })
	group.Go(func() error { n.sealing(ctx); return nil })
	group.Go(func() error { n.keepTrust(ctx); return nil })
	group.Go(func() error { n.keepAddress(ctx); return nil })
	group.Go(func() error { n.uploads.Run(ctx); return nil })
	group.Go(func() error { n.shelf.Run(ctx); return nil })
	group.Go(func() error { n.sweepStages(); return nil })
	group.Go(func() error { return named("api", n.api.Run(ctx)) })
	return group.Wait()
}

// named says which part failed; ending because it was told to is no failure.
func named(part string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return nil
	}
	return fmt.Errorf("%s: %w", part, err)
}

// sealing waits until this node is a voter and has the seal key.
func (n *node) sealing(ctx context.Context) {
	for !n.fetchSeal(ctx) {
		view := n.meta.Local()
		select {
		case <-ctx.Done():
			return
		case <-view.Next():
		case <-time.After(10 * time.Second):
		}
	}
}

// close closes what build opened, top down.
func (n *node) close() error {
	var errs []error
	if n.remotes != nil {
		n.remotes.Close()
	}
	if n.meta != nil {
		errs = append(errs, n.meta.Close())
	}
	return errors.Join(errs...)
}
