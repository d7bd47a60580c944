package server

import (
	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/model"
)

// What tests outside need to speak the protocol by hand.

func HelloBytes(low, high uint16, instance uint64) []byte {
	return hello{low: low, high: high, instance: instance}.encode()
}

// FrameBytes makes a frame of a kind with any meta and data.
func FrameBytes(k, s uint8, id uint64, d model.DiskID, meta, data []byte) []byte {
	b := append(begin(nil), meta...)
	finish(b, 0, header{data: len(data), id: id, disk: d, kind: kind(k), status: status(s)})
	return append(b, data...)
}

func OpBytes(op *disk.Op) []byte    { return appendOp(nil, op) }
func ReadBytes(q disk.Read) []byte  { return appendRead(nil, q) }
func HeaderSize() int               { return headerSize }
func HelloSize() int                { return helloSize }
func Answer(k uint8) uint8          { return k | uint8(answerBit) }
func Limits() (meta, data, ops int) { return maxMeta, maxData, windowOps }
