package auth

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"drystone.example/drystone/backend/model"
)

// quick is a cost for tests that are not about the cost.
var quick = Params{Memory: 64, Time: 1, Threads: 1}

func TestHashAndVerify(t *testing.T) {
	h := NewHasher(Strong)
	password := model.NewSecret("a wall of stones without mortar")
	hash, err := h.Hash(t.Context(), password)
	if err != nil {
		t.Fatalf("Hash: %v", err)
	}
	if want := "$argon2id$v=19$m=65536,t=3,p=1$"; !strings.HasPrefix(hash.Reveal(), want) {
		t.Errorf("Hash = %s, want prefix %s", hash.Reveal(), want)
	}
	for _, c := range []struct {
		name     string
		h        *Hasher
		password string
		ok       bool
	}{
		{"right", h, "a wall of stones without mortar", true},
		{"wrong", h, "a wall of stones with mortar", false},
		{"empty", h, "", false},
		{"right, new ones cost less by now", NewHasher(quick), "a wall of stones without mortar", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			ok, err := c.h.Verify(t.Context(), hash, model.NewSecret(c.password))
			if err != nil || ok != c.ok {
				t.Errorf("Verify = %v, %v, want %v, nil", ok, err, c.ok)
			}
		})
	}
}

// Two hashes of one password have nothing in common but their cost.
func TestHashIsSalted(t *testing.T) {
	h := NewHasher(quick)
	password := model.NewSecret("a wall of stones")
	a, err := h.Hash(t.Context(), password)
	if err != nil {
		t.Fatal(err)
	}
	b, err := h.Hash(t.Context(), password)
	if err != nil {
		t.Fatal(err)
	}
	if a.Reveal() == b.Reveal() {
		t.Error("two hashes of one password are equal")
	}
}

// A user who does not exist is refused no faster than one who does: the same hash
// is computed for both.
func TestVerifyCostsTheSameForNobody(t *testing.T) {
	h := NewHasher(Params{Memory: 16 << 10, Time: 2, Threads: 1})
	hash, err := h.Hash(t.Context(), model.NewSecret("a wall of stones"))
	if err != nil {
		t.Fatal(err)
	}
	// The work of argon2id shows in the memory it fills; a clock would show what else
	// the machine does.
	filled := func(hash model.Secret) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		ok, err := h.Verify(t.Context(), hash, model.NewSecret("wrong"))
		if ok || err != nil {
			t.Fatalf("Verify = %v, %v, want false, nil", ok, err)
		}
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	const block = 16 << 20
	if known, nobody := filled(hash), filled(model.Secret{}); known < block || nobody < block || nobody > known+block/8 {
		t.Errorf("refusing a known user fills %d bytes, nobody %d, want %d", known, nobody, block)
	}
}

func TestVerifyRefusesBrokenHashes(t *testing.T) {
	for _, hash := range []string{
		"x",
		"$argon2id$v=19$m=65536,t=3,p=1$c2FsdHNhbHQ",
		"$argon2i$v=19$m=65536,t=3,p=1$c2FsdHNhbHRzYWx0$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
		"$argon2id$v=18$m=65536,t=3,p=1$c2FsdHNhbHRzYWx0$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
		"$argon2id$v=19$m=4000000000,t=3,p=1$c2FsdHNhbHRzYWx0$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
		"$argon2id$v=19$m=65536,t=0,p=1$c2FsdHNhbHRzYWx0$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
		"$argon2id$v=19$m=65536,t=3,p=0$c2FsdHNhbHRzYWx0$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
		"$argon2id$v=19$m=65536,t=3,p=1$c2FsdHNhbHRzYWx0$AAAA",
		"$argon2id$v=19$m=65536,t=3,p=1$!$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
	} {
		ok, err := NewHasher(quick).Verify(t.Context(), model.NewSecret(hash), model.NewSecret("x"))
		if ok || model.CodeOf(err) != model.Internal {
			t.Errorf("Verify(%s) = %v, %v, want false and an internal error", hash, ok, err)
		}
		if err != nil && strings.Contains(err.Error(), hash) && len(hash) > 1 {
			t.Errorf("the error %q holds the hash", err)
		}
	}
}

// A flood of log-ins waits only up to a bound; the rest is told to come back, and
// who gives up waiting is let go.
func TestHasherBoundsItsQueue(t *testing.T) {
	h := NewHasher(quick)
	for range hashing {
		h.work <- struct{}{} // two log-ins that take long
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	errs := make(chan error, hashing+waiting+8)
	for range cap(errs) {
		wg.Go(func() {
			_, err := h.Hash(ctx, model.NewSecret("x"))
			errs <- err
		})
	}
	for range 8 {
		if err := <-errs; model.CodeOf(err) != model.Unavailable {
			t.Errorf("beyond the queue: %v, want unavailable", err)
		}
	}
	cancel()
	wg.Wait()
	close(errs)
	for err := range errs {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("in the queue: %v, want canceled", err)
		}
	}
}

func TestCheckPassword(t *testing.T) {
	for _, c := range []struct {
		password string
		ok       bool
	}{
		{"elevenchars", false},
		{"twelve chars", true},
		{"zwölf Zeiche", true},
		{"correct horse battery staple", false},
		{"PASSWORD1234", false},
		{"aaaaaaaaaaaaaaaa", false},
		{"abcabcabcabcabc", false},
		{"margarete2026!!", false},
		{"937465820194", true},
		{"not utf-8 \xff\xff\xff", false},
		{strings.Repeat("long and varied ", 64), true},
		{strings.Repeat("long and varied ", 65), false},
	} {
		err := CheckPassword("margarete", model.NewSecret(c.password))
		if (err == nil) != c.ok {
			t.Errorf("CheckPassword(%q) = %v, want ok %v", c.password, err, c.ok)
		}
		if err != nil && model.CodeOf(err) != model.Invalid {
			t.Errorf("CheckPassword(%q) has code %s, want invalid", c.password, model.CodeOf(err))
		}
	}
}

func TestTokens(t *testing.T) {
	token, digest := NewToken()
	other, _ := NewToken()
	if token.Reveal() == other.Reveal() {
		t.Fatal("two tokens are equal")
	}
	if got := Digest(token.Reveal()); got != digest || len(digest) != 64 {
		t.Errorf("Digest = %q, want %q, 64 characters", got, digest)
	}
	for _, bad := range []string{"", "x", token.Reveal() + "x", "dryt" + token.Reveal()[4:]} {
		if got := Digest(bad); got != "" {
			t.Errorf("Digest(%d characters) = %q, want none", len(bad), got)
		}
	}
	if s := fmt.Sprint(token); s != "[redacted]" {
		t.Errorf("a token prints as %q", s)
	}
}
