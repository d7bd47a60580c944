// Package gossip tells which nodes seem to be alive: serf, as a view of members
// that can be watched. It is a hint for speed. Nothing may be decided by it that
// must not be wrong: it never fences a node, removes a voter or frees a volume.
//
// All that is sent is encrypted with the cluster's keys, so that only nodes of
// the cluster are heard. A node whose process dies is seen as failed within about
// three seconds.
package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/serf"
	"golang.org/x/sync/errgroup"

	"drystone.example/drystone/backend/model"
)

// DefaultPort is used, for TCP and UDP, by every node.
const DefaultPort = 7421

// A Status is what gossip believes about a node.
type Status string

// What it can believe, complete.
const (
	Alive  Status = "alive"
	Failed Status = "failed" // it does not answer, or nobody reaches it
	Left   Status = "left"   // it said goodbye
)

// A Member is a node as gossip sees it. What it says of itself is not proven.
type Member struct {
	Node    model.NodeID
	Name    string
	Address string // without a port
	Version string // of its daemon
	Status  Status
}

// A Key encrypts gossip with AES-256.
type Key [32]byte

// String hides the key.
func (Key) String() string { return "[redacted]" }

// GoString hides the key.
func (Key) GoString() string { return "[redacted]" }

// A Config says who we are and how to find the others.
type Config struct {
	Node    model.NodeID
	Name    string
	Version string
	Listen  netip.AddrPort // its address is also what the others are told
	Keys    []Key          // at least one; the first encrypts, all decrypt

	// Peers returns where the other nodes of the record listen, as host:port. It
	// is asked while nodes are missing, and must not block.
	Peers func() []string

	// Transport stands in for the network in tests.
	Transport memberlist.Transport
}

// How fast a failure is seen, and how often missing peers are tried. A dead
// process on a network without loss is probed within a round, does not answer
// for probeTimeout, and is failed suspicion × probeInterval later.
const (
	probeInterval = 500 * time.Millisecond
	probeTimeout  = 300 * time.Millisecond
	suspicion     = 3

	rejoinFirst = time.Second
	rejoinMost  = 15 * time.Second
	joinsAtOnce = 8
)

// A Gossip is this node's part in it. Its methods are safe for concurrent use.
type Gossip struct {
	cfg    Config
	serf   *serf.Serf
	ring   *memberlist.Keyring
	events chan serf.Event
	log    *logWriter

	mu      sync.Mutex
	members map[model.NodeID]Member
	changed chan struct{} // closed and replaced with each change
}

// Open begins to listen and to answer. Run must follow.
func Open(cfg Config) (*Gossip, error) {
	if len(cfg.Keys) == 0 {
		return nil, model.Errorf(model.Invalid, "gossip needs a key")
	}
	g := &Gossip{
		cfg:     cfg,
		events:  make(chan serf.Event, 256),
		log:     &logWriter{},
		members: map[model.NodeID]Member{},
		changed: make(chan struct{}),
	}
	var err error
	if g.ring, err = memberlist.NewKeyring(nil, cfg.Keys[0][:]); err != nil {
		return nil, fmt.Errorf("make gossip keyring: %w", err)
	}
	if err := g.SetKeys(cfg.Keys); err != nil {
		return nil, err
	}
	if g.serf, err = serf.Create(g.config()); err != nil {
		return nil, fmt.Errorf("start gossip on %s: %w", cfg.Listen, err)
	}
	return g, nil
}

// The tags each node carries.
const (
	tagName    = "name"
	tagVersion = "version"
)

func (g *Gossip) config() *serf.Config {
	m := memberlist.DefaultLANConfig()
	m.BindAddr, m.BindPort = g.cfg.Listen.Addr().String(), int(g.cfg.Listen.Port())
	m.AdvertisePort = m.BindPort
	if !g.cfg.Listen.Addr().IsUnspecified() {
		m.AdvertiseAddr = m.BindAddr
	}
	m.Transport = g.cfg.Transport
	m.Keyring = g.ring
	m.ProbeInterval, m.ProbeTimeout = probeInterval, probeTimeout
	m.SuspicionMult, m.SuspicionMaxTimeoutMult = suspicion, 1
	m.AwarenessMaxMultiplier = 4
	m.TCPTimeout = 2 * time.Second
	m.DeadNodeReclaimTime = 10 * time.Second // a node may come back with another address
	m.EnableCompression = false
	m.LogOutput = g.log

	c := serf.DefaultConfig()
	c.Init()
	c.NodeName = g.cfg.Node.String()
	c.Tags = map[string]string{tagName: g.cfg.Name, tagVersion: g.cfg.Version}
	c.MemberlistConfig = m
	c.EventCh = g.events
	c.LogOutput = g.log
	c.ProtocolVersion = serf.ProtocolVersionMax
	c.ReconnectInterval = 10 * time.Second
	c.ReconnectTimeout, c.TombstoneTimeout = 24*time.Hour, time.Hour
	c.EnableNameConflictResolution = false // two of one name are for the record to judge
	c.DisableCoordinates = true
	c.ValidateNodeNames = true
	return c
}

// Run keeps the view and looks for peers that are missing, until ctx ends; then
// it stops without a goodbye.
func (g *Gossip) Run(ctx context.Context) error {
	defer func() {
		if err := g.serf.Shutdown(); err != nil {
			slog.WarnContext(ctx, "gossip did not stop cleanly", "err", err)
		}
	}()
	var joins sync.WaitGroup
	defer joins.Wait()
	joins.Go(func() { g.seek(ctx) })
	g.refresh()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-g.serf.ShutdownCh():
			return model.Errorf(model.Internal, "gossip has stopped by itself")
		case <-g.events:
			g.drain()
			g.refresh()
		}
	}
}

// drain takes the events that have come meanwhile: each only says that the view
// has changed.
func (g *Gossip) drain() {
	for {
		select {
		case <-g.events:
		default:
			return
		}
	}
}

// refresh brings the view up to date.
func (g *Gossip) refresh() {
	now := map[model.NodeID]Member{}
	for _, m := range g.serf.Members() {
		if one, ok := memberOf(m); ok {
			now[one.Node] = one
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	same := len(now) == len(g.members)
	for id, m := range now {
		same = same && g.members[id] == m
	}
	if same {
		return
	}
	g.members = now
	close(g.changed)
	g.changed = make(chan struct{})
}

func memberOf(m serf.Member) (Member, bool) {
	id, err := model.ParseID[model.NodeID](m.Name)
	if err != nil {
		return Member{}, false
	}
	out := Member{
		Node: id, Name: m.Tags[tagName], Version: m.Tags[tagVersion],
		Address: m.Addr.String(), Status: Failed,
	}
	switch m.Status {
	case serf.StatusAlive:
		out.Status = Alive
	case serf.StatusLeaving, serf.StatusLeft:
		out.Status = Left
	case serf.StatusFailed, serf.StatusNone:
	}
	return out, true
}

// Members returns the view, and a channel that is closed when it has changed.
func (g *Gossip) Members() (members map[model.NodeID]Member, changed <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make(map[model.NodeID]Member, len(g.members))
	for id, m := range g.members {
		out[id] = m
	}
	return out, g.changed
}

// Status returns what is believed about one node; Failed if it is not known.
func (g *Gossip) Status(node model.NodeID) Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	if m, ok := g.members[node]; ok {
		return m.Status
	}
	return Failed
}

// Watch calls f with each member, and again with each one that has changed,
// until ctx ends. A slow f misses steps in between, never the last. A member that
// is forgotten is told as Left.
func (g *Gossip) Watch(ctx context.Context, f func(Member)) error {
	told := map[model.NodeID]Member{}
	for {
		now, changed := g.Members()
		for id, m := range now {
			if told[id] != m {
				told[id] = m
				f(m)
			}
		}
		for id, m := range told {
			if _, ok := now[id]; !ok {
				delete(told, id)
				if m.Status != Left {
					m.Status = Left
					f(m)
				}
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// seek joins peers that are not alive in our view, again and again with growing
// pauses. serf itself tries only those it has seen since it started.
func (g *Gossip) seek(ctx context.Context) {
	pause := rejoinFirst
	for {
		missing := g.missing()
		if len(missing) == 0 || g.join(ctx, missing) {
			pause = rejoinFirst
		}
		_, changed := g.Members()
		wait := pause
		if len(missing) == 0 {
			wait = rejoinMost
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
			// Not at once: what failed a moment ago is not back yet.
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
		case <-time.After(wait):
		}
		pause = min(2*pause, rejoinMost)
	}
}

// join tries peers, some at a time, and reports whether one was there. Errors only
// repeat what the view says: not everybody is.
func (g *Gossip) join(ctx context.Context, peers []string) bool {
	var found atomic.Bool
	tries, ctx := errgroup.WithContext(ctx)
	tries.SetLimit(joinsAtOnce)
	for _, p := range peers {
		tries.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			if n, _ := g.serf.Join([]string{p}, true); n > 0 {
				found.Store(true)
			}
			return nil
		})
	}
	_ = tries.Wait() // the caller sees its own context
	return found.Load()
}

// missing lists the addresses of peers that are not alive in our view.
func (g *Gossip) missing() []string {
	if g.cfg.Peers == nil {
		return nil
	}
	present := map[string]bool{g.cfg.Listen.String(): true}
	for _, m := range g.serf.Members() {
		if m.Status == serf.StatusAlive {
			present[net.JoinHostPort(m.Addr.String(), strconv.Itoa(int(m.Port)))] = true
		}
	}
	var out []string
	for _, p := range g.cfg.Peers() {
		if !present[p] {
			out = append(out, p)
		}
	}
	return out
}

// Leave says goodbye, so that the others do not take the node for failed: for a
// node that leaves the cluster, not for a restart.
func (g *Gossip) Leave() error {
	if err := g.serf.Leave(); err != nil {
		return fmt.Errorf("leave gossip: %w", err)
	}
	return nil
}

// SetKeys replaces the keys: the first encrypts from now on, all decrypt. To
// change the key of a cluster, first every node gets the new one in second place,
// then in first, then the old one is left out.
func (g *Gossip) SetKeys(keys []Key) error {
	if len(keys) == 0 {
		return model.Errorf(model.Invalid, "gossip needs a key")
	}
	wanted := map[string]bool{}
	for _, k := range keys {
		wanted[string(k[:])] = true
		if err := g.ring.AddKey(k[:]); err != nil {
			return fmt.Errorf("add gossip key: %w", err)
		}
	}
	if err := g.ring.UseKey(keys[0][:]); err != nil {
		return fmt.Errorf("use gossip key: %w", err)
	}
	var errs []error
	for _, k := range g.ring.GetKeys() {
		if !wanted[string(k)] {
			errs = append(errs, g.ring.RemoveKey(k))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove gossip key: %w", err)
	}
	return nil
}
