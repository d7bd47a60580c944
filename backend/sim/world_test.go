package sim

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/disk/disktest"
	"drystone.example/drystone/backend/block/volume/volumetest"
	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/meta"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/wire"
	"drystone.example/drystone/backend/wire/wiretest"
)

const (
	hash64    = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	blockSize = int(model.BlockSize)
	clients   = 4
)

// busy are the blocks that clients use again and again: in a page, on both sides of the
// edge of one and of that of a stripe unit, and in another column.
var busy = []int64{0, 15, 16, 255, 256, 600}

const pages = 256 // of the volume

// A world is one seed.
type world struct {
	t      *testing.T
	net    *wiretest.Net
	ca     *wiretest.Cluster
	began  time.Time
	nodes  []*node // those with disks first
	disks  int
	copies int
	volume model.VolumeID
	hist   volumetest.History
	work   sync.WaitGroup // clients, and faults that end by themselves
	stop   chan struct{}
	steady bool // who holds the volume keeps it

	mu    sync.Mutex // guards what follows
	rand  *rand.Rand
	value uint64
	done  int // requests that were answered
	out   bytes.Buffer
}

func newWorld(t *testing.T, seed uint64, steady bool) *world {
	t.Helper()
	w := &world{
		steady: steady,
		t:      t, net: wiretest.NewNet(), ca: wiretest.NewCluster(t), began: time.Now(),
		rand: rand.New(rand.NewPCG(seed, 5)), stop: make(chan struct{}), volume: 77,
	}
	w.copies = 2 + w.intn(2)
	w.disks = w.copies + w.intn(2)
	for i := range w.disks + 2 {
		id := model.NewID[model.NodeID]()
		n := &node{
			w: w, id: id, name: fmt.Sprintf("n%d", i+1), dir: t.TempDir(),
			tls: wire.Config{TLS: w.ca.Keeper(t, id)}, logs: vfs.NewMem(), saves: func() {},
		}
		if i < w.disks {
			var err error
			n.drive = disktest.New(seed<<8|uint64(i), 64<<20)
			n.disk, err = n.drive.Format(t.Context(), w.ca.ID)
			w.check(err)
			n.drive.SetDelay(w.between(20*time.Microsecond, 200*time.Microsecond))
		}
		w.nodes = append(w.nodes, n)
	}
	w.begin()
	return w
}

// begin makes the cluster and its volume.
func (w *world) begin() {
	w.t.Helper()
	first := w.nodes[0]
	w.check(first.start())
	_, err := first.now().rec.Bootstrap(w.t.Context(), model.System, command.ClusterCreate{
		ID: w.ca.ID, Name: "sim", CA: "pem", CAKey: keep("sealed"), GossipKey: keep("gossip"), Node: first.model(),
		Owner: command.UserCreate{ID: 1, Name: "root", Role: model.Owner, PasswordHash: keep("hash")},
	})
	w.check(err)
	for _, n := range w.nodes[1:] {
		w.join(n)
	}
	for _, n := range w.nodes[:w.disks] {
		w.must(n.now().rec, command.DiskAdd{Disk: model.Disk{ID: n.disk, Node: n.id, Path: "/disk", Size: 48 << 20}})
	}
	create := command.VolumeCreate{
		ID: w.volume, Name: "v", Use: model.VolumeDisk, Size: pages * model.PageSize, Copies: w.copies,
	}
	for c := range 2 {
		var col model.Column
		for m := range w.copies {
			col.Members = append(col.Members, model.Member{Disk: w.nodes[(c+m)%w.disks].disk, State: model.Active})
		}
		create.Columns = append(create.Columns, col)
	}
	w.must(w.leader(), create)
}

func keep(s string) command.Secret { return command.Keep(model.NewSecret(s)) }

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) must(rec *meta.Record, cmd command.Command) {
	w.t.Helper()
	_, err := rec.Apply(w.t.Context(), model.System, cmd)
	w.check(err)
}

// leader waits for one.
func (w *world) leader() *meta.Record {
	w.t.Helper()
	for range 600 {
		for _, n := range w.nodes {
			if p := n.now(); p != nil && p.rec.IsLeader() {
				if _, err := p.rec.View(w.t.Context()); err == nil {
					return p.rec
				}
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	w.t.Fatal("no leader after a minute")
	return nil
}

// up is what gossip would say.
func (w *world) up(id model.NodeID) bool {
	for _, n := range w.nodes {
		if n.id == id {
			return n.now() != nil
		}
	}
	return false
}

func (w *world) now() time.Duration { return time.Since(w.began) }

func (w *world) logf(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fmt.Fprintf(&w.out, "%12v "+format+"\n", append([]any{w.now()}, args...)...)
}

// Write implements io.Writer, for what nodes log.
func (w *world) Write(p []byte) (int, error) {
	w.logf("%s", strings.TrimSpace(string(p)))
	return len(p), nil
}

func (w *world) intn(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rand.IntN(n)
}

func (w *world) between(lo, hi time.Duration) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return lo + time.Duration(w.rand.Int64N(int64(hi-lo)+1))
}

// pause sleeps, but not longer than ctx.
func (w *world) pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func (w *world) stopped() bool {
	select {
	case <-w.stop:
		return true
	default:
		return false
	}
}

// client reads and writes wherever the volume is served, also where it only seems to
// be.
func (w *world) client(id int) {
	for !w.stopped() {
		time.Sleep(w.between(0, 200*time.Millisecond))
		p := w.nodes[w.disks+w.intn(2)].now()
		if p == nil {
			continue
		}
		v := p.serving()
		if v == nil {
			continue
		}
		at := busy[w.intn(len(busy))]
		if w.intn(2) == 0 { // or one of many, which then rests for long
			at = int64(w.intn(pages)*model.BlocksPerPage + 5)
		}
		e := volumetest.Event{
			Client: id, Block: int(at), Write: w.intn(2) == 0, Reign: uint64(v.Status().Generation), Call: w.now(),
		}
		ctx, cancel := context.WithTimeout(w.t.Context(), 15*time.Second)
		buf := iobuf.Get(blockSize)
		var err error
		if e.Write {
			e.Value = w.next()
			for i := 0; i < blockSize; i += 8 {
				binary.LittleEndian.PutUint64(buf.Bytes[i:], e.Value)
			}
			err = v.WriteAt(ctx, buf, at*int64(blockSize))
			e.Unknown = err != nil
		} else if err = v.ReadAt(ctx, buf.Bytes, at*int64(blockSize)); err == nil {
			e.Value = binary.LittleEndian.Uint64(buf.Bytes)
		}
		buf.Release()
		cancel()
		if e.Ret = w.now(); e.Write || err == nil {
			w.hist.Add(e)
		}
		if err == nil {
			w.answered()
		}
	}
}

func (w *world) next() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.value++
	return w.value
}

func (w *world) answered() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done++
}

// whole waits until somebody serves the volume and all of its members are active.
func (w *world) whole() bool {
	for range 1800 {
		time.Sleep(100 * time.Millisecond)
		served := false
		for _, n := range w.nodes[w.disks:] {
			if p := n.now(); p != nil {
				v := p.serving()
				served = served || v != nil && v.Err() == nil
			}
		}
		rec, err := w.nodes[0].now().rec.Local().Volume(w.volume)
		if err != nil || !served {
			continue
		}
		ok := true
		for _, c := range rec.Columns {
			ok = ok && c.Count(model.Active) == rec.Copies && len(c.Members) == rec.Copies
		}
		if ok {
			return true
		}
	}
	return false
}

// compare says where active members differ, or nodes in what the record is.
func (w *world) compare() string {
	view, err := w.leader().View(w.t.Context())
	w.check(err)
	rec, err := view.Volume(w.volume)
	w.check(err)
	held := map[model.DiskID]*disk.Disk{}
	for _, n := range w.nodes[:w.disks] {
		held[n.disk] = n.now().disk
	}
	for c, col := range rec.Columns {
		first := ""
		for _, m := range col.Members {
			l, err := held[m.Disk].List(w.t.Context(), disk.List{
				Volume: rec.ID, Generation: rec.Generation, Column: uint32(c), Max: 4096,
			})
			got := fmt.Sprint(l.Versions)
			if first == "" {
				first = got
			}
			if err != nil || got != first {
				return fmt.Sprintf("column %d: %v\n%s\n%s", c, err, first, got)
			}
		}
	}
	for _, n := range w.nodes {
		if got, err := n.now().rec.Local().Volume(w.volume); err != nil || fmt.Sprint(got) != fmt.Sprint(rec) {
			return fmt.Sprintf("%s has another record: %+v, %v, not %+v", n.name, got, err, rec)
		}
	}
	return ""
}
