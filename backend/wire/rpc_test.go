package wire_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/wire"
	"drystone.example/drystone/backend/wire/wiretest"
)

type greeting struct {
	Name  string `json:"name"`
	Count int    `json:"count"`
}

func register(tr *wire.Transport) {
	tr.Handle("greet", func(_ context.Context, peer model.NodeID, body json.RawMessage) (any, error) {
		var g greeting
		if err := json.Unmarshal(body, &g); err != nil {
			return nil, model.Errorf(model.Invalid, "not a greeting")
		}
		return greeting{Name: g.Name + " from " + peer.String(), Count: g.Count + 1}, nil
	})
	tr.Handle("coded", func(_ context.Context, _ model.NodeID, body json.RawMessage) (any, error) {
		var code model.Code
		if err := json.Unmarshal(body, &code); err != nil {
			return nil, err
		}
		secret := errors.New("cause with a path /etc/shadow")
		return nil, &model.Error{Code: code, Text: "it is " + string(code), Err: secret}
	})
	tr.Handle("broken", func(context.Context, model.NodeID, json.RawMessage) (any, error) {
		return nil, errors.New("secret internals")
	})
	tr.Handle("size", func(_ context.Context, _ model.NodeID, body json.RawMessage) (any, error) {
		var n int
		if err := json.Unmarshal(body, &n); err != nil {
			return len(body), nil //nolint:nilerr // a text, whose length is asked for
		}
		return strings.Repeat("x", n), nil
	})
	tr.Handle("large", func(_ context.Context, _ model.NodeID, body json.RawMessage) (any, error) {
		return body, nil
	}, wire.Limit(8<<20))
	tr.Handle("wait", func(ctx context.Context, _ model.NodeID, _ json.RawMessage) (any, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
}

func quietLog(t *testing.T) {
	t.Helper()
	old := slog.Default()
	slog.SetDefault(slog.New(slog.DiscardHandler))
	t.Cleanup(func() { slog.SetDefault(old) })
}

// A call gives the same to a node and to another one.
func TestCall(t *testing.T) {
	quietLog(t)
	w := newWorld(t)
	a := w.node(t, 1, nil, loopback, register)
	w.node(t, 2, nil, loopback, register)
	for _, to := range []model.NodeID{1, 2} {
		var got greeting
		if err := a.Call(t.Context(), to, "greet", greeting{Name: "hello", Count: 4}, &got); err != nil {
			t.Fatalf("greet node %v: %v", to, err)
		}
		if want := (greeting{Name: "hello from " + model.NodeID(1).String(), Count: 5}); got != want {
			t.Errorf("greet node %v = %+v, want %+v", to, got, want)
		}
		for _, code := range []model.Code{
			model.Invalid, model.NotFound, model.Conflict, model.Denied, model.Unknown,
			model.Unavailable, model.Fenced, model.NoSpace, model.Corrupt, model.Internal,
		} {
			err := a.Call(t.Context(), to, "coded", code, nil)
			e, ok := errors.AsType[*model.Error](err)
			if !ok || e.Code != code || e.Text != "it is "+string(code) {
				t.Errorf("coded %s at node %v: %v", code, to, err)
			}
			if strings.Contains(err.Error(), "/etc/shadow") {
				t.Errorf("the cause crossed: %v", err)
			}
		}
		if err := a.Call(t.Context(), to, "broken", nil, nil); model.CodeOf(err) != model.Internal || strings.Contains(err.Error(), "secret") {
			t.Errorf("broken at node %v: %v", to, err)
		}
		if err := a.Call(t.Context(), to, "nonsense", nil, nil); model.CodeOf(err) != model.NotFound {
			t.Errorf("nonsense at node %v: %v; want not_found", to, err)
		}
		if err := a.Call(t.Context(), to, "greet", []int{1}, &got); model.CodeOf(err) != model.Invalid {
			t.Errorf("greet with a list at node %v: %v; want invalid", to, err)
		}
	}
}

func TestCallLimits(t *testing.T) {
	quietLog(t)
	w := newWorld(t)
	a := w.node(t, 1, nil, loopback, register)
	w.node(t, 2, nil, loopback, register)
	for _, to := range []model.NodeID{1, 2} {
		if err := a.Call(t.Context(), to, "size", strings.Repeat("y", wire.DefaultLimit), nil); model.CodeOf(err) != model.Invalid {
			t.Errorf("request over the limit to node %v: %v; want invalid", to, err)
		}
		var text string
		if err := a.Call(t.Context(), to, "size", wire.DefaultLimit-2, &text); err != nil || len(text) != wire.DefaultLimit-2 {
			t.Errorf("answer at the limit from node %v: %d, %v", to, len(text), err)
		}
		if err := a.Call(t.Context(), to, "size", wire.DefaultLimit, &text); model.CodeOf(err) != model.Internal {
			t.Errorf("answer over the limit from node %v: %v; want internal", to, err)
		}
		big := strings.Repeat("z", 7<<20)
		if err := a.Call(t.Context(), to, "large", big, &text); err != nil || text != big {
			t.Errorf("large to node %v: %v", to, err)
		}
	}
}

// A call ends with its context, the handler learns of it, and the next call works.
func TestCallCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, n := newWorld(t), wiretest.NewNet()
		a := w.node(t, 1, n.Host("a"), "a:7420", nil)
		ended := make(chan time.Time, 1)
		w.node(t, 2, n.Host("b"), "b:7420", func(tr *wire.Transport) {
			register(tr)
			tr.Handle("long", func(ctx context.Context, _ model.NodeID, _ json.RawMessage) (any, error) {
				<-ctx.Done()
				ended <- time.Now()
				return nil, ctx.Err()
			})
		})
		begin := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(3*time.Second, cancel)
		err := a.Call(ctx, 2, "long", nil, nil)
		if model.CodeOf(err) != model.Unavailable || !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled call: %v", err)
		}
		if took := (<-ended).Sub(begin); took != 3*time.Second {
			t.Errorf("the handler learnt of it after %v, want 3s", took)
		}
		ctx, cancel = context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		begin = time.Now()
		err = a.Call(ctx, 2, "long", nil, nil)
		if model.CodeOf(err) != model.Unavailable || time.Since(begin) != 2*time.Second {
			t.Errorf("call past its deadline: %v after %v", err, time.Since(begin))
		}
		<-ended
		if err := a.Call(t.Context(), 2, "greet", greeting{}, nil); err != nil {
			t.Errorf("the next call: %v", err)
		}
		begin = time.Now()
		if err := a.Call(t.Context(), 2, "wait", nil, nil); model.CodeOf(err) != model.Unavailable || time.Since(begin) > wire.DefaultTimeout {
			t.Errorf("call without a deadline: %v after %v", err, time.Since(begin))
		}
	})
}

// A node that dies or is cut off fails calls with unavailable, and calls work
// again when it is back, without a failure in between.
func TestCallAcrossRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, n := newWorld(t), wiretest.NewNet()
		a := w.node(t, 1, n.Host("a"), "a:7420", nil)
		start := func() (stop func()) {
			tr := wire.New(wire.Config{
				Self: 2, Cluster: w.cluster.ID, Listen: "b:7420", Network: n.Host("b"),
				TLS: w.cluster.Keeper(t, 2), Allowed: w.allowed, Resolve: w.resolve,
			})
			register(tr)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); _ = tr.Run(ctx) }()
			synctest.Wait()
			return func() { n.Kill("b"); cancel(); <-done }
		}
		w.addrs[2] = "b:7420"
		stop := start()
		greet := func() error { return a.Call(t.Context(), 2, "greet", greeting{}, nil) }
		if err := greet(); err != nil {
			t.Fatal(err)
		}
		stop()
		if err := greet(); model.CodeOf(err) != model.Unavailable {
			t.Errorf("to a dead node: %v; want unavailable", err)
		}
		stop = start()
		defer func() { stop() }()
		if err := greet(); err != nil {
			t.Errorf("after its restart: %v", err)
		}
		time.Sleep(time.Hour) // idle connections have been given up
		if err := greet(); err != nil {
			t.Errorf("after an idle hour: %v", err)
		}
		n.Partition("a", "b")
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		if err := a.Call(ctx, 2, "greet", greeting{}, nil); model.CodeOf(err) != model.Unavailable {
			t.Errorf("across a partition: %v; want unavailable", err)
		}
		n.Join("a", "b")
		if err := greet(); err != nil {
			t.Errorf("after the partition: %v", err)
		}
	})
}

// Many calls at once are bounded, each is answered with its own answer.
func TestManyCalls(t *testing.T) {
	w := newWorld(t)
	a := w.node(t, 1, nil, loopback, nil)
	var now, most atomic.Int32
	w.node(t, 2, nil, loopback, func(tr *wire.Transport) {
		tr.Handle("same", func(_ context.Context, _ model.NodeID, body json.RawMessage) (any, error) {
			n := now.Add(1)
			defer now.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			return body, nil
		})
	})
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for j := range 20 {
				var got int
				if err := a.Call(t.Context(), 2, "same", i*1000+j, &got); err != nil || got != i*1000+j {
					t.Errorf("same %d = %d, %v", i*1000+j, got, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if m := most.Load(); m > 16 {
		t.Errorf("%d calls at once, want at most 16", m)
	}
}

// A peer that speaks nonsense after it has proven who it is loses its connection
// and nothing else happens.
func TestHostileCaller(t *testing.T) {
	w := newWorld(t)
	a := w.node(t, 1, nil, loopback, nil)
	w.node(t, 2, nil, loopback, register)
	for name, bytes := range map[string]string{
		"not a frame":  strings.Repeat("x", 64),
		"another kind": "DR\x01\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"long name":    "DR\x01\x01\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"long body":    "DR\x01\x01\x05\x00\x00\x00\xff\xff\xff\xff\x00\x00\x00\x00greet",
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := a.Dial(t.Context(), 2, "rpc")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			if _, err := conn.Write([]byte(bytes)); err != nil {
				t.Fatal(err)
			}
			if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Read: %v; want the end", err)
			}
		})
	}
	if err := a.Call(t.Context(), 2, "greet", greeting{}, nil); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func BenchmarkCall(b *testing.B) {
	cluster := wiretest.NewCluster(b)
	addr := ""
	make1 := func(id model.NodeID) *wire.Transport {
		return wire.New(wire.Config{
			Self: id, Cluster: cluster.ID, Listen: loopback, TLS: cluster.Keeper(b, id),
			Allowed: func(model.NodeID) error { return nil },
			Resolve: func(model.NodeID) (string, error) { return addr, nil },
		})
	}
	a, s := make1(1), make1(2)
	register(s)
	l, err := s.Listen(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	addr = l.String()
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Run(ctx) }()
	for b.Loop() {
		if err := a.Call(b.Context(), 2, "greet", greeting{}, nil); err != nil {
			b.Fatal(err)
		}
	}
	cancel()
	<-done
}
