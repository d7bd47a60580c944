package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"drystone.example/drystone/backend/model"
)

// A node of a test: a real serf on a loopback address of its own.
type node struct {
	id     model.NodeID
	gossip *Gossip
	stop   func()
}

func address(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 7, byte(i)}), 17421)
}

func start(t *testing.T, i, of int, keys ...Key) *node {
	t.Helper()
	n := &node{id: model.NodeID(1000 + i)}
	g, err := Open(Config{
		Node: n.id, Name: fmt.Sprintf("node-%d", i), Version: "1.2.3", Listen: address(i), Keys: keys,
		Peers: func() []string {
			var out []string
			for j := 1; j <= of; j++ {
				out = append(out, address(j).String())
			}
			return out
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	n.gossip = g
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(n.stop)
	return n
}

// await waits until a node sees another in a state, and says how long it took.
func await(t *testing.T, at *node, of model.NodeID, want Status) time.Duration {
	t.Helper()
	begin := time.Now()
	limit := time.After(20 * time.Second)
	for {
		members, changed := at.gossip.Members()
		m, known := members[of]
		if known && m.Status == want || !known && want == Failed {
			return time.Since(begin)
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("node %s sees %s as %q, want %q", at.id, of, m.Status, want)
		}
	}
}

func testKey(b byte) (k Key) {
	for i := range k {
		k[i] = b
	}
	return k
}

// Three nodes find each other, one that dies is failed soon, and is alive again
// when it is back; a goodbye is not a failure.
func TestMembers(t *testing.T) {
	key := testKey(1)
	a, b, c := start(t, 1, 3, key), start(t, 2, 3, key), start(t, 3, 3, key)
	for _, at := range []*node{a, b, c} {
		for _, of := range []*node{a, b, c} {
			await(t, at, of.id, Alive)
		}
	}
	members, _ := a.gossip.Members()
	want := Member{Node: c.id, Name: "node-3", Address: "127.0.7.3", Version: "1.2.3", Status: Alive}
	if got := members[c.id]; got != want {
		t.Errorf("member = %+v, want %+v", got, want)
	}

	c.stop() // without a goodbye, as a killed process
	if took := await(t, a, c.id, Failed); took > 10*time.Second {
		t.Errorf("the dead node was failed after %v", took)
	} else {
		t.Logf("failed after %v", took)
	}
	if got := a.gossip.Status(c.id); got != Failed {
		t.Errorf("Status = %q, want failed", got)
	}
	c = start(t, 3, 3, key)
	t.Logf("alive again after %v", await(t, a, c.id, Alive))
	await(t, c, a.id, Alive)

	if err := b.gossip.Leave(); err != nil {
		t.Fatal(err)
	}
	await(t, a, b.id, Left)
}

// Watch tells each member, each change, and nothing twice.
func TestWatch(t *testing.T) {
	key := testKey(2)
	a, b := start(t, 11, 0, key), start(t, 12, 0, key)
	told := make(chan Member, 64)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.gossip.Watch(ctx, func(m Member) { told <- m }) }()
	if m := <-told; m.Node != a.id || m.Status != Alive {
		t.Errorf("first told %+v, want itself", m)
	}
	if _, err := b.gossip.serf.Join([]string{address(11).String()}, true); err != nil {
		t.Fatal(err)
	}
	if m := <-told; m.Node != b.id || m.Status != Alive {
		t.Errorf("then told %+v, want the other alive", m)
	}
	b.stop()
	if m := <-told; m.Node != b.id || m.Status != Failed {
		t.Errorf("then told %+v, want the other failed", m)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Watch: %v", err)
	}
	if len(told) != 0 {
		t.Errorf("also told %+v", <-told)
	}
}

// Whoever has not the key is not heard; keys can be changed one after the other.
func TestKeys(t *testing.T) {
	oldKey, newKey := testKey(3), testKey(4)
	a, b := start(t, 21, 0, oldKey), start(t, 22, 0, oldKey)
	stranger := start(t, 23, 0, testKey(9))
	join := func(n *node) error {
		_, err := n.gossip.serf.Join([]string{address(21).String()}, true)
		return err
	}
	if err := join(stranger); err == nil {
		t.Error("a node with another key joined")
	}
	if err := join(b); err != nil {
		t.Fatal(err)
	}
	await(t, a, b.id, Alive)
	for _, keys := range [][]Key{{oldKey, newKey}, {newKey, oldKey}, {newKey}} {
		for _, n := range []*node{a, b} {
			if err := n.gossip.SetKeys(keys); err != nil {
				t.Fatal(err)
			}
		}
	}
	c := start(t, 24, 0, newKey)
	if err := join(c); err != nil {
		t.Errorf("a node with the new key: %v", err)
	}
	await(t, b, c.id, Alive)
	late := start(t, 25, 0, oldKey)
	if err := join(late); err == nil {
		t.Error("a node with the old key joined")
	}
	if members, _ := a.gossip.Members(); len(members) != 3 {
		t.Errorf("%d members, want 3", len(members))
	}
	if err := a.gossip.SetKeys(nil); model.CodeOf(err) != model.Invalid {
		t.Errorf("SetKeys of none: %v; want invalid", err)
	}
	if s := fmt.Sprintf("%v %+v %#v", oldKey, oldKey, oldKey); strings.Contains(s, "3, 3") || strings.Contains(s, "3 3") {
		t.Errorf("a key is printed: %s", s)
	}
}

// Healthy nodes at rest log nothing and use next to no CPU time.
func TestQuiet(t *testing.T) {
	var out bytes.Buffer
	old := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&out, nil)))
	defer slog.SetDefault(old)
	key := testKey(5)
	a, b, c := start(t, 31, 3, key), start(t, 32, 3, key), start(t, 33, 3, key)
	for i, n := range []*node{b, c} {
		if _, err := n.gossip.serf.Join([]string{address(31).String()}, true); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		await(t, a, n.id, Alive)
	}
	const rest = 3 * time.Second
	before := cpuTime(t)
	time.Sleep(rest)
	share := float64(cpuTime(t)-before) / float64(rest) / 3
	t.Logf("%.2f %% of a core per node", 100*share)
	if share > 0.02 {
		t.Errorf("a node at rest uses %.1f %% of a core", 100*share)
	}
	for _, n := range []*node{a, b, c} {
		n.stop()
	}
	if out.Len() > 0 {
		t.Errorf("it logged: %s", out.String())
	}
}

func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// What the libraries call errors is a warning, but a flood of them is one.
func TestLogWriter(t *testing.T) {
	var out bytes.Buffer
	old := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&out, nil)))
	defer slog.SetDefault(old)
	w := &logWriter{}
	for _, line := range []string{
		"2026/01/01 00:00:00 [INFO] serf: EventMemberJoin: x\n",
		"2026/01/01 00:00:00 [ERR] memberlist: Push/Pull with x failed: refused\n",
		"2026/01/01 00:00:00 [ERR] memberlist: Decrypt packet failed: No installed keys could decrypt the message\n",
		"2026/01/01 00:00:00 [ERR] memberlist: Decrypt packet failed: No installed keys could decrypt the message\n",
	} {
		if n, err := w.Write([]byte(line)); n != len(line) || err != nil {
			t.Fatalf("Write: %d, %v", n, err)
		}
	}
	if got := strings.Count(out.String(), "\n"); got != 1 || !strings.Contains(out.String(), "level=WARN") {
		t.Errorf("logged %q, want one warning", out.String())
	}
}
