package volume

import (
	"testing"
	"time"

	"drystone.example/drystone/backend/block/disk/disktest"
	"drystone.example/drystone/backend/model"
)

// newRealDisk makes a disk on a simulated drive.
func newRealDisk(t *testing.T, id model.DiskID) *diskStore {
	t.Helper()
	s := &diskStore{drive: disktest.New(uint64(id), driveSize), tear: func() int { return 0 }}
	s.drive.SetDelay(100 * time.Microsecond)
	if _, err := s.drive.Format(t.Context(), simCluster); err != nil {
		t.Fatal(err)
	}
	if err := s.restart(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// A family is an image and clones of it on the same real disks, each with a holder.
type family struct {
	disks []*diskStore
	rigs  []*rig // the first is the image's
	open  []*Volume
	data  [][]byte // what each holds
}

const (
	familyRoot  = model.VolumeID(500)
	familyPages = 48
)

// newFamily makes an image on two disks, and clones that have each written one block of
// their own and one that all have written.
func newFamily(t *testing.T, disks, clones int) *family {
	t.Helper()
	f := &family{}
	for i := range disks {
		f.disks = append(f.disks, newRealDisk(t, model.DiskID(i+1)))
	}
	image := pattern(familyPages*int(model.PageSize), 0, 1)
	for i := range clones + 1 {
		r := newRig(t, disks, 2, 2*familyPages*model.PageSize, []int{0, 1})
		for d, s := range f.disks {
			r.pool.wrap[model.DiskID(d+1)] = s
		}
		r.record.rec.ID = familyRoot + model.VolumeID(i)
		if i > 0 {
			r.record.rec.Origin, r.record.rec.Family = model.Origin{Volume: familyRoot, Epoch: 1}, familyRoot
		}
		v := r.open(t)
		data := append([]byte(nil), image...)
		if i == 0 {
			write(t, v, 0, data)
		} else {
			for _, at := range []int64{int64(i-1) * int64(model.PageSize), 40*int64(model.PageSize) + 8192} {
				p := pattern(4096, at, uint64(100+i))
				write(t, v, at, p)
				copy(data[at:], p)
			}
		}
		f.rigs, f.open, f.data = append(f.rigs, r), append(f.open, v), append(f.data, data)
	}
	return f
}

// known tells a disk which volumes are relatives, as its node does.
func (f *family) known(s *diskStore) {
	var all []model.Volume
	for _, r := range f.rigs {
		all = append(all, r.record.get())
	}
	s.now().SetFamilies(model.Families(all))
}

// Ten clones of an image whose copies move to another disk, all at the same time and then
// the image, take there what they take where they were: the image once, and what differs.
// They read as before, also when that disk has all that is left.
func TestClonesMoveAsOne(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		const clones = 10
		f := newFamily(t, 3, clones)
		f.known(f.disks[2])
		for i, r := range f.rigs {
			r.follow(t, f.open[i], r.record.leave(0, 1, 3))
		}
		for _, r := range f.rigs {
			eventually(t, "a volume has moved", time.Minute, func() bool { return r.record.get().Columns[0].Whole(2) })
		}
		here, there := f.disks[1].now().Usage().Used/model.PageSize, f.disks[2].now().Usage().Used/model.PageSize
		t.Logf("%d pages are used where they were, %d where they came to", here, there)
		if want := model.Bytes(familyPages + 2*clones); here != want || there > want+want/4 {
			t.Errorf("%d pages are used where they were, want %d, and %d where they came to", here, want, there)
		}
		f.disks[1].crash()
		for i, r := range f.rigs {
			r.pool.setReach(2, Failed)
			wantRead(t, f.open[i], 0, f.data[i])
			r.close(t, f.open[i])
		}
	})
}

// A clone whose disk was lost is rebuilt beside its relatives, through power cuts of that
// disk: it reads as it did, and everything is counted right when the disk is opened again.
func TestCloneIsRebuiltBesideRelatives(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		const clones = 3
		f := newFamily(t, 3, clones)
		for i, r := range f.rigs {
			if i == clones { // moves last, and is cut off
				break
			}
			f.known(f.disks[2])
			r.follow(t, f.open[i], r.record.leave(0, 1, 3))
			eventually(t, "a volume has moved", time.Minute, func() bool { return r.record.get().Columns[0].Whole(2) })
		}
		last, v := f.rigs[clones], f.open[clones]
		last.follow(t, v, last.record.leave(0, 1, 3))
		for range 4 {
			time.Sleep(20 * time.Millisecond)
			f.disks[2].crash()
			time.Sleep(time.Second)
			if err := f.disks[2].restart(); err != nil {
				t.Fatal(err)
			}
			f.known(f.disks[2])
		}
		for i, r := range f.rigs {
			eventually(t, "a volume is whole", time.Minute, func() bool { return r.record.get().Columns[0].Whole(2) })
			wantRead(t, f.open[i], 0, f.data[i])
			r.close(t, f.open[i])
		}
		if there, most := f.disks[2].now().Usage().Used/model.PageSize, model.Bytes((familyPages+2*clones)*5/4); there > most {
			t.Errorf("%d pages are used, want at most %d", there, most)
		}
	})
}
