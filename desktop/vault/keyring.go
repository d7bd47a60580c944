package vault

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/zalando/go-keyring"

	"drystone.example/drystone/backend/model"
)

// service is the name that the system's own keyring tool shows.
const service = "Drystone"

// inKeyring is the system's keyring: the Secret Service, the macOS Keychain or
// the Windows Credential Manager.
type inKeyring struct{}

// openKeyring finds out by trying whether the keyring keeps anything: without a
// daemon, or with a locked one that nobody can unlock, it does not.
func openKeyring() (Vault, error) {
	if !hasSessionBus() {
		return nil, errors.New("there is no session bus")
	}
	const probe = "probe"
	if err := keyring.Set(service, probe, probe); err != nil {
		return nil, fmt.Errorf("try the keyring: %w", err)
	}
	if got, err := keyring.Get(service, probe); err != nil || got != probe {
		return nil, fmt.Errorf("try the keyring: %w", errors.Join(err, errors.New("not kept")))
	}
	if err := keyring.Delete(service, probe); err != nil {
		return nil, fmt.Errorf("try the keyring: %w", err)
	}
	return inKeyring{}, nil
}

// hasSessionBus keeps the D-Bus library from starting a bus of its own, which
// would be left running.
func hasSessionBus() bool {
	if runtime.GOOS == "windows" || runtime.GOOS == "darwin" {
		return true
	}
	if os.Getenv("DBUS_SESSION_BUS_ADDRESS") != "" {
		return true
	}
	_, err := os.Stat(filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "bus")) //nolint:gosec // the user's own environment
	return os.Getenv("XDG_RUNTIME_DIR") != "" && err == nil
}

func (inKeyring) Kind() string { return "keyring" }

func (inKeyring) Get(id model.ClusterID) (model.Secret, error) {
	text, err := keyring.Get(service, id.String())
	if errors.Is(err, keyring.ErrNotFound) {
		return model.Secret{}, notFound(id)
	}
	if err != nil {
		return model.Secret{}, fmt.Errorf("read the session with %s from the keyring: %w", id, err)
	}
	return model.NewSecret(text), nil
}

func (inKeyring) Set(id model.ClusterID, token model.Secret) error {
	if err := keyring.Set(service, id.String(), token.Reveal()); err != nil {
		return fmt.Errorf("keep the session with %s in the keyring: %w", id, err)
	}
	return nil
}

func (inKeyring) Delete(id model.ClusterID) error {
	err := keyring.Delete(service, id.String())
	if err != nil && !errors.Is(err, keyring.ErrNotFound) {
		return fmt.Errorf("delete the session with %s from the keyring: %w", id, err)
	}
	return nil
}
