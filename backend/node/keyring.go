package node

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"drystone.example/drystone/backend/gossip"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
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

// keepKeyring makes the gossip key the one of the record whenever that changes, until
// ctx ends. The record comes over the wire, for which a node needs no gossip: so one
// that was away while the key changed has it again.
func (n *node) keepKeyring(ctx context.Context) {
	for seen := uint64(0); ; {
		view := n.meta.Local()
		changed := view.Changed(state.Cluster)
		// Without a lease the record may be older than the file.
		if changed != seen && n.meta.Lease().Wait(ctx) == nil {
			seen = changed
			if err := n.takeKeyring(n.meta.Local()); err != nil {
				n.log.Warn("gossip key was not taken", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-view.Next():
		}
	}
}

func (n *node) takeKeyring(view *state.View) error {
	cluster, known := view.Cluster()
	if !known {
		return nil
	}
	key, err := base64.StdEncoding.DecodeString(cluster.GossipKey.Reveal())
	if err != nil {
		return fmt.Errorf("read gossip key: %w", err)
	}
	have, err := readKeyring(n.dir)
	if err == nil && len(have) == 1 && slices.Equal(have[0], key) {
		return nil
	}
	keys, err := gossipKeys([][]byte{key})
	if err != nil {
		return err
	}
	if err := saveKeyring(n.dir, [][]byte{key}); err != nil {
		return err
	}
	n.log.Info("gossip key is another one now")
	return n.gossip.SetKeys(keys)
}
