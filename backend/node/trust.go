package node

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/gossip"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/pki"
)

func saveKeyring(d Dir, keys [][]byte) error { return writeJSON(d.Keyring(), keys) }

func readKeyring(d Dir) (keys [][]byte, err error) {
	text, err := os.ReadFile(d.Keyring())
	if err == nil {
		err = json.Unmarshal(text, &keys)
	}
	if err != nil {
		return nil, fmt.Errorf("read gossip keys: %w", err)
	}
	return keys, nil
}

// gossipKeys are keys as gossip wants them.
func gossipKeys(raw [][]byte) ([]gossip.Key, error) {
	keys := make([]gossip.Key, len(raw))
	for i, k := range raw {
		if len(k) != len(keys[i]) {
			return nil, model.Errorf(model.Corrupt, "a gossip key has %d bytes", len(k))
		}
		copy(keys[i][:], k)
	}
	return keys, nil
}

// rawKeys are the keys of the record, as the file has them.
func rawKeys(cluster model.Cluster) ([][]byte, error) {
	keys := make([][]byte, len(cluster.GossipKeys))
	for i, k := range cluster.GossipKeys {
		var err error
		if keys[i], err = base64.StdEncoding.DecodeString(k.Reveal()); err != nil {
			return nil, model.Errorf(model.Corrupt, "a gossip key of the record cannot be read")
		}
	}
	return keys, nil
}

// How soon what failed is tried again, and how often all is looked at anew: a renewal
// that was under way may have brought roots that were dropped meanwhile.
const (
	trustFirst = time.Second
	trustMost  = time.Minute
	trustCheck = 10 * time.Minute
)

// keepTrust makes the gossip keys, the roots and this node's certificates those of the
// record whenever it changes, and says so, until ctx ends. The record comes over the
// wire, for which a node needs no gossip, and where who has a root that is still trusted
// is let in: so one that was away while they changed has them again.
func (n *node) keepTrust(ctx context.Context) {
	retry, said := trustFirst, ""
	check := time.NewTicker(trustCheck)
	defer check.Stop()
	for seen := uint64(0); ; {
		view := n.meta.Local()
		changed := max(view.Changed(state.Cluster), view.Changed(state.Nodes))
		var again <-chan time.Time
		// Without a lease the record may be older than the files.
		if changed != seen && n.meta.Lease().Wait(ctx) == nil {
			err := n.takeTrust(ctx, n.meta.Local())
			switch {
			case ctx.Err() != nil:
				return
			case err == nil:
				seen, retry, said = changed, trustFirst, ""
			default:
				if text := err.Error(); text != said {
					n.log.Warn("keys or certificates of the record were not taken", "err", err)
					said = text
				}
				again = time.After(retry)
				retry = min(2*retry, trustMost)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-again:
		case <-view.Next():
		case <-check.C:
			seen = 0
		}
	}
}

// takeTrust takes what the record says and says in the record what this node has.
func (n *node) takeTrust(ctx context.Context, view *state.View) error {
	cluster, known := view.Cluster()
	rec, err := view.Node(n.cfg.Node)
	if !known || err != nil {
		return nil //nolint:nilerr // this node's record does not know it yet
	}
	has := rec.Trust
	keyErr := n.takeKeyring(cluster)
	if keyErr == nil {
		has.Keys = cluster.Keyring.Step
	}
	rootErr := n.takeRoots(ctx, cluster, rec)
	if rootErr == nil {
		has.Epoch = cluster.Succession.Epoch
	}
	if has != rec.Trust {
		_, err = n.meta.Apply(ctx, model.System, command.NodeTrust{Node: n.cfg.Node, Trust: has})
	}
	return errors.Join(keyErr, rootErr, err)
}

func (n *node) takeKeyring(cluster model.Cluster) error {
	want, err := rawKeys(cluster)
	if err != nil {
		return err
	}
	have, err := readKeyring(n.dir)
	if err == nil && slices.EqualFunc(have, want, slices.Equal) {
		return nil
	}
	keys, err := gossipKeys(want)
	if err != nil {
		return err
	}
	if err := n.gossip.SetKeys(keys); err != nil {
		return err
	}
	if err := saveKeyring(n.dir, want); err != nil { // last: the file says what gossip has
		return err
	}
	n.log.Info("gossip keys are those of the record", "step", cluster.Keyring.Step)
	return nil
}

// takeRoots has this node's certificates made anew if they are not by the root that
// signs now, or not for this node's address, and trusts what the record says.
func (n *node) takeRoots(ctx context.Context, cluster model.Cluster, rec model.Node) error {
	if !n.keeper.Good(cluster.CA, rec.Address) {
		if err := n.keeper.RenewNow(ctx, n.renew); err != nil {
			return err
		}
		if !n.keeper.Good(cluster.CA, rec.Address) {
			return model.Errorf(model.Unavailable, "the certificates that were made are not by the root of the record")
		}
		n.log.Info("certificates are by the root of the record", "epoch", cluster.Succession.Epoch)
	}
	return n.keeper.SetRoots(ctx, publicOf(cluster).Roots())
}

// publicOf is what the record says of the authority.
func publicOf(cluster model.Cluster) pki.Authority {
	return pki.Authority{
		Root: cluster.CA, Former: cluster.Succession.Former, Heritage: cluster.Succession.Heritage,
	}
}

// callRotateCA asks a node that can sign for the next authority.
const callRotateCA = "cluster.ca.rotate"

// RotateKey begins to replace the gossip key.
func (s service) RotateKey(ctx context.Context, by model.Actor) (schema.GossipKey, error) {
	if _, err := s.n.meta.Apply(ctx, by, command.NewKeyRotate()); err != nil {
		return schema.GossipKey{}, err
	}
	return s.GossipKey(ctx)
}

// GossipKey says how far that is.
func (s service) GossipKey(ctx context.Context) (schema.GossipKey, error) {
	view, err := s.n.meta.View(ctx)
	if err != nil {
		return schema.GossipKey{}, err
	}
	cluster, _ := view.Cluster()
	ring := cluster.Keyring
	out := schema.GossipKey{Phase: schema.KeyPhase(ring.Phase), Changed: ring.Since}
	if ring.Phase == model.KeySettled {
		out.Phase = schema.KeySettled
		return out, nil
	}
	out.Waiting = lacking(view, func(t model.Trust) bool { return t.Keys >= ring.Step })
	return out, nil
}

// lacking lists the names of the members that have not said that they have something.
func lacking(view *state.View, has func(model.Trust) bool) (names []string) {
	for _, n := range view.Nodes() {
		if !has(n.Trust) {
			names = append(names, n.Name)
		}
	}
	return names
}

// RotateCA makes the next authority, here or on the leader.
func (s service) RotateCA(ctx context.Context, by model.Actor) (schema.CA, error) {
	if !s.n.sealed() {
		if err := s.n.rotateCA(ctx, by); err != nil {
			return schema.CA{}, err
		}
		return s.CA(ctx)
	}
	leader, known := s.n.meta.Leader()
	if !known || leader == s.n.cfg.Node {
		return schema.CA{}, model.Errorf(model.Unavailable, "no node that can sign certificates is in reach; try again")
	}
	if err := s.n.wire.Call(ctx, leader, callRotateCA, by, nil); err != nil {
		return schema.CA{}, err
	}
	return s.CA(ctx)
}

func (n *node) handleRotateCA(ctx context.Context, _ model.NodeID, body json.RawMessage) (any, error) {
	var by model.Actor
	if err := json.Unmarshal(body, &by); err != nil {
		return nil, model.Errorf(model.Invalid, "read request: %w", err)
	}
	return struct{}{}, n.rotateCA(ctx, by)
}

// rotateCA makes the next authority. Its key is sealed under the same key as the one
// before, which is gone from the record then.
func (n *node) rotateCA(ctx context.Context, by model.Actor) error {
	if !by.Role.Includes(model.Admin) {
		return model.Errorf(model.Denied, "only an operator replaces the certificate authority")
	}
	view, err := n.meta.View(ctx)
	if err != nil {
		return err
	}
	cluster, _ := view.Cluster()
	ca, err := n.authority(view)
	if err != nil {
		return err
	}
	seal, err := pki.LoadSealKey(n.dir.SealKey())
	if err != nil {
		return err
	}
	next, err := ca.Succeed()
	if err != nil {
		return fmt.Errorf("make authority: %w", err)
	}
	key, err := next.Key()
	if err != nil {
		return fmt.Errorf("seal authority: %w", err)
	}
	sealed := base64.StdEncoding.EncodeToString(pki.Seal(seal, key))
	_, err = n.meta.Apply(ctx, by, command.CARotate{
		Epoch: cluster.Succession.Epoch, CA: next.PEM(), CAKey: command.Keep(model.NewSecret(sealed)),
		Heritage: next.Authority().Heritage,
	})
	return err
}

// CA says what signs, and how far the change of it is.
func (s service) CA(ctx context.Context) (schema.CA, error) {
	view, err := s.n.meta.View(ctx)
	if err != nil {
		return schema.CA{}, err
	}
	cluster, _ := view.Cluster()
	now, err := pki.Describe(cluster.CA)
	if err != nil {
		return schema.CA{}, err
	}
	last := cluster.Succession
	out := schema.CA{Fingerprint: now.Pin.String(), Expires: now.Expires, Since: cluster.Created}
	if last.Epoch > 0 {
		out.Since = last.Since
	}
	if last.Rotating() {
		former, err := pki.Describe(last.Former)
		if err != nil {
			return schema.CA{}, err
		}
		out.Former = former.Pin.String()
		out.Waiting = lacking(view, func(t model.Trust) bool { return t.Epoch >= last.Epoch })
	}
	return out, nil
}

// FinishCA stops trusting the root before, though members that are away have nothing
// else: they cannot come back.
func (s service) FinishCA(ctx context.Context, by model.Actor) (schema.CA, error) {
	view, err := s.n.meta.View(ctx)
	if err != nil {
		return schema.CA{}, err
	}
	cluster, _ := view.Cluster()
	cmd := command.TrustStep{Epoch: cluster.Succession.Epoch}
	var up []string
	for _, rec := range view.Nodes() {
		if rec.Trust.Epoch >= cmd.Epoch {
			continue
		}
		cmd.Except = append(cmd.Except, rec.ID)
		if s.n.up(rec.ID) {
			up = append(up, rec.Name)
		}
	}
	if cluster.Succession.Rotating() && len(up) > 0 {
		return schema.CA{}, model.Errorf(model.Conflict,
			"%s is up and gets its new certificates by itself; wait for it", strings.Join(up, ", "))
	}
	if _, err := s.n.meta.Apply(ctx, by, cmd); err != nil {
		return schema.CA{}, err
	}
	return s.CA(ctx)
}
