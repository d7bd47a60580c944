package state

import (
	"encoding/base64"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

var newKey = base64.StdEncoding.EncodeToString(slices.Repeat([]byte{7}, 32))

func (r *record) cluster() model.Cluster {
	c, _ := r.store.View().Cluster()
	return c
}

// keys are the gossip keys to be installed now.
func (r *record) keys() (keys []string) {
	for _, k := range r.cluster().GossipKeys {
		keys = append(keys, k.Reveal())
	}
	return keys
}

// says is a node's word that it has what the record says.
func (r *record) says(nodes ...model.NodeID) {
	r.t.Helper()
	c := r.cluster()
	for _, n := range nodes {
		r.ok(command.NodeTrust{Node: n, Trust: model.Trust{Keys: c.Keyring.Step, Epoch: c.Succession.Epoch}})
	}
}

// replayed has another node apply the whole log at once: it has the same record.
func (r *record) replayed() {
	r.t.Helper()
	other := open(r.t)
	if _, err := other.ApplyBatch(r.log); err != nil {
		r.t.Fatal(err)
	}
	if diff := cmp.Diff(rows(r.store.View()), rows(other.View())); diff != "" {
		r.t.Errorf("in one batch the log makes another record:\n%s", diff)
	}
}

// The new gossip key is understood by all before it is used by any, and the old one is
// understood until all use the new one.
func TestKeyIsReplacedInSteps(t *testing.T) {
	r := small(t)
	step := func(except ...model.NodeID) command.TrustStep {
		return command.TrustStep{Keys: r.cluster().Keyring.Step, Except: except}
	}
	want := func(keys ...string) {
		t.Helper()
		if got := r.keys(); !slices.Equal(got, keys) {
			t.Errorf("the keys are %v, want %v", got, keys)
		}
	}
	r.refused(model.Conflict, step())
	r.refused(model.Invalid, command.KeyRotate{Key: secret("short")})
	r.at = noon.Add(time.Minute)
	r.ok(command.KeyRotate{Key: secret(newKey)})
	want("gossip", newKey)
	if since := r.cluster().Keyring.Since; !since.Equal(r.at) {
		t.Errorf("the step began at %v, want %v", since, r.at)
	}
	r.refused(model.Conflict, command.KeyRotate{Key: secret(newKey)})
	r.says(1, 2)
	r.refused(model.Conflict, step())
	r.refused(model.Conflict, step(2))
	r.says(3)
	first := step()
	r.ok(first)
	want(newKey, "gossip")
	r.refused(model.Conflict, first) // it comes again
	r.refused(model.Conflict, step())
	r.says(1, 3)
	r.ok(step(2)) // who is away has them from the record
	want(newKey)
	r.refused(model.Conflict, step())
	r.replayed()
	want(newKey)
}

// Who was removed knows the key: it is due to be replaced, once more if that was going on.
func TestKeyIsDue(t *testing.T) {
	r := small(t)
	r.ok(command.NodeRemove{Node: 3})
	if !r.cluster().Keyring.Due {
		t.Fatal("a node was removed and its key is as good as before")
	}
	r.ok(command.KeyRotate{Key: secret(newKey)})
	if r.cluster().Keyring.Due {
		t.Error("the key is due again at once")
	}
	r.ok(command.NodeRemove{Node: 2})
	r.says(1)
	r.ok(command.TrustStep{Keys: 1})
	r.says(1)
	r.ok(command.TrustStep{Keys: 2})
	if !r.cluster().Keyring.Due {
		t.Error("who was removed meanwhile knows the new key")
	}
}

// The old root is trusted until every member has certificates by the new one. Only an
// operator leaves one behind.
func TestRootIsDropped(t *testing.T) {
	r := small(t)
	rotate := command.CARotate{CA: "next", CAKey: secret("sealed again"), Heritage: "older"}
	drop := command.TrustStep{Epoch: 1}
	r.refused(model.Conflict, drop)
	wrong := rotate
	wrong.Epoch = 1
	r.refused(model.Conflict, wrong)
	bare := rotate
	bare.Heritage = ""
	r.refused(model.Invalid, bare)
	r.ok(rotate)
	c := r.cluster()
	if c.CA != "next" || c.Succession.Former != "pem" || c.CAKey.Reveal() != "sealed again" ||
		c.Succession.Epoch != 1 || !c.Keyring.Due {
		t.Errorf("the cluster is %+v", c)
	}
	rotate.Epoch = 1
	r.refused(model.Conflict, rotate)
	r.says(1, 2)
	r.refused(model.Conflict, drop)
	drop.Except = []model.NodeID{3}
	r.refused(model.Denied, drop)
	r.by = model.Actor{User: "kim", UserID: owner, Role: model.Admin}
	r.ok(drop)
	if c := r.cluster(); c.Succession.Rotating() || c.CA != "next" {
		t.Errorf("the cluster is %+v", c)
	}
	r.by = model.System
	r.ok(rotate)
	r.says(1, 2, 3)
	r.ok(command.TrustStep{Epoch: 2})
	r.replayed()
	if c := r.cluster(); c.Succession.Rotating() || c.Succession.Epoch != 2 {
		t.Errorf("the cluster is %+v", c)
	}
}
