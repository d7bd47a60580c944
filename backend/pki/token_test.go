package pki

import (
	"strings"
	"testing"

	"drystone.example/drystone/backend/model"
)

func testFingerprint() (f Fingerprint) {
	for i := range f {
		f[i] = byte(7 * i)
	}
	return f
}

func TestTokenRoundTrip(t *testing.T) {
	want := NewToken(testFingerprint())
	line := want.Reveal()
	if len(line) != 81 {
		t.Errorf("token %q has %d characters, want 81", line, len(line))
	}
	for _, s := range []string{line, "  " + line + "\n", strings.ToUpper(line)} {
		got, err := ParseToken(s)
		if err != nil {
			t.Fatalf("ParseToken(%q): %v", s, err)
		}
		if got.Fingerprint != want.Fingerprint || got.ID != want.ID || got.Secret.Reveal() != want.Secret.Reveal() {
			t.Errorf("ParseToken(%q) = %v, want %v", s, got, want)
		}
	}
	if strings.Contains(want.String(), want.Secret.Reveal()) {
		t.Errorf("String() = %q shows the secret", want)
	}
}

// Every single character that is changed, dropped or doubled is noticed.
func TestTokenSlips(t *testing.T) {
	line := NewToken(testFingerprint()).Reveal()
	refuse := func(what, s string) {
		t.Helper()
		if tok, err := ParseToken(s); err == nil || model.CodeOf(err) != model.Invalid {
			t.Errorf("%s: ParseToken(%q) = %v, %v; want invalid", what, s, tok, err)
		}
	}
	for i := range line {
		other := byte('x')
		if line[i] == other {
			other = 'y'
		}
		refuse("changed", line[:i]+string(other)+line[i+1:])
		refuse("dropped", line[:i]+line[i+1:])
		refuse("doubled", line[:i]+line[i:i+1]+line[i:])
	}
	for i := range line {
		refuse("truncated", line[:i])
	}
	refuse("another kind", "dryt_"+line[5:])
	refuse("empty", "")
}

func TestSecretMatches(t *testing.T) {
	a, b := NewToken(testFingerprint()), NewToken(testFingerprint())
	hash := HashSecret(a.Secret)
	for _, c := range []struct {
		name   string
		secret model.Secret
		hash   string
		want   bool
	}{
		{"its own", a.Secret, hash, true},
		{"another", b.Secret, hash, false},
		{"empty secret", model.NewSecret(""), hash, false},
		{"empty hash", a.Secret, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := SecretMatches(c.secret, c.hash); got != c.want {
				t.Errorf("SecretMatches = %v, want %v", got, c.want)
			}
		})
	}
}

func TestJoinString(t *testing.T) {
	var pin Pin
	pin[3] = 9
	for _, addr := range []string{"10.0.0.1:8443", "[fe80::1]:8443", "node-1.example:443"} {
		want := JoinString{Address: addr, CA: pin}
		got, err := ParseJoinString(" " + want.String() + "\n")
		if err != nil || got != want {
			t.Errorf("ParseJoinString(%q) = %v, %v", want, got, err)
		}
	}
	for _, bad := range []string{
		"", "dryapp1:", "dryapp1:host:8443", "dryapp1::8443:" + pin.String(),
		"dryapp1:host:" + pin.String(), "dry1:host:8443:" + pin.String(),
		"dryapp1:host:8443:" + pin.String() + "0", "dryapp1:host:8443:" + pin.String()[1:],
	} {
		if got, err := ParseJoinString(bad); model.CodeOf(err) != model.Invalid {
			t.Errorf("ParseJoinString(%q) = %v, %v; want invalid", bad, got, err)
		}
	}
}

// Whatever is parsed as a token is written the same way again.
func FuzzParseToken(f *testing.F) {
	f.Add(NewToken(testFingerprint()).Reveal())
	f.Add("dry1-a-b-c-d")
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := ParseToken(s)
		if err != nil {
			return
		}
		if got, want := tok.Reveal(), strings.ToLower(strings.TrimSpace(s)); got != want {
			t.Errorf("ParseToken(%q).Reveal() = %q", s, got)
		}
	})
}

// Whatever is parsed as a join string keeps its meaning when written.
func FuzzParseJoinString(f *testing.F) {
	f.Add(JoinString{Address: "a:1"}.String())
	f.Fuzz(func(t *testing.T, s string) {
		j, err := ParseJoinString(s)
		if err != nil {
			return
		}
		if again, err := ParseJoinString(j.String()); err != nil || again != j {
			t.Errorf("ParseJoinString(%q) = %v, then %v, %v", s, j, again, err)
		}
	})
}
