// Package layout maps a volume's address space onto columns. It is arithmetic
// only: no state, no I/O, no errors. What cannot be mapped is a bug in the
// caller and panics.
package layout

import (
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/must"
)

// A Block is an index into a column's address space, in units of model.BlockSize.
type Block uint64

// Page returns the page a block lies in.
func (b Block) Page() uint32 { return uint32(uint64(b) / uint64(model.BlocksPerPage)) }

// InPage returns the index of a block within its page, 0 to 15.
func (b Block) InPage() int { return int(uint64(b) % uint64(model.BlocksPerPage)) }

// FirstBlock returns the first block of a page.
func FirstBlock(page uint32) Block { return Block(page) * Block(model.BlocksPerPage) }

// An Extent is a run of blocks in one column.
type Extent struct {
	Column int
	Start  Block
	Count  int
	Offset model.Bytes // where it begins, relative to the start of the request
}

// Split cuts [off, off+n) of a volume of the given columns at stripe boundaries,
// in address order. off and n are multiples of model.BlockSize.
func Split(columns int, off, n model.Bytes) []Extent {
	must.That(columns > 0 && off >= 0 && n >= 0 && off%model.BlockSize == 0 && n%model.BlockSize == 0,
		"layout of %d+%d over %d columns", off, n, columns)
	out := make([]Extent, 0, n/model.StripeUnit+2)
	for done := model.Bytes(0); done < n; {
		at := off + done
		unit, into := at/model.StripeUnit, at%model.StripeUnit
		run := min(n-done, model.StripeUnit-into)
		row := unit / model.Bytes(columns)
		out = append(out, Extent{
			Column: int(unit % model.Bytes(columns)),
			Start:  Block((row*model.StripeUnit + into) / model.BlockSize),
			Count:  int(run / model.BlockSize),
			Offset: done,
		})
		done += run
	}
	return out
}

// Range returns the blocks of one column that [off, off+n) of a volume covers,
// whole blocks only. They are contiguous in the column, so that a discard of any
// length is one range a column; count is zero where the column has no part.
func Range(columns, column int, off, n model.Bytes) (start Block, count uint64) {
	lo := blocksBelow(columns, column, (off+model.BlockSize-1)/model.BlockSize)
	hi := blocksBelow(columns, column, (off+n)/model.BlockSize)
	if hi <= lo {
		return 0, 0
	}
	return Block(lo), hi - lo
}

// blocksBelow counts the blocks of a column that lie below a block of the volume.
func blocksBelow(columns, column int, block model.Bytes) uint64 {
	const perUnit = model.StripeUnit / model.BlockSize
	unit, into := block/perUnit, block%perUnit
	row, at := unit/model.Bytes(columns), unit%model.Bytes(columns)
	n := row * perUnit
	switch {
	case at > model.Bytes(column):
		n += perUnit
	case at == model.Bytes(column):
		n += into
	}
	return uint64(n)
}

// Offset returns where a block of a column lies in the volume.
func Offset(columns, column int, b Block) model.Bytes {
	const perUnit = uint64(model.StripeUnit / model.BlockSize)
	row, into := uint64(b)/perUnit, uint64(b)%perUnit
	return model.Bytes(row*uint64(columns)+uint64(column))*model.StripeUnit + model.Bytes(into)*model.BlockSize
}

// Pages returns how many pages a column of a volume has.
func Pages(columns int, size model.Bytes) uint32 {
	units := (size + model.StripeUnit - 1) / model.StripeUnit
	rows := (units + model.Bytes(columns) - 1) / model.Bytes(columns)
	return uint32(rows * (model.StripeUnit / model.PageSize))
}
