package wire_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/pki"
	"drystone.example/drystone/backend/wire"
	"drystone.example/drystone/backend/wire/wiretest"
)

// A world is some nodes that can find each other.
type world struct {
	cluster *wiretest.Cluster
	mu      sync.Mutex
	addrs   map[model.NodeID]string
	removed map[model.NodeID]bool
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return &world{
		cluster: wiretest.NewCluster(t),
		addrs:   map[model.NodeID]string{},
		removed: map[model.NodeID]bool{},
	}
}

func (w *world) resolve(id model.NodeID) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if a, ok := w.addrs[id]; ok {
		return a, nil
	}
	return "", model.Errorf(model.NotFound, "there is no node %s", id)
}

func (w *world) allowed(id model.NodeID) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.removed[id] {
		return model.Errorf(model.Denied, "node %s was removed", id)
	}
	return nil
}

func (w *world) remove(id model.NodeID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.removed[id] = true
}

// node makes a transport; setup registers what it serves.
func (w *world) node(t *testing.T, id model.NodeID, n wire.Network, listen string, setup func(*wire.Transport)) *wire.Transport {
	t.Helper()
	return w.nodeWith(t, id, n, listen, w.cluster.Keeper(t, id), setup)
}

func (w *world) nodeWith(t *testing.T, id model.NodeID, n wire.Network, listen string, k *pki.Keeper,
	setup func(*wire.Transport),
) *wire.Transport {
	t.Helper()
	tr := wire.New(wire.Config{
		Self: id, Cluster: w.cluster.ID, Listen: listen, Network: n,
		TLS: k, Allowed: w.allowed, Resolve: w.resolve,
	})
	if setup != nil {
		setup(tr)
	}
	addr, err := tr.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.addrs[id] = addr.String()
	w.mu.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- tr.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		// A host that was killed has lost its listener before.
		if err := <-done; !errors.Is(err, context.Canceled) && !errors.Is(err, net.ErrClosed) {
			t.Errorf("Run: %v", err)
		}
	})
	return tr
}

func echo(_ context.Context, _ model.NodeID, conn net.Conn) { _, _ = io.Copy(conn, conn) }

func serveEcho(tr *wire.Transport) { tr.Serve("echo", echo) }

const loopback = "127.0.0.1:0"

func TestStream(t *testing.T) {
	w := newWorld(t)
	a := w.node(t, 1, nil, loopback, nil)
	peers := make(chan model.NodeID, 1)
	w.node(t, 2, nil, loopback, func(tr *wire.Transport) {
		tr.Serve("echo", func(ctx context.Context, peer model.NodeID, conn net.Conn) {
			peers <- peer
			echo(ctx, peer, conn)
		})
	})
	conn, err := a.Dial(t.Context(), 2, "echo")
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("drystone"), 20000)
	go func() { _, _ = conn.Write(want) }()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("echo: %v", err)
	}
	if p := <-peers; p != 1 {
		t.Errorf("the server saw node %v, want 1", p)
	}
	if err := conn.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func TestBufferedStream(t *testing.T) {
	w := newWorld(t)
	a := w.node(t, 1, nil, loopback, nil)
	w.node(t, 2, nil, loopback, serveEcho)
	conn, err := a.Dial(t.Context(), 2, "echo")
	if err != nil {
		t.Fatal(err)
	}
	c, ok := conn.(*wire.Conn)
	if !ok {
		t.Fatalf("Dial gave a %T", conn)
	}
	c.Buffer(64 << 10)
	want := bytes.Repeat([]byte("0123456789abcdef"), 30000)
	go func() {
		for i := 0; i < len(want); i += 1000 {
			_, _ = c.Write(want[i:min(i+1000, len(want))])
		}
		_ = c.Flush()
	}()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("echo: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	w := newWorld(t)
	a := w.node(t, 1, nil, loopback, nil)
	b := w.node(t, 2, nil, loopback, serveEcho)
	foreign := newWorld(t)
	foreign.addrs[2] = w.addrs[2]
	stranger := foreign.node(t, 1, nil, loopback, nil)
	w.addrs[3] = w.addrs[2]                     // not who it should be
	w.addrs[4] = "127.0.0.1:1"                  // nobody there
	removed := w.node(t, 5, nil, loopback, nil) // knows nothing of its removal
	lonely := newWorld(t)
	lonely.cluster, lonely.addrs = w.cluster, w.addrs
	ignorant := lonely.node(t, 6, nil, loopback, nil)
	w.remove(5)
	w.remove(6)

	for _, c := range []struct {
		name  string
		from  *wire.Transport
		to    model.NodeID
		proto string
		want  model.Code
	}{
		{"good", a, 2, "echo", ""},
		{"foreign cluster", stranger, 2, "echo", model.Denied},
		{"another node answers", a, 3, "echo", model.Denied},
		{"nobody listens", a, 4, "echo", model.Unavailable},
		{"unknown node", a, 99, "echo", model.NotFound},
		{"unknown protocol", a, 2, "nonsense", model.Denied},
		{"dial a removed node", a, 5, "echo", model.Denied},
		{"removed node dials", removed, 2, "echo", model.Denied},
		{"removed node that does not know dials", ignorant, 2, "echo", model.Denied},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := c.from.Dial(t.Context(), c.to, c.proto)
			if err == nil {
				_ = conn.Close()
			}
			if got := model.CodeOf(err); got != c.want {
				t.Errorf("Dial: code %q (%v), want %q", got, err, c.want)
			}
			if c.to == 4 && !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("Dial: %v does not wrap ECONNREFUSED", err)
			}
		})
	}
	_ = b
}

func TestDropCutsAtOnce(t *testing.T) {
	w := newWorld(t)
	a := w.node(t, 1, nil, loopback, nil)
	b := w.node(t, 2, nil, loopback, func(tr *wire.Transport) {
		serveEcho(tr)
		tr.Handle("hello", func(context.Context, model.NodeID, json.RawMessage) (any, error) { return 1, nil })
	})
	conn, err := a.Dial(t.Context(), 2, "echo")
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Call(t.Context(), 2, "hello", nil, nil); err != nil {
		t.Fatal(err)
	}
	w.remove(1)
	b.Drop(1)
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Read after Drop: %v", err)
	}
	if err := a.Call(t.Context(), 2, "hello", nil, nil); err == nil {
		t.Error("a removed node still calls")
	}
}

func TestExpiredCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, n := newWorld(t), wiretest.NewNet()
		a := w.node(t, 1, n.Host("a"), "a:7420", nil)
		time.Sleep(pki.LeafLife - time.Minute)
		w.node(t, 2, n.Host("b"), "b:7420", serveEcho)
		if conn, err := a.Dial(t.Context(), 2, "echo"); err != nil {
			t.Errorf("a minute before: %v", err)
		} else {
			_ = conn.Close()
		}
		time.Sleep(2 * time.Minute)
		if _, err := a.Dial(t.Context(), 2, "echo"); model.CodeOf(err) != model.Denied {
			t.Errorf("a minute after: %v; want denied", err)
		}
	})
}

// Whoever does not prove who it is loses its connection in seconds, and however
// many there are, nodes still get in afterwards.
func TestStrangersHoldNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, n := newWorld(t), wiretest.NewNet()
		a := w.node(t, 1, n.Host("a"), "a:7420", nil)
		w.node(t, 2, n.Host("b"), "b:7420", serveEcho)
		evil := n.Host("evil")
		var conns []net.Conn
		for range 200 {
			c, err := evil.Dial(t.Context(), "b:7420")
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, c)
		}
		// Those beyond the limit of one address are cut at once, so a node still
		// comes in while the others say nothing.
		synctest.Wait()
		conn, err := a.Dial(t.Context(), 2, "echo")
		if err != nil {
			t.Errorf("Dial past silent strangers: %v", err)
		} else {
			_ = conn.Close()
		}
		begin := time.Now()
		for _, c := range conns {
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Error("a stranger was told something")
			}
		}
		if took := time.Since(begin); took > 6*time.Second {
			t.Errorf("the last stranger was cut after %v", took)
		}
	})
}

func TestGarbageInsteadOfTLS(t *testing.T) {
	w := newWorld(t)
	a := w.node(t, 1, nil, loopback, nil)
	w.node(t, 2, nil, loopback, serveEcho)
	for _, junk := range []string{"GET / HTTP/1.0\r\n\r\n", "\x16\x03\x01\xff\xff", strings.Repeat("\x00", 70000)} {
		c, err := net.Dial("tcp", w.addrs[2])
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte(junk))
		_ = c.Close()
	}
	conn, err := a.Dial(t.Context(), 2, "echo")
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

// A Dial to a node behind a cut link gives up in bounded time.
func TestDialIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, n := newWorld(t), wiretest.NewNet()
		a := w.node(t, 1, n.Host("a"), "a:7420", nil)
		w.node(t, 2, n.Host("b"), "b:7420", serveEcho)
		n.Cut("b", "a")
		begin := time.Now()
		_, err := a.Dial(t.Context(), 2, "echo")
		if model.CodeOf(err) != model.Unavailable || time.Since(begin) > 6*time.Second {
			t.Errorf("Dial: %v after %v", err, time.Since(begin))
		}
		n.Heal("b", "a")
		conn, err := a.Dial(t.Context(), 2, "echo")
		if err != nil {
			t.Fatal(err)
		}
		n.Kill("b")
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("Read from a killed node: %v", err)
		}
	})
}

// Run leaves nothing behind: also with handlers in the midst of work.
func TestRunEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, n := newWorld(t), wiretest.NewNet()
		var served atomic.Int32
		a := w.node(t, 1, n.Host("a"), "a:7420", nil)
		b := wire.New(wire.Config{
			Self: 2, Cluster: w.cluster.ID, Listen: "b:7420", Network: n.Host("b"),
			TLS: w.cluster.Keeper(t, 2), Allowed: w.allowed, Resolve: w.resolve,
		})
		b.Serve("hold", func(_ context.Context, _ model.NodeID, conn net.Conn) {
			served.Add(1)
			defer served.Add(-1)
			_, _ = conn.Read(make([]byte, 1))
		})
		b.Handle("wait", func(ctx context.Context, _ model.NodeID, _ json.RawMessage) (any, error) {
			served.Add(1)
			defer served.Add(-1)
			<-ctx.Done()
			return nil, ctx.Err()
		})
		w.addrs[2] = "b:7420"
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.Run(ctx) }()
		synctest.Wait()
		if _, err := a.Dial(t.Context(), 2, "hold"); err != nil {
			t.Fatal(err)
		}
		called := make(chan error, 1)
		go func() { called <- a.Call(t.Context(), 2, "wait", nil, nil) }()
		synctest.Wait()
		if got := served.Load(); got != 2 {
			t.Fatalf("%d handlers run, want 2", got)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
		if got := served.Load(); got != 0 {
			t.Errorf("%d handlers run after Run", got)
		}
		if err := <-called; model.CodeOf(err) != model.Unavailable {
			t.Errorf("Call: %v; want unavailable", err)
		}
		if _, err := b.Dial(t.Context(), 1, "rpc"); model.CodeOf(err) != model.Unavailable {
			t.Errorf("Dial after Run: %v; want unavailable", err)
		}
	})
}
