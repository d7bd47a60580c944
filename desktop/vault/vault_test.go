package vault

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/zalando/go-keyring"

	"drystone.example/drystone/backend/model"
)

const secret = "a session token that must not be seen"

// Every kind of vault keeps, replaces and forgets.
func TestKinds(t *testing.T) {
	keyring.MockInit()
	dir := t.TempDir()
	phrase, err := openFile(filepath.Join(dir, "phrase"), model.NewSecret("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := openFile(filepath.Join(dir, "key"), model.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []Vault{phrase, key, inKeyring{}} {
		t.Run(v.Kind(), func(t *testing.T) {
			if _, err := v.Get(1); model.CodeOf(err) != model.NotFound {
				t.Errorf("Get(1) of an empty vault = %v, want code %s", err, model.NotFound)
			}
			for _, text := range []string{"first", secret} {
				if err := v.Set(1, model.NewSecret(text)); err != nil {
					t.Fatalf("Set(1) = %v", err)
				}
			}
			got, err := v.Get(1)
			if err != nil || got.Reveal() != secret {
				t.Errorf("Get(1) = %q, %v, want what was set last", got.Reveal(), err)
			}
			if _, err := v.Get(2); model.CodeOf(err) != model.NotFound {
				t.Errorf("Get(2) = %v, want code %s", err, model.NotFound)
			}
			for range 2 {
				if err := v.Delete(1); err != nil {
					t.Errorf("Delete(1) = %v", err)
				}
			}
			if _, err := v.Get(1); model.CodeOf(err) != model.NotFound {
				t.Errorf("Get(1) after Delete = %v, want code %s", err, model.NotFound)
			}
		})
	}
}

// The file holds no token in the clear, nobody else may read it, and it opens
// again with the same key and with no other.
func TestFileIsSealed(t *testing.T) {
	dir := t.TempDir()
	v, err := openFile(dir, model.NewSecret("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Set(7, model.NewSecret(secret)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{sealedKeyFile, sealedKeyFile + tokensSuffix} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte(secret)) || bytes.Contains(text, []byte("AGE-SECRET-KEY")) {
			t.Errorf("%s holds a secret in the clear", name)
		}
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != 0o600 {
			t.Errorf("%s has mode %o, want 600", name, got)
		}
	}
	if _, err := openFile(dir, model.NewSecret("wrong horse")); model.CodeOf(err) != model.Denied {
		t.Errorf("opening with another passphrase = %v, want code %s", err, model.Denied)
	}
	again, err := openFile(dir, model.NewSecret("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := again.Get(7); err != nil || got.Reveal() != secret {
		t.Errorf("Get(7) after opening again = %q, %v", got.Reveal(), err)
	}
}

// The key file is made once and used again.
func TestKeyFileStays(t *testing.T) {
	dir := t.TempDir()
	for i := range 2 {
		v, err := openFile(dir, model.Secret{})
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if err := v.Set(1, model.NewSecret(secret)); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := v.Get(1); err != nil || got.Reveal() != secret {
			t.Errorf("Get(1) in round %d = %q, %v", i, got.Reveal(), err)
		}
	}
}

// A damaged file is said to be damaged, and is not overwritten.
func TestDamaged(t *testing.T) {
	dir := t.TempDir()
	v, err := openFile(dir, model.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Set(1, model.NewSecret(secret)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, keyFile+tokensSuffix)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text[len(text)-1] ^= 1
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := v.Set(2, model.NewSecret(secret)); model.CodeOf(err) != model.Corrupt {
		t.Errorf("Set into a damaged vault = %v, want code %s", err, model.Corrupt)
	}
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(after, text) {
		t.Error("the damaged file was overwritten")
	}
}
