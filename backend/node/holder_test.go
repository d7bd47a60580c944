package node

import (
	"testing"

	"drystone.example/drystone/backend/model"
)

// A peer speaks for a volume if the record names it as the holder of that
// generation, as this node knows it or as it is now.
func TestHolderIsWhomTheRecordNames(t *testing.T) {
	const peer, other = model.NodeID(2), model.NodeID(3)
	type answer struct {
		volume model.Volume
		err    error
	}
	held := func(by model.NodeID, gen model.Generation) answer {
		return answer{volume: model.Volume{ID: 1, Holder: by, Generation: gen}}
	}
	away := answer{err: model.Errorf(model.Unavailable, "there is no leader")}
	gone := answer{err: model.Errorf(model.NotFound, "there is no such volume")}
	for name, c := range map[string]struct {
		local, now, after answer
		asked             bool
		want              model.Code
	}{
		"known here":            {local: held(peer, 5)},
		"news to this node":     {local: held(other, 4), now: held(peer, 5), asked: true},
		"a newer generation":    {local: held(peer, 6), now: held(peer, 6), asked: true, want: model.Fenced},
		"one that never was":    {local: held(peer, 4), now: held(peer, 4), asked: true, want: model.Fenced},
		"another's volume":      {local: held(other, 5), now: held(other, 5), asked: true, want: model.Fenced},
		"nobody's volume":       {local: held(0, 5), now: held(0, 5), asked: true, want: model.Fenced},
		"deleted":               {local: gone, now: gone, asked: true, want: model.Fenced},
		"no leader":             {local: held(other, 4), now: away, after: held(other, 4), asked: true, want: model.Unavailable},
		"heard of it meanwhile": {local: held(other, 4), now: away, after: held(peer, 5), asked: true},
	} {
		asked, first := false, true
		local := func() (model.Volume, error) {
			if first {
				first = false
				return c.local.volume, c.local.err
			}
			return c.after.volume, c.after.err
		}
		now := func() (model.Volume, error) {
			asked = true
			return c.now.volume, c.now.err
		}
		if err := judgeHolder(peer, 5, local, now); model.CodeOf(err) != c.want || asked != c.asked {
			t.Errorf("%s: %v, the record was asked: %v; want %q, %v", name, err, asked, c.want, c.asked)
		}
	}
}
