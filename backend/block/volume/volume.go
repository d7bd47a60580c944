package volume

import (
	"context"

	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
)

// A Volume is one held volume. Its methods are safe for concurrent use.
type Volume struct {
	size int64
	done chan struct{}
}

var errStub = model.Errorf(model.Unavailable, "the holder is not there yet")

// Open takes the volume over: rec is the record after raft gave this node its
// Generation. It returns when every active member holds the same and the volume
// may be served. Where a column has no active member in reach it goes on trying
// until ctx ends, and then says in a model.Unavailable error for which disk.
// The Volume outlives ctx; Close ends it.
func Open(ctx context.Context, rec model.Volume, cfg Config) (*Volume, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return nil, errStub
}

// Size is the volume's size in bytes.
func (v *Volume) Size() int64 { return v.size }

// ReadAt fills p with what lies at off. Any multiple of model.SectorSize is fine.
func (v *Volume) ReadAt(ctx context.Context, p []byte, off int64) error { return errStub }

// WriteAt writes b.Bytes at off and returns when the write will survive. The
// volume retains b as long as it needs it; nobody changes its bytes meanwhile. After
// an error the write may or may not have happened.
func (v *Volume) WriteAt(ctx context.Context, b *iobuf.Buffer, off int64) error { return errStub }

// Discard makes n bytes at off read as zeros and frees their space.
func (v *Volume) Discard(ctx context.Context, off, n int64) error { return errStub }

// WriteZeroes makes n bytes at off read as zeros.
func (v *Volume) WriteZeroes(ctx context.Context, off, n int64) error { return errStub }

// Flush returns at once: what was answered is durable.
func (v *Volume) Flush(ctx context.Context) error { return errStub }

// Extents says which parts of [off, off+n) hold data. It may answer for less
// than n bytes, never for none.
func (v *Volume) Extents(ctx context.Context, off, n int64) ([]Run, error) { return nil, errStub }

// Resize takes over a record that another than the holder changed: a volume that has grown.
func (v *Volume) Resize(rec model.Volume) error { return errStub }

// Status says how the volume is.
func (v *Volume) Status() Status { return Status{} }

// Stats returns the counters.
func (v *Volume) Stats() Stats { return Stats{} }

// Done is closed when the volume stopped serving for good; Err then says why.
func (v *Volume) Done() <-chan struct{} { return v.done }

// Err is nil while the volume serves, model.Fenced after another holder took it.
func (v *Volume) Err() error { return nil }

// Close lets requests in flight finish, tells the members that all is
// acknowledged, and stops. When ctx ends first it stops at once.
func (v *Volume) Close(ctx context.Context) error { return nil }
