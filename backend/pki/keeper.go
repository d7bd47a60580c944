package pki

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"drystone.example/drystone/backend/model"
)

// The files of a node's folder for keys. One file holds the key with the
// certificates made for it, so that they change in one step.
const (
	nodeFile  = "node.pem"  // key, then the node's and the web certificate
	rootsFile = "roots.pem" // what it trusts; public
)

// A Keeper holds a node's key, its certificates and the roots it trusts, hands
// out TLS configurations that always use the present ones, and renews them. Its
// methods are safe for concurrent use.
type Keeper struct {
	dir   string
	state atomic.Pointer[state]

	turn chan struct{} // holds one value while somebody replaces the files
}

type state struct {
	identity  Identity
	node, web tls.Certificate
	roots     []*x509.Certificate
	rootsPEM  []byte
	renewAt   time.Time
}

// Save puts a key and the certificates made for it into dir, for OpenKeeper.
func Save(dir string, key Key, c Certificates) error {
	keyDER, err := x509.MarshalPKCS8PrivateKey(key.priv)
	if err != nil {
		return fmt.Errorf("encode the node's key: %w", err)
	}
	// The roots come first: with new roots the old certificate is still good
	// (they contain the old root until all have renewed), the other way round
	// the node would not trust its own.
	if err := writePrivate(filepath.Join(dir, rootsFile), []byte(c.Roots)); err != nil {
		return err
	}
	whole := encodePEM(keyBlock, keyDER)
	whole = append(whole, encodePEM(nodeBlock, []byte(c.Node))...)
	whole = append(whole, encodePEM(webBlock, []byte(c.Web))...)
	return writePrivate(filepath.Join(dir, nodeFile), whole)
}

// The chains are nested so that a reader cannot take one for the other.
const (
	nodeBlock = "DRYSTONE NODE CHAIN"
	webBlock  = "DRYSTONE WEB CHAIN"
)

// OpenKeeper reads what Save wrote; model.NotFound says there is nothing.
func OpenKeeper(dir string) (*Keeper, error) {
	k := &Keeper{dir: dir, turn: make(chan struct{}, 1)}
	s, err := load(dir)
	if err != nil {
		return nil, err
	}
	k.state.Store(s)
	return k, nil
}

func load(dir string) (*state, error) {
	whole, err := os.ReadFile(filepath.Join(dir, nodeFile)) //nolint:gosec // the daemon's own folder
	if errors.Is(err, fs.ErrNotExist) {
		return nil, model.Errorf(model.NotFound, "this node has no certificate: it has not joined")
	}
	if err != nil {
		return nil, fmt.Errorf("read the node's certificate: %w", err)
	}
	roots, err := os.ReadFile(filepath.Join(dir, rootsFile)) //nolint:gosec // the daemon's own folder
	if err != nil {
		return nil, fmt.Errorf("read the cluster's roots: %w", err)
	}
	blocks, err := blocksOf(whole)
	if err != nil {
		return nil, fmt.Errorf("read the node's certificate: %w", err)
	}
	if len(blocks) != 3 || blocks[0].Type != keyBlock || blocks[1].Type != nodeBlock || blocks[2].Type != webBlock {
		return nil, model.Errorf(model.Corrupt, "the node's certificate file is damaged")
	}
	priv, err := parseKey(blocks[0].Bytes)
	if err != nil {
		return nil, fmt.Errorf("read the node's key: %w", err)
	}
	c := Certificates{Node: string(blocks[1].Bytes), Web: string(blocks[2].Bytes), Roots: string(roots)}
	return newState(Key{priv: priv}, c)
}

// newState checks that everything belongs together.
func newState(key Key, c Certificates) (*state, error) {
	rootCerts, err := parseChain([]byte(c.Roots))
	if err != nil {
		return nil, fmt.Errorf("roots: %w", err)
	}
	s := &state{roots: rootCerts, rootsPEM: []byte(c.Roots)}
	if s.node, err = pair(key, c.Node); err != nil {
		return nil, fmt.Errorf("node certificate: %w", err)
	}
	if s.web, err = pair(key, c.Web); err != nil {
		return nil, fmt.Errorf("web certificate: %w", err)
	}
	if s.identity, err = identityOf(s.node.Leaf); err != nil {
		return nil, fmt.Errorf("node certificate: %w", err)
	}
	life := s.node.Leaf.NotAfter.Sub(s.node.Leaf.NotBefore)
	share := 0.5 + 0.3*rand.Float64() //nolint:gosec // spreads load; nothing depends on it being secret
	s.renewAt = s.node.Leaf.NotBefore.Add(time.Duration(share * float64(life)))
	return s, nil
}

func pair(key Key, chainPEM string) (tls.Certificate, error) {
	chain, err := parseChain([]byte(chainPEM))
	if err != nil {
		return tls.Certificate{}, err
	}
	if !key.priv.PublicKey.Equal(chain[0].PublicKey) {
		return tls.Certificate{}, model.Errorf(model.Invalid, "the certificate is for another key")
	}
	out := tls.Certificate{PrivateKey: key.priv, Leaf: chain[0]}
	for _, c := range chain {
		out.Certificate = append(out.Certificate, c.Raw)
	}
	return out, nil
}

// Identity returns who this node is.
func (k *Keeper) Identity() Identity { return k.state.Load().identity }

// RootsPEM returns the roots trusted at present.
func (k *Keeper) RootsPEM() string { return string(k.state.Load().rootsPEM) }

// RootsFile returns the path of a file with the roots in PEM.
func (k *Keeper) RootsFile() string { return filepath.Join(k.dir, rootsFile) }

// Expires returns when the node's certificate ends.
func (k *Keeper) Expires() time.Time { return k.state.Load().node.Leaf.NotAfter }

// Serial returns the serial number of the node's certificate in hex.
func (k *Keeper) Serial() string { return k.state.Load().node.Leaf.SerialNumber.Text(16) }

// Pins returns the pin of each root trusted at present, the one that signs first.
func (k *Keeper) Pins() []Pin {
	roots := k.state.Load().roots
	pins := make([]Pin, 0, len(roots))
	for _, r := range roots {
		pins = append(pins, PinOf(r))
	}
	return pins
}

// Good reports whether the certificates are by a root (PEM) that is trusted here, and
// for an address.
func (k *Keeper) Good(rootPEM, address string) bool {
	s := k.state.Load()
	roots, err := parseChain([]byte(rootPEM))
	if err != nil || len(roots) != 1 || !hasKey(s.roots, roots[0]) || s.web.Leaf.VerifyHostname(address) != nil {
		return false
	}
	return s.node.Leaf.CheckSignatureFrom(roots[0]) == nil && s.web.Leaf.CheckSignatureFrom(roots[0]) == nil
}

// SetRoots replaces the roots that are trusted (PEM). Roots by which this node's own
// certificates are not good are refused with model.Conflict.
func (k *Keeper) SetRoots(ctx context.Context, rootsPEM string) error {
	if err := k.begin(ctx); err != nil {
		return err
	}
	defer k.end()
	now := k.state.Load()
	if string(now.rootsPEM) == rootsPEM {
		return nil
	}
	roots, err := parseChain([]byte(rootsPEM))
	if err != nil {
		return fmt.Errorf("roots: %w", err)
	}
	if _, err := verify([]*x509.Certificate{now.node.Leaf}, roots, x509.ExtKeyUsageClientAuth); err != nil {
		return model.Errorf(model.Conflict, "this node has no certificate by these roots yet")
	}
	if err := writePrivate(k.RootsFile(), []byte(rootsPEM)); err != nil {
		return err
	}
	next := *now
	next.roots, next.rootsPEM = roots, []byte(rootsPEM)
	k.state.Store(&next)
	return nil
}

// begin waits for the turn to replace the files.
func (k *Keeper) begin(ctx context.Context) error {
	select {
	case k.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (k *Keeper) end() { <-k.turn }

// A Renew asks the cluster for certificates for the key of a request.
type Renew func(ctx context.Context, request []byte) (Certificates, error)

// The pace of renewal. Waits are cut into checkEvery, since a timer stands still
// while the machine is suspended.
const (
	checkEvery   = 10 * time.Minute
	retryFirst   = time.Minute
	retryMost    = time.Hour
	renewTimeout = 30 * time.Second
)

// Run renews the certificates at a random point between half and four fifths of
// their life, each time with a new key, until ctx ends. A renewal that fails is
// logged and tried again, at first after a minute, at most an hour apart.
func (k *Keeper) Run(ctx context.Context, renew Renew) error {
	retry := retryFirst
	for {
		wait := min(time.Until(k.state.Load().renewAt), checkEvery)
		if wait <= 0 {
			err := k.RenewNow(ctx, renew)
			if err == nil {
				retry = retryFirst
				continue
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			slog.WarnContext(ctx, "certificate not renewed", "expires", k.Expires(), "retry_in", retry, "err", err)
			wait, retry = retry, min(2*retry, retryMost)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// RenewNow renews at once: for a change of addresses or roots.
func (k *Keeper) RenewNow(ctx context.Context, renew Renew) error {
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	key, err := NewKey()
	if err != nil {
		return err
	}
	request, err := key.Request()
	if err != nil {
		return err
	}
	c, err := renew(ctx, request)
	if err != nil {
		return fmt.Errorf("ask for a certificate: %w", err)
	}
	s, err := newState(key, c)
	if err != nil {
		return fmt.Errorf("renewed: %w", err)
	}
	if got, want := s.identity, k.Identity(); got != want {
		return model.Errorf(model.Internal, "the renewed certificate is for %s, not %s", got, want)
	}
	_, err = verify([]*x509.Certificate{s.node.Leaf}, s.roots, x509.ExtKeyUsageClientAuth)
	if err != nil {
		return fmt.Errorf("renewed: %w", err)
	}
	if err := k.begin(ctx); err != nil {
		return err
	}
	defer k.end()
	if err := Save(k.dir, key, c); err != nil {
		return err
	}
	k.state.Store(s)
	return nil
}
