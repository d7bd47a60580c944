package metrics

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"drystone.example/drystone/backend/model"
)

// steady is a source whose counters grow evenly with time.
type steady struct {
	node  model.NodeID
	start time.Time
}

func (s steady) CountDisks() []DiskCount {
	n := uint64(time.Since(s.start) / time.Millisecond)
	return []DiskCount{{ID: model.DiskID(10 + s.node), Size: 8 << 30, Used: 1<<30 + 1, IO: IOCount{
		Reads: n, ReadBytes: n * 4096, ReadTime: time.Duration(n) * 2 * time.Millisecond,
		Writes: 2 * n, WriteBytes: n * 8192, WriteTime: time.Duration(n) * 8 * time.Millisecond,
	}}}
}

func (s steady) CountGuests() []GuestCount {
	return []GuestCount{{ID: model.VMID(20 + s.node), CPUs: 2, CPU: time.Since(s.start) / 2, Memory: 512 << 20}}
}

// network is the other nodes: real Metrics, reached by call.
type network struct {
	mu    sync.Mutex
	nodes map[model.NodeID]*Metrics
	down  map[model.NodeID]bool
	calls int
}

func (n *network) get(id model.NodeID) *Metrics {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls++
	if n.down[id] {
		return nil
	}
	return n.nodes[id]
}

func (n *network) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.calls
}

func (n *network) set(id model.NodeID, down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down[id] = down
}

type view struct {
	net  *network
	self model.NodeID
}

func (v view) Others() (others []model.NodeID) {
	for id := range v.net.nodes {
		if id != v.self {
			others = append(others, id)
		}
	}
	return others
}

func (v view) Members() []model.NodeID { return v.Others() }

func (v view) Past(ctx context.Context, node model.NodeID, ask PastAsk) ([]Point, error) {
	m := v.net.get(node)
	if m == nil {
		<-ctx.Done()
		return nil, errors.New("node is away")
	}
	return m.OwnPast(ctx, ask)
}

func (v view) Samples(ctx context.Context, node model.NodeID, after int64) ([]Sample, error) {
	m := v.net.get(node)
	if m == nil {
		<-ctx.Done()
		return nil, errors.New("node is away")
	}
	return m.Samples(after), nil
}

// start runs three nodes until the test ends.
func start(t *testing.T) (*network, *Metrics) {
	t.Helper()
	net := startWith(t, func(id model.NodeID) Source { return steady{node: id, start: time.Now().Add(-time.Hour)} })
	return net, net.nodes[1]
}

func startWith(t *testing.T, source func(id model.NodeID) Source) *network {
	t.Helper()
	net := &network{nodes: map[model.NodeID]*Metrics{}, down: map[model.NodeID]bool{}}
	for id := range model.NodeID(3) {
		net.nodes[id+1] = New(Config{
			Self: id + 1, Source: source(id + 1), Peers: view{net, id + 1}, Log: slog.New(slog.DiscardHandler),
			Dir: t.TempDir(), Known: all,
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, m := range net.nodes {
		wg.Go(func() {
			if err := m.Run(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
	return net
}

// About compares numbers that went through float32.
var about = cmp.Comparer(func(a, b float64) bool {
	return a == b || math.Abs(a-b) <= 1e-3*math.Abs(a)
})

func TestFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, m := start(t)
		w := m.Watch()
		defer w.Close()
		time.Sleep(5 * time.Second)
		<-w.C()

		disks := m.Frame(Disks)
		want := map[string][]float64{
			"used": {1<<30 + 1}, "size": {8 << 30},
			"r_iops": {1000}, "w_iops": {2000}, "r_bps": {4096e3}, "w_bps": {8192e3},
			"r_lat": {0.002}, "w_lat": {0.004},
		}
		for name, values := range want {
			got := disks.Columns[name]
			if len(got) != 3 || !cmp.Equal(values, got[:1], about) {
				t.Errorf("disks: %s = %v, want three of %v", name, got, values)
			}
		}
		guests := m.Frame(Guests)
		if got := guests.Columns["cpu"]; !cmp.Equal(got, []float64{0.25, 0.25, 0.25}, about) {
			t.Errorf("vms: cpu = %v, want 0.25 of each", got)
		}
		nodes := m.Frame(Nodes)
		if len(nodes.IDs) != 3 || !slices.IsSorted(nodes.IDs) {
			t.Errorf("nodes: ids %v, want three in order", nodes.IDs)
		}
		if got := nodes.Columns["mem_total"][0]; got <= 0 {
			t.Errorf("nodes: mem_total = %v", got)
		}
		cluster := m.Frame(Cluster)
		if got := cluster.Columns["w_iops"]; !cmp.Equal(got, []float64{6000}, about) {
			t.Errorf("cluster: w_iops = %v, want 6000", got)
		}
		if got := cluster.Columns["w_lat"]; !cmp.Equal(got, []float64{0.004}, about) {
			t.Errorf("cluster: w_lat = %v, want 0.004", got)
		}
		if cluster.Age[0] > 1 {
			t.Errorf("cluster: age = %v", cluster.Age)
		}
	})
}

// soon is a context that ends in five seconds.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// Nobody is asked while nobody watches, and a watcher sees what the others did
// before it came.
func TestHistoryReachesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, m := start(t)
		time.Sleep(3 * time.Minute)
		if n := net.count(); n != 0 {
			t.Errorf("%d calls while nobody watched", n)
		}
		w := m.Watch()
		m.Caught(soon(t))
		h := m.History(Nodes, 120)
		if len(h.IDs) != 3 || len(h.T) != 120 || len(h.Series["cpu"]) != 120 {
			t.Fatalf("History has %d ids, %d times", len(h.IDs), len(h.T))
		}
		for i, values := range h.Series["r_iops"] {
			if !cmp.Equal(values, []float64{1000, 1000, 1000}, about) {
				t.Errorf("r_iops at %d = %v, want 1000 of each", i, values)
			}
		}
		total := m.History(Cluster, 60)
		for i, values := range total.Series["r_iops"] {
			if !cmp.Equal(values, []float64{3000}, about) {
				t.Errorf("cluster r_iops at %d = %v, want 3000", i, values)
			}
		}
		w.Close()
		time.Sleep(linger + time.Second)
		before := net.count()
		time.Sleep(time.Minute)
		if n := net.count() - before; n != 0 {
			t.Errorf("%d calls after the watcher left", n)
		}

		// The next watcher sees what it missed, too.
		w = m.Watch()
		defer w.Close()
		m.Caught(soon(t))
		for i, values := range m.History(Nodes, 60).Series["r_iops"] {
			if !cmp.Equal(values, []float64{1000, 1000, 1000}, about) {
				t.Errorf("watching anew: r_iops at %d = %v, want 1000 of each", i, values)
			}
		}
	})
}

// A node that is away grows old and leaves the totals; when it is back, what was
// missed is fetched. The others are not held up.
func TestNodeAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, m := start(t)
		w := m.Watch()
		defer w.Close()
		time.Sleep(3 * time.Second)
		net.set(2, true)
		time.Sleep(20 * time.Second)

		nodes := m.Frame(Nodes)
		i := slices.Index(nodes.IDs, model.NodeID(2).String())
		if i < 0 || nodes.Age[i] < 15 {
			t.Fatalf("the node that is away: %v aged %v", nodes.IDs, nodes.Age)
		}
		for j, age := range nodes.Age {
			if j != i && age > 2 {
				t.Errorf("node %s is %v s old though it answers", nodes.IDs[j], age)
			}
		}
		if got := m.Frame(Cluster).Columns["r_iops"]; !cmp.Equal(got, []float64{2000}, about) {
			t.Errorf("cluster r_iops = %v, want 2000 without the node", got)
		}
		if got := m.Frame(Disks).IDs; len(got) != 2 {
			t.Errorf("disks %v, want those of the two nodes that answer", got)
		}

		net.set(2, false)
		time.Sleep(10 * time.Second)
		if age := m.Frame(Nodes).Age[i]; age > 2 {
			t.Errorf("the node is back and still %v s old", age)
		}
		h := m.History(Nodes, 25)
		for k, values := range h.Series["r_iops"] {
			if math.IsNaN(values[i]) {
				t.Errorf("second %d of the node that was away is missing", k)
			}
		}
	})
}

// A watcher that does not look gets one signal for all it missed and holds up nobody.
func TestSlowWatcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, m := start(t)
		slow, quick := m.Watch(), m.Watch()
		defer slow.Close()
		defer quick.Close()
		time.Sleep(2 * time.Second)
		for range 10 {
			<-quick.C()
		}
		<-slow.C()
		select {
		case <-slow.C():
			t.Error("a second signal is waiting")
		default:
		}
	})
}

func TestSamplesAreBounded(t *testing.T) {
	m := New(Config{Self: 1})
	busy := Sample{Disks: make([]Disk, 500)}
	for i := range 3 * kept {
		busy.At = int64(i+1) * 1000
		m.add(1, []Sample{busy})
	}
	if n := len(m.nodes[1].samples); n > 2*kept {
		t.Errorf("%d samples are kept", n)
	}
	var all []Sample
	for after := int64(0); ; after = all[len(all)-1].At {
		answer := m.Samples(after)
		if len(answer) == 0 {
			break
		}
		if len(answer) > perAnswer/busy.values()+1 {
			t.Fatalf("an answer of %d samples", len(answer))
		}
		all = append(all, answer...)
	}
	if len(all) != kept || all[0].At != int64(2*kept+1)*1000 {
		t.Errorf("%d samples from %d on, want the newest %d", len(all), all[0].At, kept)
	}
	text, err := json.Marshal(busy)
	if err != nil || len(text) > 64<<10 {
		t.Errorf("a sample of 500 disks is %d bytes, %v", len(text), err)
	}
}

func TestRate(t *testing.T) {
	before := IOCount{Reads: 100, Writes: 10, ReadBytes: 1000, WriteBytes: 10, ReadTime: time.Second}
	for _, c := range []struct {
		name string
		now  IOCount
		took time.Duration
		want Rate
	}{
		{"nothing happened", before, time.Second, Rate{}},
		{
			"reads",
			IOCount{Reads: 300, Writes: 10, ReadBytes: 5000, WriteBytes: 10, ReadTime: 3 * time.Second},
			2 * time.Second,
			Rate{ReadIOPS: 100, ReadBps: 2000, ReadLat: 0.01},
		},
		{"the counter began anew", IOCount{Reads: 5}, time.Second, Rate{}},
		{"no time went by", IOCount{Reads: 300, Writes: 20, ReadBytes: 5000, WriteBytes: 20}, 0, Rate{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := rate(before, c.now, c.took); got != c.want {
				t.Errorf("rate = %+v, want %+v", got, c.want)
			}
		})
	}
}

func BenchmarkSample(b *testing.B) {
	s := sampler{source: steady{}}
	for b.Loop() {
		if _, _, err := s.next(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
