package wire

import (
	"context"
	"sync"
	"time"

	"drystone.example/drystone/backend/model"
)

// pools are the connections for calls, by node. An entry goes with its node.
type pools struct {
	mu     sync.Mutex
	byNode map[model.NodeID]*pool
}

// A pool is the connections for calls to one node.
type pool struct {
	turns chan struct{} // one value per call under way

	mu   sync.Mutex
	gone bool
	idle []*caller // the one used last is at the end
}

func (p *pools) of(node model.NodeID) *pool {
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.byNode[node]
	if one == nil {
		one = &pool{turns: make(chan struct{}, callsPerPeer)}
		p.byNode[node] = one
	}
	return one
}

func (p *pools) drop(node model.NodeID) {
	p.mu.Lock()
	one := p.byNode[node]
	delete(p.byNode, node)
	p.mu.Unlock()
	if one != nil {
		one.close()
	}
}

func (p *pool) close() {
	p.mu.Lock()
	idle := p.idle
	p.gone, p.idle = true, nil
	p.mu.Unlock()
	for _, c := range idle {
		c.conn.Abort()
	}
}

// take returns a connection that worked a moment ago, or nil.
func (p *pool) take() *caller {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.idle) > 0 {
		c := p.idle[len(p.idle)-1]
		p.idle = p.idle[:len(p.idle)-1]
		select {
		case <-c.dead:
			continue
		default:
		}
		if time.Since(c.used) < idleMost {
			return c
		}
		c.conn.Abort()
	}
	return nil
}

// put keeps a connection for the next call if there is room.
func (p *pool) put(c *caller) {
	c.used = time.Now()
	p.mu.Lock()
	keep := !p.gone && len(p.idle) < idlePerPeer
	if keep {
		p.idle = append(p.idle, c)
	}
	p.mu.Unlock()
	if !keep {
		c.conn.Abort()
	}
}

// A caller is one connection for calls, one at a time. Its reader runs also
// while it is idle, so that a connection the peer has closed is not used again.
type caller struct {
	conn    *Conn
	answers chan frame
	dead    chan struct{} // closed when the reader has ended
	err     error         // why; valid once dead is closed
	used    time.Time

	mu    sync.Mutex
	limit int // of the answer that is waited for
}

func (t *Transport) newCaller(ctx context.Context, node model.NodeID) (*caller, error) {
	conn, err := t.dial(ctx, node, rpcProto)
	if err != nil {
		return nil, err
	}
	c := &caller{conn: conn, answers: make(chan frame, 1), dead: make(chan struct{})}
	t.mu.Lock()
	ok := t.state != stopped
	if ok {
		t.wg.Add(1)
	}
	t.mu.Unlock()
	if !ok {
		conn.Abort()
		return nil, errStopped
	}
	go func() {
		defer t.wg.Done()
		defer close(c.dead)
		c.err = c.read()
		conn.Abort()
	}()
	return c, nil
}

// read passes answers on until the connection ends. An answer nobody asked for
// ends it.
func (c *caller) read() error {
	for {
		f, err := readFrame(c.conn, frameAnswer, func(string) int {
			c.mu.Lock()
			defer c.mu.Unlock()
			return max(c.limit, errorTextMost)
		})
		if err != nil {
			return err
		}
		select {
		case c.answers <- f:
		default:
			return model.Errorf(model.Invalid, "an answer came that nobody asked for")
		}
	}
}

func (t *Transport) callRemote(ctx context.Context, node model.NodeID, name string, body []byte) ([]byte, error) {
	p := t.pools.of(node)
	select {
	case p.turns <- struct{}{}:
	case <-ctx.Done():
		return nil, model.Errorf(model.Unavailable, "too many calls wait for it: %w", ctx.Err())
	}
	defer func() { <-p.turns }()
	c := p.take()
	if c == nil {
		var err error
		if c, err = t.newCaller(ctx, node); err != nil {
			return nil, err
		}
	}
	f, err := c.roundTrip(ctx, name, body, t.limitOf(name))
	if err != nil {
		c.conn.Abort()
		return nil, err
	}
	p.put(c)
	if f.name != "" {
		return nil, &model.Error{Code: codeOf(f.name), Text: string(f.body)}
	}
	return f.body, nil
}

func (c *caller) roundTrip(ctx context.Context, name string, body []byte, limit int) (frame, error) {
	deadline, _ := ctx.Deadline()
	c.mu.Lock()
	c.limit = limit
	c.mu.Unlock()
	cut := context.AfterFunc(ctx, c.conn.Abort)
	defer cut()
	err := writeFrame(c.conn, frame{
		kind: frameRequest, name: name, body: body, timeout: min(time.Until(deadline), callTimeoutMost),
	})
	if err == nil {
		select {
		case f := <-c.answers:
			if cut() {
				return f, nil
			}
		case <-c.dead:
			select {
			case f := <-c.answers: // it answered, then closed
				return f, nil
			default:
				err = c.err
			}
		}
	}
	if ctx.Err() != nil {
		return frame{}, model.Errorf(model.Unavailable, "no answer in time: %w", ctx.Err())
	}
	return frame{}, model.Errorf(model.Unavailable, "the connection broke: %w", err)
}
