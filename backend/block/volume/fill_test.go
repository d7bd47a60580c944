package volume

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/model"
)

// What is written is cut where a joining member has reached one page and not the next,
// and every block of it stays what it was.
func TestSplit(t *testing.T) {
	f := &fill{cursor: 2}
	for _, page := range []uint32{4, 5, 300} {
		f.add(page)
	}
	v := &Volume{columns: []column{{members: []*member{{}, {fill: f}}}}}
	const per = uint64(model.BlocksPerPage)
	type cut struct {
		Block, Count uint64
		At           int
	}
	for _, c := range []struct {
		name string
		part part
		want []cut
	}{
		{"within a page", part{kind: disk.Write, block: 5, count: 3, at: 7}, []cut{{5, 3, 7}}},
		{"reached pages", part{kind: disk.Write, block: 3, count: 20}, []cut{{3, 20, 0}}},
		{"none reached", part{kind: disk.Write, block: 6 * 16, count: 64}, []cut{{6 * 16, 64, 0}}},
		{"data", part{kind: disk.Write, block: 1, count: 6*per + 1, at: 2}, []cut{
			{1, 2*per - 1, 2}, {2 * per, 2 * per, 33}, {4 * per, 2 * per, 65}, {6 * per, 2, 97},
		}},
		{"no data", part{kind: disk.Discard, block: 299 * 16, count: 3 * per}, []cut{
			{299 * per, per, 0}, {300 * per, per, 0}, {301 * per, per, 0},
		}},
		{"a mark", part{kind: disk.Mark}, []cut{{}}},
	} {
		j := &job{parts: []part{{kind: disk.Mark}, c.part, {kind: disk.Mark}}}
		v.split(j)
		var got []cut
		for _, p := range j.parts[1 : len(j.parts)-1] {
			got = append(got, cut{uint64(p.block), p.count, p.at})
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}
