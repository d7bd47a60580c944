package pki

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// A root is followed by another one that it vouches for: it signs a second
// certificate of the new root's key, which every node shows beside its own chain. Who
// knows only the old root - a node that was away, a desktop, a join token - finds the
// new one by that. It is no chain that x509 would accept, for our roots allow no
// authority below them (path length 0), and must not be one: what a root signs for is
// taken as a root, at the places that say so.
//
// A root vouches only as long as it is valid, and only for its own cluster. Who holds
// an old root's key can vouch too: after a theft the rotation helps only those who
// have the new root already, and the others have to be introduced anew.

// heirsMost is how many roots back who knows only an old one still finds the present one.
const heirsMost = 3

// Succeed makes the next authority of the same cluster; this one is its former, still
// trusted.
func (ca *CA) Succeed() (*CA, error) {
	next, err := NewCA(ca.cluster)
	if err != nil {
		return nil, err
	}
	tmpl := rootOf(ca.cluster)
	tmpl.AuthorityKeyId = ca.cert.SubjectKeyId // of one subject: x509 does not say it by itself
	if tmpl.NotAfter.After(ca.cert.NotAfter) {
		tmpl.NotAfter = ca.cert.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, next.key.Public(), ca.key)
	if err != nil {
		return nil, fmt.Errorf("vouch for the next authority: %w", err)
	}
	older, _ := parseChain([]byte(ca.heritage)) // none, if it was never rotated
	next.former = ca.PEM()
	next.heritage = string(encodePEM(certBlock, der)) + ca.PEM()
	for _, c := range older[:min(len(older), 2*(heirsMost-1))] {
		next.heritage += string(encodePEM(certBlock, c.Raw))
	}
	return next, nil
}

// shownMost is how many certificates of a peer are looked at: a leaf, its root, and a
// heritage.
const shownMost = 2 + 2*heirsMost

// heirs returns the known roots, and those among what a peer has shown that one of
// them vouches for, directly or by another.
func heirs(known, shown []*x509.Certificate) []*x509.Certificate {
	known = slices.Clip(known)
	shown = shown[min(1, len(shown)):min(len(shown), shownMost)]
	now := time.Now()
	for grown := true; grown; {
		grown = false
		for _, c := range shown {
			if hasKey(known, c) {
				continue
			}
			if slices.ContainsFunc(known, func(k *x509.Certificate) bool { return vouches(k, c, now) }) {
				known, grown = append(known, c), true
			}
		}
	}
	return known
}

func hasKey(roots []*x509.Certificate, c *x509.Certificate) bool {
	return slices.ContainsFunc(roots, func(r *x509.Certificate) bool {
		return bytes.Equal(r.RawSubjectPublicKeyInfo, c.RawSubjectPublicKeyInfo)
	})
}

// vouches reports whether a root says that another one is the same cluster's.
func vouches(root, c *x509.Certificate, now time.Time) bool {
	return c.IsCA && len(c.URIs) == 1 && len(root.URIs) == 1 && c.URIs[0].String() == root.URIs[0].String() &&
		!now.Before(root.NotBefore) && !now.After(root.NotAfter) &&
		bytes.Equal(c.AuthorityKeyId, root.SubjectKeyId) && c.CheckSignatureFrom(root) == nil
}

func poolOf(roots []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, r := range roots {
		pool.AddCert(r)
	}
	return pool
}

// A Root is what is public of a root.
type Root struct {
	Pin     Pin
	Expires time.Time
}

// Describe reads a root in PEM.
func Describe(rootPEM string) (Root, error) {
	certs, err := parseChain([]byte(rootPEM))
	if err != nil {
		return Root{}, err
	}
	return Root{PinOf(certs[0]), certs[0].NotAfter}, nil
}
