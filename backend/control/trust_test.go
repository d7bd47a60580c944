package control

import (
	"encoding/base64"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
)

// A peer is what a node has of the record: it takes that when it likes, and says so
// later, or never.
type peer struct {
	id      model.NodeID
	up      bool
	keys    []string // the first is used
	leaf    string   // whose root its certificates are by
	trusted []string
	has     model.Trust
}

// understands reports whether a member hears another one and accepts its certificates,
// as package gossip and package pki do: a root that is trusted vouches for the next.
func (m *peer) understands(of *peer, heritage map[string]string) error {
	if m.up && of.up && !slices.Contains(m.keys, of.keys[0]) {
		return fmt.Errorf("node %d has not the key that node %d uses", m.id, of.id)
	}
	for root := of.leaf; ; root = heritage[root] {
		switch {
		case root == "":
			return fmt.Errorf("node %d does not accept a certificate of node %d", m.id, of.id)
		case slices.Contains(m.trusted, root):
			return nil
		}
	}
}

// A cluster is a record with members and a leader that changes now and then.
type cluster struct {
	t        *rapid.T
	store    *state.Store
	members  []*peer
	now      time.Time
	began    time.Time         // of the leader's daemon
	heritage map[string]string // the root before
	drawn    int
}

func (c *cluster) apply(by model.Actor, cmd command.Command) error {
	c.drawn++
	v := c.store.View()
	data, err := command.Encode(command.Envelope{
		Request: "r" + strconv.Itoa(c.drawn), Actor: by, At: c.now, Command: cmd,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	out, err := c.store.ApplyBatch([]state.Entry{{Index: v.Index() + 1, Data: data}})
	if err != nil {
		c.t.Fatal(err)
	}
	return out[0].Err
}

func (c *cluster) must(cmd command.Command) {
	if err := c.apply(model.System, cmd); err != nil {
		c.t.Fatalf("%s: %v", cmd.Kind(), err)
	}
}

func (c *cluster) up(id model.NodeID) bool {
	return slices.ContainsFunc(c.members, func(m *peer) bool { return m.id == id && m.up })
}

// take has a member take what the record says. Certificates come only from who accepts
// those it has.
func (c *cluster) take(m *peer) {
	rec, _ := c.store.View().Cluster()
	m.keys = nil
	for _, k := range rec.GossipKeys {
		m.keys = append(m.keys, k.Reveal())
	}
	m.up = true
	m.leaf, m.trusted = rec.CA, []string{rec.CA}
	if rec.Succession.Rotating() {
		m.trusted = append(m.trusted, rec.Succession.Former)
	}
	m.has = model.Trust{Keys: rec.Keyring.Step, Epoch: rec.Succession.Epoch}
}

// lead has whoever leads look once; what it orders may be lost, or come twice.
func (c *cluster) lead() {
	cmd := trustOrder(c.store.View(), c.up, c.began, c.now)
	if cmd == nil {
		return
	}
	for range rapid.IntRange(0, 2).Draw(c.t, "orders") {
		if err := c.apply(model.System, cmd); err != nil && model.CodeOf(err) != model.Conflict {
			c.t.Fatalf("%s: %v", cmd.Kind(), err)
		}
	}
}

func (c *cluster) step(away *peer) {
	m := c.members[rapid.IntRange(0, len(c.members)-1).Draw(c.t, "member")]
	rec, _ := c.store.View().Cluster()
	switch rapid.IntRange(0, 9).Draw(c.t, "event") {
	case 0, 1, 2:
		c.lead()
	case 3, 4:
		if m != away {
			c.take(m)
		}
	case 5, 6:
		c.must(command.NodeTrust{Node: m.id, Trust: m.has})
	case 7:
		c.now = c.now.Add(2 * time.Second)
	case 8:
		c.began = c.now // another node leads, whose daemon began just now
	case 9:
		if rapid.Bool().Draw(c.t, "key") {
			key := slices.Repeat([]byte{byte(c.drawn)}, 32)
			_ = c.apply(model.System, command.KeyRotate{ // or one goes on
				Key: command.Keep(model.NewSecret(base64.StdEncoding.EncodeToString(key))),
			})
			return
		}
		next := fmt.Sprint("root", c.drawn)
		if c.apply(model.System, command.CARotate{
			Epoch: rec.Succession.Epoch, CA: next, CAKey: command.Keep(model.NewSecret("k")), Heritage: rec.CA,
		}) == nil {
			c.heritage[next] = rec.CA
		}
	}
}

// In whatever order nodes take keys and roots, whoever leads and whatever of its orders
// is lost or comes twice: members that are up hear each other, and every two accept each
// other's certificates, also the one that was away all the time. When all are quiet the
// changes come to their end, but that the root waits for who is away.
func TestTrustInAnyOrder(t *testing.T) {
	dir, files := t.TempDir(), 0
	rapid.Check(t, func(rt *rapid.T) {
		files++
		store, err := state.Open(t.Context(), filepath.Join(dir, strconv.Itoa(files)))
		if err != nil {
			rt.Fatal(err)
		}
		defer func() { _ = store.Close() }() // a file of the test's
		c := newCluster(rt, store)
		away := c.members[len(c.members)-1]
		away.up = false
		for range rapid.IntRange(1, 60).Draw(rt, "events") {
			c.step(away)
			c.sound()
		}
		c.settle(away)
		rec, _ := store.View().Cluster()
		if rec.Succession.Rotating() != (rec.Succession.Epoch > away.has.Epoch) {
			rt.Errorf("with a node away the succession is %+v", rec.Succession)
		}
		c.take(away)
		c.settle(nil)
		if rec, _ := store.View().Cluster(); rec.Succession.Rotating() {
			rt.Errorf("all are back and the succession is %+v", rec.Succession)
		}
	})
}

func newCluster(t *rapid.T, store *state.Store) *cluster {
	c := &cluster{t: t, store: store, now: time.Unix(1_800_000_000, 0), heritage: map[string]string{}}
	c.began = c.now
	keep := func(s string) command.Secret { return command.Keep(model.NewSecret(s)) }
	rec := func(id model.NodeID) model.Node {
		return model.Node{ID: id, Name: fmt.Sprint("n", id), Address: fmt.Sprint("10.0.0.", id)}
	}
	c.must(command.ClusterCreate{
		ID: 1, Name: "wall", CA: "root", CAKey: keep("k"), GossipKey: keep("key"), Node: rec(1),
		Owner: command.UserCreate{ID: 1, Name: "kim", Role: model.Owner, PasswordHash: keep("h")},
	})
	for id := model.NodeID(2); id <= 4; id++ {
		token, hash := fmt.Sprint("t", id), fmt.Sprintf("%064d", id)
		c.must(command.TokenCreate{Token: model.JoinToken{ID: token, SecretHash: hash, Uses: 1, Expires: c.now.Add(time.Hour)}})
		c.must(command.TokenRedeem{Token: token, SecretHash: hash, KeyHash: hash, Node: rec(id)})
	}
	for id := model.NodeID(1); id <= 4; id++ {
		m := &peer{id: id}
		c.take(m)
		c.members = append(c.members, m)
	}
	return c
}

// sound fails the test unless all understand each other.
func (c *cluster) sound() {
	for _, a := range c.members {
		for _, b := range c.members {
			if err := a.understands(b, c.heritage); err != nil {
				c.t.Fatal(err)
			}
		}
	}
}

// settle lets everybody but one do what there is to do until nothing is left.
func (c *cluster) settle(away *peer) {
	for range 25 {
		for _, m := range c.members {
			if m != away {
				c.take(m)
				if rec, _ := c.store.View().Node(m.id); rec.Trust != m.has {
					c.must(command.NodeTrust{Node: m.id, Trust: m.has})
				}
			}
		}
		c.now = c.now.Add(2 * time.Second)
		if cmd := trustOrder(c.store.View(), c.up, c.began, c.now); cmd != nil {
			c.must(cmd)
		}
		c.sound()
	}
	if rec, _ := c.store.View().Cluster(); rec.Keyring.Phase != model.KeySettled || rec.Keyring.Due {
		c.t.Errorf("the key is at %+v", rec.Keyring)
	}
}
