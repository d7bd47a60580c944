package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"

	"drystone.example/drystone/backend/model"
)

// TokenPrefix starts every session token, so that scanners for leaked secrets
// can recognise one.
const TokenPrefix = "drys_"

const tokenBytes = 32

// NewToken draws a token of 256 random bits and returns it with its digest, the
// only part that may be kept.
func NewToken() (token model.Secret, digest string) {
	var b [tokenBytes]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	text := TokenPrefix + base64.RawURLEncoding.EncodeToString(b[:])
	return model.NewSecret(text), Digest(text)
}

// Digest is what is kept of a token: SHA-256 in hex. The token is random, so a
// fast digest is enough, and looking it up by digest takes no secret-dependent
// time. What is not shaped like a token has no digest.
func Digest(token string) string {
	if !strings.HasPrefix(token, TokenPrefix) ||
		len(token) != len(TokenPrefix)+base64.RawURLEncoding.EncodedLen(tokenBytes) {
		return ""
	}
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}
