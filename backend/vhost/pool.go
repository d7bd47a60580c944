package vhost

import (
	"sync"

	"drystone.example/drystone/backend/must"
)

// A pool runs requests on goroutines that it keeps, so that a request in the
// steady state costs no new stack.
type pool struct {
	work    chan *request // unbuffered: a send succeeds if a worker is idle
	max     int
	workers sync.WaitGroup

	mu    sync.Mutex // guards begun
	begun int
}

// start gives a request to an idle worker, or to a new one. There are never more
// requests than max, so it waits no longer than a worker needs to turn around.
func (p *pool) start(q *request) {
	select {
	case p.work <- q:
		return
	default:
	}
	p.mu.Lock()
	grow := p.begun < p.max
	if grow {
		p.begun++
	}
	p.mu.Unlock()
	if !grow {
		p.work <- q
		return
	}
	p.workers.Go(func() { p.run(q) })
}

// run is a worker, from its first request on.
func (p *pool) run(first *request) {
	for q, ok := first, true; ok; q, ok = <-p.work {
		must.That(q.ring != nil, "a request without a ring")
		q.perform()
	}
}

// close waits for the workers. Nobody may start requests any more.
func (p *pool) close() {
	close(p.work)
	p.workers.Wait()
}
