package state

import (
	"encoding/base64"
	"slices"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

// The invariants of a change of what the nodes know each other by:
//
// Any two members that have the gossip keys of the record's step, or of the one before,
// understand each other. So a key is used by nobody before every member understands it,
// and is understood by all for as long as one of them may use it. A member that is away
// may be left behind: it has the keys again from the record, which needs no gossip.
//
// A root is trusted for as long as a member has certificates by it, and by nothing
// newer: with those it comes back, however long it was away. Only an operator says that
// one need not come back.

// keyring is the gossip keys of the cluster as they are to be installed.
func (r clusterRow) keyring() []model.Secret {
	now, next := model.NewSecret(r.Gossip), model.NewSecret(r.GossipNext)
	switch r.Keyring.Phase {
	case model.KeyAdding:
		return []model.Secret{now, next}
	case model.KeyUsing:
		return []model.Secret{next, now}
	case model.KeySettled:
	}
	return []model.Secret{now}
}

func (x *tx) clusterNow() (clusterRow, error) {
	row, ok := x.cluster.get(clusterKey)
	if !ok {
		return row, model.Errorf(model.NotFound, "there is no cluster yet")
	}
	return row, nil
}

func (x *tx) keyRotate(c command.KeyRotate) (any, error) {
	row, err := x.clusterNow()
	if err != nil {
		return nil, err
	}
	if row.Keyring.Phase != model.KeySettled {
		return nil, model.Errorf(model.Conflict, "the gossip key is being replaced already")
	}
	if key, err := base64.StdEncoding.DecodeString(c.Key.Reveal()); err != nil || len(key) != 32 {
		return nil, model.Errorf(model.Invalid, "a gossip key has 32 bytes")
	}
	row.GossipNext = c.Key.Reveal()
	row.Keyring = model.Keyring{Step: row.Keyring.Step + 1, Phase: model.KeyAdding, Since: x.at}
	return row.model(), put(x, &x.cluster, row)
}

// keyIsDue notes that somebody who is not a member any more knows the gossip key.
func (x *tx) keyIsDue() error {
	row, err := x.clusterNow()
	if err != nil || row.Keyring.Due {
		return err
	}
	row.Keyring.Due = true
	return put(x, &x.cluster, row)
}

func (x *tx) caRotate(c command.CARotate) (any, error) {
	row, err := x.clusterNow()
	if err != nil {
		return nil, err
	}
	switch {
	case row.Succession.Rotating():
		return nil, model.Errorf(model.Conflict, "the certificate authority is being replaced already")
	case c.Epoch != row.Succession.Epoch:
		return nil, model.Errorf(model.Conflict, "the certificate authority has been replaced meanwhile")
	case c.CA == "" || c.CAKey.Reveal() == "" || c.Heritage == "":
		return nil, model.Errorf(model.Invalid, "an authority needs a certificate, its key, and one that vouches for it")
	}
	row.Succession = model.Succession{Epoch: c.Epoch + 1, Former: row.CA, Heritage: c.Heritage, Since: x.at}
	row.CA, row.SealedKey = c.CA, c.CAKey.Reveal()
	row.Keyring.Due = true // what is replaced is replaced as a whole
	return row.model(), put(x, &x.cluster, row)
}

func (x *tx) trustStep(c command.TrustStep) (any, error) {
	row, err := x.clusterNow()
	if err != nil {
		return nil, err
	}
	if c.Keys != 0 {
		err = x.keyStep(&row, c)
	} else {
		err = x.dropRoot(&row, c)
	}
	if err != nil {
		return nil, err
	}
	return row.model(), put(x, &x.cluster, row)
}

func (x *tx) keyStep(row *clusterRow, c command.TrustStep) error {
	ring := &row.Keyring
	if c.Keys != ring.Step || ring.Phase == model.KeySettled {
		return model.Errorf(model.Conflict, "the gossip keys are at another step")
	}
	if err := x.allHave(c, func(t model.Trust) bool { return t.Keys >= c.Keys }); err != nil {
		return err
	}
	ring.Step, ring.Since = ring.Step+1, x.at
	if ring.Phase == model.KeyAdding {
		ring.Phase = model.KeyUsing
		return nil
	}
	ring.Phase = model.KeySettled
	row.Gossip, row.GossipNext = row.GossipNext, ""
	return nil
}

func (x *tx) dropRoot(row *clusterRow, c command.TrustStep) error {
	if !row.Succession.Rotating() || c.Epoch != row.Succession.Epoch {
		return model.Errorf(model.Conflict, "the certificate authority is not being replaced")
	}
	if len(c.Except) > 0 && x.actor.Role == "" {
		return model.Errorf(model.Denied, "only an operator leaves nodes behind")
	}
	if err := x.allHave(c, func(t model.Trust) bool { return t.Epoch >= c.Epoch }); err != nil {
		return err
	}
	row.Succession.Former = ""
	return nil
}

// allHave refuses unless all members but the command's exceptions have something.
func (x *tx) allHave(c command.TrustStep, has func(model.Trust) bool) error {
	for _, id := range x.nodes.keys() {
		n := x.nodes.rows[id]
		if !has(n.Trust) && !slices.Contains(c.Except, n.ID) {
			return model.Errorf(model.Conflict, "the node %s has not said that it is ready", n.Name)
		}
	}
	return nil
}

func (x *tx) nodeTrust(c command.NodeTrust) (any, error) {
	n, err := x.nodes.find(c.Node)
	if err != nil {
		return nil, err
	}
	x.object = "node " + n.ID.String() + " " + n.Name
	if n.Trust == c.Trust {
		return n.Node, nil
	}
	n.Trust = c.Trust
	return n.Node, put(x, &x.nodes, n)
}
