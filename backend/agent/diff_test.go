package agent

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"drystone.example/drystone/backend/model"
)

// However the parts come, the ranges are those of all of them together, each told
// once, complete, and not before its end is known.
func TestMerger(t *testing.T) {
	parts := []part{{1, true}, {2, false}, {1, true}, {3, true}, {1, false}, {1, false}, {2, true}}
	want := []Range{{0, 1}, {3, 4}, {9, 2}}
	for cut := 1; cut <= len(parts); cut++ {
		m := merger{size: 11}
		var got []Range
		told := model.Bytes(0)
		for left := parts; len(left) > 0; {
			n := min(cut, len(left))
			done, ranges := m.add(left[:n])
			for _, r := range ranges {
				if r.Offset < told || r.Offset+r.Length > done {
					t.Errorf("in pieces of %d, %v is told between %d and %d", cut, r, told, done)
				}
			}
			got, told, left = append(got, ranges...), done, left[n:]
		}
		if diff := cmp.Diff(want, got); diff != "" || told != 11 {
			t.Errorf("in pieces of %d, all below %d is told (-want +got):\n%s", cut, told, diff)
		}
	}
}
