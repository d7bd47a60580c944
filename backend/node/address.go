package node

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

// A node's address is in its configuration. When that has changed, the others look for
// the node where it was, and the leader cannot tell it who leads: so it tells each of
// them where it is. Who leads puts that into the record; the others remember it until
// it is there, for the leader may be found only with this node's vote.
//
// The address that a node names proves nothing, and need not: whoever answers there has
// to prove to be that node (wire).

// callMoved tells a node where the caller is now. The answer is whether it leads, and
// has put that into the record.
const callMoved = "cluster.moved"

// How soon a node that has told nobody tells again, how soon it takes having no lease
// for not being found, and how long one call takes at most.
const (
	movedFirst  = time.Second
	movedMost   = 15 * time.Second
	movedDoubt  = 5 * time.Second
	movedCall   = 5 * time.Second
	movedAtOnce = 8
)

// moved is where nodes say that they are now, as long as the record says of them what
// it said then.
type moved struct {
	mu   sync.Mutex // guards what follows
	byID map[model.NodeID]move
}

type move struct{ from, to string }

// of is a node's address, of which the record says where it is.
func (m *moved) of(id model.NodeID, recorded string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if one, ok := m.byID[id]; ok && one.from == recorded {
		return one.to
	}
	return recorded
}

func (m *moved) set(id model.NodeID, from, to string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byID == nil {
		m.byID = map[model.NodeID]move{}
	}
	m.byID[id] = move{from, to}
}

// keepAddress sees to it that the record says where this node is. It returns when that
// is so: the address changes only with a new start.
func (n *node) keepAddress(ctx context.Context) {
	pause := movedFirst
	for {
		rec, err := n.meta.Local().Node(n.cfg.Node)
		right := err == nil && rec.Address == n.cfg.Address
		if right && n.meta.Lease().Valid() {
			return
		}
		if err == nil && !right || time.Since(n.started) > movedDoubt {
			n.tellAddress(ctx)
			pause = min(2*pause, movedMost)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// tellAddress tells every node that this one knows of, itself too, where it is. That
// one cannot be told is no news: it is away, or has no leader.
func (n *node) tellAddress(ctx context.Context) {
	ids := map[model.NodeID]bool{n.cfg.Node: true}
	for _, rec := range n.meta.Local().Nodes() {
		ids[rec.ID] = true
	}
	for _, p := range n.cfg.Peers {
		ids[p.ID] = true
	}
	var calls errgroup.Group
	calls.SetLimit(movedAtOnce)
	for id := range ids {
		calls.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, movedCall)
			defer cancel()
			var leads bool
			err := n.wire.Call(ctx, id, callMoved, n.cfg.Address, &leads)
			if err == nil && leads {
				n.log.Info("address is in the record", "address", n.cfg.Address)
			}
			return nil
		})
	}
	_ = calls.Wait() // none fails
}

// handleMoved is the other end of tellAddress.
func (n *node) handleMoved(ctx context.Context, peer model.NodeID, body json.RawMessage) (any, error) {
	var address string
	if err := json.Unmarshal(body, &address); err != nil {
		return nil, model.Errorf(model.Invalid, "read request: %w", err)
	}
	if err := validAddress(address); err != nil {
		return nil, err
	}
	rec, err := n.meta.Local().Node(peer)
	if err == nil {
		n.moved.set(peer, rec.Address, address)
	}
	if leader, known := n.meta.Leader(); !known || leader != n.cfg.Node {
		return false, nil
	}
	_, err = n.meta.Apply(ctx, model.System, command.NodeUpdate{
		Node: peer, Address: address, API: Config{Address: address}.URL(),
	})
	return err == nil, err
}
