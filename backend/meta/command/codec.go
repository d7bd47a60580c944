package command

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"drystone.example/drystone/backend/model"
)

// MaxSize is the most bytes an encoded command has.
const MaxSize = 1 << 20

// Version is the version of every body written today. A body of a later version,
// or with a field this code does not know, is an error: a node that guessed what
// it means would no longer have the record the others have.
const Version = 1

// A format says how one kind is read and what the audit log calls it.
type format struct {
	verb   string
	decode func(body []byte) (Command, error)
}

// formats lists every kind there ever was.
var formats = map[Kind]format{
	KindClusterCreate: {"cluster.create", read[ClusterCreate]},
	KindTokenCreate:   {"token.create", read[TokenCreate]},
	KindTokenRedeem:   {"token.redeem", read[TokenRedeem]},
	KindTokenDelete:   {"token.delete", read[TokenDelete]},
	KindNodeUpdate:    {"node.update", read[NodeUpdate]},
	KindNodeVoter:     {"node.voter", read[NodeVoter]},
	KindNodeRemove:    {"node.remove", read[NodeRemove]},
	KindDiskAdd:       {"disk.add", read[DiskAdd]},
	KindDiskUpdate:    {"disk.update", read[DiskUpdate]},
	KindVolumeCreate:  {"volume.create", read[VolumeCreate]},
	KindVolumeResize:  {"volume.resize", read[VolumeResize]},
	KindVolumeDelete:  {"volume.delete", read[VolumeDelete]},
	KindVolumeAcquire: {"volume.acquire", read[VolumeAcquire]},
	KindVolumeRelease: {"volume.release", read[VolumeRelease]},
	KindVolumeMembers: {"volume.members", read[VolumeMembers]},
	KindVMCreate:      {"vm.create", read[VMCreate]},
	KindVMUpdate:      {"vm.update", read[VMUpdate]},
	KindVMPower:       {"vm.power", read[VMPower]},
	KindVMPlace:       {"vm.place", read[VMPlace]},
	KindVMReport:      {"vm.report", read[VMReport]},
	KindVMDelete:      {"vm.delete", read[VMDelete]},
	KindUserCreate:    {"user.create", read[UserCreate]},
	KindUserPassword:  {"user.password", read[UserPassword]},
	KindUserDelete:    {"user.delete", read[UserDelete]},
	KindSessionCreate: {"session.create", read[SessionCreate]},
	KindSessionDelete: {"session.delete", read[SessionDelete]},
	KindSessionsPrune: {"session.prune", read[SessionsPrune]},

	KindSnapshotCreate: {"snapshot.create", read[SnapshotCreate]},

	KindSnapshotDelete: {"snapshot.delete", read[SnapshotDelete]},
	KindSnapshotRevert: {"snapshot.revert", read[SnapshotRevert]},
	KindVolumeTended:   {"volume.tended", read[VolumeTended]},
	KindVolumeClone:    {"volume.clone", read[VolumeClone]},
	KindVolumeDetach:   {"volume.detach", read[VolumeDetach]},
	KindVolumeMove:     {"volume.move", read[VolumeMove]},
	KindDiskDrain:      {"disk.drain", read[DiskDrain]},
	KindDiskRemove:     {"disk.remove", read[DiskRemove]},
	KindClusterSet:     {"cluster.set", read[ClusterSet]},
	KindVolumeScrubbed: {"volume.scrubbed", read[VolumeScrubbed]},
	KindDiskFound:      {"disk.found", read[DiskFound]},
	KindVMMigrate:      {"vm.migrate", read[VMMigrate]},
	KindVMMigrateEnd:   {"vm.migrate_end", read[VMMigrateEnd]},
	KindKeyRotate:      {"key.rotate", read[KeyRotate]},
	KindCARotate:       {"ca.rotate", read[CARotate]},
	KindTrustStep:      {"trust.step", read[TrustStep]},
	KindNodeTrust:      {"node.trust", read[NodeTrust]},
	KindNodeDrain:      {"node.drain", read[NodeDrain]},
	KindNetworkCreate:  {"network.create", read[NetworkCreate]},
	KindNetworkUpdate:  {"network.update", read[NetworkUpdate]},
	KindNetworkDelete:  {"network.delete", read[NetworkDelete]},
	KindVMConsole:      {"vm.console", read[VMConsole]},
}

// wire is what follows the kind and the version.
type wire struct {
	Request string          `json:"request"`
	Actor   model.Actor     `json:"actor"`
	At      time.Time       `json:"at"`
	Body    json.RawMessage `json:"body"`
}

// Encode writes an envelope: a byte of kind, a byte of version, JSON.
func Encode(e Envelope) ([]byte, error) {
	if e.Command == nil {
		return nil, model.Errorf(model.Invalid, "an envelope without a command")
	}
	kind := e.Command.Kind()
	if len(e.Request) == 0 || len(e.Request) > MaxRequest {
		return nil, model.Errorf(model.Invalid, "a request identifier has 1 to %d bytes, not %d",
			MaxRequest, len(e.Request))
	}
	body, err := json.Marshal(e.Command)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", kind, err)
	}
	text, err := json.Marshal(wire{Request: e.Request, Actor: e.Actor, At: e.At.UTC(), Body: body})
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", kind, err)
	}
	if len(text)+2 > MaxSize {
		return nil, model.Errorf(model.Invalid, "a %s of %d bytes is too large; the most is %d",
			kind, len(text), MaxSize)
	}
	return append([]byte{byte(kind), Version}, text...), nil
}

// Decode reads what Encode wrote. An error means that this code does not know
// the command, or that the log is damaged; neither may be passed over.
func Decode(p []byte) (Envelope, error) {
	if len(p) < 2 {
		return Envelope{}, fmt.Errorf("a command of %d bytes", len(p))
	}
	if p[1] != Version {
		return Envelope{}, fmt.Errorf("version %d of command %d is newer than this daemon", p[1], p[0])
	}
	var w wire
	if err := strict(p[2:], &w); err != nil {
		return Envelope{}, fmt.Errorf("decode command %d: %w", p[0], err)
	}
	cmd, err := DecodeBody(Kind(p[0]), w.Body)
	if err != nil {
		return Envelope{}, err
	}
	return Envelope{Request: w.Request, Actor: w.Actor, At: w.At, Command: cmd}, nil
}

// DecodeBody reads a command alone, as json.Marshal writes it.
func DecodeBody(kind Kind, body []byte) (Command, error) {
	f, known := formats[kind]
	if !known {
		return nil, fmt.Errorf("command %d is not known to this daemon", uint8(kind))
	}
	cmd, err := f.decode(body)
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", f.verb, err)
	}
	return cmd, nil
}

func read[C Command](body []byte) (Command, error) {
	var c C
	if err := strict(body, &c); err != nil {
		return nil, err
	}
	return c, nil
}

func strict(p []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(p))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("read json: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("bytes after the json at %d", d.InputOffset())
	}
	return nil
}

// MarshalJSON writes the text: this is the one place where it leaves.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.Reveal()) }

// UnmarshalJSON reads what MarshalJSON wrote.
func (s *Secret) UnmarshalJSON(p []byte) error {
	var text string
	if err := json.Unmarshal(p, &text); err != nil {
		return fmt.Errorf("read a secret: %w", err)
	}
	s.Secret = model.NewSecret(text)
	return nil
}
