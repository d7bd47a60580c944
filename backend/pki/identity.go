package pki

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/url"
	"strings"

	"drystone.example/drystone/backend/model"
)

const uriScheme = "drystone"

// An Identity is who a node's certificate says it is. Names and addresses in a
// certificate are for browsers and prove nothing between nodes.
type Identity struct {
	Cluster model.ClusterID
	Node    model.NodeID
}

// URI is the identity as it stands in a certificate.
func (i Identity) URI() *url.URL {
	return &url.URL{Scheme: uriScheme, Host: i.Cluster.String(), Path: "/node/" + i.Node.String()}
}

func (i Identity) String() string { return i.URI().String() }

// PeerIdentity returns who is at the other end of a connection made with
// NodeServer or NodeClient, whose handshake has proven it.
func PeerIdentity(cs tls.ConnectionState) (Identity, error) {
	if !cs.HandshakeComplete || len(cs.PeerCertificates) == 0 {
		return Identity{}, model.Errorf(model.Denied, "the peer has shown no certificate")
	}
	return identityOf(cs.PeerCertificates[0])
}

// identityOf reads the one URI a node's certificate has.
func identityOf(cert *x509.Certificate) (Identity, error) {
	if len(cert.URIs) != 1 {
		return Identity{}, model.Errorf(model.Denied,
			"the certificate has %d identities, not one", len(cert.URIs))
	}
	uri := cert.URIs[0]
	id, isNode := strings.CutPrefix(uri.Path, "/node/")
	if uri.Scheme != uriScheme || !isNode {
		return Identity{}, model.Errorf(model.Denied, "the certificate is not a node's")
	}
	cluster, err := model.ParseID[model.ClusterID](uri.Host)
	if err != nil {
		return Identity{}, fmt.Errorf("read the certificate's cluster: %w", err)
	}
	node, err := model.ParseID[model.NodeID](id)
	if err != nil {
		return Identity{}, fmt.Errorf("read the certificate's node: %w", err)
	}
	got := Identity{Cluster: cluster, Node: node}
	if got.String() != uri.String() {
		return Identity{}, model.Errorf(model.Denied, "the certificate's identity has more in it than it may")
	}
	return got, nil
}

// verify holds a peer's chain against the roots and their heirs and returns who it
// proves. The certificates are those the peer sent, its own first.
func verify(certs, roots []*x509.Certificate, usage x509.ExtKeyUsage) (Identity, error) {
	if len(certs) == 0 {
		return Identity{}, model.Errorf(model.Denied, "the peer has shown no certificate")
	}
	if _, err := verifyChain(certs, heirs(roots, certs), "", usage); err != nil {
		return Identity{}, err
	}
	return identityOf(certs[0])
}

// verifyChain holds a chain against the roots and returns the one it ends in; host is
// checked unless it is empty.
func verifyChain(
	certs, roots []*x509.Certificate, host string, usage x509.ExtKeyUsage,
) (*x509.Certificate, error) {
	// Roots are all there is above a leaf.
	chains, err := certs[0].Verify(x509.VerifyOptions{
		DNSName:   host,
		Roots:     poolOf(roots),
		KeyUsages: []x509.ExtKeyUsage{usage},
	})
	if err != nil {
		return nil, model.Errorf(model.Denied, "the peer's certificate is not good here: %w", err)
	}
	return chains[0][len(chains[0])-1], nil
}
