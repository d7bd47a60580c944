package disktest

import (
	"bytes"
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
)

// An area holds blocks of 4 KiB by their number. A block's bytes are never changed
// in place, so that copies of the maps are cheap.
type area struct {
	mu      sync.Mutex
	off     bool             // the power was cut
	visible map[int64][]byte // what a read finds
	durable map[int64][]byte // what is left for certain
	flights map[*flight]struct{}
}

// A flight is a write on its way.
type flight struct {
	first  int64 // block
	blocks [][]byte
}

var zeroBlock = make([]byte, blockSize)

func newArea() *area {
	return &area{
		visible: make(map[int64][]byte), durable: make(map[int64][]byte),
		flights: make(map[*flight]struct{}),
	}
}

func (a *area) alive() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.power()
}

func (a *area) power() error {
	if a.off {
		return ErrPower
	}
	return nil
}

func (a *area) cut() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.off = true
}

func (a *area) read(off int64, bufs [][]byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := off / int64(blockSize)
	for _, b := range bufs {
		for ; len(b) > 0; b = b[blockSize:] {
			if from := a.visible[n]; from != nil {
				copy(b, from)
			} else {
				clear(b[:blockSize])
			}
			n++
		}
	}
	return a.power()
}

// takeOff begins a write.
func (a *area) takeOff(off int64, bufs [][]byte) *flight {
	f := &flight{first: off / int64(blockSize)}
	for _, b := range bufs {
		for ; len(b) > 0; b = b[blockSize:] {
			if bytes.Equal(b[:blockSize], zeroBlock) {
				f.blocks = append(f.blocks, nil) // as if it had never been written
				continue
			}
			f.blocks = append(f.blocks, bytes.Clone(b[:blockSize]))
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.off {
		a.flights[f] = struct{}{}
	}
	return f
}

// land ends it.
func (a *area) land(f *flight, durable bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.off {
		return ErrPower
	}
	delete(a.flights, f)
	for i, b := range f.blocks {
		put(a.visible, f.first+int64(i), b)
		if durable {
			put(a.durable, f.first+int64(i), b)
		}
	}
	return nil
}

func put(m map[int64][]byte, n int64, b []byte) {
	if b == nil {
		delete(m, n)
		return
	}
	m[n] = b
}

func (a *area) sync() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.off {
		return ErrPower
	}
	a.durable = maps.Clone(a.visible)
	return nil
}

// survivors returns what is left of the area after a power cut: of each block that
// is not durable, and of each in flight, every sector is the old one or the new.
func (a *area) survivors(rng *rand.Rand, percent int) *area {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := newArea()
	out.durable = maps.Clone(a.durable)
	mix := func(n int64, fresh []byte) {
		old := out.durable[n]
		if old == nil {
			old = zeroBlock
		}
		if fresh == nil {
			fresh = zeroBlock
		}
		torn := bytes.Clone(old)
		for s := 0; s < blockSize; s += sectorSize {
			if rng.IntN(100) < percent {
				copy(torn[s:s+sectorSize], fresh[s:])
			}
		}
		put(out.durable, n, torn)
	}
	for _, n := range a.unsynced() {
		mix(n, a.visible[n])
	}
	flights := slices.SortedFunc(maps.Keys(a.flights), func(f, g *flight) int {
		return cmp.Compare(f.first, g.first)
	})
	for _, f := range flights {
		for i, b := range f.blocks {
			mix(f.first+int64(i), b)
		}
	}
	out.visible = maps.Clone(out.durable)
	return out
}

// unsynced returns the blocks that a power cut may lose, in order.
func (a *area) unsynced() []int64 {
	var out []int64
	for n, b := range a.visible {
		if d := a.durable[n]; d == nil || &d[0] != &b[0] {
			out = append(out, n)
		}
	}
	for n := range a.durable {
		if a.visible[n] == nil {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

func (a *area) rot(rng *rand.Rand, from, to int64, n int) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []int64
	for b := range a.visible {
		if off := b * int64(blockSize); off >= from && off < to {
			all = append(all, b)
		}
	}
	slices.Sort(all)
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	n = min(n, len(all))
	for _, b := range all[:n] {
		bad := bytes.Clone(a.visible[b])
		bad[rng.IntN(blockSize)] ^= 1 << rng.IntN(8)
		a.visible[b], a.durable[b] = bad, bad
	}
	return n
}
