package state

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

// MaxRequests is how many of the latest requests are remembered, so that one
// that comes again takes effect once.
const MaxRequests = 2048

// An Entry is one entry of the log. One without Data is raft's own and only
// moves the index.
type Entry struct {
	Index uint64
	Data  []byte
}

// An Outcome is what a request came to: a result, a refusal, or for a lost
// compare-and-swap both, where the result is the object as it is.
type Outcome struct {
	Request string
	Index   uint64
	Result  any // the type is said at the command
	Err     error
}

// A write is one row to be written to, or with no body deleted from, SQLite.
type write struct {
	table string
	key   string
	name  any // nil: the row has no name
	body  []byte

	oldest int // not zero: delete that many rows with the least keys instead
}

// A tx applies commands to tables that no View has yet. Rows go through put and
// drop, which can be taken back, so that a refused command leaves nothing behind.
type tx struct {
	tables
	owned map[string]bool // tables that are this tx's own copies

	// of the command being applied:
	index  uint64
	at     time.Time
	actor  model.Actor
	object string
	writes []write
	undo   []func()
	nouns  []Noun
	fact   bool // it is for the audit log, though it changes nothing
}

func newTx(t tables) *tx { return &tx{tables: t, owned: map[string]bool{}} }

// put writes a row into a table, which is the field of x.tables it is in.
func put[K cmp.Ordered, V any](x *tx, t **table[K, V], row V) error {
	own(x, t)
	kind := (*t).kind
	body, err := json.Marshal(row)
	if err != nil {
		return fmt.Errorf("encode a row of %s: %w", kind.name, err)
	}
	key := kind.key(row)
	old, had := (*t).get(key)
	tab := *t
	x.undo = append(x.undo, func() {
		tab.drop(key)
		if had {
			tab.put(old)
		}
	})
	tab.put(row)
	x.writes = append(x.writes, write{table: kind.name, key: kind.text(key), name: tab.nameOf(row), body: body})
	x.touch(kind.watch)
	return nil
}

// drop removes a row, if it is there.
func drop[K cmp.Ordered, V any](x *tx, t **table[K, V], key K) {
	old, had := (*t).get(key)
	if !had {
		return
	}
	own(x, t)
	tab := *t
	x.undo = append(x.undo, func() { tab.put(old) })
	tab.drop(key)
	x.writes = append(x.writes, write{table: tab.kind.name, key: tab.kind.text(key)})
	x.touch(tab.kind.watch)
}

func own[K cmp.Ordered, V any](x *tx, t **table[K, V]) {
	if name := (*t).kind.name; !x.owned[name] {
		*t, x.owned[name] = (*t).clone(), true
	}
}

func (x *tx) touch(n Noun) {
	if n != "" {
		x.nouns = append(x.nouns, n)
	}
}

// run applies one command. The error is not nil only where this node cannot go
// on; a refusal is in the outcome, and has changed nothing.
func (x *tx) run(index uint64, e command.Envelope) (Outcome, error) {
	if r, again := x.requests.get(e.Request); again {
		return r.outcome(), nil
	}
	x.index, x.at, x.actor, x.object = index, e.At, e.Actor, e.Command.Object()
	x.writes, x.undo, x.nouns, x.fact = nil, nil, nil, false
	out := Outcome{Request: e.Request, Index: index}
	err := x.allowed()
	if err == nil {
		out.Result, err = x.apply(e.Command)
	}
	if err != nil {
		x.rollback()
		if _, refused := errors.AsType[*model.Error](err); !refused || model.CodeOf(err) == model.Internal {
			return Outcome{}, fmt.Errorf("apply %s at %d: %w", e.Command.Kind(), index, err)
		}
		out.Err = err
	}
	return out, nil
}

func (x *tx) rollback() {
	for i := len(x.undo) - 1; i >= 0; i-- {
		x.undo[i]()
	}
	x.writes, x.undo, x.nouns = nil, nil, nil
}

// allowed looks once more at who asks: a user who was deleted or lost a role
// after asking is refused.
func (x *tx) allowed() error {
	if x.actor.UserID == 0 {
		return nil
	}
	u, ok := x.users.get(x.actor.UserID)
	if !ok {
		return model.Errorf(model.Unknown, "the user %q is not there any more", x.actor.User)
	}
	if x.actor.Role != "" && !u.Role.Includes(x.actor.Role) {
		return model.Errorf(model.Denied, "the user %q is not %s any more", x.actor.User, x.actor.Role)
	}
	return nil
}

// remember keeps what a request came to, and forgets the oldest.
func (x *tx) remember(kind command.Kind, out Outcome, recent []string) ([]string, error) {
	row := requestRow{Request: out.Request, Index: out.Index, Kind: kind}
	if out.Err != nil {
		row.Code, row.Text = model.CodeOf(out.Err), out.Err.Error()
	}
	if out.Result != nil {
		result, err := json.Marshal(out.Result)
		if err != nil {
			return nil, fmt.Errorf("encode the result of %s: %w", kind, err)
		}
		row.Result = result
	}
	if err := put(x, &x.requests, row); err != nil {
		return nil, err
	}
	recent = append(recent, out.Request)
	for len(recent) > MaxRequests {
		drop(x, &x.requests, recent[0])
		recent = recent[1:]
	}
	return recent, nil
}

func (t *table[K, V]) nameOf(row V) any {
	if t.kind.title == nil {
		return nil
	}
	return lower(t.kind.title(row))
}

// apply does what a command says. A new kind gets a line here, a test in its
// file's test, and a format in package command.
func (x *tx) apply(cmd command.Command) (any, error) {
	switch c := cmd.(type) {
	case command.ClusterCreate:
		return x.clusterCreate(c)
	case command.TokenCreate:
		return x.tokenCreate(c)
	case command.TokenRedeem:
		return x.tokenRedeem(c)
	case command.TokenDelete:
		return x.tokenDelete(c)
	case command.NodeUpdate:
		return x.nodeUpdate(c)
	case command.NodeVoter:
		return x.nodeVoter(c)
	case command.NodeRemove:
		return x.nodeRemove(c)
	case command.DiskAdd:
		return x.diskAdd(c)
	case command.DiskUpdate:
		return x.diskUpdate(c)
	case command.VolumeCreate:
		return x.volumeCreate(c)
	case command.VolumeResize:
		return x.volumeResize(c)
	case command.VolumeDelete:
		return x.volumeDelete(c)
	case command.VolumeAcquire:
		return x.volumeAcquire(c)
	case command.VolumeRelease:
		return x.volumeRelease(c)
	case command.VolumeScrubbed:
		return x.volumeScrubbed(c)
	case command.VolumeMembers:
		return x.volumeMembers(c)
	case command.VMCreate:
		return x.vmCreate(c)
	case command.VMUpdate:
		return x.vmUpdate(c)
	case command.VMPower:
		return x.vmPower(c)
	case command.VMPlace:
		return x.vmPlace(c)
	case command.VMReport:
		return x.vmReport(c)
	case command.VMDelete:
		return x.vmDelete(c)
	case command.UserCreate:
		return x.userCreate(c)
	case command.UserPassword:
		return x.userPassword(c)
	case command.UserDelete:
		return x.userDelete(c)
	case command.SessionCreate:
		return x.sessionCreate(c)
	case command.SessionDelete:
		return x.sessionDelete(c)
	case command.SessionsPrune:
		return x.sessionsPrune()
	case command.SnapshotCreate, command.SnapshotDelete, command.SnapshotRevert, command.VolumeTended,
		command.VolumeClone, command.VolumeDetach:
		return x.applySnapshot(cmd)
	case command.VMMigrate:
		return x.vmMigrate(c)
	case command.VMMigrateEnd:
		return x.vmMigrateEnd(c)
	case command.VMConsole:
		return nil, x.vmConsole(c)
	}
	return x.applyPool(cmd)
}

// applyPool is apply for what concerns the pool or the cluster as a whole.
func (x *tx) applyPool(cmd command.Command) (any, error) {
	switch c := cmd.(type) {
	case command.VolumeMove:
		return x.volumeMove(c)
	case command.DiskDrain:
		return x.diskDrain(c)
	case command.DiskRemove:
		return x.diskRemove(c)
	case command.DiskFound:
		return x.diskFound(c)
	case command.ClusterSet:
		return x.clusterSet(c)
	case command.KeyRotate:
		return x.keyRotate(c)
	case command.CARotate:
		return x.caRotate(c)
	case command.TrustStep:
		return x.trustStep(c)
	case command.NodeTrust:
		return x.nodeTrust(c)
	case command.NodeDrain:
		return x.nodeDrain(c)
	case command.NetworkCreate:
		return x.networkCreate(c)
	case command.NetworkUpdate:
		return x.networkUpdate(c)
	case command.NetworkDelete:
		return x.networkDelete(c)
	}
	return nil, unknown(cmd)
}

// applySnapshot is apply for what is about the snapshots of volumes.
func (x *tx) applySnapshot(cmd command.Command) (any, error) {
	switch c := cmd.(type) {
	case command.SnapshotCreate:
		return x.snapshotCreate(c)
	case command.SnapshotDelete:
		return x.snapshotDelete(c)
	case command.SnapshotRevert:
		return x.snapshotRevert(c)
	case command.VolumeTended:
		return x.volumeTended(c)
	case command.VolumeClone:
		return x.volumeClone(c)
	case command.VolumeDetach:
		return x.volumeDetach(c)
	}
	return nil, unknown(cmd)
}

func unknown(cmd command.Command) error {
	return fmt.Errorf("command %d is not known to this daemon", uint8(cmd.Kind()))
}
