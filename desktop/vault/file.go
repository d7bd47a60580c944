package vault

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"filippo.io/age"

	"drystone.example/drystone/backend/model"
)

const (
	keyFile       = "vault.key"     // an age identity in the clear
	sealedKeyFile = "vault.key.age" // one sealed by a passphrase
	tokensSuffix  = ".sessions"     // of the file that a key opens

	// maxTokens bounds what is read of the file.
	maxTokens = 1 << 20
)

// content is what is encrypted.
type content struct {
	Version int                        `json:"version"` // 1
	Tokens  map[model.ClusterID]string `json:"tokens"`
}

// inFile is one encrypted file, written whole each time.
type inFile struct {
	path      string
	kind      string
	recipient age.Recipient
	identity  age.Identity

	// mu is held over the whole of a read or a change: the file is small and
	// local, and two changes at once would lose one.
	mu sync.Mutex
}

// openFile opens the file vault in dir, making its key first if there is none. The
// key lies beside it: in the clear, or sealed by the passphrase if that is not
// empty. It reads the vault once, so that a wrong key shows at the start.
func openFile(dir string, passphrase model.Secret) (Vault, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the vault's folder: %w", err)
	}
	kind, name, seal := "file with key file", keyFile, plain
	if phrase := passphrase.Reveal(); phrase != "" {
		kind, name = "file with passphrase", sealedKeyFile
		var err error
		if seal, err = byPassphrase(phrase); err != nil {
			return nil, fmt.Errorf("use the passphrase: %w", err)
		}
	}
	identity, err := loadKey(filepath.Join(dir, name), seal)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, name+tokensSuffix)
	v := &inFile{path: path, kind: kind, recipient: identity.Recipient(), identity: identity}
	if _, err := v.read(); err != nil {
		return nil, err
	}
	return v, nil
}

// A sealer turns a key into what lies in its file, and back.
type sealer struct {
	seal, open func([]byte) ([]byte, error)
}

var plain = sealer{
	seal: func(b []byte) ([]byte, error) { return b, nil },
	open: func(b []byte) ([]byte, error) { return b, nil },
}

// byPassphrase seals by scrypt. It takes about a second each way, which is what
// makes guessing dear; so only the key is sealed like this, not each session.
func byPassphrase(phrase string) (sealer, error) {
	recipient, err := age.NewScryptRecipient(phrase)
	if err != nil {
		return sealer{}, err
	}
	identity, err := age.NewScryptIdentity(phrase)
	if err != nil {
		return sealer{}, err
	}
	return sealer{
		seal: func(b []byte) ([]byte, error) { return encrypt(b, recipient) },
		open: func(b []byte) ([]byte, error) { return decrypt(b, identity) },
	}, nil
}

func loadKey(path string, s sealer) (*age.X25519Identity, error) {
	sealed, err := os.ReadFile(path) //nolint:gosec // G304: a file of the app's own folder
	if errors.Is(err, fs.ErrNotExist) {
		return makeKey(path, s)
	}
	if err != nil {
		return nil, fmt.Errorf("read the vault's key: %w", err)
	}
	text, err := s.open(sealed)
	if err != nil {
		return nil, model.Errorf(model.Denied, "the vault's key %s does not open: %w", path, err)
	}
	identity, err := age.ParseX25519Identity(string(bytes.TrimSpace(text)))
	if err != nil {
		return nil, model.Errorf(model.Corrupt, "the vault's key %s is damaged: %w", path, err)
	}
	return identity, nil
}

func makeKey(path string, s sealer) (*age.X25519Identity, error) {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, fmt.Errorf("make the vault's key: %w", err)
	}
	sealed, err := s.seal([]byte(identity.String() + "\n"))
	if err != nil {
		return nil, fmt.Errorf("seal the vault's key: %w", err)
	}
	if err := replace(path, sealed); err != nil {
		return nil, fmt.Errorf("keep the vault's key: %w", err)
	}
	return identity, nil
}

func encrypt(text []byte, to age.Recipient) ([]byte, error) {
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, to)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return sealed.Bytes(), nil
}

func decrypt(sealed []byte, with age.Identity) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(sealed), with)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, maxTokens))
}

func (v *inFile) Kind() string { return v.kind }

func (v *inFile) Get(id model.ClusterID) (model.Secret, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	c, err := v.read()
	if err != nil {
		return model.Secret{}, err
	}
	token, ok := c.Tokens[id]
	if !ok {
		return model.Secret{}, notFound(id)
	}
	return model.NewSecret(token), nil
}

func (v *inFile) Set(id model.ClusterID, token model.Secret) error {
	return v.change(func(c *content) { c.Tokens[id] = token.Reveal() })
}

func (v *inFile) Delete(id model.ClusterID) error {
	return v.change(func(c *content) { delete(c.Tokens, id) })
}

func (v *inFile) change(f func(*content)) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	c, err := v.read()
	if err != nil {
		return err
	}
	f(&c)
	text, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode the vault: %w", err)
	}
	sealed, err := encrypt(text, v.recipient)
	if err != nil {
		return fmt.Errorf("encrypt the vault: %w", err)
	}
	if err := replace(v.path, sealed); err != nil {
		return fmt.Errorf("keep the vault: %w", err)
	}
	return nil
}

func (v *inFile) read() (content, error) {
	empty := content{Version: 1, Tokens: map[model.ClusterID]string{}}
	sealed, err := os.ReadFile(v.path)
	if errors.Is(err, fs.ErrNotExist) {
		return empty, nil
	}
	if err != nil {
		return empty, fmt.Errorf("read the vault: %w", err)
	}
	text, err := decrypt(sealed, v.identity)
	if err != nil {
		return empty, model.Errorf(model.Corrupt, "the vault %s does not open: %w", v.path, err)
	}
	var c content
	if err := json.Unmarshal(text, &c); err != nil {
		return empty, model.Errorf(model.Corrupt, "the vault %s is damaged: %w", v.path, err)
	}
	if c.Version != 1 {
		return empty, model.Errorf(model.Conflict, "the vault %s is of a newer app", v.path)
	}
	if c.Tokens == nil {
		c.Tokens = empty.Tokens
	}
	return c, nil
}

// replace puts a file in place of another one in one step, readable by the user
// alone.
func replace(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if _, err := f.Write(data); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Sync(); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
