package disk_test

import (
	"hash/crc32"
	"math/bits"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/layout"
	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
)

var table = crc32.MakeTable(crc32.Castagnoli)

// data makes n blocks whose content tells the seed.
func data(n int, seed uint64) (*iobuf.Buffer, []uint32) {
	b := iobuf.Get(n * 4096)
	sums := make([]uint32, n)
	for i := range n {
		fill(b.Bytes[i*4096:][:4096], seed+uint64(i)*1_000_003)
		sums[i] = crc32.Checksum(b.Bytes[i*4096:][:4096], table)
	}
	return b, sums
}

// fill makes a block that differs in every sector.
func fill(b []byte, seed uint64) {
	x := seed*0x9e3779b97f4a7c15 | 1
	for i := range b {
		if i%512 == 0 {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
		}
		b[i] = byte(x >> (i % 8 * 8))
	}
}

func writeOp(gen model.Generation, number, prev uint64, block, count int, seed uint64) *disk.Op {
	b, sums := data(count, seed)
	return &disk.Op{
		Kind: disk.Write, Volume: 1, Generation: gen, Number: number, Prev: prev,
		Block: layout.Block(block), Count: uint64(count), Sums: sums, Data: b,
	}
}

func copyOp(gen model.Generation, number, prev uint64, page uint32, epoch model.Epoch,
	stamp model.Stamp, mask uint16, seed uint64,
) *disk.Op {
	op := &disk.Op{
		Kind: disk.Copy, Volume: 1, Generation: gen, Number: number, Prev: prev, Page: page, Epoch: epoch,
		Version: disk.Version{Page: page, Epoch: epoch, Stamp: stamp, Mask: mask},
	}
	if mask != 0 {
		op.Data, op.Sums = data(bits.OnesCount16(mask), seed)
	}
	return op
}

func apply(d *disk.Disk, op *disk.Op) error {
	done := make(chan error, 1)
	d.Apply(op, func(err error) { done <- err })
	return <-done
}
