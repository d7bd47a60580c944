// Package command defines everything that can be asked of the replicated record.
//
// A command is data. It carries its identifiers, drawn by the proposer, and its
// envelope carries the time, because applying it must have the same outcome on
// every node and on every replay. What a command does, and when it is refused,
// is in package state; what each returns is said here, at its type.
package command

import (
	"time"

	"drystone.example/drystone/backend/model"
)

// A Kind is the first byte of an encoded command. Values are appended, never
// reused and never renumbered: logs outlive the code that wrote them.
type Kind uint8

// The kinds, complete.
const (
	KindClusterCreate Kind = 1
	KindTokenCreate   Kind = 2
	KindTokenRedeem   Kind = 3
	KindTokenDelete   Kind = 4
	KindNodeUpdate    Kind = 5
	KindNodeVoter     Kind = 6
	KindNodeRemove    Kind = 7
	KindDiskAdd       Kind = 8
	KindDiskUpdate    Kind = 9
	KindVolumeCreate  Kind = 10
	KindVolumeResize  Kind = 11
	KindVolumeDelete  Kind = 12
	KindVolumeAcquire Kind = 13
	KindVolumeRelease Kind = 14
	KindVolumeMembers Kind = 15
	KindVMCreate      Kind = 16
	KindVMUpdate      Kind = 17
	KindVMPower       Kind = 18
	KindVMPlace       Kind = 19
	KindVMReport      Kind = 20
	KindVMDelete      Kind = 21
	KindUserCreate    Kind = 22
	KindUserPassword  Kind = 23
	KindUserDelete    Kind = 24
	KindSessionCreate Kind = 25
	KindSessionDelete Kind = 26
	KindSessionsPrune Kind = 27

	KindSnapshotCreate Kind = 28

	KindSnapshotDelete Kind = 31
	KindSnapshotRevert Kind = 32
	KindVolumeTended   Kind = 33
	KindVolumeClone    Kind = 34
	KindVolumeDetach   Kind = 35
	KindVolumeMove     Kind = 37
	KindDiskDrain      Kind = 38
	KindDiskRemove     Kind = 39
	KindClusterSet     Kind = 40
	KindVolumeScrubbed Kind = 42
	KindDiskFound      Kind = 43
	KindVMMigrate      Kind = 46
	KindVMMigrateEnd   Kind = 47
	KindKeyRotate      Kind = 48
	KindCARotate       Kind = 49
	KindTrustStep      Kind = 50
	KindNodeTrust      Kind = 51
	KindNodeDrain      Kind = 52
	KindNetworkCreate  Kind = 56
	KindNetworkUpdate  Kind = 57
	KindNetworkDelete  Kind = 58
	KindVMConsole      Kind = 63
)

// A Command is one change, applied by every node in the order of the log.
type Command interface {
	Kind() Kind
	// Object names what is changed, for the audit row: "volume 0123456789abc".
	Object() string
}

// An Envelope is a command on its way into the log.
type Envelope struct {
	// Request tells one request from another: an envelope applied twice, because
	// an answer was lost, takes effect once. At most MaxRequest bytes.
	Request string
	Actor   model.Actor
	At      time.Time // the leader's clock when it proposed; all a command knows of time
	Command Command
}

// MaxRequest is the most bytes a request's identifier has.
const MaxRequest = 64

// A Secret is a model.Secret that crosses the log: only the codec of this
// package writes its text, everything else prints [redacted].
type Secret struct{ model.Secret }

// Keep wraps a secret for a command.
func Keep(s model.Secret) Secret { return Secret{Secret: s} }

// String returns the kind's verb, as the audit log shows it.
func (k Kind) String() string {
	if f, ok := formats[k]; ok {
		return f.verb
	}
	return "unknown"
}
