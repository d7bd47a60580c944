package volume

import (
	"context"

	"drystone.example/drystone/backend/model"
)

// A Snapshot reads a held volume as it was when a snapshot of it was cut. It can
// be used for as long as the volume serves and the snapshot is not deleted: then
// reads fail with model.NotFound.
type Snapshot struct {
	v  *Volume
	of model.Snapshot
}

// At returns the volume as of a snapshot of it.
func (v *Volume) At(s model.Snapshot) (*Snapshot, error) {
	rec := v.known()
	switch {
	case s.Volume != v.id:
		return nil, model.Errorf(model.Invalid, "the snapshot %s is not one of volume %s", s.ID, v.id)
	case s.Epoch == 0 || s.Epoch >= rec.Epoch:
		return nil, model.Errorf(model.Invalid,
			"the snapshot %s is of epoch %d; volume %s is at %d itself", s.ID, s.Epoch, v.id, rec.Epoch)
	}
	return &Snapshot{v: v, of: s}, nil
}

// Size is the volume's size in bytes when it was cut.
func (s *Snapshot) Size() int64 { return int64(s.of.Size) }

// ReadAt fills p with what lay at off.
func (s *Snapshot) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := s.within(off, int64(len(p))); err != nil {
		return err
	}
	if err := s.v.readAt(ctx, p, off, s.of.Epoch); err != nil {
		return err
	}
	return s.v.keeps(s.of.Epoch)
}

// Extents says which parts of [off, off+n) held data. It may answer for less than
// n bytes, never for none.
func (s *Snapshot) Extents(ctx context.Context, off, n int64) ([]Run, error) {
	if err := s.within(off, n); err != nil {
		return nil, err
	}
	runs, err := s.v.extents(ctx, off, n, s.of.Epoch)
	if err == nil {
		err = s.v.keeps(s.of.Epoch)
	}
	return runs, err
}

// within judges by the size the volume had, whatever it has now.
func (s *Snapshot) within(off, n int64) error { return inside(off, n, s.Size()) }
