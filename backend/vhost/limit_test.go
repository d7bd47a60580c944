package vhost

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Over any time no more is taken than the limits say, of all queues together, and not
// much less while there is more to do; what was left unused may be made up for as far
// as the burst goes.
func TestLimits(t *testing.T) {
	for _, test := range []struct {
		name   string
		limits Limits
		bytes  int // of a request, at most
	}{
		{"requests", Limits{Requests: 100}, 4096},
		{"one-a-second", Limits{Requests: 1}, 4096},
		{"bytes", Limits{Bytes: 8 << 20}, 1 << 20},
		{"large-requests", Limits{Bytes: 1 << 20}, 4 << 20},
		{"both", Limits{Requests: 50, Bytes: 8 << 20}, 512 << 10},
		{"burst", Limits{Requests: 100, Burst: 10 * time.Second}, 4096},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { limited(t, test.limits, test.bytes) })
		})
	}
}

// A taking is one request that was let through.
type taking struct {
	at    time.Time
	bytes int
}

// limited lets four queues take all they can, with a rest of half a minute in between.
func limited(t *testing.T, limits Limits, most int) {
	t.Helper()
	var l limiter
	l.set(limits)
	var mu sync.Mutex // guards takings
	var takings []taking
	var rests atomic.Bool
	ctx, stop := context.WithCancel(t.Context())
	var queues sync.WaitGroup
	for i := range 4 {
		rnd := rand.New(rand.NewPCG(1, uint64(i)))
		queues.Go(func() {
			for l.wait(ctx) {
				if rests.Load() {
					time.Sleep(time.Millisecond)
					continue
				}
				if !l.open() { // another queue was quicker
					continue
				}
				n := 512 * (1 + rnd.IntN(most/512))
				l.take(1, float64(n))
				mu.Lock()
				takings = append(takings, taking{time.Now(), n})
				mu.Unlock()
			}
		})
	}
	const works, pause = 60 * time.Second, 30 * time.Second
	began := time.Now()
	time.Sleep(works)
	rests.Store(true)
	time.Sleep(pause)
	rests.Store(false)
	time.Sleep(works)
	stop()
	queues.Wait()

	burst := max(limits.Burst, burstMin).Seconds()
	within := func(i, j int, rate int64, slack float64, n func(taking) float64) {
		if rate == 0 {
			return
		}
		var sum float64
		for _, k := range takings[i : j+1] {
			sum += n(k)
		}
		took := takings[j].at.Sub(takings[i].at).Seconds()
		if right := max(float64(rate)*burst, 1) + float64(rate)*took + slack + 1; sum > right {
			t.Fatalf("%.0f were taken within %.3f s, at most %.0f are right", sum, took, right)
		}
	}
	one := func(taking) float64 { return 1 }
	size := func(k taking) float64 { return float64(k.bytes) }
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		i := rnd.IntN(len(takings))
		j := i + rnd.IntN(len(takings)-i)
		within(i, j, limits.Requests, 4, one) // four queues may look at once
		within(i, j, limits.Bytes, 4*float64(most), size)
	}
	var sum taking
	requests := 0
	for _, k := range takings {
		if k.at.Sub(began) <= works {
			requests, sum.bytes = requests+1, sum.bytes+k.bytes
		}
	}
	full := max(
		float64(requests)/(float64(limits.Requests)*works.Seconds()),
		float64(sum.bytes)/(float64(limits.Bytes)*works.Seconds()),
	)
	if full < 0.95 {
		t.Errorf("only %.2f of what the limits allow was taken in a minute", full)
	}
}

// A change is felt at once by who waits, and no limit is none.
func TestLimitsChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l limiter
		l.set(Limits{Bytes: 1})
		l.take(1, 1<<30)
		began := time.Now()
		time.AfterFunc(time.Minute, func() { l.set(Limits{Bytes: 1 << 20}) }) // 1 GiB is owed
		if !l.wait(t.Context()) || time.Since(began).Round(time.Second) != time.Minute+1024*time.Second {
			t.Errorf("with a higher limit the wait took %v", time.Since(began))
		}
		began = time.Now()
		l.take(1, 1<<20)
		l.set(Limits{Bytes: 1 << 10})
		if !l.wait(t.Context()) || time.Since(began).Round(time.Second) != time.Second {
			t.Errorf("with a lower limit the wait for what was owed before took %v", time.Since(began))
		}
		began = time.Now()
		l.take(1, 1<<40)
		time.AfterFunc(time.Hour, func() { l.set(Limits{}) })
		if !l.wait(t.Context()) || time.Since(began) != time.Hour {
			t.Errorf("without a limit the wait took %v", time.Since(began))
		}
		for range 1000 {
			l.take(1, 1<<30)
		}
		if !l.open() || !l.wait(t.Context()) {
			t.Error("without limits somebody waits")
		}
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		l.set(Limits{Requests: 1})
		l.take(1000, 0)
		if l.wait(ctx) {
			t.Error("who is stopped goes on to wait")
		}
	})
}

// A guest over its limit waits in its own ring: nothing of it is in flight, its ring is
// stopped at once and stands at what was not taken, and when the limit is lifted the
// rest is carried out.
func TestLimitedGuest(t *testing.T) {
	d := newDisk(8 << 20)
	s, v := boot(t, d, 2)
	s.Limit(Limits{Bytes: 1})
	data := random(1, 1<<20)
	first, second := v.queues[0], v.queues[1]
	if st, _ := first.do(blkOut, 0, data[:4096], 0); st != statusOK { // it is let through, and owes an hour
		t.Fatalf("the first write: status %d", st)
	}
	first.request(blkOut, 8, data[:512], 0)
	second.request(blkOut, 9, data[512:1024], 0)
	time.Sleep(settle)
	if got := s.Stats(); got.InFlight != 0 || got.Writes != 1 || first.usedIndex() != 1 || second.usedIndex() != 0 {
		t.Fatalf("over the limit: %+v", got)
	}
	if got := v.stop(0); got != 1 || s.Stats().Parked != 0 {
		t.Fatalf("the ring was stopped at %d with %d parked, want 1 and 0", got, s.Stats().Parked)
	}
	v.prepareRing(0)
	v.enable(0, true)
	s.Limit(Limits{})
	first.waitAll()
	second.waitAll()
	if !d.holds(8*512, data[:1024]) {
		t.Error("what waited was not written")
	}
}
