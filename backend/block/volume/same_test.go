package volume

import (
	"context"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
)

// A shape is one way to keep a volume.
type shape struct {
	nodes, columns, copies int
	memory                 model.Bytes // of a disk's page map; zero: as it comes
	crash                  bool        // a member is away for a while
	reopen                 bool        // the holder goes and comes back
}

const sameSize = 4 << 20

// One history gives one content, whatever the volume is made of: columns, copies, how
// much of the map is in memory, members that go away and come back, holders that do.
// No oracle is needed for that, and none has to be right: the first shape is one
// column, one copy and no faults.
func TestSameHistorySameContent(t *testing.T) {
	shapes := []shape{
		{nodes: 1, columns: 1, copies: 1},
		{nodes: 3, columns: 2, copies: 2, reopen: true},
		{nodes: 3, columns: 4, copies: 3, memory: 20_000},
		{nodes: 4, columns: 4, copies: 2, memory: 20_000, crash: true},
		{nodes: 3, columns: 1, copies: 3, crash: true, reopen: true},
	}
	for seed := uint64(1); seed <= 4; seed++ {
		var first []string
		for i, s := range shapes {
			synctest.Test(t, func(t *testing.T) {
				got := playHistory(t, seed, s)
				if i == 0 {
					first = got
				}
				for k := range max(len(got), len(first)) {
					if k >= len(got) || k >= len(first) || got[k] != first[k] {
						t.Fatalf("seed %d: %+v gives\n%v\nand %+v\n%v", seed, s, got, shapes[0], first)
					}
				}
			})
		}
	}
}

// A player does a history to a volume of one shape.
type player struct {
	*simWorld
	v    *Volume
	proc *simProc
}

// playHistory returns what the volume and its snapshots hold in the end, a line each.
func playHistory(t *testing.T, seed uint64, s shape) []string {
	t.Helper()
	p := &player{simWorld: newWorld(t, seed, simProfile{
		nodes: s.nodes, disks: 1, copies: s.copies, columns: s.columns,
		store: func(w *simWorld, id model.DiskID) simStore { return newDiskStoreWith(w, id, driveSize, s.memory) },
	}, mistakes{})}
	p.raft.rec.Size = sameSize
	p.reopen()
	rng := rand.New(rand.NewPCG(seed, 3))
	for i := range 60 {
		if s.crash && i == 20 { // one that does not hold the volume
			p.crashFor(p.nodes[1], 10*time.Second)
		}
		if s.reopen && i%25 == 24 {
			p.reopen()
		}
		p.op(rng)
	}
	time.Sleep(30 * time.Second)
	eventually(t, "all members are active", time.Minute, p.allActive)
	out := p.contents()
	if what := p.sameEverywhere(); what != "" {
		t.Errorf("seed %d, %+v: %s", seed, s, what)
	}
	if err := p.v.Close(t.Context()); err != nil {
		t.Error(err)
	}
	p.zombies.Wait()
	for _, d := range p.disks {
		if err := d.store.close(); err != nil {
			t.Error(err)
		}
	}
	return out
}

// reopen takes the volume over, from whoever held it.
func (p *player) reopen() {
	p.t.Helper()
	if p.v != nil {
		p.proc.kill()
		p.v.shut(errClosed)
	}
	p.proc = &simProc{net: p.simNet, node: p.nodes[0], by: map[model.DiskID]*simConn{}}
	cfg := Default()
	cfg.Disks, cfg.Record, cfg.Lease = p.proc, p.raft, newLease()
	cfg.Log = slog.New(slog.DiscardHandler)
	v, err := Open(p.t.Context(), p.raft.acquire(), cfg)
	if err != nil {
		p.t.Fatal(err)
	}
	p.v = v
	p.t.Cleanup(func() { v.shut(errClosed) })
}

// op draws one request and does it.
func (p *player) op(rng *rand.Rand) {
	p.t.Helper()
	const sector = int64(model.SectorSize)
	n := (1 + rng.Int64N(64)) * sector
	if rng.IntN(3) == 0 {
		n = (1 + rng.Int64N(20)) * 16 * 1024
	}
	off := rng.Int64N((sameSize-n)/sector) * sector
	if rng.IntN(2) == 0 { // near an edge of a stripe unit
		off = max(0, min(rng.Int64N(4)<<20+(rng.Int64N(16)-8)*sector, sameSize-n))
	}
	var err error
	switch kind := rng.IntN(10); {
	case kind < 6:
		b := iobuf.Get(int(n))
		for i := range b.Bytes {
			b.Bytes[i] = byte(rng.Uint32())
		}
		err = p.v.WriteAt(p.t.Context(), b, off)
		b.Release()
	case kind < 8:
		err = p.v.Discard(p.t.Context(), off, n)
	case kind < 9:
		err = p.v.WriteZeroes(p.t.Context(), off, n)
	default:
		id, call := p.nextSnapshot(), p.now()
		err = Cut(p.t.Context(), []*Volume{p.v}, func(_ context.Context, recs []model.Volume) ([]model.Volume, error) {
			rec, err := p.raft.cut(id, recs[0].Generation, recs[0].Revision, call)
			return []model.Volume{rec}, err
		})
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// contents reads everything.
func (p *player) contents() (out []string) {
	p.t.Helper()
	type source interface {
		ReadAt(ctx context.Context, p []byte, off int64) error
		Extents(ctx context.Context, off, n int64) ([]Run, error)
	}
	tell := func(name string, from source) {
		var line strings.Builder
		buf := iobuf.Aligned(64 << 10)
		sum := crc32.NewIEEE()
		for off := int64(0); off < sameSize; off += int64(len(buf)) {
			if err := from.ReadAt(p.t.Context(), buf, off); err != nil {
				p.t.Fatal(err)
			}
			_, _ = sum.Write(buf)
			if off%(1<<20) == 0 {
				fmt.Fprintf(&line, " %08x", sum.Sum32())
			}
		}
		fmt.Fprintf(&line, " %08x", sum.Sum32())
		held := int64(0)
		for off := int64(0); off < sameSize; {
			runs, err := from.Extents(p.t.Context(), off, sameSize-off)
			if err != nil || len(runs) == 0 {
				p.t.Fatal(err)
			}
			for _, r := range runs {
				if off += int64(r.Length); !r.Zero {
					held += int64(r.Length)
				}
			}
		}
		out = append(out, fmt.Sprintf("%s:%s, %d bytes of data", name, line.String(), held))
	}
	tell("the volume", p.v)
	for i, s := range p.raft.snapshots() {
		at, err := p.v.At(s.Snapshot)
		if err != nil {
			p.t.Fatal(err)
		}
		tell(fmt.Sprintf("snapshot %d", i), at)
	}
	return out
}
