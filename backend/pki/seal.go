package pki

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/must"
)

// A SealKey seals what lies in the replicated record but must not be readable
// there, above all the CA's key. It lives in a root-only file on voters.
type SealKey struct {
	_     [0]func() // not comparable
	bytes [32]byte
}

// String hides the key.
func (SealKey) String() string { return "[redacted]" }

// GoString hides the key.
func (SealKey) GoString() string { return "[redacted]" }

// NewSealKey draws a key.
func NewSealKey() (k SealKey) {
	rand.Read(k.bytes[:]) // never fails (crypto/rand)
	return k
}

// Reveal returns the key's bytes, to be sent to a node that becomes a voter.
func (k SealKey) Reveal() []byte { return bytes.Clone(k.bytes[:]) }

// SealKeyOf makes a key of the bytes Reveal returned.
func SealKeyOf(b []byte) (k SealKey, err error) {
	if len(b) != len(k.bytes) {
		return k, model.Errorf(model.Invalid, "a sealing key has %d bytes, not %d", len(k.bytes), len(b))
	}
	copy(k.bytes[:], b)
	return k, nil
}

const sealKeyBlock = "DRYSTONE SEALING KEY"

// SaveSealKey writes the key to a file only its owner may read.
func SaveSealKey(path string, k SealKey) error {
	return writePrivate(path, encodePEM(sealKeyBlock, k.bytes[:]))
}

// LoadSealKey reads what SaveSealKey wrote; model.NotFound says there is none.
func LoadSealKey(path string) (SealKey, error) {
	b, err := os.ReadFile(path) //nolint:gosec // the path is the daemon's own configuration
	if errors.Is(err, fs.ErrNotExist) {
		return SealKey{}, model.Errorf(model.NotFound, "this node has no sealing key")
	}
	if err != nil {
		return SealKey{}, fmt.Errorf("read sealing key: %w", err)
	}
	der, err := onePEM(b, sealKeyBlock)
	if err != nil {
		return SealKey{}, fmt.Errorf("read sealing key: %w", err)
	}
	return SealKeyOf(der)
}

// sealMagic begins everything sealed and is authenticated with it.
var sealMagic = []byte("dryseal1")

// Seal encrypts plaintext with AES-256-GCM: "dryseal1", a random nonce of 12
// bytes, the ciphertext with its tag.
func Seal(k SealKey, plaintext []byte) []byte {
	aead := k.aead()
	out := make([]byte, len(sealMagic)+aead.NonceSize(), len(sealMagic)+aead.NonceSize()+len(plaintext)+aead.Overhead())
	nonce := out[copy(out, sealMagic):]
	rand.Read(nonce) // never fails (crypto/rand)
	return aead.Seal(out, nonce, plaintext, sealMagic)
}

// Open decrypts what Seal made; model.Corrupt says it is not that, or not of
// this key.
func Open(k SealKey, sealed []byte) ([]byte, error) {
	aead := k.aead()
	rest, ok := bytes.CutPrefix(sealed, sealMagic)
	if !ok || len(rest) < aead.NonceSize() {
		return nil, model.Errorf(model.Corrupt, "the sealed text is damaged")
	}
	n := aead.NonceSize()
	plain, err := aead.Open(nil, rest[:n], rest[n:], sealMagic)
	if err != nil {
		return nil, model.Errorf(model.Corrupt, "the sealed text is damaged, or was sealed by another key")
	}
	return plain, nil
}

func (k SealKey) aead() cipher.AEAD {
	block, err := aes.NewCipher(k.bytes[:])
	must.That(err == nil, "a cipher of 32 bytes: %v", err)
	aead, err := cipher.NewGCM(block)
	must.That(err == nil, "GCM of AES: %v", err)
	return aead
}
