package wire

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/must"
)

const rpcProto = "rpc"

// The limits of calls.
const (
	DefaultLimit   = 1 << 20          // bytes of a request and of an answer
	DefaultTimeout = 15 * time.Second // of a call whose context has no deadline

	callTimeoutMost = 10 * time.Minute // what a caller can ask of a handler
	callsPerPeer    = 16               // under way to one node; further ones wait
	idlePerPeer     = 4                // connections kept for the next call
	idleMost        = time.Minute      // how long a caller keeps one
	idleServer      = 2 * time.Minute  // how long the other side does
	errorTextMost   = 4 << 10          // bytes of an error's text
	transferTime    = 30 * time.Second // for one message, plus a second per MiB
)

// A CallHandler answers one method. What it returns is encoded as JSON; an error
// crosses with its model.Code and text if it has one, else as model.Internal
// with its text in this node's log only. Its context ends when the caller gives
// up.
type CallHandler func(ctx context.Context, peer model.NodeID, body json.RawMessage) (any, error)

type method struct {
	handle CallHandler
	limit  int
}

// A MethodOption changes how a method is called and answered.
type MethodOption func(*method)

// Limit is the most bytes that a request or an answer of the method has. A
// caller uses the limit of the method registered on its own node.
func Limit(bytes int) MethodOption { return func(m *method) { m.limit = bytes } }

// Handle registers a method.
func (t *Transport) Handle(name string, h CallHandler, options ...MethodOption) {
	must.That(t.state == idle, "wire: method %s registered after Run", name)
	must.That(name != "" && len(name) <= nameMost, "wire: method name %q", name)
	_, twice := t.methods[name]
	must.That(!twice, "wire: method %s registered twice", name)
	m := method{handle: h, limit: DefaultLimit}
	for _, o := range options {
		o(&m)
	}
	t.methods[name] = m
}

func (t *Transport) limitOf(name string) int {
	if m, ok := t.methods[name]; ok {
		return m.limit
	}
	return DefaultLimit
}

// Call asks a node, which may be this one, and decodes the answer into resp
// unless that is nil. The error has the code the handler gave it, or
// model.Unavailable if there was no answer: then the request may have been
// carried out.
func (t *Transport) Call(ctx context.Context, node model.NodeID, name string, req, resp any) error {
	body, err := json.Marshal(req)
	if err != nil {
		return fmt.Errorf("encode request of %s: %w", name, err)
	}
	limit := t.limitOf(name)
	if len(body) > limit {
		return model.Errorf(model.Invalid, "a request of %s has at most %d bytes, not %d", name, limit, len(body))
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, DefaultTimeout)
		defer cancel()
	}
	var answer []byte
	if node == t.cfg.Self {
		answer, err = t.answer(ctx, node, name, body)
	} else {
		answer, err = t.callRemote(ctx, node, name, body)
	}
	if err != nil {
		return fmt.Errorf("call %s on node %s: %w", name, node, err)
	}
	if resp == nil {
		return nil
	}
	if err := json.Unmarshal(answer, resp); err != nil {
		return fmt.Errorf("decode answer of %s from node %s: %w", name, node, err)
	}
	return nil
}

// answer runs a method here. Its error is always coded.
func (t *Transport) answer(ctx context.Context, peer model.NodeID, name string, body []byte) ([]byte, error) {
	m, ok := t.methods[name]
	if !ok {
		return nil, model.Errorf(model.NotFound, "node %s knows no method %s", t.cfg.Self, name)
	}
	result, err := m.handle(ctx, peer, body)
	if err != nil {
		return nil, t.coded(ctx, peer, name, err)
	}
	out, err := json.Marshal(result)
	if err != nil {
		return nil, t.coded(ctx, peer, name, fmt.Errorf("encode answer: %w", err))
	}
	if len(out) > m.limit {
		return nil, model.Errorf(model.Internal, "the answer of %s has %d bytes; the most is %d", name, len(out), m.limit)
	}
	return out, nil
}

// coded keeps what may cross to another node and logs what may not.
func (t *Transport) coded(ctx context.Context, peer model.NodeID, name string, err error) error {
	if coded, ok := errors.AsType[*model.Error](err); ok {
		return coded
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return model.Errorf(model.Unavailable, "%s took too long: %w", name, err)
	}
	slog.ErrorContext(ctx, "call failed", "method", name, "node", peer, "err", err)
	return model.Errorf(model.Internal, "%s failed on node %s; its log says why", name, t.cfg.Self)
}

// serveCalls answers the calls of one connection, one at a time, and reads on
// meanwhile so that it sees the caller go.
func (t *Transport) serveCalls(ctx context.Context, peer model.NodeID, conn net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	requests := make(chan frame)
	var worker sync.WaitGroup
	worker.Go(func() {
		for f := range requests {
			if err := t.answerFrame(ctx, peer, conn, f); err != nil {
				_ = conn.Close() // the reader sees it
			}
		}
	})
	wait := idleServer
	for {
		f, err := t.readRequest(conn, wait)
		if err != nil {
			break
		}
		wait = f.timeout + idleServer
		requests <- f
	}
	cancel()
	close(requests)
	worker.Wait()
}

func (t *Transport) readRequest(conn net.Conn, wait time.Duration) (frame, error) {
	if err := conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return frame{}, err
	}
	return readFrame(conn, frameRequest, t.limitOf)
}

func (t *Transport) answerFrame(ctx context.Context, peer model.NodeID, conn net.Conn, f frame) error {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	reply := frame{kind: frameAnswer}
	var err error
	if reply.body, err = t.answer(ctx, peer, f.name, f.body); err != nil {
		reply.name, reply.body = string(model.CodeOf(err)), []byte(cutText(err.Error()))
	}
	return writeFrame(conn, reply)
}

// cutText keeps an error's text within what a caller accepts.
func cutText(s string) string {
	if len(s) > errorTextMost {
		return s[:errorTextMost]
	}
	return s
}

// codeOf accepts the codes we know; a newer node may have others.
func codeOf(s string) model.Code {
	switch c := model.Code(s); c {
	case model.Invalid, model.NotFound, model.Conflict, model.Denied, model.Unknown,
		model.Unavailable, model.Fenced, model.NoSpace, model.Corrupt, model.Internal:
		return c
	default:
		return model.Internal
	}
}
