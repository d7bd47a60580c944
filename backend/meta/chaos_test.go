package meta

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"drystone.example/drystone/backend/model"
)

// A history is what clients saw: users that were asked for, and which of them
// were acknowledged.
type history struct {
	mu    sync.Mutex
	acked map[string]bool
}

func (h *history) add(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.acked[name] = true
}

// before returns what was acknowledged up to now.
func (h *history) before() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	names := make([]string, 0, len(h.acked))
	for name := range h.acked {
		names = append(names, name)
	}
	return names
}

// Whatever the network and the processes do, for many seeds: a view contains all
// that was acknowledged to anybody before it was asked for; views do not go back;
// nothing acknowledged is lost; all nodes end with the same rows; and when a
// leader says that a lease has run out, its node has not served for as long as it
// takes to kill its guests, though the nodes' clocks run at different speeds.
func TestChaos(t *testing.T) {
	seeds := uint64(8)
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			bubble(t, 3, func(c *cluster) { c.chaos(seed) })
		})
	}
}

func (c *cluster) chaos(seed uint64) {
	t := c.t
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	h := &history{acked: map[string]bool{}}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	recs := &records{byName: map[string]*Record{}}
	for _, n := range c.nodes {
		recs.set(n.name, n.Record)
		wg.Go(func() { c.write(ctx, recs, n.name, h) })
		wg.Go(func() { c.read(ctx, recs, n.name, h) })
	}
	wg.Go(func() { c.watchLeases(ctx, recs) })
	for range 25 {
		time.Sleep(time.Duration(rng.IntN(4000)) * time.Millisecond)
		disturb(c, rng, recs)
	}
	for _, n := range c.nodes {
		c.heal(n)
	}
	time.Sleep(5 * time.Second)
	cancel()
	wg.Wait()
	v, err := c.leader().View(t.Context())
	if err != nil {
		t.Fatalf("View at the end: %v", err)
	}
	for _, name := range h.before() {
		if _, err := v.FindUser(name); err != nil {
			t.Errorf("%s was acknowledged and is lost", name)
		}
	}
	if len(h.before()) < 30 {
		t.Errorf("only %d changes got through: the test tests little", len(h.before()))
	}
	c.sameEverywhere()
}

// records is the running nodes' parts, for goroutines that outlive them.
type records struct {
	mu     sync.Mutex
	byName map[string]*Record
}

func (r *records) set(name string, rec *Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.byName[name] = rec
}

// get returns a node's part, or nil while it is down.
func (r *records) get(name string) *Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byName[name]
}

// disturb does one bad thing, or heals.
func disturb(c *cluster, rng *rand.Rand, recs *records) {
	n := c.nodes[rng.IntN(len(c.nodes))]
	o := c.nodes[rng.IntN(len(c.nodes))]
	switch rng.IntN(6) {
	case 0:
		c.isolate(n)
	case 1:
		c.net.Cut(n.name, o.name) // one way
	case 2:
		c.net.Delay(n.name, o.name, time.Duration(rng.IntN(300))*time.Millisecond)
	case 3:
		recs.set(n.name, nil)
		n.stop()
		time.Sleep(time.Duration(rng.IntN(3000)) * time.Millisecond)
		n.start()
		recs.set(n.name, n.Record)
	default:
		for _, n := range c.nodes {
			c.heal(n)
			for _, o := range c.nodes {
				c.net.Delay(n.name, o.name, 0)
			}
		}
	}
}

func (c *cluster) write(ctx context.Context, recs *records, name string, h *history) {
	for i := 0; ctx.Err() == nil; i++ {
		rec, who := recs.get(name), fmt.Sprintf("%s-%d", name, i)
		if rec != nil {
			short, cancel := context.WithTimeout(ctx, 7*time.Second)
			_, err := rec.Apply(short, model.System, user(who))
			cancel()
			if err == nil {
				h.add(who)
			} else if model.CodeOf(err) != model.Unavailable {
				c.t.Errorf("Apply at %s: %v", name, err)
			}
		}
		sleep(ctx, 300*time.Millisecond)
	}
}

func (c *cluster) read(ctx context.Context, recs *records, name string, h *history) {
	last := uint64(0)
	for ctx.Err() == nil {
		if rec := recs.get(name); rec != nil {
			before := h.before()
			v, err := rec.View(ctx)
			if err == nil {
				for _, who := range before {
					if _, err := v.FindUser(who); err != nil {
						c.t.Errorf("a view of %s at %d lacks %s, acknowledged before", name, v.Index(), who)
					}
				}
				if v.Index() < last {
					c.t.Errorf("a view of %s went back from %d to %d", name, last, v.Index())
				}
				last = v.Index()
			}
		}
		sleep(ctx, 200*time.Millisecond)
	}
}

// watchLeases compares what leaders say of leases with what the nodes think.
func (c *cluster) watchLeases(ctx context.Context, recs *records) {
	served := map[string]time.Time{}
	for ctx.Err() == nil {
		for _, n := range c.nodes {
			if rec := recs.get(n.name); rec != nil && rec.Lease().Valid() {
				served[n.name] = time.Now()
			}
		}
		for _, judge := range c.nodes {
			rec := recs.get(judge.name)
			if rec == nil {
				continue
			}
			for _, n := range c.nodes {
				s, err := rec.LeaseState(n.id)
				if ago := time.Since(served[n.name]); err == nil && s.Expired && ago < LeaseKill {
					c.t.Errorf("%s says that the lease of %s has run out, which served %v ago", judge.name, n.name, ago)
				}
			}
		}
		sleep(ctx, 50*time.Millisecond)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
