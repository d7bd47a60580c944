package auth

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	_ "embed"
	"encoding/base64"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"drystone.example/drystone/backend/model"
)

// Params is what one argon2id hash costs.
type Params struct {
	Memory  uint32 // KiB
	Time    uint32 // passes
	Threads uint8
}

// Strong is the cost of every password the cluster keeps: 64 MiB and about 150 ms.
var Strong = Params{Memory: 64 << 10, Time: 3, Threads: 1}

const (
	saltLen = 16
	keyLen  = 32

	// hashing bounds the memory of concurrent log-ins to twice Params.Memory,
	// and waiting bounds how many may queue for it.
	hashing = 2
	waiting = 64
)

// The bounds of a hash that is read back. The record is ours, yet a hash out of
// bounds must not be able to take a node's memory.
const (
	maxMemory  = 1 << 20 // KiB
	maxTime    = 64
	maxThreads = 16
)

// A Hasher makes and checks password hashes, a bounded number at a time.
type Hasher struct {
	params Params
	queue  chan struct{}
	work   chan struct{}
}

// NewHasher makes a Hasher whose new hashes cost p.
func NewHasher(p Params) *Hasher {
	return &Hasher{
		params: p,
		queue:  make(chan struct{}, hashing+waiting),
		work:   make(chan struct{}, hashing),
	}
}

// Hash makes the PHC string of a password with a new salt.
func (h *Hasher) Hash(ctx context.Context, password model.Secret) (model.Secret, error) {
	var salt [saltLen]byte
	rand.Read(salt[:]) // never fails (crypto/rand)
	key, err := h.derive(ctx, password, salt[:], h.params, keyLen)
	if err != nil {
		return model.Secret{}, err
	}
	b64 := base64.RawStdEncoding
	return model.NewSecret(fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version,
		h.params.Memory, h.params.Time, h.params.Threads,
		b64.EncodeToString(salt[:]), b64.EncodeToString(key))), nil
}

// Verify reports whether password is the one that hash was made of. An empty hash
// stands for a user who does not exist: it takes as long and is never right.
func (h *Hasher) Verify(ctx context.Context, hash, password model.Secret) (bool, error) {
	if hash.Reveal() == "" {
		_, err := h.derive(ctx, password, make([]byte, saltLen), h.params, keyLen)
		return false, err
	}
	p, salt, want, err := parsePHC(hash.Reveal())
	if err != nil {
		return false, err
	}
	got, err := h.derive(ctx, password, salt, p, uint32(len(want)))
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(got, want) == 1, nil
}

// derive waits for its turn. A caller whose turn is too far away is sent off at
// once, so that a flood of log-ins costs bounded memory and time.
func (h *Hasher) derive(ctx context.Context, password model.Secret, salt []byte, p Params,
	size uint32,
) ([]byte, error) {
	select {
	case h.queue <- struct{}{}:
		defer func() { <-h.queue }()
	default:
		return nil, model.Errorf(model.Unavailable, "too many people are logging in; try again soon")
	}
	select {
	case h.work <- struct{}{}:
		defer func() { <-h.work }()
	case <-ctx.Done():
		return nil, fmt.Errorf("wait to check a password: %w", ctx.Err())
	}
	return argon2.IDKey([]byte(password.Reveal()), salt, p.Time, p.Memory, p.Threads, size), nil
}

// parsePHC reads what Hash wrote.
func parsePHC(s string) (p Params, salt, key []byte, err error) {
	broken := model.Errorf(model.Internal, "the record of a password is not readable")
	parts := strings.Split(s, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" {
		return p, nil, nil, broken
	}
	var version int
	if _, err := fmt.Sscanf(parts[2], "v=%d", &version); err != nil || version != argon2.Version {
		return p, nil, nil, broken
	}
	_, err = fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &p.Memory, &p.Time, &p.Threads)
	if err != nil || p.Memory > maxMemory || p.Time < 1 || p.Time > maxTime ||
		p.Threads < 1 || p.Threads > maxThreads {
		return p, nil, nil, broken
	}
	b64 := base64.RawStdEncoding.Strict()
	if salt, err = b64.DecodeString(parts[4]); err != nil || len(salt) < 8 {
		return p, nil, nil, broken
	}
	if key, err = b64.DecodeString(parts[5]); err != nil || len(key) < 16 || len(key) > math.MaxUint8 {
		return p, nil, nil, broken
	}
	return p, salt, key, nil
}

// The bounds of a new password, in characters and bytes.
const (
	MinPassword      = 12
	MaxPasswordBytes = 1024
)

//go:embed common.txt
var common string

// CheckPassword says what is wrong with a new password of a user, or nil. There
// are no rules of composition: length is what counts.
func CheckPassword(user string, password model.Secret) error {
	p := password.Reveal()
	lower := strings.ToLower(p)
	switch {
	case !utf8.ValidString(p):
		return model.Errorf(model.Invalid, "the password is not valid UTF-8 text")
	case utf8.RuneCountInString(p) < MinPassword:
		return model.Errorf(model.Invalid, "a password has at least %d characters", MinPassword)
	case len(p) > MaxPasswordBytes:
		return model.Errorf(model.Invalid, "a password has at most %d bytes", MaxPasswordBytes)
	case isName(strings.ToLower(user), lower):
		return model.Errorf(model.Invalid, "the password is made of the user's name; choose another one")
	case isCommon(lower):
		return model.Errorf(model.Invalid, "the password is one of the commonly used ones; choose another one")
	}
	return nil
}

// isName reports whether a password is a user's name with digits and dots around it.
func isName(user, lower string) bool {
	if user == "" || !strings.Contains(lower, user) {
		return false
	}
	return strings.Trim(strings.ReplaceAll(lower, user, ""), "0123456789!.-_ ") == ""
}

// isCommon reports whether a password in lower case is on the list, or is one
// character or one short run of them over and over.
func isCommon(lower string) bool {
	for line := range strings.Lines(common) {
		if strings.TrimSuffix(line, "\n") == lower {
			return true
		}
	}
	for n := 1; n <= 4; n++ {
		if lower == strings.Repeat(lower[:n], len(lower)/n)+lower[:len(lower)%n] {
			return true
		}
	}
	return false
}
