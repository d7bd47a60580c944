package server

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"

	"drystone.example/drystone/backend/model"
)

// A Dialer makes connections to nodes; *wire.Transport is one.
type Dialer interface {
	Dial(ctx context.Context, node model.NodeID, proto string) (net.Conn, error)
}

// A Client is this node's way to the disks of all others. A node has one, so
// that each pair of nodes has one connection. Its methods are safe for concurrent
// use.
type Client struct {
	dialer   Dialer
	instance uint64
	ctx      context.Context //nolint:containedctx // ends with the client; its connections use it
	cancel   context.CancelFunc
	wg       sync.WaitGroup // connections; added to under mu
	calls    sync.Pool

	mu     sync.Mutex
	closed bool
	peers  map[model.NodeID]*peer
}

// NewClient makes a client that connects to a node when something is asked of it.
func NewClient(d Dialer) *Client {
	c := &Client{
		dialer:   d,
		instance: rand.Uint64(), //nolint:gosec // tells connections apart; not a secret
		peers:    map[model.NodeID]*peer{},
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// Disk returns the way to a disk on a node. It asks nothing and cannot fail; it is
// the same object each time.
func (c *Client) Disk(node model.NodeID, id model.DiskID) *Remote {
	c.mu.Lock()
	p := c.peers[node]
	if p == nil {
		p = newPeer(c, node)
		c.peers[node] = p
	}
	c.mu.Unlock()
	return p.remote(id)
}

// Forget ends the connection with a node that has left the cluster.
func (c *Client) Forget(node model.NodeID) {
	c.mu.Lock()
	p := c.peers[node]
	delete(c.peers, node)
	c.mu.Unlock()
	if p != nil {
		p.close()
	}
}

// Close ends all connections; what is under way is answered with
// model.Unavailable, as is everything after.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	peers := make([]*peer, 0, len(c.peers))
	for _, p := range c.peers {
		peers = append(peers, p)
	}
	c.mu.Unlock()
	c.cancel()
	for _, p := range peers {
		p.close()
	}
	c.wg.Wait()
}

// start runs a connection in a goroutine of the client; false: it is closed.
func (c *Client) start(run func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.wg.Go(run)
	return true
}
