// Package vault keeps the desktop app's session tokens, one per cluster: in the
// system's keyring where there is one, else in a file encrypted by age. It never
// keeps passwords.
//
// The file's key lies in a file of its own beside it, readable by the user alone.
// With a passphrase it is sealed by that. Without, it keeps tokens out of whatever
// copies or indexes the one file, but not from somebody who can read the user's
// folder. Sessions expire and can be revoked in
// the cluster, which is why this is bearable on a machine without a keyring.
package vault

import (
	"drystone.example/drystone/backend/model"
)

// A Vault keeps one token per cluster. Its methods may be called by many
// goroutines; they may wait for a person who unlocks the keyring.
type Vault interface {
	// Get returns a cluster's token; a model.NotFound error if there is none.
	Get(model.ClusterID) (model.Secret, error)
	// Set keeps a token in place of the one before.
	Set(model.ClusterID, model.Secret) error
	// Delete forgets a token; one that is not there is no error.
	Delete(model.ClusterID) error
	// Kind says where tokens are kept, for the log and for people.
	Kind() string
}

// Open returns the system's keyring if it works here, else the file vault in dir.
// With a passphrase it is the file in any case.
func Open(dir string, passphrase model.Secret) (Vault, error) {
	if passphrase.Reveal() != "" {
		return openFile(dir, passphrase)
	}
	if k, err := openKeyring(); err == nil {
		return k, nil
	}
	return openFile(dir, model.Secret{})
}

func notFound(id model.ClusterID) error {
	return model.Errorf(model.NotFound, "there is no session with cluster %s", id)
}
