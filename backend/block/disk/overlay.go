package disk

import (
	"cmp"
	"math/bits"
	"slices"

	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
)

// An overlay holds the blocks that are durable in the journal and not yet written
// in place. Reads look here first. The disk's mutex guards it.
type overlay struct {
	// fresh is what came since the last round; round is what is being written in
	// place now. Fresh hides round.
	fresh, round map[place]*blocks
	bytes        int // of both
}

// blocks are some of the blocks of one page.
type blocks struct {
	mask uint16
	at   [model.BlocksPerPage]blockRef
}

// A blockRef is a block in a buffer that it has retained.
type blockRef struct {
	buf   *iobuf.Buffer
	index uint32
}

func (r blockRef) bytes() []byte {
	return r.buf.Bytes[int(r.index)*blockSize:][:blockSize]
}

func newOverlay() *overlay { return &overlay{fresh: make(map[place]*blocks)} }

// put adds a block to what is fresh, in the stead of an older one.
func (o *overlay) put(p place, block int, ref blockRef) {
	b := o.fresh[p]
	if b == nil {
		b = new(blocks)
		o.fresh[p] = b
	}
	if b.mask&(1<<block) != 0 {
		b.at[block].buf.Release()
		o.bytes -= blockSize
	}
	ref.buf.Retain()
	b.mask |= 1 << block
	b.at[block] = ref
	o.bytes += blockSize
}

// get returns the newest pending content of a block, retained, or false.
func (o *overlay) get(p place, block int) (blockRef, bool) {
	for _, m := range [2]map[place]*blocks{o.fresh, o.round} {
		if b := m[p]; b != nil && b.mask&(1<<block) != 0 {
			b.at[block].buf.Retain()
			return b.at[block], true
		}
	}
	return blockRef{}, false
}

// mask tells which blocks of a place are pending.
func (o *overlay) mask(p place) (mask uint16) {
	if b := o.fresh[p]; b != nil {
		mask = b.mask
	}
	if b := o.round[p]; b != nil {
		mask |= b.mask
	}
	return mask
}

// forget drops what is fresh for some blocks of a place.
func (o *overlay) forget(p place, mask uint16) {
	b := o.fresh[p]
	if b == nil {
		return
	}
	for left := b.mask & mask; left != 0; left &= left - 1 {
		i := bits.TrailingZeros16(left)
		b.at[i].buf.Release()
		b.at[i] = blockRef{}
		o.bytes -= blockSize
	}
	if b.mask &^= mask; b.mask == 0 {
		delete(o.fresh, p)
	}
}

// begin makes what is fresh the present round and returns its places in order.
func (o *overlay) begin() []place {
	o.round, o.fresh = o.fresh, make(map[place]*blocks)
	places := make([]place, 0, len(o.round))
	for p := range o.round {
		places = append(places, p)
	}
	slices.SortFunc(places, cmp.Compare)
	return places
}

// end drops the round, which is in place now.
func (o *overlay) end() {
	for _, b := range o.round {
		for left := b.mask; left != 0; left &= left - 1 {
			b.at[bits.TrailingZeros16(left)].buf.Release()
			o.bytes -= blockSize
		}
	}
	o.round = nil
}
