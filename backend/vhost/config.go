package vhost

import (
	"encoding/binary"

	"drystone.example/drystone/backend/model"
)

// Virtio features, as bits.
const (
	featureSegMax      = 1 << 2
	featureReadOnly    = 1 << 5
	featureBlkSize     = 1 << 6
	featureFlush       = 1 << 9
	featureTopology    = 1 << 10
	featureConfigWCE   = 1 << 11
	featureMQ          = 1 << 12
	featureDiscard     = 1 << 13
	featureWriteZeroes = 1 << 14
	featureLogAll      = 1 << 26
	featureIndirect    = 1 << 28
	featureEventIdx    = 1 << 29
	featureProtocol    = 1 << 30 // there is a second set of features, below
	featureVersion1    = 1 << 32
)

// Protocol features, as bits. Two are missing on purpose. With post-copy (8),
// touching guest memory would wait for another machine. With memory slots (15),
// QEMU sends each region once per handshake, so that a process that replaces
// another while the guest is stopped would never hear of the guest's memory; the
// price is that a guest has eight regions at most.
const (
	protocolMQ         = 1 << 0
	protocolLog        = 1 << 1
	protocolReplyAck   = 1 << 3
	protocolBackendReq = 1 << 5
	protocolConfig     = 1 << 9
	protocolInflight   = 1 << 12

	protocolOffered = protocolMQ | protocolLog | protocolReplyAck | protocolBackendReq |
		protocolConfig | protocolInflight
)

// features are what the Server offers to the guest.
func (s *Server) features() uint64 {
	f := uint64(featureSegMax | featureBlkSize | featureFlush | featureTopology |
		featureConfigWCE | featureMQ | featureDiscard | featureWriteZeroes | featureLogAll |
		featureIndirect | featureEventIdx | featureProtocol | featureVersion1)
	if s.cfg.ReadOnly {
		f |= featureReadOnly
	}
	return f
}

const (
	configSize = 256 // what QEMU may ask for; ours is shorter and ends in zeroes
	configWCE  = 32  // offset of the one byte the guest may write

	segMax            = 126     // a request in a ring of 128 without indirect tables
	discardSectorsMax = 2 << 20 // 1 GiB
	zeroesSectorsMax  = 128 << 10
	discardAlign      = uint32(model.PageSize / model.SectorSize)
)

// config is the virtio-blk configuration space. Blocks are of 512 bytes because
// firmware and boot loaders read single sectors into buffers that are aligned to
// no more; the physical block tells the guest what is better. Limits of discard
// and write zeroes must not be zero: Windows Server 2025 does not survive it.
func (s *Server) config() []byte {
	le, b := binary.LittleEndian, make([]byte, configSize)
	le.PutUint64(b, uint64(s.size.Load())/sectorSize)
	le.PutUint32(b[12:], segMax)
	le.PutUint32(b[20:], uint32(sectorSize))
	b[24] = 3                 // physical block: 2^3 sectors
	le.PutUint16(b[26:], 8)   // smallest good request, in sectors
	le.PutUint32(b[28:], 128) // best request, in blocks of 512: 64 KiB
	b[configWCE] = 1          // the guest may flush; it need not
	le.PutUint16(b[34:], uint16(s.cfg.Queues))
	le.PutUint32(b[36:], discardSectorsMax)
	le.PutUint32(b[40:], rangesMax)
	le.PutUint32(b[44:], discardAlign)
	le.PutUint32(b[48:], zeroesSectorsMax)
	le.PutUint32(b[52:], rangesMax)
	b[56] = 1 // write zeroes may unmap
	return b
}
