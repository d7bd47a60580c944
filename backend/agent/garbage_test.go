package agent

import (
	"testing"

	"drystone.example/drystone/backend/model"
)

// What a record no longer names is freed only when the volume's holder, if it has one,
// knows that record: until then it may read there.
func TestHolderHasHeard(t *testing.T) {
	rec := model.Volume{ID: 5, Holder: 2, Generation: 7, Revision: 30}
	free := rec
	free.Holder = 0
	holds := func(g model.Generation, r model.Revision) map[model.NodeID]Usage {
		return map[model.NodeID]Usage{2: {Holds: map[model.VolumeID]HoldStatus{5: {Generation: g, Revision: r}}}}
	}
	for _, c := range []struct {
		name  string
		rec   model.Volume
		usage map[model.NodeID]Usage
		want  bool
	}{
		{"nobody holds it", free, nil, true},
		{"the holder says nothing", rec, nil, false},
		{"it holds others", rec, map[model.NodeID]Usage{2: {}}, false},
		{"it knows an older record", rec, holds(7, 29), false},
		{"it knows this one", rec, holds(7, 30), true},
		{"it knows a newer one", rec, holds(7, 31), true},
		{"it is another time that it holds it", rec, holds(6, 31), false},
	} {
		if got := heard(c.rec, c.usage); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}
