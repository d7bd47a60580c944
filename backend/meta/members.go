package meta

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
)

// serverTimeout bounds a change of raft's configuration.
const serverTimeout = 10 * time.Second

// A Server is a node as raft has it.
type Server struct {
	ID    model.NodeID
	Voter bool
}

// Servers returns raft's configuration as this node knows it. The record says
// who is a member of the cluster; raft must be made to agree with it.
func (m *Record) Servers() []Server {
	future := m.raft.GetConfiguration()
	if future.Error() != nil {
		return nil
	}
	var out []Server
	for _, s := range future.Configuration().Servers {
		if id, err := nodeID(s.ID); err == nil {
			out = append(out, Server{ID: id, Voter: s.Suffrage == raft.Voter})
		}
	}
	return out
}

// AddVoter makes a node take part in the quorum. Like the next three it works on
// the leader only, changes one server at a time, does nothing if raft is so
// already, and returns when the change is committed.
func (m *Record) AddVoter(ctx context.Context, node model.NodeID) error {
	id := serverID(node)
	return m.changeServers(ctx, func() raft.IndexFuture {
		return m.raft.AddVoter(raft.ServerID(id), raft.ServerAddress(id), 0, serverTimeout)
	}, func(s []raft.Server) bool { return suffrage(s, id) == raft.Voter })
}

// AddNonvoter sends a node the log without counting it.
func (m *Record) AddNonvoter(ctx context.Context, node model.NodeID) error {
	id := serverID(node)
	return m.changeServers(ctx, func() raft.IndexFuture {
		return m.raft.AddNonvoter(raft.ServerID(id), raft.ServerAddress(id), 0, serverTimeout)
	}, func(s []raft.Server) bool { return suffrage(s, id) != none })
}

// Demote takes a node out of the quorum and still sends it the log.
func (m *Record) Demote(ctx context.Context, node model.NodeID) error {
	id := serverID(node)
	return m.changeServers(ctx, func() raft.IndexFuture {
		return m.raft.DemoteVoter(raft.ServerID(id), 0, serverTimeout)
	}, func(s []raft.Server) bool { return suffrage(s, id) != raft.Voter })
}

// RemoveServer takes a node out of raft.
func (m *Record) RemoveServer(ctx context.Context, node model.NodeID) error {
	id := serverID(node)
	return m.changeServers(ctx, func() raft.IndexFuture {
		return m.raft.RemoveServer(raft.ServerID(id), 0, serverTimeout)
	}, func(s []raft.Server) bool { return suffrage(s, id) == none })
}

// none is the suffrage of who is not a server.
const none = raft.ServerSuffrage(-1)

func suffrage(servers []raft.Server, id string) raft.ServerSuffrage {
	for _, s := range servers {
		if string(s.ID) == id {
			return s.Suffrage
		}
	}
	return none
}

// changeServers asks raft for a change and waits until it is committed and seen
// here.
func (m *Record) changeServers(ctx context.Context, change func() raft.IndexFuture, done func([]raft.Server) bool) error {
	ctx, cancel := bounded(ctx, serverTimeout)
	defer cancel()
	r, _ := m.lead.now()
	if r == nil {
		return errNotLeader
	}
	future := m.raft.GetConfiguration()
	if err := future.Error(); err != nil {
		return fmt.Errorf("read raft's configuration: %w", err)
	}
	if done(future.Configuration().Servers) {
		return nil
	}
	v := m.store.View()
	if !m.spawn(func() { change() }) { // its future may never be resolved; see commit
		return m.stopped()
	}
	for {
		if done(m.fsm.configured()) {
			return nil
		}
		select {
		case <-v.Next(): // a configuration that is applied makes a new view
			v = m.store.View()
		case <-r.ctx.Done():
			return errNotLeader
		case <-ctx.Done():
			return model.Errorf(model.Unavailable, "the change of raft's servers was not committed in time")
		}
	}
}

// Allowed says whether a node may talk to this one: nil, or model.Denied if it
// was removed. A node that this one does not know has proven by its certificate
// that the cluster took it in, and may be the leader that will say so: only the
// record says who is out. It is what the wire's Config asks for.
func (m *Record) Allowed(node model.NodeID) error {
	if m.store.View().Removed(node) {
		return model.Errorf(model.Denied, "node %s was removed from the cluster", node)
	}
	return nil
}

// Address returns a node's host, from the record or, before this node has that,
// from what it remembers. It is what the wire's Config resolves by.
func (m *Record) Address(node model.NodeID) (string, error) {
	if n, err := m.store.View().Node(node); err == nil {
		return n.Address, nil
	}
	if address, ok := m.peers.get(node); ok {
		return address, nil
	}
	return "", model.Errorf(model.NotFound, "the address of node %s is not known here yet", node)
}

// peers is a file with the members' addresses. All nodes may have stopped at
// once, and none of them reads the record before it has talked to another one.
type peers struct {
	dir *os.Root

	mu   sync.Mutex // guards what follows
	byID map[model.NodeID]string
}

// A peer is a line of the file.
type peer struct {
	ID      model.NodeID `json:"id"`
	Address string       `json:"address"`
}

// peersFile is where peers lie in the record's folder.
const peersFile = "peers.json"

func loadPeers(dir string, told []model.Node) (*peers, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open the record's folder: %w", err)
	}
	p := &peers{dir: root, byID: map[model.NodeID]string{}}
	text, err := root.ReadFile(peersFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("read the peers: %w", err), root.Close())
	}
	var known []peer
	if err == nil {
		// It is only a hint, and written anew when the record is there.
		if err := json.Unmarshal(text, &known); err != nil {
			slog.Warn("peers file not readable", "err", err)
		}
	}
	for _, n := range told {
		known = append(known, peer{ID: n.ID, Address: n.Address})
	}
	for _, k := range known {
		p.byID[k.ID] = k.Address
	}
	if err := p.save(); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return p, nil
}

func (p *peers) get(id model.NodeID) (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	address, ok := p.byID[id]
	return address, ok
}

// replace takes the members of the record. One goroutine calls it.
func (p *peers) replace(nodes []model.Node) error {
	p.mu.Lock()
	p.byID = map[model.NodeID]string{}
	for _, n := range nodes {
		p.byID[n.ID] = n.Address
	}
	p.mu.Unlock()
	return p.save()
}

func (p *peers) save() error {
	p.mu.Lock()
	list := make([]peer, 0, len(p.byID))
	for id, address := range p.byID {
		list = append(list, peer{ID: id, Address: address})
	}
	p.mu.Unlock()
	slices.SortFunc(list, func(a, b peer) int { return cmp.Compare(a.ID, b.ID) })
	text, err := json.MarshalIndent(list, "", "\t")
	if err != nil {
		return fmt.Errorf("encode the peers: %w", err)
	}
	if err := p.write(text); err != nil {
		return fmt.Errorf("write the peers: %w", err)
	}
	return nil
}

// write replaces the file in one durable step: after a loss of power to all nodes
// none of them would find another without it.
func (p *peers) write(text []byte) error {
	f, err := p.dir.OpenFile(peersFile+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := p.dir.Rename(peersFile+".new", peersFile); err != nil {
		return err
	}
	dir, err := p.dir.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// rememberPeers writes the members' addresses down whenever they change.
func (m *Record) rememberPeers() {
	seen := uint64(0)
	for {
		v := m.store.View()
		if changed := v.Changed(state.Nodes); changed > seen {
			seen = changed
			if err := m.peers.replace(v.Nodes()); err != nil {
				slog.Warn("peers not remembered", "err", err)
			}
		}
		select {
		case <-v.Next():
		case <-m.ctx.Done():
			return
		}
	}
}

// Stats says how this node's part is doing.
type Stats struct {
	State     string // leader, follower, candidate or shutdown
	Leader    model.NodeID
	Term      uint64
	Commit    uint64 // last entry committed, as known here
	Applied   uint64 // last entry in the view
	Last      uint64 // last entry in this node's log
	Servers   []Server
	LeaseLeft time.Duration
}

// Stats returns the numbers of this moment.
func (m *Record) Stats() Stats {
	leader, _ := m.Leader()
	return Stats{
		State: stateName(m.raft.State()), Leader: leader, Term: m.raft.CurrentTerm(),
		Commit: m.raft.CommitIndex(), Applied: m.store.View().Index(), Last: m.raft.LastIndex(),
		Servers: m.Servers(), LeaseLeft: max(0, m.lease.Deadline()-m.cfg.Clock()),
	}
}

func stateName(s raft.RaftState) string {
	switch s {
	case raft.Leader:
		return "leader"
	case raft.Follower:
		return "follower"
	case raft.Candidate:
		return "candidate"
	case raft.Shutdown:
		return "shutdown"
	}
	return "unknown"
}
