package volume

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/volume/volumetest"
	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
)

var (
	simSeeds   = flag.Int("sim.seeds", 50, "how many seeds TestSimulation runs")
	simFirst   = flag.Uint64("sim.first", 1, "the first seed")
	simReverts = flag.Int("sim.reverts", 8, "how many seeds TestRevertAmidFaults runs")
	simLog     = flag.Bool("sim.log", false, "print what happens")
)

// The places that clients write: runs of blocks within a page, over the edge of
// a page and over the edge of a stripe unit, in more than one column.
var simRuns = [][]int64{
	{0, 1, 2},
	{14, 15, 16, 17},
	{254, 255, 256, 257},
	{300},
	{512 + 40, 512 + 41},
}

// A simWorld is one seed: a pool, a volume, its holders and its clients.
type simWorld struct {
	*simNet
	t       *testing.T
	seed    uint64
	raft    *simRaft
	hist    volumetest.History
	began   time.Time
	plant   mistakes
	profile simProfile
	out     strings.Builder
	outMu   sync.Mutex

	hmu     sync.Mutex
	holder  *simHolder // present one; nil: nobody serves
	stop    chan struct{}
	clients sync.WaitGroup
	quiet   atomic.Bool // clients pause

	snapping bool                    // snapshots are cut
	snapped  map[simSnapBlock]uint64 // what each block of a snapshot was read as; guarded by hmu

	zombies sync.WaitGroup
	value   uint64
}

// A simHolder is one reign.
type simHolder struct {
	proc  *simProc
	lease *switchLease
	vol   *Volume
	gone  chan struct{} // closed when it shall end
	once  sync.Once
}

func (h *simHolder) end() { h.once.Do(func() { close(h.gone) }) }

// A simProfile weighs the faults of a run.
type simProfile struct {
	nodes, disks, copies, columns int
	length                        time.Duration
	think                         time.Duration
	clients                       int
	faults                        []simFault
	reverts                       bool // the volume is reverted in the end
	tight                         bool // the disks are nearly full
	store                         func(w *simWorld, id model.DiskID) simStore
}

// A simFault is one thing that goes wrong.
type simFault struct {
	name   string
	weight int
	do     func(w *simWorld)
}

func (w *simWorld) now() time.Duration { return time.Since(w.began) }

func (w *simWorld) logf(format string, args ...any) {
	w.outMu.Lock()
	defer w.outMu.Unlock()
	fmt.Fprintf(&w.out, "%12v "+format+"\n", append([]any{w.now()}, args...)...)
}

func newWorld(t *testing.T, seed uint64, p simProfile, plant mistakes) *simWorld {
	t.Helper()
	w := &simWorld{
		t: t, seed: seed, profile: p, plant: plant, began: time.Now(), stop: make(chan struct{}),
		snapped: map[simSnapBlock]uint64{},
		simNet: &simNet{
			rand:  rand.New(rand.NewPCG(seed, 7)),
			disks: map[model.DiskID]*simDisk{},
			cut:   map[[2]int]time.Time{}, delay: map[[2]int]time.Duration{},
		},
	}
	var ids []model.DiskID
	for i := range p.nodes {
		n := &simNode{id: i, up: true}
		w.nodes = append(w.nodes, n)
		for k := range p.disks {
			id := model.DiskID(1 + i + k*p.nodes) // neighbours in ids lie on different nodes
			d := &simDisk{id: id, node: n, store: p.store(w, id)}
			n.disks = append(n.disks, d)
			w.disks[id] = d
		}
	}
	for i := range p.nodes * p.disks {
		ids = append(ids, model.DiskID(i+1))
	}
	rec := model.Volume{ID: rigVolume, Size: model.Bytes(p.columns) * 4 << 20, Copies: p.copies, Revision: 1, Epoch: 1}
	for c := range p.columns {
		var col model.Column
		for m := range p.copies {
			col.Members = append(col.Members, model.Member{Disk: ids[(c+m)%p.nodes], State: model.Active})
		}
		rec.Columns = append(rec.Columns, col)
	}
	w.raft = &simRaft{w: w, rec: rec}
	return w
}

// A simRaft is the record in an atomic register behind a bad line: proposals may
// come late, and answers may be lost.
type simRaft struct {
	w     *simWorld
	mu    sync.Mutex
	rec   model.Volume
	stall time.Time // no quorum until then
	lossy float64
	snaps []simSnapshot // those that were cut, in order
}

func (r *simRaft) get() model.Volume {
	r.mu.Lock()
	defer r.mu.Unlock()
	return cloneRecord(r.rec)
}

func (r *simRaft) acquire() model.Volume {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rec.Generation++
	r.rec.Revision++
	return cloneRecord(r.rec)
}

func (r *simRaft) Volume(context.Context, model.VolumeID) (model.Volume, error) { return r.get(), nil }

func (r *simRaft) swap(gen model.Generation, rev model.Revision, changes []model.MemberChange) (model.Volume, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rec.Generation != gen || r.rec.Revision != rev {
		return cloneRecord(r.rec), model.Errorf(model.Conflict, "the record is at revision %d", r.rec.Revision)
	}
	before := r.rec
	r.rec = applyChanges(r.rec, changes)
	if what := keepsCopies(before, r.rec); what != "" {
		r.w.complain(what)
	}
	r.w.logf("raft: generation %d revision %d: %v", gen, r.rec.Revision, changes)
	return cloneRecord(r.rec), nil
}

func (r *simRaft) ChangeMembers(ctx context.Context, _ model.VolumeID, gen model.Generation, rev model.Revision,
	changes []model.MemberChange,
) (model.Volume, error) {
	return r.propose(ctx, func() (model.Volume, error) { return r.swap(gen, rev, changes) })
}

// propose applies a change now, late or never, and its answer may be lost.
func (r *simRaft) propose(ctx context.Context, swap func() (model.Volume, error)) (model.Volume, error) {
	time.Sleep(r.w.between(time.Millisecond, 20*time.Millisecond))
	r.mu.Lock()
	stalled, lossy := time.Until(r.stall), r.lossy
	r.mu.Unlock()
	if stalled > 0 { // it is applied when there is a quorum again, heard or not
		late := make(chan struct{})
		var rec model.Volume
		var err error
		go func() {
			time.Sleep(stalled)
			rec, err = swap()
			close(late)
		}()
		select {
		case <-late:
			return rec, err
		case <-ctx.Done():
			return model.Volume{}, model.Errorf(model.Unavailable, "no quorum")
		}
	}
	switch {
	case r.w.chance(lossy / 3): // lost on the way there
		return model.Volume{}, model.Errorf(model.Unavailable, "no leader")
	case r.w.chance(lossy / 3): // applied late
		pause := r.w.between(0, 5*time.Second)
		go func() {
			time.Sleep(pause)
			_, _ = swap()
		}()
		return model.Volume{}, model.Errorf(model.Unavailable, "timed out")
	case r.w.chance(lossy / 3): // the answer is lost
		_, _ = swap()
		return model.Volume{}, model.Errorf(model.Unavailable, "leader lost")
	}
	return swap()
}

// supervise keeps a holder running, as an agent does.
func (w *simWorld) supervise() {
	for !w.stopped() {
		n := w.nodes[w.intn(len(w.nodes))]
		if !w.alive(n, -1) {
			time.Sleep(100 * time.Millisecond)
			continue
		}
		h := &simHolder{
			lease: newLease(), gone: make(chan struct{}),
			proc: &simProc{net: w.simNet, node: n, by: map[model.DiskID]*simConn{}},
		}
		w.setHolder(h)
		if w.snapping && !w.quiet.Load() && w.chance(0.2) {
			w.raft.cutUnheld()
		}
		rec := w.raft.acquire()
		cfg := Default()
		cfg.Disks, cfg.Record, cfg.Lease = h.proc, w.raft, h.lease
		cfg.Grace = 5 * time.Second
		cfg.Log = slog.New(slog.DiscardHandler)
		if *simLog {
			cfg.Log = slog.New(slog.NewTextHandler(&lockedWriter{w: w}, nil))
		}
		w.logf("generation %d begins on node %d", rec.Generation, n.id)
		ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
		go func() { // an opening holder may be killed too
			select {
			case <-h.gone:
				cancel()
			case <-ctx.Done():
			}
		}()
		v, err := open(ctx, rec, cfg, w.plant)
		cancel()
		if err != nil {
			w.logf("generation %d: %v", rec.Generation, err)
			h.proc.kill()
			time.Sleep(100 * time.Millisecond)
			continue
		}
		w.logf("generation %d serves", rec.Generation)
		w.hist.Served(uint64(rec.Generation), w.now())
		w.detach(v, rec)
		w.hmu.Lock()
		h.vol = v
		w.hmu.Unlock()
		select {
		case <-h.gone:
		case <-v.Done():
			w.logf("generation %d: %v", rec.Generation, v.Err())
		case <-w.stop:
		}
		w.retire(h, v)
	}
}

// closeTime is long enough for whatever a holder still waits for.
const closeTime = 10 * time.Minute

// retire ends a reign: in order at the end of the run, else as a crash, or
// leaving a holder behind that has no lease and does not know better.
func (w *simWorld) retire(h *simHolder, v *Volume) {
	w.setHolder(nil)
	switch {
	case w.stopped():
		ctx, cancel := context.WithTimeout(w.t.Context(), closeTime)
		if err := v.Close(ctx); err != nil {
			w.logf("close: %v", err)
		}
		if ctx.Err() != nil {
			w.complain("the volume does not close")
		}
		cancel()
		h.proc.kill()
	case !w.alive(h.proc.node, -1) || h.proc.isDead():
		h.proc.kill()
		v.shut(errClosed)
	default:
		h.lease.set(false)
		w.zombies.Go(func() {
			select {
			case <-time.After(w.between(0, 20*time.Second)):
			case <-w.stop:
			}
			h.proc.kill()
			v.shut(errClosed)
		})
	}
}

func (w *simWorld) setHolder(h *simHolder) {
	w.hmu.Lock()
	defer w.hmu.Unlock()
	w.holder = h
}

func (w *simWorld) present() (*simHolder, *Volume) {
	w.hmu.Lock()
	defer w.hmu.Unlock()
	if w.holder == nil {
		return nil, nil
	}
	return w.holder, w.holder.vol
}

func (w *simWorld) stopped() bool {
	select {
	case <-w.stop:
		return true
	default:
		return false
	}
}

// client writes, discards and reads until the run ends.
func (w *simWorld) client(id int) {
	for !w.stopped() {
		time.Sleep(w.between(0, 2*w.profile.think))
		_, v := w.present()
		if v == nil || w.quiet.Load() {
			time.Sleep(50 * time.Millisecond)
			continue
		}
		blocks := w.place()
		ctx, cancel := context.WithTimeout(w.t.Context(), 15*time.Second)
		switch k := w.intn(20); {
		case k < 2 && w.readSnapshot(ctx, v, blocks):
		case k < 10:
			w.read(ctx, v, id, blocks)
		case k < 19:
			w.write(ctx, v, id, blocks)
		default:
			w.discard(ctx, v, id, blocks)
		}
		cancel()
	}
}

// place draws what a request is for: the places above, which are written again
// and again, or any page of the volume, so that most pages rest for long.
func (w *simWorld) place() []int64 {
	if w.chance(0.5) {
		run := simRuns[w.intn(len(simRuns))]
		from := w.intn(len(run))
		return run[from : from+1+w.intn(len(run)-from)]
	}
	pages := w.profile.columns * 64
	return []int64{int64(w.intn(pages)*model.BlocksPerPage + 5 + w.intn(2))}
}

func (w *simWorld) write(ctx context.Context, v *Volume, client int, blocks []int64) {
	w.hmu.Lock()
	w.value++
	value := w.value
	w.hmu.Unlock()
	buf := iobuf.Get(len(blocks) * blockSize)
	for i := range blocks {
		fillBlock(buf.Bytes[i*blockSize:(i+1)*blockSize], value)
	}
	call := w.now()
	err := v.WriteAt(ctx, buf, blocks[0]*int64(blockSize))
	buf.Release()
	w.wrote(v, client, blocks, value, call, err)
}

func (w *simWorld) discard(ctx context.Context, v *Volume, client int, blocks []int64) {
	call := w.now()
	err := v.Discard(ctx, blocks[0]*int64(blockSize), int64(len(blocks)*blockSize))
	w.wrote(v, client, blocks, 0, call, err)
}

func (w *simWorld) wrote(v *Volume, client int, blocks []int64, value uint64, call time.Duration, err error) {
	for _, b := range blocks {
		w.hist.Add(volumetest.Event{
			Client: client, Block: int(b), Write: true, Value: value,
			Unknown: err != nil, Reign: uint64(v.gen), Call: call, Ret: w.now(),
		})
	}
}

func (w *simWorld) read(ctx context.Context, v *Volume, client int, blocks []int64) {
	p := iobuf.Aligned(len(blocks) * blockSize)
	call := w.now()
	if err := v.ReadAt(ctx, p, blocks[0]*int64(blockSize)); err != nil {
		if model.CodeOf(err) == model.Corrupt {
			w.complain("a read was refused as damaged: " + err.Error())
		}
		return
	}
	ret := w.now()
	for i, b := range blocks {
		value, whole := blockValue(p[i*blockSize : (i+1)*blockSize])
		if !whole {
			w.complain(fmt.Sprintf("block %d is a mixture", b))
		}
		w.hist.Add(volumetest.Event{Client: client, Block: int(b), Value: value, Reign: uint64(v.gen), Call: call, Ret: ret})
	}
}

func fillBlock(p []byte, value uint64) {
	for at := 0; at < len(p); at += 8 {
		binary.LittleEndian.PutUint64(p[at:], value)
	}
}

func blockValue(p []byte) (value uint64, whole bool) {
	value = binary.LittleEndian.Uint64(p)
	for at := 8; at < len(p); at += 8 {
		if binary.LittleEndian.Uint64(p[at:]) != value {
			return value, false
		}
	}
	return value, true
}

// run plays the seed: a time of faults, then healing, then everything is checked.
func (w *simWorld) run() string {
	var supervisor sync.WaitGroup
	supervisor.Go(w.supervise)
	for id := range w.profile.clients {
		w.clients.Go(func() { w.client(id) })
	}
	if w.profile.tight {
		w.clients.Go(w.collectGarbage)
	}
	total := 0
	for _, f := range w.profile.faults {
		total += f.weight
	}
	for w.now() < w.profile.length {
		time.Sleep(w.between(0, 3*time.Second))
		pick := w.intn(total)
		for _, f := range w.profile.faults {
			if pick -= f.weight; pick < 0 {
				w.logf("fault: %s", f.name)
				f.do(w)
				break
			}
		}
	}
	w.heal()
	w.logf("healed")
	if w.profile.tight {
		w.makeRoom()
	}
	healed := w.converge()
	if w.profile.reverts {
		if what := w.revertAmidFaults(); what != "" {
			w.complain(what)
		}
	}
	w.readSnapshots()
	if w.profile.tight { // a volume that closes frees nothing any more
		w.quiet.Store(true)
		time.Sleep(20 * time.Second)
		healed = w.converge() && healed
	}
	time.Sleep(time.Second)
	close(w.stop)
	w.clients.Wait()
	supervisor.Wait()
	w.zombies.Wait()
	time.Sleep(20 * time.Second) // what is still on its way arrives
	return w.verdict(healed)
}

// converge waits until the volume serves with all members active.
func (w *simWorld) converge() bool {
	for began := time.Now(); time.Since(began) < 3*time.Minute; time.Sleep(100 * time.Millisecond) {
		if _, v := w.present(); v != nil && v.Err() == nil && w.allActive() && w.raft.tended() &&
			v.fullDisk() == 0 {
			return true
		}
	}
	return false
}

func (w *simWorld) allActive() bool {
	rec := w.raft.get()
	for _, c := range rec.Columns {
		if !c.Whole(rec.Copies) {
			return false
		}
	}
	return true
}

func (w *simWorld) verdict(healed bool) string {
	for _, n := range w.nodes {
		for _, d := range n.disks {
			defer func() { _ = d.store.close() }()
		}
	}
	if len(w.wrong) > 0 {
		return w.wrong[0]
	}
	if what := w.sameEverywhere(); what != "" {
		return what
	}
	if what := w.superfluous(); healed && what != "" {
		return what
	}
	if what := w.hist.Check(); what != "" {
		return what
	}
	if !healed {
		return fmt.Sprintf("no convergence: %+v, %+v", w.raft.get().Columns, w.raft.get().Trim)
	}
	return ""
}

// sameEverywhere compares what active members hold, version by version.
func (w *simWorld) sameEverywhere() string {
	rec := w.raft.get()
	for c, col := range rec.Columns {
		var first *simDisk
		for _, m := range col.Members {
			if m.State != model.Active {
				continue
			}
			d := w.disks[m.Disk]
			if first == nil {
				first = d
				continue
			}
			a, errA := first.store.dump(rec.ID, rec.Generation, uint32(c))
			b, errB := d.store.dump(rec.ID, rec.Generation, uint32(c))
			if errA != nil || errB != nil {
				return fmt.Sprintf("column %d: cannot compare: %v, %v", c, errA, errB)
			}
			if what := firstDifference(a, b); what != "" {
				return fmt.Sprintf("column %d, disks %s and %s: %s", c, first.id, d.id, what)
			}
		}
	}
	return ""
}

// firstDifference compares two listings.
func firstDifference(a, b []disk.Version) string {
	for i := range max(len(a), len(b)) {
		switch {
		case i >= len(a), i < len(b) && before(b[i], a[i]):
			return fmt.Sprintf("only the second has page %d epoch %d, stamp %v mask %04x", b[i].Page, b[i].Epoch, b[i].Stamp, b[i].Mask)
		case i >= len(b), before(a[i], b[i]):
			return fmt.Sprintf("only the first has page %d epoch %d, stamp %v mask %04x", a[i].Page, a[i].Epoch, a[i].Stamp, a[i].Mask)
		case a[i] != b[i]:
			return fmt.Sprintf("page %d epoch %d differs: stamps %v and %v, masks %04x and %04x",
				a[i].Page, a[i].Epoch, a[i].Stamp, b[i].Stamp, a[i].Mask, b[i].Mask)
		}
	}
	return ""
}

// simulate runs one seed in its bubble and returns what was wrong.
func simulate(t *testing.T, seed uint64, p simProfile, plant mistakes) (what, log string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, seed, p, plant)
		what = w.run()
		log = w.out.String()
	})
	return what, log
}

type lockedWriter struct{ w *simWorld }

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.w.logf("%s", strings.TrimSpace(string(p)))
	return len(p), nil
}

// Through crashes, partitions, slow disks, lost and late messages, late raft
// answers and holders that do not know that they are none any more: every block
// is one register, a disk takes one generation at a time, and once everything is
// healed all members are active and equal.
func TestSimulation(t *testing.T) {
	for i := range *simSeeds {
		seed := *simFirst + uint64(i)
		what, log := simulate(t, seed, defaultProfile(seed), mistakes{})
		if *simLog {
			t.Log(log)
		}
		if what != "" {
			name := filepath.Join(t.ArtifactDir(), fmt.Sprintf("seed-%d.txt", seed))
			if err := os.WriteFile(name, []byte(what+"\n"+log), 0o600); err != nil {
				t.Error(err)
			}
			t.Fatalf("seed %d (rerun with -sim.first=%d -sim.seeds=1): %s\nhistory: %s", seed, seed, what, name)
		}
	}
}
