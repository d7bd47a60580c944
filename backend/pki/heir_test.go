package pki

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"testing"
	"testing/synctest"
	"time"

	"drystone.example/drystone/backend/model"
)

func succeed(t *testing.T, ca *CA) *CA {
	t.Helper()
	next, err := ca.Succeed()
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// renewed gives a node certificates by another authority.
func renewed(t *testing.T, k *Keeper, ca *CA, addresses ...string) {
	t.Helper()
	err := k.RenewNow(t.Context(), func(_ context.Context, csr []byte) (Certificates, error) {
		return ca.Issue(csr, k.Identity().Node, addresses)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// accepted fails the test unless both ends of a handshake say what is wanted.
func accepted(t *testing.T, what string, client, server *tls.Config, want bool) {
	t.Helper()
	_, a, b := shake(t, client, server)
	if ok := a == nil && b == nil; ok != want {
		t.Errorf("%s: accepted %v, want %v (%v, %v)", what, ok, want, a, b)
	}
}

// While the root is replaced every two nodes accept each other, whichever of them has
// renewed; also one that was away and comes back to where all others have. When the old
// root is dropped it is of no use any more.
func TestRootIsReplaced(t *testing.T) {
	old := newCA(t)
	a, b, away := newKeeper(t, old, 1), newKeeper(t, old, 2), newKeeper(t, old, 3)
	next := succeed(t, old)
	protocols := []string{"p"}
	both := func(what string, a, b *Keeper, want bool) {
		t.Helper()
		accepted(t, what, a.NodeClient("p", b.Identity().Node), b.NodeServer(protocols), want)
		accepted(t, what+", back", b.NodeClient("p", a.Identity().Node), a.NodeServer(protocols), want)
	}
	renewed(t, a, next, "10.0.0.1")
	both("one has renewed", a, b, true)
	renewed(t, b, next, "10.0.0.1")
	both("both have", a, b, true)
	both("the third comes back", away, a, true)

	if err := away.SetRoots(t.Context(), next.PEM()); model.CodeOf(err) != model.Conflict {
		t.Errorf("a node gave up the root of its own certificate: %v", err)
	}
	for _, k := range []*Keeper{a, b} {
		if !k.Good(next.PEM(), "10.0.0.1") || k.Good(old.PEM(), "10.0.0.1") || k.Good(next.PEM(), "10.0.0.2") {
			t.Error("the certificates are not by the new root")
		}
		if err := k.SetRoots(t.Context(), next.PEM()); err != nil {
			t.Fatal(err)
		}
	}
	both("the old root is dropped", a, b, true)
	both("who has the old certificate only", away, a, false)
	again, err := OpenKeeper(a.dir)
	if err != nil || again.RootsPEM() != next.PEM() {
		t.Errorf("after a restart the node trusts %q, %v", again.RootsPEM(), err)
	}
}

// Who knows a root finds the present one up to three rotations later, and remembers it.
func TestHeirs(t *testing.T) {
	roots := []*CA{newCA(t)}
	for range 4 {
		roots = append(roots, succeed(t, roots[len(roots)-1]))
	}
	last := roots[4]
	web := newKeeper(t, last, 1, "10.0.0.1").Web()
	for i, ca := range roots {
		known := i >= 1
		var now Pin
		accepted(t, "pin", PinnedTLS(ca.Pin(), "10.0.0.1", func(p Pin) { now = p }), web, known)
		if want := last.Pin(); known && i < 4 && now != want {
			t.Errorf("%d rotations later the pin is %s, want %s", 4-i, now, want)
		}
		accepted(t, "token", JoinerTLS(ca.Pin().Fingerprint()), web, known)
		file, err := RootsTLS([]byte(ca.PEM()), "10.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		accepted(t, "file", file, web, known)
		wrong, err := RootsTLS([]byte(ca.PEM()), "10.0.0.2")
		if err != nil {
			t.Fatal(err)
		}
		accepted(t, "file, another host", wrong, web, false)
	}
	foreign := newCA(t)
	accepted(t, "another cluster", PinnedTLS(foreign.Pin(), "", nil), web, false)
}

// A root vouches for its own cluster's only, and not for longer than it lives; no leaf
// vouches for anything, and nobody vouches for himself.
func TestVouches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, foreign := newCA(t), newCA(t)
		next := succeed(t, old)
		chain, err := parseChain([]byte(next.heritage))
		if err != nil || len(chain) != 2 {
			t.Fatalf("heritage: %v, %v", chain, err)
		}
		cross := chain[0]
		leaf := newKeeper(t, next, 1).state.Load().node.Leaf
		find := func(root *CA, shown ...*x509.Certificate) int {
			return len(heirs([]*x509.Certificate{root.cert}, append([]*x509.Certificate{leaf}, shown...))) - 1
		}
		for what, c := range map[string]struct{ got, want int }{
			"the heir":            {find(old, cross), 1},
			"by itself":           {find(old, next.cert), 0},
			"of another":          {find(foreign, cross), 0},
			"a leaf":              {find(next, leaf), 0},
			"in whatever order":   {find(old, old.cert, next.cert, cross), 1},
			"too much is shown":   {find(old, repeat(foreign.cert, 7, cross)...), 0},
			"older than the root": {find(next, old.cert), 0},
		} {
			if c.got != c.want {
				t.Errorf("%s: %d heirs, want %d", what, c.got, c.want)
			}
		}
		time.Sleep(CALife + time.Hour)
		if n := find(old, cross); n != 0 {
			t.Errorf("a root that has expired vouches for %d", n)
		}
	})
}

func repeat(c *x509.Certificate, n int, last *x509.Certificate) (out []*x509.Certificate) {
	for range n {
		out = append(out, c)
	}
	return append(out, last)
}
