package volume

import (
	"context"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/layout"
	"drystone.example/drystone/backend/model"
)

// maxExtents is how many stripe units one call of Extents looks at.
const maxExtents = 64

// Extents says which parts of [off, off+n) hold data. It may answer for less
// than n bytes, never for none.
func (v *Volume) Extents(ctx context.Context, off, n int64) ([]Run, error) {
	return v.extents(ctx, off, n, v.known().Epoch)
}

// extents is Extents as of an epoch.
func (v *Volume) extents(ctx context.Context, off, n int64, epoch model.Epoch) ([]Run, error) {
	if err := v.admit(ctx, off, n); err != nil {
		return nil, err
	}
	end := min(off+n, off/int64(model.StripeUnit)*int64(model.StripeUnit)+maxExtents*int64(model.StripeUnit))
	lo := off / int64(blockSize) * int64(blockSize)
	hi := (end + int64(blockSize) - 1) / int64(blockSize) * int64(blockSize)
	var runs []Run
	add := func(length int64, zero bool) {
		if k := len(runs); k > 0 && runs[k-1].Zero == zero {
			runs[k-1].Length += model.Bytes(length)
		} else if length > 0 {
			runs = append(runs, Run{Length: model.Bytes(length), Zero: zero})
		}
	}
	for _, x := range layout.Split(len(v.columns), model.Bytes(lo), model.Bytes(hi-lo)) {
		present, err := v.stored(ctx, x, epoch)
		if err != nil {
			return nil, err
		}
		for i, there := range present {
			from := lo + int64(x.Offset) + int64(i*blockSize)
			add(min(from+int64(blockSize), end)-max(from, off), !there)
		}
	}
	return runs, nil
}

// stored says of each block of an extent whether it is stored as of an epoch.
func (v *Volume) stored(ctx context.Context, x layout.Extent, epoch model.Epoch) ([]bool, error) {
	out := make([]bool, x.Count)
	to := (x.Start + layout.Block(x.Count) - 1).Page() + 1
	for from := x.Start.Page(); from < to; {
		l, err := v.listAny(ctx, x.Column, disk.List{Column: uint32(x.Column), From: from, To: to, Max: listMax})
		if err != nil {
			return nil, err
		}
		for i, have := range l.Versions {
			newest := have.Epoch <= epoch &&
				(i+1 == len(l.Versions) || l.Versions[i+1].Page != have.Page || l.Versions[i+1].Epoch > epoch)
			for b := 0; newest && b < model.BlocksPerPage; b++ {
				at := int64(layout.FirstBlock(have.Page)) + int64(b) - int64(x.Start)
				if at >= 0 && at < int64(x.Count) {
					out[at] = have.Mask>>b&1 != 0
				}
			}
		}
		if l.Done || l.Next <= from {
			break
		}
		from = l.Next
	}
	return out, nil
}
