package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"net/url"
	"time"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/must"
)

// How long certificates live.
const (
	CALife   = 10 * 365 * 24 * time.Hour
	LeafLife = 7 * 24 * time.Hour
	Backdate = 5 * time.Minute // for clocks that are behind
)

const (
	certBlock = "CERTIFICATE"
	keyBlock  = "PRIVATE KEY"
)

// A CA signs the certificates of one cluster's nodes. Its key exists in memory
// only while it signs; at rest it is sealed.
type CA struct {
	cluster model.ClusterID
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey

	former, heritage string // as in Authority
}

// An Authority is what is public of a CA, all PEM.
type Authority struct {
	Root     string // that signs
	Former   string // the one before, still trusted while a rotation lasts; else empty
	Heritage string // by which who knows an older root finds this one: see Succeed
}

// Roots is every root that is trusted, the one that signs first.
func (a Authority) Roots() string { return a.Root + a.Former }

// NewCA makes the authority of a new cluster.
func NewCA(cluster model.ClusterID) (*CA, error) {
	must.That(cluster != 0, "an authority for no cluster")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("draw the authority's key: %w", err)
	}
	tmpl := rootOf(cluster)
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make the authority's certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read the authority's certificate: %w", err)
	}
	return &CA{cluster: cluster, cert: cert, key: key}, nil
}

func rootOf(cluster model.ClusterID) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		Subject:               pkix.Name{CommonName: "Drystone cluster " + cluster.String()},
		URIs:                  []*url.URL{{Scheme: uriScheme, Host: cluster.String()}},
		NotBefore:             now.Add(-Backdate),
		NotAfter:              now.Add(CALife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
}

// LoadCA puts an authority together from what is public of it and its key as Key
// returned it.
func LoadCA(a Authority, keyDER []byte) (*CA, error) {
	der, err := onePEM([]byte(a.Root), certBlock)
	if err != nil {
		return nil, fmt.Errorf("read the authority's certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read the authority's certificate: %w", err)
	}
	if len(cert.URIs) != 1 || cert.URIs[0].Scheme != uriScheme || !cert.IsCA {
		return nil, model.Errorf(model.Invalid, "the certificate is not an authority's")
	}
	cluster, err := model.ParseID[model.ClusterID](cert.URIs[0].Host)
	if err != nil {
		return nil, fmt.Errorf("read the authority's cluster: %w", err)
	}
	key, err := parseKey(keyDER)
	if err != nil {
		return nil, fmt.Errorf("read the authority's key: %w", err)
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, model.Errorf(model.Invalid, "the authority's key does not belong to its certificate")
	}
	return &CA{cluster: cluster, cert: cert, key: key, former: a.Former, heritage: a.Heritage}, nil
}

// Cluster returns whose authority it is.
func (ca *CA) Cluster() model.ClusterID { return ca.cluster }

// PEM returns the certificate; it is public.
func (ca *CA) PEM() string { return string(encodePEM(certBlock, ca.cert.Raw)) }

// Authority returns what is public of it.
func (ca *CA) Authority() Authority {
	return Authority{Root: ca.PEM(), Former: ca.former, Heritage: ca.heritage}
}

// Pin returns what others remember it by.
func (ca *CA) Pin() Pin { return PinOf(ca.cert) }

// Key returns the private key, to be sealed at once.
func (ca *CA) Key() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(ca.key)
	if err != nil {
		return nil, fmt.Errorf("encode the authority's key: %w", err)
	}
	return der, nil
}

// Certificates is what a node needs to be recognised: each field is PEM, the
// chains begin with the leaf and its root; the root's heritage follows.
type Certificates struct {
	Node  string `json:"node"`  // for the node port; its identity
	Web   string `json:"web"`   // for the web port, by addresses and names
	Roots string `json:"roots"` // every root trusted at present
}

// Serial returns the serial number of the node's certificate in hex.
func (c Certificates) Serial() (string, error) {
	chain, err := parseChain([]byte(c.Node))
	if err != nil {
		return "", err
	}
	return chain[0].SerialNumber.Text(16), nil
}

// Issue makes certificates for the key that signed csr, and takes nothing else
// from it. Addresses are the IP addresses and DNS names under which people reach
// the node.
func (ca *CA) Issue(csr []byte, node model.NodeID, addresses []string) (Certificates, error) {
	must.That(node != 0, "a certificate for no node")
	req, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return Certificates{}, model.Errorf(model.Invalid, "the certificate request cannot be read")
	}
	if err := req.CheckSignature(); err != nil {
		return Certificates{}, model.Errorf(model.Invalid, "the certificate request is not signed by its own key")
	}
	pub, ok := req.PublicKey.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return Certificates{}, model.Errorf(model.Invalid, "the certificate request has a key other than ECDSA P-256")
	}
	nodeLeaf := ca.leaf(node)
	nodeLeaf.URIs = []*url.URL{Identity{Cluster: ca.cluster, Node: node}.URI()}
	nodeLeaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	webLeaf := ca.leaf(node)
	webLeaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	if err := name(nodeLeaf, webLeaf, addresses); err != nil {
		return Certificates{}, err
	}
	out := Certificates{Roots: ca.Authority().Roots()}
	if out.Node, err = ca.sign(nodeLeaf, pub); err != nil {
		return Certificates{}, fmt.Errorf("sign the node's certificate: %w", err)
	}
	if out.Web, err = ca.sign(webLeaf, pub); err != nil {
		return Certificates{}, fmt.Errorf("sign the web certificate: %w", err)
	}
	return out, nil
}

func (ca *CA) leaf(node model.NodeID) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		Subject:               pkix.Name{CommonName: "Drystone node " + node.String()},
		NotBefore:             now.Add(-Backdate),
		NotAfter:              now.Add(LeafLife),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
	}
}

// name gives both leaves their addresses.
func name(a, b *x509.Certificate, addresses []string) error {
	if len(addresses) > maxAddresses {
		return model.Errorf(model.Invalid, "a certificate has at most %d addresses, not %d", maxAddresses, len(addresses))
	}
	for _, s := range addresses {
		if ip := net.ParseIP(s); ip != nil {
			a.IPAddresses, b.IPAddresses = append(a.IPAddresses, ip), append(b.IPAddresses, ip)
			continue
		}
		if !validHost(s) {
			return model.Errorf(model.Invalid, "%q is neither an IP address nor a host name", s)
		}
		a.DNSNames, b.DNSNames = append(a.DNSNames, s), append(b.DNSNames, s)
	}
	return nil
}

// maxAddresses bounds what one node can put into its certificate.
const maxAddresses = 32

// validHost accepts letters, digits, dashes and dots, as a host name has them.
func validHost(s string) bool {
	if s == "" || len(s) > 253 || s[0] == '.' || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

// sign returns the chain in PEM, root included: a joiner finds the pinned key there,
// or in the heritage one that vouches for the root.
func (ca *CA) sign(tmpl *x509.Certificate, pub *ecdsa.PublicKey) (string, error) {
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, pub, ca.key)
	if err != nil {
		return "", err
	}
	return string(encodePEM(certBlock, der)) + ca.PEM() + ca.heritage, nil
}

func parseChain(b []byte) ([]*x509.Certificate, error) {
	blocks, err := blocksOf(b)
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	out := make([]*x509.Certificate, 0, len(blocks))
	for _, block := range blocks {
		if block.Type != certBlock {
			return nil, model.Errorf(model.Invalid, "there is a %q among the certificates", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read certificate: %w", err)
		}
		out = append(out, cert)
	}
	return out, nil
}
