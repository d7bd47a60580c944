package pki

import (
	"crypto/tls"
	"crypto/x509"

	"drystone.example/drystone/backend/model"
)

// NodeServer is for the node port: TLS 1.3, and the peer must prove to be a node
// of this cluster. Whether that node is still a member is not known here.
func (k *Keeper) NodeServer(protocols []string) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             protocols,
		ClientAuth:             tls.RequireAnyClientCert, // VerifyConnection does the rest
		SessionTicketsDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &k.state.Load().node, nil
		},
		VerifyConnection: func(cs tls.ConnectionState) error {
			_, err := k.verifyPeer(cs, x509.ExtKeyUsageClientAuth)
			return err
		},
		DynamicRecordSizingDisabled: true, // between nodes throughput counts, not the first byte
	}
}

// NodeClient is for a connection to another node's node port. The peer must
// prove to be exactly that node.
func (k *Keeper) NodeClient(protocol string, peer model.NodeID) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{protocol},
		// Names prove nothing here: VerifyConnection holds the chain against
		// our roots and the identity against the one that was asked for.
		InsecureSkipVerify: true, //nolint:gosec // see above
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &k.state.Load().node, nil
		},
		VerifyConnection: func(cs tls.ConnectionState) error {
			got, err := k.verifyPeer(cs, x509.ExtKeyUsageServerAuth)
			if err != nil {
				return err
			}
			if got.Node != peer {
				return model.Errorf(model.Denied, "node %s answered in place of %s", got.Node, peer)
			}
			return nil
		},
		DynamicRecordSizingDisabled: true,
	}
}

func (k *Keeper) verifyPeer(cs tls.ConnectionState, usage x509.ExtKeyUsage) (Identity, error) {
	s := k.state.Load()
	got, err := verify(cs.PeerCertificates, s.roots, usage)
	if err != nil {
		return Identity{}, err
	}
	if got.Cluster != s.identity.Cluster {
		return Identity{}, model.Errorf(model.Denied, "the peer is of cluster %s, not %s", got.Cluster, s.identity.Cluster)
	}
	return got, nil
}

// Web is for the port people use: TLS 1.3 with the certificate of the node's
// addresses; clients have none.
func (k *Keeper) Web() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &k.state.Load().web, nil
		},
	}
}

// JoinerTLS is for a machine that holds a join token: it accepts a server whose
// chain ends in the root with this fingerprint, or in one that it vouches for,
// whatever its names, and nobody else. Nothing secret may be sent before the
// handshake is done.
func JoinerTLS(f Fingerprint) *tls.Config {
	return following("", picks(func(p Pin) bool { return p.Fingerprint() == f }), nil)
}

// PinnedTLS is for a desktop that remembers a cluster by its pin. The server's
// certificate must also be for host, unless that is empty. If the server's root is
// another one, that the pinned one vouches for, follow is called with the pin to
// remember from now on; it may be nil and must not block.
func PinnedTLS(pin Pin, host string, follow func(Pin)) *tls.Config {
	return following(host, picks(func(p Pin) bool { return p == pin }), func(root *x509.Certificate) {
		if now := PinOf(root); now != pin && follow != nil {
			follow(now)
		}
	})
}

// RootsTLS is for who has the cluster's roots in PEM: it accepts a server of host whose
// chain ends in one of them, or in one that they vouch for.
func RootsTLS(rootsPEM []byte, host string) (*tls.Config, error) {
	roots, err := parseChain(rootsPEM)
	if err != nil {
		return nil, err
	}
	return following(host, func([]*x509.Certificate) []*x509.Certificate { return roots }, nil), nil
}

// picks finds the known roots among those that a server shows.
func picks(isPinned func(Pin) bool) func(shown []*x509.Certificate) []*x509.Certificate {
	return func(shown []*x509.Certificate) (known []*x509.Certificate) {
		for _, c := range shown[min(1, len(shown)):] {
			if c.IsCA && isPinned(PinOf(c)) {
				known = append(known, c)
			}
		}
		return known
	}
}

// following trusts known roots and their heirs, and calls by with the root that a
// server was accepted by.
func following(host string, known func(shown []*x509.Certificate) []*x509.Certificate,
	by func(root *x509.Certificate),
) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// The cluster's root is in no store of this machine: VerifyConnection
		// finds it among what the server sent and verifies by it.
		InsecureSkipVerify: true, //nolint:gosec // see above
		ServerName:         host,
		VerifyConnection: func(cs tls.ConnectionState) error {
			shown := cs.PeerCertificates
			roots := known(shown)
			if len(roots) == 0 || len(shown) == 0 {
				return model.Errorf(model.Denied, "the server belongs to another cluster than the one that was pinned")
			}
			root, err := verifyChain(shown, heirs(roots, shown), host, x509.ExtKeyUsageServerAuth)
			if err == nil && by != nil {
				by(root)
			}
			return err
		},
	}
}
