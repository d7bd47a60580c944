package agent

import (
	"sync"
	"time"

	"drystone.example/drystone/backend/model"
)

// keptIdle is how long a volume is held on for maintenance after it was last needed.
const keptIdle = 5 * time.Second

// A keptHold is a maintenance hold that is kept from one use to the next, so that a
// volume with much to do is taken once. It gives way at once: whoever wants the
// volume waits for the end of one use at most.
type keptHold struct {
	release func(*Hold)
	run     func(func()) // in a goroutine of the owner

	mu   sync.Mutex // guards the rest; nothing blocks under it
	hold *Hold
	busy bool
	used time.Time
}

// has reports whether the volume is held, busy or not.
func (k *keptHold) has(id model.VolumeID) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.hold != nil && k.hold.id == id
}

// take returns the hold of a volume for a use that ends with put, or nil: then the
// caller takes the volume itself, and puts that.
func (k *keptHold) take(id model.VolumeID) *Hold {
	k.mu.Lock()
	if h := k.hold; h != nil && h.id == id && !h.over() {
		k.busy = true
		k.mu.Unlock()
		return h
	}
	k.mu.Unlock()
	k.end(nil)
	return nil
}

// put ends a use.
func (k *keptHold) put(h *Hold) {
	k.mu.Lock()
	if fresh := k.hold != h; fresh {
		k.hold = h
		k.run(func() { k.watch(h) })
	}
	k.busy, k.used = false, time.Now()
	k.mu.Unlock()
	if h.over() {
		k.end(h)
	}
}

// watch lets a hold go as soon as somebody wants the volume.
func (k *keptHold) watch(h *Hold) {
	select {
	case <-h.wanted:
		k.end(h)
	case <-h.gone:
	}
}

// idle lets a hold go that was not needed for a while.
func (k *keptHold) idle(now time.Time) {
	k.mu.Lock()
	rest := !k.busy && now.Sub(k.used) > keptIdle
	k.mu.Unlock()
	if rest {
		k.end(nil)
	}
}

// end lets the hold go, unless it is in use or, where one is named, another.
func (k *keptHold) end(only *Hold) {
	k.mu.Lock()
	h := k.hold
	if k.busy || only != nil && only != h {
		h = nil
	} else {
		k.hold = nil
	}
	k.mu.Unlock()
	if h != nil {
		k.release(h)
	}
}

// over reports whether a hold should be let go: somebody wants the volume, or it
// serves no more.
func (h *Hold) over() bool {
	select {
	case <-h.wanted:
		return true
	case <-h.volume.Done():
		return true
	default:
		return false
	}
}
