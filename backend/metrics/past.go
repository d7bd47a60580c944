package metrics

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"drystone.example/drystone/backend/metrics/ringfile"
	"drystone.example/drystone/backend/model"
)

// The bounds of what is kept of machines.
const (
	// PastPoints bounds the moments of one answer.
	PastPoints = 4000

	// pastUsual is about how many moments an answer has if nobody says: what a chart
	// can show. It makes steps of 5 s, 2 min, 1 h and 1 day of the four rings.
	pastUsual = 730

	// pastFiles bounds the machines a node remembers.
	pastFiles  = 4096
	pastSweep  = time.Hour
	pastRecord = 2 * time.Second // for the record to say which machines there are

	// pastQueue is how many seconds wait for a slow disk before some are left out.
	pastQueue = 60
	pastAsk   = 5 * time.Second // for one node's answer
	pastEnd   = ".ring"
)

// guestLayout is how a machine's numbers are kept: the columns of Guests, in order, and
// latencies weighted by the operations.
var guestLayout = ringfile.Layout{Weights: []int{-1, -1, -1, -1, -1, -1, 2, 3}}

// A PastAsk asks a node for what it knows of a machine: the means of every Step seconds
// of [From, To), which are Unix seconds. It is what crosses the wire between nodes.
type PastAsk struct {
	VM   model.VMID `json:"vm"`
	From int64      `json:"from"` // a multiple of Step
	To   int64      `json:"to"`
	Step int64      `json:"step"`
}

func (a PastAsk) validate() error {
	switch {
	case a.Step < 1 || a.From < 0 || a.From%a.Step != 0 || a.To <= a.From || a.To-a.From > 2*ringfile.Span():
		return model.Errorf(model.Invalid, "%d to %d in steps of %d seconds", a.From, a.To, a.Step)
	case (a.To-a.From)/a.Step > PastPoints+1:
		return model.Errorf(model.Invalid, "more than %d moments", PastPoints)
	}
	return nil
}

// A Point is the mean of some time of what a machine did.
type Point = ringfile.Point

// A Past is what a machine did, on all nodes it was on.
type Past struct {
	Step    int64   // seconds
	Points  []Point // one for every step, oldest first; Values are in the order of Columns
	Columns []string
	Missing []model.NodeID // members that did not say what they know
}

// past keeps what this node's guests did in files, one for each.
type past struct {
	dir   string
	known func(context.Context) (func(model.VMID) bool, error)
	log   *slog.Logger

	samples chan Sample
	asks    chan pastCall
	done    chan struct{} // closed when run has ended

	// Of run's goroutine.
	open   map[model.VMID]*ringfile.File
	failed bool
}

type pastCall struct {
	ask    PastAsk
	answer chan pastAnswer // has room for one
}

type pastAnswer struct {
	points []Point
	err    error
}

func newPast(c Config) *past {
	return &past{
		dir: c.Dir, known: c.Known, log: c.Log, samples: make(chan Sample, pastQueue),
		asks: make(chan pastCall), done: make(chan struct{}), open: map[model.VMID]*ringfile.File{},
	}
}

// offer hands a sample over. If the disk is a minute behind, the sample is left out.
func (p *past) offer(s Sample) {
	select {
	case p.samples <- s:
	default:
	}
}

// run owns the files until ctx ends.
func (p *past) run(ctx context.Context) {
	defer close(p.done)
	sweep := time.NewTicker(pastSweep)
	defer sweep.Stop()
	p.say(os.MkdirAll(p.dir, 0o700))
	p.say(p.sweep(ctx, time.Now()))
	for {
		select {
		case s := <-p.samples:
			p.say(p.keep(s))
		case c := <-p.asks:
			points, err := p.read(c.ask)
			c.answer <- pastAnswer{points, err}
		case <-sweep.C:
			p.say(p.sweep(ctx, time.Now()))
		case <-ctx.Done():
			p.say(p.keep(Sample{})) // no guests: closes all
			return
		}
	}
}

// say logs what goes wrong once, until it goes well again.
func (p *past) say(err error) {
	if err != nil && !p.failed {
		p.log.Warn("what machines did is not kept", "err", err)
	}
	p.failed = err != nil
}

// keep notes what the guests of a sample did, and closes the files of those that are gone.
func (p *past) keep(s Sample) error {
	var errs []error
	here := map[model.VMID]bool{}
	for _, g := range s.Guests {
		here[g.ID] = true
		f := p.open[g.ID]
		if f == nil {
			var err error
			if f, err = ringfile.Open(p.path(g.ID), guestLayout); err != nil {
				errs = append(errs, err)
				continue
			}
			p.open[g.ID] = f
		}
		r := g.Rate
		errs = append(errs, f.Add(s.At/1000, []float32{
			g.CPU, float32(g.Used), r.ReadIOPS, r.WriteIOPS, r.ReadBps, r.WriteBps, r.ReadLat, r.WriteLat,
		}))
	}
	for id, f := range p.open {
		if !here[id] {
			delete(p.open, id)
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

func (p *past) path(id model.VMID) string { return filepath.Join(p.dir, id.String()+pastEnd) }

// read returns what this node knows; nothing of moments that it knows nothing of.
func (p *past) read(a PastAsk) ([]Point, error) {
	f := p.open[a.VM]
	if f == nil {
		if _, err := os.Stat(p.path(a.VM)); errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		var err error
		if f, err = ringfile.Open(p.path(a.VM), guestLayout); err != nil {
			return nil, err //nolint:wrapcheck // it says enough
		}
		defer f.Close() //nolint:errcheck // nothing waits to be written
	}
	points, err := f.Read(a.From, a.To, a.Step)
	return slices.DeleteFunc(points, func(q Point) bool { return q.Seconds == 0 }), err //nolint:wrapcheck // it says enough
}

// sweep deletes what is kept of machines that are not in the record any more, of which
// nothing is within two years, and of more machines than a node remembers. While the
// record cannot be asked, as when the node has just started or is cut off, nobody knows
// which machines are gone.
func (p *past) sweep(ctx context.Context, now time.Time) error {
	list, err := os.ReadDir(p.dir)
	if err != nil {
		return err //nolint:wrapcheck // it says enough
	}
	type file struct {
		name string
		at   time.Time
	}
	ctx, cancel := context.WithTimeout(ctx, pastRecord)
	defer cancel()
	known, err := p.known(ctx)
	if err != nil {
		known = func(model.VMID) bool { return true }
	}
	var kept []file
	var errs []error
	for _, e := range list {
		name, ours := strings.CutSuffix(e.Name(), pastEnd)
		id, err := model.ParseID[model.VMID](name)
		if !ours || err != nil || p.open[id] != nil {
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue // gone
		}
		if now.Sub(info.ModTime()) > time.Duration(ringfile.Span())*time.Second || !known(id) {
			errs = append(errs, os.Remove(p.path(id)))
			continue
		}
		kept = append(kept, file{e.Name(), info.ModTime()})
	}
	slices.SortFunc(kept, func(a, b file) int { return a.at.Compare(b.at) })
	for _, f := range kept[:max(0, len(kept)+len(p.open)-pastFiles)] {
		errs = append(errs, os.Remove(filepath.Join(p.dir, f.name)))
	}
	return errors.Join(errs...)
}

// OwnPast is what this node knows of a machine, of moments that it knows anything of,
// oldest first.
func (m *Metrics) OwnPast(ctx context.Context, a PastAsk) ([]Point, error) {
	if err := a.validate(); err != nil {
		return nil, err
	}
	c := pastCall{a, make(chan pastAnswer, 1)}
	select {
	case m.past.asks <- c:
	case <-m.past.done:
		return nil, model.Errorf(model.Unavailable, "the node is stopping")
	case <-ctx.Done():
		return nil, model.Errorf(model.Unavailable, "waiting for the history: %w", context.Cause(ctx))
	}
	select {
	case got := <-c.answer:
		return got.points, got.err
	case <-ctx.Done(): // a disk that hangs
		return nil, model.Errorf(model.Unavailable, "waiting for the history: %w", context.Cause(ctx))
	}
}

// Past is what a machine did within the last seconds, as all nodes it was on know it, in
// means of at least step seconds; of as many as suit a chart if step is zero. Where two
// nodes had a machine at the same time, which are moments of a migration, it is the mean
// of both. Nodes that do not answer within five seconds are named.
func (m *Metrics) Past(ctx context.Context, vm model.VMID, seconds, step int64) (Past, error) {
	a := pastAskOf(vm, time.Now().Unix(), seconds, step)
	own, err := m.OwnPast(ctx, a)
	if err != nil {
		return Past{}, err
	}
	out := Past{Step: a.Step, Columns: columnsOf(Guests)}
	others := m.Peers.Members()
	parts := make([][]Point, len(others))
	fails := make([]error, len(others))
	ctx, cancel := context.WithTimeout(ctx, pastAsk)
	defer cancel()
	up := m.Peers.Others()
	var wait sync.WaitGroup
	for i, node := range others {
		if !slices.Contains(up, node) {
			fails[i] = model.Errorf(model.Unavailable, "it is away")
			continue
		}
		wait.Go(func() { parts[i], fails[i] = m.Peers.Past(ctx, node, a) })
	}
	wait.Wait()
	for i, err := range fails {
		if err != nil {
			out.Missing = append(out.Missing, others[i])
		}
	}
	out.Points = join(a, append(parts, own))
	return out, nil
}

// pastAskOf makes a question of a wish: steps as fine as asked for, as far as what is so
// old is kept, and as the answer has room.
func pastAskOf(vm model.VMID, now, seconds, step int64) PastAsk {
	seconds = min(max(seconds, 1), ringfile.Span())
	kept := ringfile.Step(seconds)
	if step <= 0 {
		step = (seconds + pastUsual - 1) / pastUsual
	}
	step = min(max(step, kept, (seconds+PastPoints-1)/PastPoints), ringfile.Span())
	step = (step + kept - 1) / kept * kept
	from := min((now-seconds)/step*step+step, now/step*step)
	return PastAsk{VM: vm, From: from, To: now + 1, Step: step}
}

// join makes one series of what nodes know. What no question asked for is left out.
func join(a PastAsk, parts [][]Point) []Point {
	n := (a.To - a.From + a.Step - 1) / a.Step
	found := make([][]Point, max(n, 0))
	for _, points := range parts {
		for _, p := range points {
			i := (p.At - a.From) / a.Step
			if p.At < a.From || i >= n || p.Seconds < 1 || p.Seconds > a.Step || len(p.Values) != len(guestLayout.Weights) {
				continue
			}
			found[i] = append(found[i], p)
		}
	}
	out := make([]Point, len(found))
	for i, points := range found {
		slices.SortStableFunc(points, func(p, q Point) int { return cmp.Compare(p.Seconds, q.Seconds) })
		out[i] = guestLayout.Mean(a.From+int64(i)*a.Step, points)
	}
	return out
}
