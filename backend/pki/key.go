package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"

	"drystone.example/drystone/backend/model"
)

// A Key is a node's private key. It never leaves the node.
type Key struct {
	_    [0]func() // not comparable
	priv *ecdsa.PrivateKey
}

// String hides the key.
func (Key) String() string { return "[redacted]" }

// GoString hides the key.
func (Key) GoString() string { return "[redacted]" }

// NewKey draws a key.
func NewKey() (Key, error) {
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Key{}, fmt.Errorf("draw a key: %w", err)
	}
	return Key{priv: priv}, nil
}

// Request returns a certificate request for the key, in DER. It says nothing but
// the public key: who the node is, the cluster decides.
func (k Key) Request() ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, k.priv)
	if err != nil {
		return nil, fmt.Errorf("make a certificate request: %w", err)
	}
	return der, nil
}

func parseKey(der []byte) (*ecdsa.PrivateKey, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, model.Errorf(model.Invalid, "the key cannot be read")
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, model.Errorf(model.Invalid, "the key is not ECDSA P-256")
	}
	return key, nil
}
