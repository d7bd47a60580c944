package state

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

// A refusal is a command that must be refused with a code, and change nothing.
type refusal struct {
	name string
	cmd  command.Command
	want model.Code
}

func refuse(t *testing.T, r *record, tests []refusal) {
	t.Helper()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r.t = t
			r.refused(test.want, test.cmd)
		})
	}
	r.t = t
}

func TestClusterCreate(t *testing.T) {
	r := empty(t)
	bad := func(change func(*command.ClusterCreate)) command.ClusterCreate {
		c := clusterCreate()
		change(&c)
		return c
	}
	refuse(t, r, []refusal{
		{"no name", bad(func(c *command.ClusterCreate) { c.Name = "" }), model.Invalid},
		{"no certificate", bad(func(c *command.ClusterCreate) { c.CA = "" }), model.Invalid},
		{"no key", bad(func(c *command.ClusterCreate) { c.CAKey = secret("") }), model.Invalid},
		{"no node", bad(func(c *command.ClusterCreate) { c.Node = model.Node{} }), model.Invalid},
		{"owner is a viewer", bad(func(c *command.ClusterCreate) { c.Owner.Role = model.Viewer }), model.Invalid},
		{"owner has no password", bad(func(c *command.ClusterCreate) { c.Owner.PasswordHash = secret("") }), model.Invalid},
	})
	r.ok(clusterCreate())
	v := r.store.View()
	c, ok := v.Cluster()
	if !ok || c.Name != "wall" || c.CAKey.Reveal() != "sealed" || c.GossipKeys[0].Reveal() != "gossip" || !c.Created.Equal(noon) {
		t.Errorf("the cluster is %+v", c)
	}
	if n, err := v.FindNode("N1"); err != nil || !n.Voter || !n.Joined.Equal(noon) {
		t.Errorf("the first node is %+v, %v", n, err)
	}
	if u, err := v.FindUser("kim"); err != nil || u.PasswordHash.Reveal() != "phc" {
		t.Errorf("the owner is %+v, %v", u, err)
	}
	refuse(t, r, []refusal{{"a second time", clusterCreate(), model.Conflict}})
}

func TestTokens(t *testing.T) {
	r := small(t)
	r.ok(command.TokenCreate{Token: token("two", 2)})
	r.ok(command.TokenCreate{Token: token("one", 1)})
	refuse(t, r, []refusal{
		{"same identifier", command.TokenCreate{Token: token("two", 1)}, model.Conflict},
		{"no uses", command.TokenCreate{Token: token("x", 0)}, model.Invalid},
		{"too many uses", command.TokenCreate{Token: token("x", 1001)}, model.Invalid},
		{"no digest", command.TokenCreate{Token: model.JoinToken{ID: "x", Uses: 1, Expires: noon.Add(1)}}, model.Invalid},
		{"run out", command.TokenCreate{Token: model.JoinToken{ID: "x", SecretHash: hashA, Uses: 1, Expires: noon}}, model.Invalid},
		{"unknown token", redeem("nope", 4), model.Unknown},
		{"wrong secret", command.TokenRedeem{Token: "one", SecretHash: hashB, KeyHash: keyHash(4), Node: node(4)}, model.Unknown},
		{"no key", command.TokenRedeem{Token: "one", SecretHash: hashA, Node: node(4)}, model.Invalid},
		{"name taken", func() command.TokenRedeem { c := redeem("one", 4); c.Node.Name = "N1"; return c }(), model.Conflict},
		{"identifier taken", func() command.TokenRedeem { c := redeem("one", 4); c.Node.ID = 1; return c }(), model.Conflict},
		{"no address", func() command.TokenRedeem { c := redeem("one", 4); c.Node.Address = ""; return c }(), model.Invalid},
	})
	made, ok := r.ok(redeem("one", 4)).(model.Node)
	if !ok || made.ID != 4 || made.Voter {
		t.Errorf("redeeming returned %+v", made)
	}
	// The answer was lost: the same key comes again, proposing another node.
	again := redeem("one", 5)
	again.KeyHash = keyHash(4)
	if got := r.ok(again); got != made {
		t.Errorf("redeeming again returned %+v, want %+v", got, made)
	}
	refuse(t, r, []refusal{{"used", redeem("one", 6), model.Denied}})
	r.at = noon.Add(time.Hour)
	refuse(t, r, []refusal{{"run out meanwhile", redeem("two", 6), model.Denied}})
	if n := len(r.store.View().Tokens()); n != 4 {
		t.Fatalf("there are %d tokens, want 4", n)
	}
	if got := r.ok(command.SessionsPrune{}); got != 4 {
		t.Errorf("SessionsPrune removed %v, want the 4 tokens", got)
	}
	r.at = noon
	r.ok(command.TokenCreate{Token: token("back", 1)})
	r.ok(command.TokenDelete{ID: "back"})
	r.ok(command.TokenDelete{ID: "back"})
	refuse(t, r, []refusal{{"taken back", redeem("back", 6), model.Unknown}})
}

func redeem(id string, n model.NodeID) command.TokenRedeem {
	return command.TokenRedeem{Token: id, SecretHash: hashA, KeyHash: keyHash(n), Node: node(n)}
}

func TestNodeUpdate(t *testing.T) {
	r := small(t)
	refuse(t, r, []refusal{
		{"unknown", command.NodeUpdate{Node: 9, Version: "1"}, model.NotFound},
		{"unknown voter", command.NodeVoter{Node: 9, Voter: true}, model.NotFound},
	})
	r.ok(command.NodeUpdate{Node: 2, Version: "1.2", Serial: "ab"})
	r.ok(command.NodeUpdate{Node: 2, Address: "10.9.9.9"})
	r.ok(command.NodeVoter{Node: 2, Voter: true})
	got, err := r.store.View().Node(2)
	want := node(2)
	want.Version, want.Serial, want.Address, want.Voter, want.Joined = "1.2", "ab", "10.9.9.9", true, noon
	if err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

// A node leaves when nothing is on it; a lost one leaves when nothing is lost.
func TestNodeRemove(t *testing.T) {
	r := small(t)
	refuse(t, r, []refusal{{"unknown", command.NodeRemove{Node: 9}, model.NotFound}})
	r.ok(command.NodeRemove{Node: 3})
	v := r.store.View()
	if _, err := v.Node(3); model.CodeOf(err) != model.NotFound || !v.Removed(3) || len(v.Disks()) != 4 {
		t.Errorf("node 3 is there: %v, removed: %t, disks: %d", err, v.Removed(3), len(v.Disks()))
	}
	r.ok(command.TokenCreate{Token: token("again", 1)})
	refuse(t, r, []refusal{{"its identifier comes back", redeem("again", 3), model.Conflict}})

	r.ok(volume(1, "data"))
	r.ok(machine(1, "web", 1))
	r.ok(command.VMPower{VM: 1, Power: model.PowerOn, Node: 2})
	r.acquire(1, 2)
	refuse(t, r, []refusal{{"a vm is on it", command.NodeRemove{Node: 2}, model.Conflict}})
	r.ok(command.VMReport{VM: 1, Node: 2, State: model.VMStopped})
	r.ok(command.VMPlace{VM: 1, Expected: 2})
	refuse(t, r, []refusal{{"it holds a volume", command.NodeRemove{Node: 2}, model.Conflict}})
	held := r.volume(1)
	r.ok(command.VolumeMembers{
		Volume: 1, Generation: held.Generation, Revision: held.Revision,
		Changes: []model.MemberChange{{Column: 1, Disk: 12, State: model.Stale}},
	})
	r.ok(command.VolumeRelease{Volume: 1, Node: 2, Generation: held.Generation})
	refuse(t, r, []refusal{
		{"it has members", command.NodeRemove{Node: 2}, model.Conflict},
		{"it has the last active one, though lost", command.NodeRemove{Node: 2, Lost: true}, model.Conflict},
	})
	r.ok(command.NodeRemove{Node: 1, Lost: true})
	for i, column := range r.volume(1).Columns {
		if len(column.Members) != 1 || column.Count(model.Active) != 1 {
			t.Errorf("column %d is %+v", i, column)
		}
	}
	refuse(t, r, []refusal{{"the only node", command.NodeRemove{Node: 2, Lost: true}, model.Conflict}})
}

// A lost node's volumes are held by nobody and its machines placed nowhere.
func TestNodeLost(t *testing.T) {
	r := small(t)
	r.ok(volume(1, "data"))
	r.ok(volume(2, "quiet"))
	r.ok(machine(1, "web", 1))
	r.ok(command.VMPower{VM: 1, Power: model.PowerOn, Node: 2})
	before := r.acquire(1, 2)
	r.ok(command.NodeRemove{Node: 2, Lost: true})
	after := r.volume(1)
	if after.Holder != 0 || after.Purpose != "" || after.Revision != before.Revision+1 || after.Generation != before.Generation {
		t.Errorf("the volume is %+v, was %+v", after, before)
	}
	if vm := r.vm(1); vm.Node != 0 || vm.Power != model.PowerOn || vm.Status.State != model.VMStopped {
		t.Errorf("the vm is %+v", vm)
	}
	if n := len(r.volume(2).Columns[0].Members); n != 1 {
		t.Errorf("a volume nobody held has %d members in column 0, want 1", n)
	}
}

func TestDisks(t *testing.T) {
	r := small(t)
	add := func(d model.Disk) command.DiskAdd { return command.DiskAdd{Disk: d} }
	refuse(t, r, []refusal{
		{"twice", add(model.Disk{ID: 11, Node: 1, Path: "/x", Size: 1}), model.Conflict},
		{"unknown node", add(model.Disk{ID: 91, Node: 9, Path: "/x", Size: 1}), model.NotFound},
		{"no size", add(model.Disk{ID: 91, Node: 1, Path: "/x"}), model.Invalid},
		{"no path", add(model.Disk{ID: 91, Node: 1, Size: 1}), model.Invalid},
		{"update unknown", command.DiskUpdate{Disk: 91, State: model.DiskOffline}, model.NotFound},
		{"no such state", command.DiskUpdate{Disk: 11, State: "tired"}, model.Invalid},
	})
	r.ok(command.DiskUpdate{Disk: 11, State: model.DiskOffline, Path: "/y", Size: 2 << 30})
	r.ok(command.DiskUpdate{Disk: 11, State: model.DiskFailed, Error: "input/output error"})
	refuse(t, r, []refusal{{"failed comes back", command.DiskUpdate{Disk: 11, State: model.DiskOnline}, model.Conflict}})
	got, err := r.store.View().Disk(11)
	want := model.Disk{
		ID: 11, Node: 1, Path: "/y", State: model.DiskFailed, Size: 2 << 30,
		Error: "input/output error", Added: noon,
	}
	if err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestUsersAndSessions(t *testing.T) {
	r := small(t)
	lee := command.UserCreate{ID: 2, Name: "lee", Role: model.Operator, PasswordHash: secret("one")}
	r.ok(lee)
	bad := func(change func(*command.UserCreate)) command.UserCreate {
		c := lee
		c.ID, c.Name = 3, "max"
		change(&c)
		return c
	}
	session := func(hash string, user model.UserID) command.SessionCreate {
		return command.SessionCreate{TokenHash: hash, User: user, Expires: noon.Add(time.Hour), Address: "10.0.0.9"}
	}
	refuse(t, r, []refusal{
		{"name taken", bad(func(c *command.UserCreate) { c.Name = "LEE" }), model.Conflict},
		{"identifier taken", bad(func(c *command.UserCreate) { c.ID = 1 }), model.Conflict},
		{"no role", bad(func(c *command.UserCreate) { c.Role = "god" }), model.Invalid},
		{"no password", bad(func(c *command.UserCreate) { c.PasswordHash = secret("") }), model.Invalid},
		{"the cluster's name", bad(func(c *command.UserCreate) { c.Name = "system" }), model.Invalid},
		{"password of nobody", command.UserPassword{User: 9, PasswordHash: secret("x")}, model.NotFound},
		{"empty password", command.UserPassword{User: 2}, model.Invalid},
		{"delete nobody", command.UserDelete{User: 9}, model.NotFound},
		{"delete the last owner", command.UserDelete{User: owner}, model.Conflict},
		{"session of nobody", session(hashA, 9), model.NotFound},
		{"session without a digest", session("abc", 2), model.Invalid},
		{"session that is over", command.SessionCreate{TokenHash: hashA, User: 2, Expires: noon}, model.Invalid},
	})
	r.ok(session(hashA, 2))
	r.ok(session(hashB, 2))
	r.ok(session(hashC, owner))
	refuse(t, r, []refusal{{"session twice", session(hashA, 2), model.Conflict}})
	r.ok(command.UserPassword{User: 2, PasswordHash: secret("two"), Keep: hashB})
	v := r.store.View()
	if _, there := v.Session(hashA); there {
		t.Error("a session outlived a change of password")
	}
	if s, there := v.Session(hashB); !there || s.User != 2 || s.Address != "10.0.0.9" {
		t.Errorf("the session that asked for it is %+v, %t", s, there)
	}
	if u, err := v.User(2); err != nil || u.PasswordHash.Reveal() != "two" {
		t.Errorf("the user is %+v, %v", u, err)
	}
	r.ok(command.UserDelete{User: 2})
	if s := r.store.View().Sessions(); len(s) != 1 || s[0].TokenHash != hashC {
		t.Errorf("the sessions are %+v, want only the owner's", s)
	}
	r.ok(command.SessionDelete{TokenHash: hashC})
	r.ok(command.SessionDelete{TokenHash: hashC})
}

// A user has a bounded number of sessions; the first to run out makes room.
func TestSessionsBounded(t *testing.T) {
	r := small(t)
	for i := range command.MaxSessions + 3 {
		r.ok(command.SessionCreate{
			TokenHash: fmt.Sprintf("%064d", i), User: owner,
			Expires: noon.Add(time.Duration(i+1) * time.Minute),
		})
	}
	s := r.store.View().Sessions()
	if len(s) != command.MaxSessions || s[0].TokenHash != fmt.Sprintf("%064d", 3) {
		t.Errorf("there are %d sessions, the first is %s", len(s), s[0].TokenHash)
	}
	r.at = noon.Add(10 * time.Minute)
	if got := r.ok(command.SessionsPrune{}); got != 7 {
		t.Errorf("SessionsPrune removed %v, want 7", got)
	}
}

// Every change has its row, a user's refusal too; the rows are a chain; and no
// secret is in them.
func TestAudit(t *testing.T) {
	r := small(t)
	r.by = model.Actor{User: "kim", UserID: owner, Role: model.Owner, Address: "10.0.0.9", Request: "r1"}
	r.ok(volume(1, "data"))
	r.refused(model.Conflict, volume(2, "data"))
	r.ok(command.UserPassword{User: owner, PasswordHash: secret("very-secret")})
	r.by = model.System
	r.ok(command.VolumeResize{Volume: 1, Size: 1 << 30}) // changes nothing
	r.refused(model.Fenced, command.VolumeRelease{Volume: 1, Node: 1, Generation: 5})
	v := r.store.View()
	all, err := v.Audit(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	last := all[len(all)-3:]
	for i, want := range []struct{ verb, object, result string }{
		{"volume.create", "volume " + model.VolumeID(1).String() + " data", "ok"},
		{"volume.create", "volume " + model.VolumeID(2).String(), "conflict: there is already a volume named \"data\""},
		{"user.password", "user " + owner.String() + " kim", "ok"},
	} {
		if got := last[i]; got.Verb != want.verb || got.Object != want.object || got.Result != want.result ||
			got.Actor.User != "kim" || !got.Time.Equal(noon) {
			t.Errorf("row %d is %+v, want %+v", i, got, want)
		}
	}
	if text := jsonOf(all); strings.Contains(text, "very-secret") || strings.Contains(text, "sealed") {
		t.Error("a secret is in the audit log")
	}
	if err := VerifyAudit(all); err != nil {
		t.Errorf("VerifyAudit: %v", err)
	}
	all[3].Object = "something else"
	if err := VerifyAudit(all); model.CodeOf(err) != model.Corrupt {
		t.Errorf("VerifyAudit of an altered log: %v", err)
	}
	page, err := v.Audit(t.Context(), last[0].Index, 1)
	if err != nil || len(page) != 1 || page[0].Index != last[1].Index {
		t.Errorf("a page of one after %d is %+v, %v", last[0].Index, page, err)
	}
	newest, err := v.NewestAudit(t.Context(), 2)
	if err != nil || len(newest) != 2 || newest[0].Index != last[2].Index || newest[1].Index != last[1].Index {
		t.Errorf("the newest two rows are %+v, %v", newest, err)
	}
}

// That somebody opened a console, or closed it, changes nothing but the audit log.
func TestAuditOfConsoles(t *testing.T) {
	r := small(t)
	r.ok(command.VMCreate{ID: 14, Name: "web", CPUs: 1, Memory: 1 << 28, Boot: &model.Boot{
		Kernel: model.FileRef{Name: "vmlinuz", SHA256: strings.Repeat("0", 64), Size: 1},
	}})
	before := r.store.View()
	r.by = model.Actor{User: "kim", UserID: owner, Role: model.Owner}
	r.ok(command.VMConsole{VM: 14, Console: "screen", Writes: true})
	r.ok(command.VMConsole{VM: 14, Console: "serial"})
	r.ok(command.VMConsole{VM: 14, Console: "screen", Writes: true, Closed: true})
	r.refused(model.Invalid, command.VMConsole{VM: 14, Console: "door"})
	r.refused(model.NotFound, command.VMConsole{VM: 15, Console: "screen"})
	r.ok(command.VMConsole{VM: 15, Console: "screen", Closed: true})
	now := r.store.View()
	if now.Changed(VMs) != before.Changed(VMs) {
		t.Error("a machine has changed")
	}
	rows, err := now.NewestAudit(t.Context(), 6)
	if err != nil {
		t.Fatal(err)
	}
	web := "vm " + model.VMID(14).String()
	for i, want := range []string{
		"vm " + model.VMID(15).String() + " screen closed", "vm " + model.VMID(15).String(), web,
		web + " web screen closed", web + " web serial opened to watch", web + " web screen opened",
	} {
		if rows[i].Object != want || rows[i].Verb != "vm.console" || rows[i].Actor.User != "kim" {
			t.Errorf("row %d is %+v, want one of %q", i, rows[i], want)
		}
	}
}

// The audit log has a bound: the oldest rows go, the same ones on every node.
func TestAuditBounded(t *testing.T) {
	tail := auditTail{count: MaxAudit + auditSlack}
	rows, err := tail.add(9, command.Envelope{At: noon, Command: command.SessionsPrune{}}, "x", nil)
	if err != nil || len(rows) != 2 || rows[1].oldest != auditSlack || tail.count != MaxAudit+1 {
		t.Fatalf("add: %d rows, count %d, %v", len(rows), tail.count, err)
	}
	r := small(t)
	before, err := r.store.View().Audit(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.store.commit(t.Context(), []write{{table: auditTable, oldest: 3}}); err != nil {
		t.Fatal(err)
	}
	after, err := r.store.View().Audit(t.Context(), 0, 1000)
	if err != nil || len(after) != len(before)-3 || after[0].Index != before[3].Index {
		t.Errorf("%d rows are left of %d, %v", len(after), len(before), err)
	}
}
