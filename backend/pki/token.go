package pki

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"net"
	"strings"

	"drystone.example/drystone/backend/model"
)

// A Pin is the SHA-256 of a CA's public key (its SPKI): what a desktop keeps of
// a cluster.
type Pin [sha256.Size]byte

// A Fingerprint is the first 160 bits of a Pin: what a join token carries.
type Fingerprint [20]byte

// PinOf returns the pin of a CA certificate.
func PinOf(ca *x509.Certificate) Pin { return sha256.Sum256(ca.RawSubjectPublicKeyInfo) }

// Fingerprint returns the short form.
func (p Pin) Fingerprint() Fingerprint { return Fingerprint(p[:len(Fingerprint{})]) }

func (p Pin) String() string { return text.EncodeToString(p[:]) }

func (f Fingerprint) String() string { return text.EncodeToString(f[:]) }

// ParsePin reads what Pin's String wrote.
func ParsePin(s string) (p Pin, err error) {
	b, err := decodeText("pin", s, len(p))
	if err != nil {
		return p, err
	}
	return Pin(b), nil
}

// A Token lets one machine join: Fingerprint proves the cluster to the machine,
// ID and Secret prove the machine to the cluster.
type Token struct {
	Fingerprint Fingerprint
	ID          string       // 8 characters; not secret, the record is found by it
	Secret      model.Secret // 26 characters
}

const (
	tokenPrefix    = "dry1-"
	tokenIDBytes   = 5
	tokenSecretLen = 16
)

// NewToken draws a token for the cluster whose CA has this fingerprint.
func NewToken(f Fingerprint) Token {
	var id [tokenIDBytes]byte
	var secret [tokenSecretLen]byte
	rand.Read(id[:]) // never fails (crypto/rand)
	rand.Read(secret[:])
	return Token{
		Fingerprint: f,
		ID:          text.EncodeToString(id[:]),
		Secret:      model.NewSecret(text.EncodeToString(secret[:])),
	}
}

// Reveal is the token as one line of 81 characters, secret included: it is shown
// once to whoever made it and kept nowhere.
func (t Token) Reveal() string {
	s := tokenPrefix + t.Fingerprint.String() + "-" + t.ID + "-" + t.Secret.Reveal()
	return s + "-" + checkOf(s)
}

// String is safe to log.
func (t Token) String() string { return "join token " + t.ID }

// ParseToken reads what Reveal wrote. Space around it and capitals are forgiven.
func ParseToken(s string) (Token, error) {
	s = strings.ToLower(strings.TrimSpace(s))
	body, ok := strings.CutPrefix(s, tokenPrefix)
	parts := strings.Split(body, "-")
	if !ok || len(parts) != 4 {
		return Token{}, model.Errorf(model.Invalid, "this is not a join token: one begins with %q and has five parts", tokenPrefix)
	}
	if checkOf(strings.TrimSuffix(s, "-"+parts[3])) != parts[3] {
		return Token{}, model.Errorf(model.Invalid, "the join token is damaged: copy it again, whole")
	}
	f, err := decodeText("join token", parts[0], len(Fingerprint{}))
	if err != nil {
		return Token{}, err
	}
	if _, err := decodeText("join token", parts[1], tokenIDBytes); err != nil {
		return Token{}, err
	}
	if _, err := decodeText("join token", parts[2], tokenSecretLen); err != nil {
		return Token{}, err
	}
	return Token{Fingerprint: Fingerprint(f), ID: parts[1], Secret: model.NewSecret(parts[2])}, nil
}

// HashSecret is what the record keeps of a token's secret: SHA-256 in hex, which
// is enough for 128 random bits.
func HashSecret(s model.Secret) string {
	sum := sha256.Sum256([]byte(s.Reveal()))
	return hex.EncodeToString(sum[:])
}

// SecretMatches compares a secret with the hash the record keeps, in constant time.
func SecretMatches(s model.Secret, hash string) bool {
	return subtle.ConstantTimeCompare([]byte(HashSecret(s)), []byte(hash)) == 1
}

// A JoinString is how a desktop is introduced to a cluster. It holds no secret.
type JoinString struct {
	Address string // host:port of one node's web port
	CA      Pin
}

const joinPrefix = "dryapp1:"

func (j JoinString) String() string { return joinPrefix + j.Address + ":" + j.CA.String() }

// ParseJoinString reads what String wrote. Space around it is forgiven.
func ParseJoinString(s string) (JoinString, error) {
	body, ok := strings.CutPrefix(strings.TrimSpace(s), joinPrefix)
	cut := strings.LastIndexByte(body, ':')
	if !ok || cut < 0 {
		return JoinString{}, model.Errorf(model.Invalid, "this is not a join string: one begins with %q", joinPrefix)
	}
	host, port, err := net.SplitHostPort(body[:cut])
	if err != nil || host == "" || port == "" {
		return JoinString{}, model.Errorf(model.Invalid, "the join string has no address of the form host:port")
	}
	pin, err := ParsePin(strings.ToLower(body[cut+1:]))
	if err != nil {
		return JoinString{}, err
	}
	return JoinString{Address: body[:cut], CA: pin}, nil
}
