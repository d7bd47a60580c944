package agent

import (
	"context"
	"sync/atomic"

	"drystone.example/drystone/backend/model"
)

// A nodeLease is the lease of the node; *meta.Lease is one.
type nodeLease interface {
	Valid() bool
	Wait(ctx context.Context) error
	Term() uint64
}

// A right is that to serve one volume as its holder of one generation: the node's
// lease, and the record still naming this holder. The record cannot come to name
// another while the lease holds, so it is looked at once in each term of the lease.
//
// Invariant: what a holder answers is answered in a term in which the record, as
// of the beginning of the term or later, named it.
type right struct {
	node  nodeLease
	named func() error // nil, or model.Fenced: the record names another holder

	term atomic.Uint64 // the last one in which the record named us; zero: none yet
}

// Valid implements volume.Lease. The lease is asked before the term: a term that
// began between the two is then seen.
func (r *right) Valid() bool {
	if !r.node.Valid() {
		return false
	}
	term := r.node.Term()
	if term == r.term.Load() {
		return true
	}
	if r.named() != nil {
		return false
	}
	r.term.Store(term)
	return true
}

// Wait implements volume.Lease.
func (r *right) Wait(ctx context.Context) error {
	if err := r.node.Wait(ctx); err != nil {
		return err
	}
	return r.named()
}

// lease is the right to a volume that this node has just acquired.
func (a *Agent) lease(rec model.Volume) *right {
	return &right{
		node: a.cfg.Meta.Lease(),
		named: func() error {
			now, err := a.cfg.Meta.Local().Volume(rec.ID)
			if err != nil {
				return model.Errorf(model.Fenced, "volume %s is not in the record any more: %w", rec.ID, err)
			}
			return a.named(now, rec.Generation)
		},
	}
}

// named returns model.Fenced if the record says that a generation of ours does not
// hold the volume any more. A record older than the generation says nothing.
func (a *Agent) named(rec model.Volume, gen model.Generation) error {
	if rec.Generation > gen || rec.Generation == gen && rec.Holder != a.cfg.Self {
		return model.Errorf(model.Fenced, "volume %s was taken over: it is at generation %d, not %d",
			rec.ID, rec.Generation, gen)
	}
	return nil
}
