package state

import (
	"bytes"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

// The fixture's objects. Nodes 1 to 3 have two disks each: node 1 has 11 and 12.
const (
	hashA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	hashB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	hashC = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"

	owner model.UserID = 1
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// A record is a store and the log that made it.
type record struct {
	t     *testing.T
	store *Store
	log   []Entry
	at    time.Time
	by    model.Actor
}

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "record.db"))
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func empty(t *testing.T) *record {
	t.Helper()
	return &record{t: t, store: open(t), at: noon, by: model.System}
}

// small is a record with a cluster of three nodes and six disks.
func small(t *testing.T) *record {
	t.Helper()
	r := empty(t)
	r.ok(clusterCreate())
	for i := model.NodeID(2); i <= 3; i++ {
		id := fmt.Sprintf("token%d", i)
		r.ok(command.TokenCreate{Token: token(id, 1)})
		r.ok(command.TokenRedeem{Token: id, SecretHash: hashA, KeyHash: keyHash(i), Node: node(i)})
	}
	for i := model.NodeID(1); i <= 3; i++ {
		for j := model.NodeID(1); j <= 2; j++ {
			r.ok(command.DiskAdd{Disk: model.Disk{ID: model.DiskID(10*i + j), Node: i, Path: "/disk", Size: 1 << 30}})
		}
	}
	return r
}

func clusterCreate() command.ClusterCreate {
	return command.ClusterCreate{
		ID: 7, Name: "wall", CA: "pem", CAKey: secret("sealed"), GossipKey: secret("gossip"), Node: node(1),
		Owner: command.UserCreate{ID: owner, Name: "kim", Role: model.Owner, PasswordHash: secret("phc")},
	}
}

func secret(s string) command.Secret { return command.Keep(model.NewSecret(s)) }

func node(id model.NodeID) model.Node {
	return model.Node{ID: id, Name: fmt.Sprintf("n%d", id), Address: fmt.Sprintf("10.0.0.%d", id)}
}

func keyHash(id model.NodeID) string { return fmt.Sprintf("%064d", id) }

func token(id string, uses int) model.JoinToken {
	return model.JoinToken{ID: id, SecretHash: hashA, Uses: uses, Expires: noon.Add(time.Hour)}
}

// volume is a volume of two columns with two copies, on nodes 1 and 2.
func volume(id model.VolumeID, name string) command.VolumeCreate {
	return command.VolumeCreate{ID: id, Name: name, Use: model.VolumeDisk, Size: 1 << 30, Copies: 2, Columns: []model.Column{
		{Members: []model.Member{{Disk: 11, State: model.Active}, {Disk: 21, State: model.Active}}},
		{Members: []model.Member{{Disk: 22, State: model.Active}, {Disk: 12, State: model.Active}}},
	}}
}

func machine(id model.VMID, name string, volumes ...model.VolumeID) command.VMCreate {
	c := command.VMCreate{ID: id, Name: name, CPUs: 1, Memory: 256 << 20}
	for _, v := range volumes {
		c.Disks = append(c.Disks, model.VMDisk{Volume: v})
	}
	return c
}

// do applies one command as the next entry of the log.
func (r *record) do(cmd command.Command) Outcome {
	r.t.Helper()
	return r.again(fmt.Sprintf("request%d", len(r.log)+1), cmd)
}

// again applies a command as a request that may have been made before.
func (r *record) again(request string, cmd command.Command) Outcome {
	r.t.Helper()
	data, err := command.Encode(command.Envelope{Request: request, Actor: r.by, At: r.at, Command: cmd})
	if err != nil {
		r.t.Fatalf("Encode(%s): %v", cmd.Kind(), err)
	}
	e := Entry{Index: uint64(len(r.log) + 1), Data: data}
	r.log = append(r.log, e)
	out, err := r.store.ApplyBatch([]Entry{e})
	if err != nil {
		r.t.Fatalf("ApplyBatch(%s): %v", cmd.Kind(), err)
	}
	return out[0]
}

// ok applies a command that must succeed.
func (r *record) ok(cmd command.Command) any {
	r.t.Helper()
	out := r.do(cmd)
	if out.Err != nil {
		r.t.Fatalf("%s: %v", cmd.Kind(), out.Err)
	}
	return out.Result
}

// refused applies a command that must be refused and change nothing.
func (r *record) refused(want model.Code, cmd command.Command) Outcome {
	r.t.Helper()
	before := rows(r.store.View())
	out := r.do(cmd)
	if got := model.CodeOf(out.Err); got != want {
		r.t.Errorf("%s: got code %q (%v), want %q", cmd.Kind(), got, out.Err, want)
	}
	if diff := cmp.Diff(before, rows(r.store.View())); diff != "" {
		r.t.Errorf("%s was refused and changed something:\n%s", cmd.Kind(), diff)
	}
	return out
}

// rows is everything in a view but the memory of requests.
func rows(v *View) map[string]any {
	return map[string]any{
		"cluster": jsonOf(v.cluster.rows), "nodes": jsonOf(v.nodes.rows), "removed": jsonOf(v.removed.rows),
		"disks": jsonOf(v.disks.rows), "volumes": jsonOf(v.volumes.rows), "deleted": jsonOf(v.deleted.rows),
		"vms": jsonOf(v.vms.rows), "users": jsonOf(v.users.rows), "sessions": jsonOf(v.sessions.rows),
		"tokens": jsonOf(v.tokens.rows), "seeds": jsonOf(v.seeds.rows), "snapshots": jsonOf(v.snapshots.rows),
	}
}

func (r *record) volume(id model.VolumeID) model.Volume {
	r.t.Helper()
	v, err := r.store.View().Volume(id)
	if err != nil {
		r.t.Fatalf("Volume(%s): %v", id, err)
	}
	return v
}

func (r *record) vm(id model.VMID) model.VM {
	r.t.Helper()
	v, err := r.store.View().VM(id)
	if err != nil {
		r.t.Fatalf("VM(%s): %v", id, err)
	}
	return v
}

// acquire makes a node the holder for maintenance.
func (r *record) acquire(id model.VolumeID, by model.NodeID) model.Volume {
	r.t.Helper()
	v := r.volume(id)
	r.ok(command.VolumeAcquire{
		Volume: id, Node: by, Purpose: model.ForMaintenance,
		Generation: v.Generation, Revision: v.Revision,
	})
	return r.volume(id)
}

// A request that comes twice takes effect once, and has the same outcome: the
// result and the refusal of the first time.
func TestRequestTwice(t *testing.T) {
	r := small(t)
	r.ok(volume(1, "data"))
	acquire := command.VolumeAcquire{Volume: 1, Node: 1, Purpose: model.ForMaintenance, Revision: 1}
	first := r.again("once", acquire)
	second := r.again("once", acquire)
	if first.Err != nil || second.Err != nil {
		t.Fatalf("acquire: %v, again: %v", first.Err, second.Err)
	}
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("the second outcome differs:\n%s", diff)
	}
	if g := r.volume(1).Generation; g != 1 {
		t.Errorf("the generation is %d after one request made twice, want 1", g)
	}
	bad := r.again("refused", acquire)
	r.ok(command.VolumeRelease{Volume: 1, Node: 1, Generation: 1})
	if again := r.again("refused", acquire); model.CodeOf(again.Err) != model.CodeOf(bad.Err) ||
		again.Err.Error() != bad.Err.Error() {
		t.Errorf("the refusal came as %v, then as %v", bad.Err, again.Err)
	}
}

// Requests are remembered in bounded number, the oldest forgotten first.
func TestRequestsBounded(t *testing.T) {
	r := small(t)
	first := r.log[0]
	var batch []Entry
	for i := range MaxRequests {
		data, err := command.Encode(command.Envelope{Request: fmt.Sprint("r", i), At: noon, Command: command.SessionsPrune{}})
		if err != nil {
			t.Fatal(err)
		}
		batch = append(batch, Entry{Index: uint64(len(r.log) + 1 + i), Data: data})
	}
	if _, err := r.store.ApplyBatch(batch); err != nil {
		t.Fatal(err)
	}
	v := r.store.View()
	if n := len(v.requests.rows); n != MaxRequests {
		t.Errorf("%d requests are remembered, want %d", n, MaxRequests)
	}
	if _, known := v.Outcome("request1"); known {
		t.Errorf("the request of entry %d is remembered after %d later ones", first.Index, MaxRequests)
	}
	if _, known := v.Outcome("r0"); !known {
		t.Error("the oldest of the latest requests is forgotten")
	}
}

// A command this daemon does not know stops the record for good, with a reason,
// and what came before it stays readable.
func TestUnknownCommandStops(t *testing.T) {
	r := small(t)
	before := r.store.View()
	for _, data := range [][]byte{{250, 1, '{', '}'}, {1, 2, '{', '}'}, {1, 1, '{', '"', 'x', '"', ':', '1', '}'}, {}} {
		if _, err := r.store.ApplyBatch([]Entry{{Index: before.Index() + 1, Data: data}}); err == nil {
			t.Fatalf("ApplyBatch(%q) succeeded", data)
		}
	}
	data, err := command.Encode(command.Envelope{Request: "later", At: noon, Command: command.SessionsPrune{}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.store.ApplyBatch([]Entry{{Index: before.Index() + 2, Data: data}}); err == nil {
		t.Error("an entry was applied after one was skipped")
	}
	if r.store.View() != before {
		t.Error("the view moved on")
	}
	if _, err := r.store.Snapshot(t.Context()); err == nil {
		t.Error("a record that stopped gave a snapshot")
	}
}

// A view stays as it was, says what changed by noun, and tells of the next one.
func TestViewsDoNotChange(t *testing.T) {
	r := small(t)
	old := r.store.View()
	before := rows(old)
	select {
	case <-old.Next():
		t.Fatal("there is a next view already")
	default:
	}
	r.ok(volume(1, "data"))
	now := r.store.View()
	select {
	case <-old.Next():
	default:
		t.Error("the old view does not know of the new one")
	}
	if diff := cmp.Diff(before, rows(old)); diff != "" {
		t.Errorf("the old view changed:\n%s", diff)
	}
	for _, n := range AllNouns() {
		if got, want := now.Changed(n) > old.Changed(n), n == Volumes; got != want {
			t.Errorf("%s changed: got %t, want %t", n, got, want)
		}
	}
	// What a view hands out of one volume is the caller's own.
	v := r.volume(1)
	v.Columns[0].Members[0].State = model.Stale
	if got := r.volume(1).Columns[0].Members[0].State; got != model.Active {
		t.Errorf("changing what Volume returned changed the record: the member is %s", got)
	}
}

// The actor is looked at once more when the command is applied.
func TestActorIsCheckedAgain(t *testing.T) {
	r := small(t)
	r.ok(command.UserCreate{ID: 2, Name: "lee", Role: model.Operator, PasswordHash: secret("x")})
	tests := []struct {
		name string
		by   model.Actor
		want model.Code
	}{
		{"has the role", model.Actor{User: "kim", UserID: 1, Role: model.Owner}, ""},
		{"has less", model.Actor{User: "lee", UserID: 2, Role: model.Admin}, model.Denied},
		{"is gone", model.Actor{User: "max", UserID: 3, Role: model.Viewer}, model.Unknown},
		{"is the cluster", model.System, ""},
	}
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r.t, r.by = t, test.by
			out := r.do(command.TokenCreate{Token: token(fmt.Sprint("by", i), 1)})
			if got := model.CodeOf(out.Err); got != test.want {
				t.Errorf("got %q (%v), want %q", got, out.Err, test.want)
			}
		})
	}
}

// Applying one by one, in one batch, or from a snapshot in the middle makes the
// same record, bit by bit.
func TestBatchesAndSnapshotsAgree(t *testing.T) {
	r := small(t)
	r.by = model.Actor{User: "kim", UserID: owner, Role: model.Owner}
	r.ok(volume(1, "data"))
	r.ok(volume(2, "more"))
	r.ok(machine(1, "web", 1))
	r.do(volume(3, "data")) // refused, and remembered
	r.acquire(2, 3)
	r.ok(command.SessionCreate{TokenHash: hashA, User: owner, Expires: noon.Add(time.Hour)})
	r.ok(command.VMDelete{VM: 1, Disks: true})
	want := digest(t, r.store)

	whole := open(t)
	if _, err := whole.ApplyBatch(r.log); err != nil {
		t.Fatal(err)
	}
	if got := digest(t, whole); got != want {
		t.Error("one batch made another record than one by one")
	}
	for cut := range len(r.log) + 1 {
		half, rest := open(t), open(t)
		if _, err := half.ApplyBatch(r.log[:cut]); err != nil {
			t.Fatal(err)
		}
		if err := rest.Restore(t.Context(), bytes.NewReader(encode(t, half))); err != nil {
			t.Fatalf("Restore at %d: %v", cut, err)
		}
		if diff := cmp.Diff(rows(half.View()), rows(rest.View())); diff != "" {
			t.Fatalf("restored at %d:\n%s", cut, diff)
		}
		if _, err := rest.ApplyBatch(r.log[cut:]); err != nil {
			t.Fatal(err)
		}
		if got := digest(t, rest); got != want {
			t.Errorf("a snapshot at %d and the entries after it made another record", cut)
		}
	}
}
