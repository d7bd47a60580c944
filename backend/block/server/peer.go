package server

import (
	"context"
	"sync"
	"time"

	"drystone.example/drystone/backend/model"
)

// A peer is another node. At most one link to it lives at a time; a new one is
// made when something is asked of it, after a failure not at once.
type peer struct {
	client *Client
	node   model.NodeID

	mu      sync.Mutex // never held while something blocks
	room    *sync.Cond // on mu: something under way has ended, or all has
	waiting int        // how many wait for room
	closed  bool
	link    *link // nil: none
	remotes map[model.DiskID]*Remote

	failed  error // why the last attempt failed; nil: it did not
	backoff time.Duration
	retryAt time.Time
}

// A Remote is a disk of another node. It has the methods of *disk.Disk that a
// volume needs, and is safe for concurrent use.
type Remote struct {
	peer *peer
	id   model.DiskID

	// Guarded by peer.mu: what is under way.
	ops, reads account
	volumes    map[model.VolumeID]*account // of ops only
}

// An account counts requests and bytes under way.
type account struct{ n, bytes int }

func (a *account) add(bytes int)  { a.n, a.bytes = a.n+1, a.bytes+bytes }
func (a *account) drop(bytes int) { a.n, a.bytes = a.n-1, a.bytes-bytes }

// fits reports whether one more goes in. One alone always does.
func (a *account) fits(bytes, most, bytesMost int) bool {
	return a.n == 0 || a.n < most && a.bytes+bytes <= bytesMost
}

// volumesKept is how many volumes a Remote keeps the books of before it throws
// the empty ones away.
const volumesKept = 1024

func newPeer(c *Client, node model.NodeID) *peer {
	p := &peer{client: c, node: node, remotes: map[model.DiskID]*Remote{}}
	p.room = sync.NewCond(&p.mu)
	return p
}

func (p *peer) remote(id model.DiskID) *Remote {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.remotes[id]
	if r == nil {
		r = &Remote{peer: p, id: id, volumes: map[model.VolumeID]*account{}}
		p.remotes[id] = r
	}
	return r
}

func (p *peer) close() {
	p.mu.Lock()
	p.closed = true
	l := p.link
	p.room.Broadcast()
	p.mu.Unlock()
	if l != nil {
		l.end(errClosed)
	}
}

var errClosed = model.Errorf(model.Unavailable, "this node is shutting down")

// volume returns the books of a volume; peer.mu is held.
func (r *Remote) volume(id model.VolumeID) *account {
	a := r.volumes[id]
	if a != nil {
		return a
	}
	if len(r.volumes) >= volumesKept {
		for id, a := range r.volumes {
			if a.n == 0 {
				delete(r.volumes, id)
			}
		}
	}
	a = &account{}
	r.volumes[id] = a
	return a
}

// fits reports whether a call's place in the windows is free; peer.mu is held.
func (r *Remote) fits(c *call) bool {
	if c.kind != kindApply {
		return r.reads.fits(c.weight, windowReads, windowReadBytes)
	}
	return r.ops.fits(c.weight, windowOps, windowBytes) &&
		r.volume(c.op.Volume).fits(c.weight, windowOps/volumeShare, windowBytes/volumeShare)
}

// send gives a call to the link, which it makes if there is none, once there is
// room in the windows. If that cannot be, it returns why, and the call is the
// caller's again.
func (p *peer) send(ctx context.Context, c *call) error {
	p.mu.Lock()
	if !c.remote.fits(c) {
		p.awaitRoom(ctx, c)
	}
	if err := p.ready(ctx); err != nil {
		p.mu.Unlock()
		return err
	}
	l := p.link
	c.take()
	l.pending[c.id] = c
	if len(l.pending) == 1 {
		l.begun()
	}
	// Under p.mu, so that the ids are in order on the wire as well: put does not
	// block.
	l.out.put(c)
	p.mu.Unlock()
	return nil
}

// awaitRoom waits until the call fits, the context ends or the peer is closed;
// p.mu is held.
func (p *peer) awaitRoom(ctx context.Context, c *call) {
	stop := context.AfterFunc(ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.room.Broadcast()
	})
	defer stop()
	p.waiting++
	for !p.closed && ctx.Err() == nil && !c.remote.fits(c) {
		p.room.Wait()
	}
	p.waiting--
}

// ready makes sure that there is a link, or says why there cannot be one now;
// p.mu is held.
func (p *peer) ready(ctx context.Context) error {
	switch {
	case p.closed:
		return errClosed
	case ctx.Err() != nil:
		return model.Errorf(model.Unavailable, "no room for a request to node %s in time: %w", p.node, ctx.Err())
	case p.link != nil:
		return nil
	case p.failed != nil && time.Now().Before(p.retryAt):
		return p.failed
	}
	l := newLink(p)
	if !p.client.start(l.run) {
		return errClosed
	}
	p.link = l
	return nil
}

// lost is called by a link that has ended, before it answers what it had. A link
// that never stood makes the next attempt wait.
func (p *peer) lost(l *link, stood bool, err error) []*call {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.link = nil
	if stood {
		p.failed, p.backoff = nil, 0
	} else {
		p.backoff = min(max(2*p.backoff, retryFirst), retryMost)
		p.failed, p.retryAt = err, time.Now().Add(p.backoff)
	}
	left := make([]*call, 0, len(l.pending))
	for _, c := range l.pending {
		l.close(c)
		left = append(left, c)
	}
	p.room.Broadcast()
	return left
}
