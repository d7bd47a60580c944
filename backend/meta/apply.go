package meta

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
)

// A question asks the leader for a change.
type question struct {
	Request string          `json:"request"`
	Actor   model.Actor     `json:"actor"`
	Kind    command.Kind    `json:"kind"`
	Body    json.RawMessage `json:"body"`
}

// An answer says what became of it: in the log at Index, or refused without
// being put there. Any other end is an error, and the question may come again.
type answer struct {
	Index   uint64          `json:"index,omitempty"`
	Code    model.Code      `json:"code,omitempty"`
	Text    string          `json:"text,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Refused bool            `json:"refused,omitempty"`
}

// Apply makes one change, from any node, and returns what it came to: the result
// that the command's comment names, or a coded error. With a lost
// compare-and-swap it returns both, the result being the object as it is. When it
// returns, this node's own view contains the change.
//
// It asks until ctx ends, at most thirty seconds, through changes of the leader.
// If it fails with model.Unavailable it is not known whether the change happens.
func (m *Record) Apply(ctx context.Context, by model.Actor, cmd command.Command) (any, error) {
	ctx, cancel := bounded(ctx, applyTimeout)
	defer cancel()
	body, err := json.Marshal(cmd)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", cmd.Kind(), err)
	}
	q := question{
		Request: model.NewID[model.TaskID]().String() + model.NewID[model.TaskID]().String(),
		Actor:   by, Kind: cmd.Kind(), Body: body,
	}
	told := m.fsm.expect(q.Request)
	defer m.fsm.forget(q.Request, told)
	var out state.Outcome
	err = m.atLeader(ctx, func(ctx context.Context, leader model.NodeID) (done bool, err error) {
		select {
		case out = <-told: // an earlier attempt got through
			return true, nil
		default:
		}
		a, err := m.ask(ctx, leader, q)
		if err != nil {
			return false, err
		}
		if a.Refused {
			out, err = a.refusal(q.Kind)
			return true, err
		}
		out, err = m.outcome(ctx, told, q.Request, a.Index)
		return err == nil, err
	})
	if err != nil {
		return nil, err
	}
	return out.Result, out.Err
}

// outcome waits until a request that is in the log is applied here.
func (m *Record) outcome(ctx context.Context, told chan state.Outcome, request string, index uint64,
) (state.Outcome, error) {
	v, err := m.awaitIndex(ctx, index)
	if err != nil {
		return state.Outcome{}, err
	}
	select {
	case out := <-told:
		return out, nil
	default: // it came here within a snapshot
	}
	out, known := v.Outcome(request)
	if !known {
		// Thousands of requests came after it. It was applied; how it went is lost.
		return out, model.Errorf(model.Unavailable, "the outcome of the change is not known any more")
	}
	return out, nil
}

func (a answer) refusal(kind command.Kind) (state.Outcome, error) {
	out := state.Outcome{Err: &model.Error{Code: a.Code, Text: a.Text}}
	if len(a.Result) == 0 {
		return out, nil
	}
	var err error
	out.Result, err = state.DecodeResult(kind, a.Result)
	return out, err
}

func (m *Record) ask(ctx context.Context, leader model.NodeID, q question) (answer, error) {
	if leader == m.cfg.Self {
		return m.propose(ctx, leader, q)
	}
	var a answer
	err := m.cfg.Wire.Call(ctx, leader, methodApply, q, &a)
	return a, err
}

// atLeader runs an attempt at the leader, again and again until it is done, the
// error is one that will not pass, or ctx ends. An attempt ends early when the
// leader is another one.
func (m *Record) atLeader(ctx context.Context, attempt func(context.Context, model.NodeID) (bool, error)) error {
	last := error(model.Errorf(model.Unavailable, "the cluster has no leader"))
	for {
		_, changed := m.lead.now()
		if leader, known := m.Leader(); known {
			done, err := m.attempt(ctx, leader, attempt)
			if done {
				return err
			}
			if err != nil {
				last = err
			}
			if code := model.CodeOf(err); code != model.Unavailable && err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-time.After(retryPause):
		case <-m.ctx.Done():
			return m.stopped()
		case <-ctx.Done():
			return fmt.Errorf("ask the leader: %w", last)
		}
	}
}

func (m *Record) attempt(ctx context.Context, leader model.NodeID,
	do func(context.Context, model.NodeID) (bool, error),
) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	watch.Go(func() {
		for {
			_, changed := m.lead.now()
			if now, known := m.Leader(); !known || now != leader {
				cancel()
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	})
	return do(ctx, leader)
}

// propose is the leader's side of Apply.
func (m *Record) propose(ctx context.Context, from model.NodeID, q question) (answer, error) {
	r, _ := m.lead.now()
	if r == nil {
		return answer{}, errNotLeader
	}
	cmd, err := command.DecodeBody(q.Kind, q.Body)
	if err != nil {
		return answer{}, model.Errorf(model.Invalid, "the leader does not understand the command: %w", err)
	}
	env := command.Envelope{Request: q.Request, Actor: q.Actor, At: time.Now(), Command: cmd}
	data, err := command.Encode(env)
	if err != nil {
		return answer{}, err
	}
	// What this view lacks may have been acknowledged already, elsewhere.
	if _, err := m.caughtUp(ctx, m.raft.CommitIndex()); err != nil {
		return answer{}, err
	}
	v := m.store.View()
	out, open, err := state.Check(v, env)
	switch {
	case err != nil:
		return answer{}, err
	case out.Index <= v.Index() && !open: // it came again
		return answer{Index: out.Index}, nil
	case !open && env.Actor.Role == "":
		// Nobody's doing: it need not be in the log to be refused.
		return m.refuse(ctx, out)
	}
	done, err := m.admit(v, from, env)
	if err != nil {
		return answer{Refused: true, Code: model.CodeOf(err), Text: err.Error()}, nil
	}
	return m.commit(ctx, r, env.Request, data, done)
}

// refuse answers with a refusal, if we lead: else it is not ours to give.
func (m *Record) refuse(ctx context.Context, out state.Outcome) (answer, error) {
	if _, err := m.reads.join(ctx); err != nil {
		return answer{}, err
	}
	a := answer{Refused: true, Code: model.CodeOf(out.Err), Text: out.Err.Error()}
	if out.Result != nil {
		var err error
		if a.Result, err = json.Marshal(out.Result); err != nil {
			return answer{}, fmt.Errorf("encode the refusal: %w", err)
		}
	}
	return a, nil
}

// commit puts a command into the log and waits until it is applied here. It calls
// done when that is decided, or this node no longer leads.
func (m *Record) commit(ctx context.Context, r *reign, request string, data []byte, done func()) (answer, error) {
	select {
	case m.proposals <- struct{}{}:
	default:
		done()
		return answer{}, model.Errorf(model.Unavailable, "the leader has too much to do")
	}
	decided := make(chan state.Outcome, 1)
	ended := func() { done(); <-m.proposals }
	if !m.spawn(func() {
		defer ended()
		told := m.fsm.expect(request)
		defer m.fsm.forget(request, told)
		// Raft's future is not waited for: it may never be resolved when raft
		// shuts down. What is applied is told, and what never will be ends with
		// the reign.
		m.raft.Apply(data, 0)
		select {
		case out := <-told:
			decided <- out
		case <-r.ctx.Done():
		case <-m.fsm.failed:
		}
	}) {
		ended()
		return answer{}, m.stopped()
	}
	select {
	case out := <-decided:
		return answer{Index: out.Index}, nil
	case <-r.ctx.Done():
		return answer{}, errNotLeader
	case <-m.fsm.failed:
		return answer{}, m.stopped()
	case <-ctx.Done():
		return answer{}, model.Errorf(model.Unavailable, "the change was not committed in time: %w", ctx.Err())
	}
}

var _ raft.BatchingFSM = (*fsm)(nil)
