package volume

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
)

// A simStore is a disk that can crash: what it has not answered may be lost.
type simStore interface {
	Disk
	crash()
	restart() error
	close() error
	dump(vol model.VolumeID, gen model.Generation, column uint32) ([]disk.Version, error)
}

// A simNode is a machine: some disks, and perhaps the holder.
type simNode struct {
	id    int
	up    bool
	life  int // counts restarts
	disks []*simDisk
}

// A simDisk is a disk in its node, behind the place where messages arrive.
type simDisk struct {
	id    model.DiskID
	node  *simNode
	store simStore
	lag   time.Duration // a slow disk

	promised model.Generation // highest answered; the harness's own memory
}

// A simNet joins the nodes. Its lock is held for bookkeeping only.
type simNet struct {
	mu    sync.Mutex
	rand  *rand.Rand
	nodes []*simNode
	disks map[model.DiskID]*simDisk
	cut   map[[2]int]time.Time // from, to: since when
	delay map[[2]int]time.Duration
	conns []*simConn
	wrong []string // violations seen on the way
}

// linkPatience is how long a cut link is tolerated before a connection breaks.
const linkPatience = 1500 * time.Millisecond

func (w *simNet) chance(p float64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rand.Float64() < p
}

func (w *simNet) between(lo, hi time.Duration) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return lo + time.Duration(w.rand.Int64N(int64(hi-lo)+1))
}

func (w *simNet) intn(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rand.IntN(n)
}

func (w *simNet) complain(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong = append(w.wrong, what)
}

func (w *simNet) isCut(from, to int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, cut := w.cut[[2]int{from, to}]
	return cut
}

func (w *simNet) latency(from, to int) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if from == to {
		return 0
	}
	return 50*time.Microsecond + time.Duration(w.rand.Int64N(int64(500*time.Microsecond))) + w.delay[[2]int{from, to}]
}

// cross lets one message cross a link; false: it did not within patience.
func (w *simNet) cross(from, to int) bool {
	time.Sleep(w.latency(from, to))
	for waited := time.Duration(0); w.isCut(from, to); waited += 50 * time.Millisecond {
		if waited >= linkPatience {
			return false
		}
		time.Sleep(50 * time.Millisecond)
	}
	return true
}

func (w *simNet) alive(n *simNode, life int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return n.up && (life < 0 || n.life == life)
}

func (w *simNet) lifeOf(n *simNode) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return n.life
}

// A simProc is a holder's process; it finds the disks through the network.
type simProc struct {
	net  *simNet
	node *simNode
	mu   sync.Mutex
	dead bool
	by   map[model.DiskID]*simConn
}

func (p *simProc) isDead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead
}

// kill stops everything the process would still do; what it sent is on its way.
func (p *simProc) kill() {
	p.mu.Lock()
	p.dead = true
	conns := make([]*simConn, 0, len(p.by))
	for _, c := range p.by {
		conns = append(conns, c)
	}
	p.mu.Unlock()
	for _, c := range conns {
		c.breakOff(errLost)
	}
}

var (
	errLost    = model.Errorf(model.Unavailable, "connection lost")
	errRefused = model.Errorf(model.Unavailable, "connect: %w", syscall.ECONNREFUSED)
)

func (p *simProc) Disk(id model.DiskID) (Disk, bool, error) {
	d := p.net.disks[id]
	if d == nil {
		return nil, false, model.Errorf(model.NotFound, "no disk %s", id)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.by[id]
	if c == nil || c.isBroken() {
		c = &simConn{proc: p, disk: d, life: p.net.lifeOf(d.node)}
		p.by[id] = c
		p.net.mu.Lock()
		p.net.conns = append(p.net.conns, c)
		p.net.mu.Unlock()
	}
	return c, d.node == p.node, nil
}

func (p *simProc) Reach(id model.DiskID) Reach {
	d := p.net.disks[id]
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	_, cut := p.net.cut[[2]int{p.node.id, d.node.id}]
	if !d.node.up || cut {
		return Away
	}
	return Up
}

func (p *simProc) Node(id model.DiskID) model.NodeID {
	return model.NodeID(1 + p.net.disks[id].node.id)
}

func (p *simProc) Substitute(rec model.Volume, column int, avoid []model.DiskID) model.DiskID {
	taken := map[int]bool{}
	for _, m := range rec.Columns[column].Members {
		if !m.Leaving && m.State != model.Stale {
			taken[p.net.disks[m.Disk].node.id] = true
		}
	}
	for _, n := range p.net.nodes {
		for _, d := range n.disks {
			if p.net.alive(n, -1) && !taken[n.id] && !slices.Contains(avoid, d.id) {
				return d.id
			}
		}
	}
	return 0
}

// A simConn is one connection of a holder to a disk. Messages arrive in order.
// When it breaks, what was sent and has not arrived may still arrive, late.
type simConn struct {
	proc *simProc
	disk *simDisk
	life int // of the disk's node when it was made

	mu      sync.Mutex
	broken  error
	queue   []*simMsg // sent, not arrived
	waiting map[*simMsg]bool
	running bool
}

type simMsg struct {
	op   *disk.Op
	done func(error) // nil: nobody waits any more
}

func (c *simConn) isBroken() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.broken != nil
}

func (c *simConn) Apply(op *disk.Op, done func(error)) {
	m := &simMsg{op: cloneOp(op), done: done}
	c.mu.Lock()
	if c.broken != nil || c.proc.isDead() {
		c.mu.Unlock()
		go done(errLost)
		return
	}
	if c.waiting == nil {
		c.waiting = map[*simMsg]bool{}
	}
	c.waiting[m] = true
	c.queue = append(c.queue, m)
	start := !c.running
	c.running = true
	c.mu.Unlock()
	if start {
		go c.deliver()
	}
}

func cloneOp(op *disk.Op) *disk.Op {
	cp := *op
	cp.Sums = slices.Clone(op.Sums)
	if op.Data != nil {
		cp.Data = iobuf.Get(len(op.Sums) * blockSize)
		copy(cp.Data.Bytes, op.Data.Bytes[op.DataOff:])
		cp.DataOff = 0
	}
	return &cp
}

// deliver carries messages over, one after the other.
func (c *simConn) deliver() {
	w, from, to := c.proc.net, c.proc.node.id, c.disk.node.id
	for {
		c.mu.Lock()
		if len(c.queue) == 0 || c.broken != nil {
			c.running = false
			c.mu.Unlock()
			return
		}
		m := c.queue[0]
		c.mu.Unlock()
		crossed := w.cross(from, to)
		if !w.alive(c.disk.node, c.life) {
			c.breakOff(errRefused)
			continue
		}
		if !crossed {
			c.breakOff(errLost)
			continue
		}
		c.mu.Lock()
		if len(c.queue) == 0 || c.queue[0] != m {
			c.mu.Unlock()
			continue
		}
		c.queue = c.queue[1:]
		c.mu.Unlock()
		c.disk.take(w, m.op, func(err error) { go c.respond(m, err) })
	}
}

func (c *simConn) respond(m *simMsg, err error) {
	if !c.proc.net.cross(c.disk.node.id, c.proc.node.id) {
		c.breakOff(errLost)
		return
	}
	c.mu.Lock()
	ok := c.waiting[m]
	delete(c.waiting, m)
	c.mu.Unlock()
	if ok {
		m.done(err)
	}
}

// breakOff fails what waits. Some of what has not arrived arrives later all the
// same: it was in a buffer.
func (c *simConn) breakOff(err error) {
	w := c.proc.net
	c.mu.Lock()
	if c.broken != nil {
		c.mu.Unlock()
		return
	}
	c.broken = err
	waiting, late := c.waiting, c.queue
	c.waiting, c.queue = nil, nil
	c.mu.Unlock()
	for m := range waiting {
		go m.done(err)
	}
	if len(late) == 0 || w.chance(0.5) {
		return
	}
	late = late[:1+w.intn(len(late))]
	pause := w.between(0, 8*time.Second)
	go func() {
		time.Sleep(pause)
		for _, m := range late {
			if w.alive(c.disk.node, c.life) {
				c.disk.take(w, m.op, func(error) {})
			}
		}
	}()
}

// take is where a message arrives at its disk. The harness remembers what the
// disk promised, and complains when it takes something older.
func (d *simDisk) take(w *simNet, op *disk.Op, done func(error)) {
	w.mu.Lock()
	promised, lag := d.promised, d.lag
	w.mu.Unlock()
	if lag > 0 {
		time.Sleep(lag)
	}
	gen := op.Generation
	d.store.Apply(op, func(err error) {
		if op.Data != nil {
			op.Data.Release()
		}
		if err == nil && gen < promised {
			w.complain("a disk took a message of a generation below its promise")
		}
		done(err)
	})
}

// call carries a question and its answer.
func (c *simConn) call(ctx context.Context, f func() error) error {
	w, from, to := c.proc.net, c.proc.node.id, c.disk.node.id
	switch {
	case c.proc.isDead():
		return errLost
	case !w.cross(from, to):
		return errLost
	case !w.alive(c.disk.node, c.life):
		c.breakOff(errRefused)
		return errRefused
	}
	w.mu.Lock()
	lag := c.disk.lag
	w.mu.Unlock()
	time.Sleep(lag)
	err := f()
	if !w.cross(to, from) || c.proc.isDead() {
		return errLost
	}
	if err == nil {
		err = ctx.Err()
	}
	return err
}

func (c *simConn) Prepare(ctx context.Context, p disk.Prepare) (out disk.Promise, err error) {
	err = c.call(ctx, func() (err error) {
		out, err = c.disk.store.Prepare(ctx, p)
		if err == nil {
			c.proc.net.mu.Lock()
			c.disk.promised = max(c.disk.promised, p.Generation)
			c.proc.net.mu.Unlock()
		}
		return err
	})
	return out, err
}

func (c *simConn) Read(ctx context.Context, r disk.Read, dst []byte, sums []uint32) error {
	// The answer of a late read must not land in memory that is used again.
	buf, own := iobuf.Aligned(len(dst)), make([]uint32, len(sums))
	err := c.call(ctx, func() error { return c.disk.store.Read(ctx, r, buf, own) })
	copy(dst, buf)
	copy(sums, own)
	return err
}

func (c *simConn) List(ctx context.Context, l disk.List) (out disk.Listing, err error) {
	err = c.call(ctx, func() (err error) {
		out, err = c.disk.store.List(ctx, l)
		return err
	})
	return out, err
}

func (c *simConn) Digest(ctx context.Context, l disk.List) (out disk.Digest, err error) {
	err = c.call(ctx, func() (err error) {
		out, err = c.disk.store.Digest(ctx, l)
		return err
	})
	return out, err
}

func (c *simConn) ReadVersion(ctx context.Context, vol model.VolumeID, gen model.Generation, column, page uint32,
	epoch model.Epoch, dst []byte,
) (out disk.Version, err error) {
	err = c.call(ctx, func() (err error) {
		out, err = c.disk.store.ReadVersion(ctx, vol, gen, column, page, epoch, dst)
		return err
	})
	return out, err
}
