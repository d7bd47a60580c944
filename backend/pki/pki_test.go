package pki

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"drystone.example/drystone/backend/model"
)

func newCA(tb testing.TB) *CA {
	tb.Helper()
	ca, err := NewCA(model.NewID[model.ClusterID]())
	if err != nil {
		tb.Fatalf("NewCA: %v", err)
	}
	return ca
}

func newKeeper(tb testing.TB, ca *CA, node model.NodeID, addresses ...string) *Keeper {
	tb.Helper()
	key, err := NewKey()
	if err != nil {
		tb.Fatal(err)
	}
	request, err := key.Request()
	if err != nil {
		tb.Fatal(err)
	}
	c, err := ca.Issue(request, node, addresses)
	if err != nil {
		tb.Fatalf("Issue: %v", err)
	}
	dir := tb.TempDir()
	if err := Save(dir, key, c); err != nil {
		tb.Fatalf("Save: %v", err)
	}
	k, err := OpenKeeper(dir)
	if err != nil {
		tb.Fatalf("OpenKeeper: %v", err)
	}
	return k
}

// A buffered is an end of a pipe whose writes do not wait for the reader, as
// those of a socket: TLS needs it when both sides give up at once.
type buffered struct {
	net.Conn
	out  chan []byte
	once sync.Once
}

func pipe() (a, b net.Conn) {
	x, y := net.Pipe()
	return newBuffered(x), newBuffered(y)
}

func newBuffered(c net.Conn) *buffered {
	b := &buffered{Conn: c, out: make(chan []byte, 64)}
	go func() {
		for p := range b.out {
			_, _ = c.Write(p)
		}
		_ = c.Close()
	}()
	return b
}

func (b *buffered) Write(p []byte) (int, error) {
	b.out <- bytes.Clone(p)
	return len(p), nil
}

func (b *buffered) Close() error {
	b.once.Do(func() { close(b.out) })
	return nil
}

// shake lets a client and a server shake hands over a pipe, and then exchange a
// byte, which proves to the client that the server has accepted it too.
func shake(t *testing.T, client, server *tls.Config) (who tls.ConnectionState, clientErr, serverErr error) {
	t.Helper()
	a, b := pipe()
	s := tls.Server(b, server)
	done := make(chan error, 1)
	go func() {
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte{1})
		}
		_ = b.Close()
		done <- err
	}()
	c := tls.Client(a, client)
	clientErr = c.Handshake()
	if clientErr == nil {
		_, clientErr = c.Read(make([]byte, 1))
	}
	_ = a.Close()
	serverErr = <-done
	return s.ConnectionState(), clientErr, serverErr
}

func TestNodesRecogniseEachOther(t *testing.T) {
	ca := newCA(t)
	a, b := newKeeper(t, ca, 1), newKeeper(t, ca, 2)
	cs, clientErr, serverErr := shake(t, a.NodeClient("p", 2), b.NodeServer([]string{"p"}))
	if clientErr != nil || serverErr != nil {
		t.Fatalf("handshake: client %v, server %v", clientErr, serverErr)
	}
	who, err := PeerIdentity(cs)
	if want := (Identity{Cluster: ca.Cluster(), Node: 1}); err != nil || who != want {
		t.Errorf("PeerIdentity = %v, %v; want %v", who, err, want)
	}
	if cs.Version != tls.VersionTLS13 {
		t.Errorf("TLS version %x", cs.Version)
	}
}

func TestNodesRefuse(t *testing.T) {
	ca, foreign := newCA(t), newCA(t)
	a, b := newKeeper(t, ca, 1), newKeeper(t, ca, 2)
	stranger := newKeeper(t, foreign, 1)
	// A CA of another cluster that a careless operator has put among the roots:
	// the cluster in the identity still tells them apart.
	careless := newKeeper(t, foreign, 3)
	s := *careless.state.Load()
	s.roots = append(slices.Clone(s.roots), ca.cert)
	careless.state.Store(&s)

	cases := []struct {
		name             string
		client           *tls.Config
		server           *tls.Config
		byClient, bySide bool // who refuses
	}{
		{"foreign client", stranger.NodeClient("p", 2), b.NodeServer([]string{"p"}), true, false},
		{"wrong node", a.NodeClient("p", 3), b.NodeServer([]string{"p"}), true, false},
		{"other cluster, trusted root", careless.NodeClient("p", 2), b.NodeServer([]string{"p"}), true, false},
		{"web certificate as node", withCert(a.NodeClient("p", 2), &a.state.Load().web), b.NodeServer([]string{"p"}), false, true},
		{"no certificate", withoutCert(a.NodeClient("p", 2)), b.NodeServer([]string{"p"}), false, true},
		{"foreign certificate, right trust", withCert(a.NodeClient("p", 2), &stranger.state.Load().node), b.NodeServer([]string{"p"}), false, true},
		{"TLS 1.2", downTo12(a.NodeClient("p", 2)), b.NodeServer([]string{"p"}), false, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, clientErr, serverErr := shake(t, c.client, c.server)
			if clientErr == nil {
				t.Errorf("the client saw no error")
			}
			if c.byClient && model.CodeOf(clientErr) != model.Denied {
				t.Errorf("client: %v; want denied", clientErr)
			}
			if c.bySide && serverErr == nil {
				t.Errorf("the server accepted")
			}
		})
	}
}

func withCert(c *tls.Config, cert *tls.Certificate) *tls.Config {
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	return c
}

func withoutCert(c *tls.Config) *tls.Config {
	return withCert(c, &tls.Certificate{})
}

func downTo12(c *tls.Config) *tls.Config {
	c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	return c
}

func TestExpiredCertificateIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(t)
		a := newKeeper(t, ca, 1)
		time.Sleep(LeafLife - time.Hour)
		b := newKeeper(t, ca, 2)
		if _, clientErr, serverErr := shake(t, a.NodeClient("p", 2), b.NodeServer([]string{"p"})); clientErr != nil || serverErr != nil {
			t.Fatalf("an hour before: client %v, server %v", clientErr, serverErr)
		}
		time.Sleep(time.Hour + time.Second)
		if _, _, serverErr := shake(t, a.NodeClient("p", 2), b.NodeServer([]string{"p"})); model.CodeOf(serverErr) != model.Denied {
			t.Errorf("expired client: server says %v", serverErr)
		}
		if _, clientErr, _ := shake(t, b.NodeClient("p", 1), a.NodeServer([]string{"p"})); model.CodeOf(clientErr) != model.Denied {
			t.Errorf("expired server: client says %v", clientErr)
		}
	})
}

// A machine with a token accepts its cluster and nobody else, before it has sent
// anything.
func TestJoinerPinsTheCluster(t *testing.T) {
	ca, foreign := newCA(t), newCA(t)
	web := newKeeper(t, ca, 1, "10.0.0.1", "node-1.example").Web()
	// An impostor that shows our root, which is public, behind a leaf of its own.
	impostor := newKeeper(t, foreign, 1, "10.0.0.1").state.Load().web
	impostor.Certificate = append(impostor.Certificate[:1:1], ca.cert.Raw)
	fake := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{impostor}}
	// One that shows our root in place of a leaf cannot prove that it has its key,
	// and a leaf alone leads nowhere.
	bare := newKeeper(t, ca, 1).state.Load().web
	bare.Certificate = bare.Certificate[:1]

	for _, c := range []struct {
		name   string
		client *tls.Config
		server *tls.Config
		ok     bool
	}{
		{"token", JoinerTLS(ca.Pin().Fingerprint()), web, true},
		{"token of another cluster", JoinerTLS(foreign.Pin().Fingerprint()), web, false},
		{"impostor", JoinerTLS(ca.Pin().Fingerprint()), fake, false},
		{"no root sent", JoinerTLS(ca.Pin().Fingerprint()), &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{bare}}, false},
		{"pin, no name", PinnedTLS(ca.Pin(), "", nil), web, true},
		{"pin, address", PinnedTLS(ca.Pin(), "10.0.0.1", nil), web, true},
		{"pin, name", PinnedTLS(ca.Pin(), "node-1.example", nil), web, true},
		{"pin, wrong name", PinnedTLS(ca.Pin(), "node-2.example", nil), web, false},
		{"wrong pin", PinnedTLS(foreign.Pin(), "", nil), web, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err, _ := shake(t, c.client, c.server)
			if c.ok && err != nil || !c.ok && model.CodeOf(err) != model.Denied {
				t.Errorf("handshake: %v", err)
			}
		})
	}
}

// Of a request only the public key counts.
func TestIssueIgnoresTheRequest(t *testing.T) {
	ca := newCA(t)
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "root"},
		DNSNames: []string{"evil.example"},
		URIs:     []*url.URL{Identity{Cluster: ca.Cluster(), Node: 99}.URI()},
	}, priv)
	if err != nil {
		t.Fatal(err)
	}
	c, err := ca.Issue(csr, 7, []string{"10.0.0.7", "n7.example"})
	if err != nil {
		t.Fatal(err)
	}
	chain, err := parseChain([]byte(c.Node))
	if err != nil {
		t.Fatal(err)
	}
	leaf := chain[0]
	id, err := identityOf(leaf)
	if err != nil || id.Node != 7 {
		t.Errorf("identity %v, %v; want node 7", id, err)
	}
	if len(leaf.DNSNames) != 1 || leaf.DNSNames[0] != "n7.example" || len(leaf.IPAddresses) != 1 || leaf.IsCA {
		t.Errorf("leaf has names %v, addresses %v, CA %v", leaf.DNSNames, leaf.IPAddresses, leaf.IsCA)
	}
	if life := time.Until(leaf.NotAfter); life > LeafLife || life < LeafLife-time.Minute {
		t.Errorf("leaf lives %v", life)
	}
	if back := time.Since(leaf.NotBefore); back < Backdate || back > Backdate+time.Minute {
		t.Errorf("leaf is backdated by %v", back)
	}
	if serial, err := c.Serial(); err != nil || serial != leaf.SerialNumber.Text(16) {
		t.Errorf("Serial() = %q, %v", serial, err)
	}
}

func TestIssueRefuses(t *testing.T) {
	ca := newCA(t)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edCSR, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, ed)
	if err != nil {
		t.Fatal(err)
	}
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	good, err := key.Request()
	if err != nil {
		t.Fatal(err)
	}
	tampered := bytes.Clone(good)
	tampered[len(tampered)-1] ^= 1
	for _, c := range []struct {
		name      string
		csr       []byte
		addresses []string
	}{
		{"Ed25519", edCSR, nil},
		{"garbage", []byte("hello"), nil},
		{"broken signature", tampered, nil},
		{"wild address", good, []string{"a b"}},
		{"wildcard", good, []string{"*.example"}},
		{"too many addresses", good, strings.Split(strings.Repeat("a,", 40), ",")},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := ca.Issue(c.csr, 1, c.addresses); model.CodeOf(err) != model.Invalid {
				t.Errorf("Issue: %v; want invalid", err)
			}
		})
	}
}

// A node's certificate signs nothing.
func TestLeafIsNoAuthority(t *testing.T) {
	ca := newCA(t)
	k := newKeeper(t, ca, 1)
	s := k.state.Load()
	priv, ok := s.node.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		t.Fatal("no key")
	}
	evil := &CA{cluster: ca.cluster, cert: s.node.Leaf, key: priv}
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	request, err := key.Request()
	if err != nil {
		t.Fatal(err)
	}
	c, err := evil.Issue(request, 2, nil)
	if err != nil {
		return // x509 already refuses to sign with it
	}
	chain, err := parseChain([]byte(c.Node))
	if err != nil {
		t.Fatal(err)
	}
	chain = append(chain, ca.cert)
	if who, err := verify(chain, s.roots, x509.ExtKeyUsageClientAuth); err == nil {
		t.Errorf("a node signed for %v", who)
	}
}

func TestCASealAndLoad(t *testing.T) {
	ca := newCA(t)
	der, err := ca.Key()
	if err != nil {
		t.Fatal(err)
	}
	k := NewSealKey()
	path := filepath.Join(t.TempDir(), "deep", "seal.key")
	if err := SaveSealKey(path, k); err != nil {
		t.Fatal(err)
	}
	sealed := Seal(k, der)
	if bytes.Contains(sealed, der[40:60]) {
		t.Error("the sealed text shows the key")
	}
	loaded, err := LoadSealKey(path)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := Open(loaded, sealed)
	if err != nil {
		t.Fatal(err)
	}
	again, err := LoadCA(ca.Authority(), opened)
	if err != nil || again.Pin() != ca.Pin() || again.Cluster() != ca.Cluster() {
		t.Errorf("LoadCA: %v", err)
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 0x10
		if _, err := Open(k, bad); model.CodeOf(err) != model.Corrupt {
			t.Fatalf("Open with byte %d flipped: %v", i, err)
		}
	}
	if _, err := Open(NewSealKey(), sealed); model.CodeOf(err) != model.Corrupt {
		t.Errorf("Open with another key: %v", err)
	}
	if _, err := Open(k, sealed[:10]); model.CodeOf(err) != model.Corrupt {
		t.Errorf("Open of a stump: %v", err)
	}
	if _, err := LoadCA(newCA(t).Authority(), opened); model.CodeOf(err) != model.Invalid {
		t.Errorf("LoadCA with another's certificate: %v", err)
	}
	if _, err := LoadSealKey(path + "x"); model.CodeOf(err) != model.NotFound {
		t.Errorf("LoadSealKey of nothing: %v", err)
	}
}

// Nothing private can be read by others, or is printed.
func TestNothingLeaks(t *testing.T) {
	k := newKeeper(t, newCA(t), 1)
	err := filepath.WalkDir(k.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	seal, tok := NewSealKey(), NewToken(testFingerprint())
	fmt.Fprintf(&out, "%v %+v %#v %s %v %+v %#v %v %+v", key, key, key, seal, seal, seal, seal, tok, tok.Secret)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "key", key, "seal", seal, "token", tok)
	for _, secret := range []string{key.priv.D.String(), fmt.Sprint(seal.bytes[:4]), tok.Secret.Reveal()} { //nolint:staticcheck // D is what must not show
		if strings.Contains(out.String(), strings.Trim(secret, "[]")) {
			t.Errorf("a secret is printed: %s", out.String())
		}
	}
}

func TestOpenKeeperRefusesDamage(t *testing.T) {
	ca := newCA(t)
	if _, err := OpenKeeper(t.TempDir()); model.CodeOf(err) != model.NotFound {
		t.Errorf("empty folder: %v", err)
	}
	k := newKeeper(t, ca, 1)
	whole, err := os.ReadFile(filepath.Join(k.dir, nodeFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 10, len(whole) / 3, len(whole) / 2, len(whole) - 40} {
		if err := os.WriteFile(filepath.Join(k.dir, nodeFile), whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenKeeper(k.dir); err == nil {
			t.Errorf("a file cut to %d bytes was accepted", n)
		}
	}
	other := newKeeper(t, ca, 2)
	mixed, err := os.ReadFile(filepath.Join(other.dir, nodeFile))
	if err != nil {
		t.Fatal(err)
	}
	cut := bytes.Index(whole, []byte("-----BEGIN "+nodeBlock))
	if err := os.WriteFile(filepath.Join(k.dir, nodeFile), append(whole[:cut:cut], mixed[cut:]...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKeeper(k.dir); err == nil {
		t.Error("a key with another's certificate was accepted")
	}
}

// Over ten weeks, with the cluster away for hours at a time, the certificate is
// always good, is renewed between half and four fifths of its life when nothing
// hinders, and servers use the new one without a restart.
func TestRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(t)
		k := newKeeper(t, ca, 1)
		server := k.NodeServer([]string{"p"})
		start := time.Now()
		away := func() bool { return int(time.Since(start)/time.Hour)%24 < 9 } // every day for nine hours
		renewals := 0
		renew := func(_ context.Context, request []byte) (Certificates, error) {
			if away() {
				return Certificates{}, model.Errorf(model.Unavailable, "no leader")
			}
			renewals++
			age := time.Since(k.state.Load().node.Leaf.NotBefore)
			if life := LeafLife + Backdate; age < life/2 || age > life*8/10+10*time.Hour+retryMost {
				t.Errorf("renewed at an age of %v", age)
			}
			return ca.Issue(request, 1, nil)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		quiet := slog.Default()
		slog.SetDefault(slog.New(slog.DiscardHandler))
		defer slog.SetDefault(quiet)
		go func() { done <- k.Run(ctx, renew) }()
		for range 10 * 7 {
			time.Sleep(24 * time.Hour)
			fresh := newKeeper(t, ca, 2)
			_, clientErr, serverErr := shake(t, fresh.NodeClient("p", 1), server)
			if clientErr != nil || serverErr != nil {
				t.Fatalf("after %v: client %v, server %v", time.Since(start), clientErr, serverErr)
			}
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
		if renewals < 10 || renewals > 21 {
			t.Errorf("%d renewals in ten weeks", renewals)
		}
		again, err := OpenKeeper(k.dir)
		if err != nil || again.Serial() != k.Serial() {
			t.Errorf("on disk is not the last one: %v", err)
		}
	})
}

// A cluster that answers with somebody else's certificate does not change who we are.
func TestRenewalRefusesAnotherIdentity(t *testing.T) {
	ca, foreign := newCA(t), newCA(t)
	k := newKeeper(t, ca, 1)
	before := k.Serial()
	for name, renew := range map[string]Renew{
		"another node":    func(_ context.Context, r []byte) (Certificates, error) { return ca.Issue(r, 2, nil) },
		"another cluster": func(_ context.Context, r []byte) (Certificates, error) { return foreign.Issue(r, 1, nil) },
		"another key": func(context.Context, []byte) (Certificates, error) {
			key, err := NewKey()
			if err != nil {
				return Certificates{}, err
			}
			request, err := key.Request()
			if err != nil {
				return Certificates{}, err
			}
			return ca.Issue(request, 1, nil)
		},
		"nothing": func(context.Context, []byte) (Certificates, error) { return Certificates{}, nil },
	} {
		t.Run(name, func(t *testing.T) {
			if err := k.RenewNow(t.Context(), renew); err == nil {
				t.Error("RenewNow succeeded")
			}
			if k.Serial() != before {
				t.Error("the certificate changed")
			}
		})
	}
}

// Hostile identities in a certificate of our own CA (which never signs such).
func TestIdentityGrammar(t *testing.T) {
	node := model.NodeID(5).String()
	cluster := model.ClusterID(6).String()
	for _, s := range []string{
		"https://" + cluster + "/node/" + node,
		"drystone://" + cluster + "/disk/" + node,
		"drystone://" + cluster + "/node/" + node + "/x",
		"drystone://" + cluster + "/node/" + node + "?x=1",
		"drystone://" + cluster + ":1/node/" + node,
		"drystone://u@" + cluster + "/node/" + node,
		"drystone:///node/" + node,
		"drystone://" + cluster + "/node/",
	} {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		if id, err := identityOf(&x509.Certificate{URIs: []*url.URL{u}}); err == nil {
			t.Errorf("%s is taken for %v", s, id)
		}
	}
	u := Identity{Cluster: 6, Node: 5}.URI()
	if id, err := identityOf(&x509.Certificate{URIs: []*url.URL{u}}); err != nil || id.Node != 5 || id.Cluster != 6 {
		t.Errorf("identityOf(%v) = %v, %v", u, id, err)
	}
	if id, err := identityOf(&x509.Certificate{URIs: []*url.URL{u, u}}); err == nil {
		t.Errorf("two identities are taken for %v", id)
	}
}
