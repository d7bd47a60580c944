package agent

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"drystone.example/drystone/backend/block/volume"
	"drystone.example/drystone/backend/model"
)

// What is lost is what every active member has damaged, of one version: no more and
// no less, in ranges of the volume.
func TestLost(t *testing.T) {
	column := func(members ...model.Member) model.Column { return model.Column{Members: members} }
	active := func(d model.DiskID) model.Member { return model.Member{Disk: d, State: model.Active} }
	rec := model.Volume{ID: 7, Size: 3 << 20, Columns: []model.Column{
		column(active(1), active(2), model.Member{Disk: 3, State: model.Stale}),
		column(active(2), model.Member{Disk: 3, State: model.Joining}),
	}}
	record := func(id model.VolumeID) (model.Volume, error) {
		if id != rec.ID {
			return model.Volume{}, model.Errorf(model.NotFound, "no volume")
		}
		return rec, nil
	}
	at := func(disk model.DiskID, column, page uint32, epoch model.Epoch, blocks uint16, covered bool) model.Damage {
		return model.Damage{
			Disk: disk, Volume: 7, Column: column, Page: page, Epoch: epoch, Blocks: blocks, Covered: covered,
		}
	}
	r := func(off, n model.Bytes) model.LostRange { return model.LostRange{Offset: off, Length: n} }
	below := func(off, n model.Bytes) model.LostRange {
		return model.LostRange{Offset: off, Length: n, Snapshot: true}
	}
	const block, page = model.BlockSize, model.PageSize
	for _, c := range []struct {
		name    string
		damages []model.Damage
		want    []model.LostRange
	}{
		{"nothing", nil, nil},
		{"one of two", []model.Damage{at(1, 0, 1, 1, 0xffff, false)}, nil},
		{"one of two and a stale one", []model.Damage{at(1, 0, 1, 1, 1, false), at(3, 0, 1, 1, 1, false)}, nil},
		{"both, elsewhere", []model.Damage{at(1, 0, 1, 1, 1, false), at(2, 0, 1, 1, 2, false)}, nil},
		{"both, other versions", []model.Damage{at(1, 0, 1, 1, 1, true), at(2, 0, 1, 2, 1, false)}, nil},
		{
			"both",
			[]model.Damage{at(1, 0, 1, 1, 0b1110, false), at(2, 0, 1, 1, 0b0110, false)},
			[]model.LostRange{r(page+block, 2*block)},
		},
		{"the only active one", []model.Damage{at(2, 1, 0, 1, 1, false)}, []model.LostRange{r(1<<20, block)}},
		{
			"pages side by side",
			[]model.Damage{at(2, 1, 0, 1, 1<<15, false), at(2, 1, 1, 1, 1, false)},
			[]model.LostRange{r(1<<20+page-block, 2*block)},
		},
		{
			"of a snapshot",
			[]model.Damage{at(2, 1, 0, 1, 1, true), at(2, 1, 0, 2, 2, false), at(2, 1, 0, 0, 1, true)},
			[]model.LostRange{r(1<<20+block, block), below(1<<20, block)},
		},
		{"behind the end", []model.Damage{at(2, 1, 16, 1, 1, false)}, nil},
		{"of another volume", []model.Damage{{Disk: 2, Volume: 8, Column: 1, Blocks: 1}}, nil},
		{"of a column that is not there", []model.Damage{at(2, 2, 0, 1, 1, false)}, nil},
	} {
		if got := lost(record, c.damages)[7]; !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// A volume is taken once for uses that follow each other, and let go when it was not
// needed for a while, when another is needed, and as soon as somebody wants it.
func TestKeptHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var released []*Hold
		k := &keptHold{release: func(h *Hold) { released = append(released, h); close(h.gone) }, run: func(f func()) { go f() }}
		fresh := func(id model.VolumeID) *Hold {
			if k.take(id) != nil {
				t.Fatal("it is held already")
			}
			h := &Hold{id: id, wanted: make(chan struct{}), gone: make(chan struct{}), volume: &volume.Volume{}}
			k.put(h)
			return h
		}
		let := func(want ...*Hold) {
			t.Helper()
			if synctest.Wait(); !slices.Equal(released, want) {
				t.Fatalf("%d were let go, want %d", len(released), len(want))
			}
		}
		a := fresh(1)
		for range 3 {
			if k.take(1) != a {
				t.Fatal("it is not held")
			}
			time.Sleep(time.Minute)
			k.idle(time.Now()) // it is in use
			k.put(a)
			time.Sleep(keptIdle / 2)
			k.idle(time.Now())
		}
		let()
		b := fresh(2)
		let(a)
		close(b.wanted)
		let(a, b)
		c := fresh(2)
		if k.take(2) != c {
			t.Fatal("it is not held")
		}
		close(c.wanted)
		let(a, b) // it is in use
		k.put(c)
		let(a, b, c)
		d := fresh(3)
		time.Sleep(keptIdle + time.Second)
		k.idle(time.Now())
		let(a, b, c, d)
		e := fresh(3)
		k.end(nil)
		let(a, b, c, d, e)
	})
}
