package volume

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/layout"
	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/must"
)

// A part is one op of a job, before it is cut into a message for each member.
type part struct {
	kind    disk.Kind
	column  int
	block   layout.Block
	count   uint64
	at      int // the first of its blocks in the job's data, and of its sums
	page    uint32
	version disk.Version
	lost    uint16 // blocks of the version that nobody has
	only    *row   // the one row it goes to; nil: those of all active members, and of joining ones that have reached its pages
	fresh   bool   // a Copy that makes a version there was not: its stamp is its number
}

// A job is a request under way: some parts, their groups, and who waits. It is
// reused when neither the one who waits nor a message needs it.
type job struct {
	v      *Volume
	parts  []part
	groups []group
	rows   []*row
	sums   []uint32
	data   *iobuf.Buffer
	span   span

	left  int   // groups that are not complete; guarded by Volume.mu
	held  int   // of those, how many wait for room
	err   error // guarded by Volume.mu until ready
	next  *job  // in Volume.ended
	ready chan struct{}
	users atomic.Int32
}

// newJob returns an empty job with one user. Each volume has a pool of its own,
// because a channel may not leave the bubble it was made in (testing/synctest).
func (v *Volume) newJob() *job {
	j, ok := v.jobs.Get().(*job)
	if !ok {
		j = &job{v: v, ready: make(chan struct{}, 1)}
	}
	j.users.Store(1)
	return j
}

// drop gives up one use.
func (j *job) drop() {
	if j.users.Add(-1) > 0 {
		return
	}
	select {
	case <-j.ready: // the one who waited has given up
	default:
	}
	if j.data != nil {
		j.data.Release()
	}
	clear(j.groups)
	clear(j.rows)
	j.parts, j.groups, j.rows, j.sums = j.parts[:0], j.groups[:0], j.rows[:0], j.sums[:0]
	j.data, j.err, j.left, j.held = nil, nil, 0, 0
	j.v.jobs.Put(j)
}

var messages = sync.Pool{New: func() any { return &message{} }}

// newMessage makes the message of a part for one row; v.mu is held.
func (v *Volume) newMessage(g *group, p *part) *message {
	m, ok := messages.Get().(*message)
	must.That(ok, "the pool of messages holds something else")
	if m.done == nil {
		m.done = m.answered
	}
	j := g.job
	m.group, m.job = g, j
	j.users.Add(1)
	m.op = disk.Op{
		Kind: p.kind, Volume: v.id, Generation: v.gen, Column: uint32(p.column),
		Epoch: v.rec.Epoch, Block: p.block, Count: p.count, Page: p.page, Version: p.version, Lost: p.lost,
	}
	if p.kind == disk.Copy || p.kind == disk.Remove {
		m.op.Epoch = p.version.Epoch
	}
	if p.fresh {
		m.op.Version.Stamp = model.Stamp{Generation: v.gen, Number: g.number}
	}
	if n := p.blocks(); n > 0 {
		m.op.Sums = j.sums[p.at : p.at+n]
		m.op.Data, m.op.DataOff = j.data, p.at*int(model.BlockSize)
		j.data.Retain()
	}
	return m
}

// blocks is how many blocks of data a part carries.
func (p *part) blocks() int {
	switch p.kind {
	case disk.Write:
		return int(p.count)
	case disk.Copy:
		return popcount(p.version.Mask)
	case disk.Discard, disk.Remove, disk.Mark:
	}
	return 0
}

// recycle lets a message be used again; v.mu is held and the row does not have it.
func (v *Volume) recycle(m *message) {
	if m.op.Data != nil {
		m.op.Data.Release()
	}
	j := m.job
	m.op, m.row, m.group, m.job, m.full, m.torn = disk.Op{}, nil, nil, nil, nil, false
	messages.Put(m)
	j.drop()
}

// start draws the numbers of a job's parts, puts them into their rows and hands
// them over.
func (v *Volume) start(j *job) error {
	now := time.Now()
	v.mu.Lock()
	if v.err != nil {
		err := v.err
		v.unlock()
		return err
	}
	if !v.whole {
		v.split(j)
	}
	v.begin(j, now)
	v.pump(j.rows)
	return nil
}

// split cuts the parts of which a joining member has reached some pages only: it is
// sent those, and not the others. v.mu is held.
func (v *Volume) split(j *job) {
	for i := 0; i < len(j.parts); i++ {
		p := &j.parts[i]
		if p.only != nil || p.kind == disk.Copy || p.kind == disk.Remove {
			continue
		}
		page, end := p.pages()
		if page == end {
			continue
		}
		next := page + 1
		for next < end && v.sameFor(p.column, page, next) {
			next++
		}
		if next == end {
			continue
		}
		rest := *p
		n := uint64(layout.FirstBlock(next) - p.block)
		p.count = n
		rest.block, rest.count = layout.FirstBlock(next), rest.count-n
		if rest.kind == disk.Write {
			rest.at += int(n)
		}
		j.parts = slices.Insert(j.parts, i+1, rest)
	}
}

// sameFor reports whether each joining member of a column has reached both pages or
// neither; v.mu is held.
func (v *Volume) sameFor(column int, a, b uint32) bool {
	for _, m := range v.columns[column].members {
		if m.fill != nil && m.fill.has(a) != m.fill.has(b) {
			return false
		}
	}
	return true
}

// begin draws a number for each part and puts it into its rows; v.mu is held, and
// the caller pumps j.rows.
func (v *Volume) begin(j *job, now time.Time) {
	if cap(j.groups) < len(j.parts) {
		j.groups = make([]group, len(j.parts))
	}
	j.groups = j.groups[:len(j.parts)]
	j.left = len(j.parts)
	j.users.Add(1) // until all groups are complete
	for i := range j.parts {
		p, g := &j.parts[i], &j.groups[i]
		v.number++
		*g = group{number: v.number, sent: v.number, column: p.column, job: j, part: i}
		v.openGroup(g, v.lastOpen)
		v.fanOut(g, p, v.number, now)
	}
	v.lastSent = now
	if !v.watched {
		v.wake = true
	}
}

// fanOut puts a message for each member into its row, all with one number; v.mu
// is held.
func (v *Volume) fanOut(g *group, p *part, number uint64, now time.Time) {
	if p.kind != disk.Mark {
		v.unmarked = true
	}
	g.left, g.refusing = 0, g.refusing[:0]
	if p.only != nil {
		v.put(g, p, p.only, number, now)
	} else {
		for _, m := range v.columns[p.column].members {
			if m.row != nil && (m.fill == nil || v.plant.fillOverwrites || m.fill.takes(p)) {
				v.put(g, p, m.row, number, now)
			}
		}
	}
	if g.left == 0 {
		v.complete(g)
	}
}

func (v *Volume) put(g *group, p *part, r *row, number uint64, now time.Time) {
	if r.state == dead {
		return
	}
	g.left++
	r.push(v.newMessage(g, p), number, now)
	for _, o := range g.job.rows {
		if o == r {
			return
		}
	}
	// The way to another node is the longer one. Its turn is last, because the
	// goroutine that was woken last runs first.
	if !r.local {
		g.job.rows = append(g.job.rows, r)
		return
	}
	g.job.rows = append(g.job.rows, nil)
	copy(g.job.rows[1:], g.job.rows)
	g.job.rows[0] = r
}

// openGroup puts a group behind another one of the open ones, or first; v.mu is held.
func (v *Volume) openGroup(g, behind *group) {
	g.prev, g.next = behind, v.firstOpen
	if behind != nil {
		g.next = behind.next
		behind.next = g
	} else {
		v.firstOpen = g
	}
	if g.next != nil {
		g.next.prev = g
	} else {
		v.lastOpen = g
	}
}

// shutGroup takes a group out of the open ones; v.mu is held.
func (v *Volume) shutGroup(g *group) {
	if g.prev != nil {
		g.prev.next = g.next
	} else {
		v.firstOpen = g.next
	}
	if g.next != nil {
		g.next.prev = g.prev
	} else {
		v.lastOpen = g.prev
	}
	g.prev, g.next = nil, nil
}

// arrived counts a member that has it, or need not have it any more; v.mu is held.
func (v *Volume) arrived(g *group) {
	g.left--
	if g.left < len(g.refusing) {
		must.That(false, "group %d waits for %d, of which %d refused", g.number, g.left, len(g.refusing))
	}
	switch g.left {
	case 0:
		v.complete(g)
	case len(g.refusing):
		v.hold(g)
	}
}

// complete takes a group out of the open ones, which moves the watermark, and
// ends its job with the last one; v.mu is held.
func (v *Volume) complete(g *group) {
	v.shutGroup(g)
	j := g.job
	if j.left--; j.left == 0 {
		j.next, v.ended = v.ended, j
	} else {
		v.lend(j)
	}
}

// watermark is below the first number that is not acknowledged; until the volume
// serves it is the highest that an active member told. v.mu is held.
func (v *Volume) watermark() model.Stamp {
	switch {
	case !v.serving:
		return v.told
	case v.firstOpen != nil:
		return model.Stamp{Generation: v.gen, Number: v.firstOpen.number - 1}
	default:
		return model.Stamp{Generation: v.gen, Number: v.number}
	}
}

// unlock releases v.mu, then tells those whose job ended and wakes the keeper
// and the committer if there is something for them.
func (v *Volume) unlock() {
	ended, wake, change := v.ended, v.wake, v.change
	v.ended, v.wake, v.change = nil, false, false
	if wake {
		v.watched = true
	}
	v.mu.Unlock()
	for ended != nil {
		j := ended
		ended, j.next = j.next, nil
		if j.span.list != nil {
			v.spans.release(&j.span)
		}
		j.ready <- struct{}{} // has room for one
		j.drop()
	}
	if wake {
		poke(v.keeper)
	}
	if change {
		poke(v.committer)
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// wait returns when the job ended, or ctx. In the second case the job goes on,
// its span stays locked until it ends, and nobody reuses it before.
func (v *Volume) wait(ctx context.Context, j *job) error {
	select {
	case <-j.ready:
		err := j.err
		j.drop()
		return err
	case <-ctx.Done():
		j.drop()
		return ctx.Err()
	}
}
