package cluster

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// A history as `vm history --json` prints it.
type history struct {
	Step    int64                 `json:"step_seconds"`
	T       []int64               `json:"t"`
	Series  map[string][]*float64 `json:"series"`
	Missing []string              `json:"missing"`
}

// requests are what the guest made in each second since a moment; -1 is a gap.
func (h history) requests(since time.Time) (out []float64) {
	for i, t := range h.T {
		if t < since.UnixMilli() {
			continue
		}
		n := -1.0
		if r, w := h.Series["r_iops"][i], h.Series["w_iops"][i]; r != nil && w != nil {
			n = *r + *w
		}
		out = append(out, n)
	}
	return out
}

// A guest that is limited makes no more requests than that, is none the worse for it, and
// is let go again, all while it runs. Its history, which shows that, goes with it to
// another node; what a node knows that is away is said to be missing.
func TestAccounting(t *testing.T) {
	t.Parallel()
	c := up(t)
	c.makeGuest("g", "node1")
	seen := c.goesOn("g", 0)
	busy := func(what string) {
		since := time.Now()
		eventually(t, time.Minute, what, func() bool {
			h := get[history](c, "vm", "history", "g", "--last", "2m", "--step", "1s")
			return slices.ContainsFunc(h.requests(since), func(n float64) bool { return n > 60 })
		})
	}
	busy("the guest makes more than 60 requests a second")

	const limit = 20
	c.must("vm", "edit", "g", "--iops", "20")
	time.Sleep(8 * time.Second) // it is felt within five, and what was under way is done
	since, window := time.Now(), 15*time.Second
	seen = c.goesOn("g", seen)
	time.Sleep(window)
	made := get[history](c, "vm", "history", "g", "--last", "2m", "--step", "1s").requests(since)
	var sum, known float64
	for _, n := range made {
		if n >= 0 {
			sum, known = sum+n, known+1
		}
	}
	if known < 5 || sum/known > 1.5*limit || sum == 0 {
		t.Errorf("limited to %d requests a second the guest made %.1f, of each second %v", limit, sum/known, made)
	}
	c.must("vm", "edit", "g", "--iops", "0")
	busy("the guest makes more than 60 requests a second again")
	seen = c.goesOn("g", seen)

	before := time.Now()
	c.must("vm", "migrate", "g", "node2")
	c.goesOn("g", seen)
	after := time.Now()
	time.Sleep(3 * time.Second)
	told := func() (then, now bool, h history) {
		h = get[history](c, "vm", "history", "g", "--last", "30m", "--step", "1s")
		for i, t := range h.T {
			if h.Series["cpu"][i] != nil {
				then = then || t < before.UnixMilli()
				now = now || t > after.UnixMilli()
			}
		}
		return then, now, h
	}
	if then, now, h := told(); !then || !now || len(h.Missing) > 0 {
		t.Errorf("what the guest did before it moved is told: %v, and since: %v; missing %v", then, now, h.Missing)
	}
	c.kill("node1")
	eventually(t, time.Minute, "it is said that node1 does not tell", func() bool {
		then, now, h := told()
		return !then && now && slices.Equal(h.Missing, []string{"node1"})
	})
	if s := c.must("status"); !strings.Contains(s, "promised to machines") {
		t.Errorf("the status is\n%s", s)
	}
}
