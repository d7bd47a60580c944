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
// chain ends in the root with this fingerprint, whatever its names, and nobody
// else. Nothing secret may be sent before the handshake is done.
func JoinerTLS(f Fingerprint) *tls.Config {
	return pinned("", func(p Pin) bool { return p.Fingerprint() == f })
}

// PinnedTLS is for a desktop that remembers a cluster by its pin. The server's
// certificate must also be for host, unless that is empty.
func PinnedTLS(pin Pin, host string) *tls.Config {
	return pinned(host, func(p Pin) bool { return p == pin })
}

func pinned(host string, isPinned func(Pin) bool) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// The cluster's root is in no store of this machine: VerifyConnection
		// finds it by its pin among what the server sent and verifies by it.
		InsecureSkipVerify: true, //nolint:gosec // see above
		ServerName:         host,
		VerifyConnection: func(cs tls.ConnectionState) error {
			for _, c := range cs.PeerCertificates[min(1, len(cs.PeerCertificates)):] {
				if !c.IsCA || !isPinned(PinOf(c)) {
					continue
				}
				roots := x509.NewCertPool()
				roots.AddCert(c)
				return verifyChain(cs.PeerCertificates, roots, host, x509.ExtKeyUsageServerAuth)
			}
			return model.Errorf(model.Denied, "the server belongs to another cluster than the one that was pinned")
		},
	}
}
