package vhost

import (
	"encoding/binary"
	"testing"
)

// flat is a memory of one region of n bytes at guest address 0, in ordinary
// memory.
func flat(n int) *memory {
	return &memory{regions: []mapping{{
		region: region{size: uint64(n), user: userAt}, data: make([]byte, n),
	}}}
}

// Whatever a table holds, reading a chain from it ends, within chainMax, with
// sums that are those of its parts.
func FuzzChain(f *testing.F) {
	const num, tableAt = 64, 4096
	desc := func(d descriptor) []byte { b := make([]byte, descSize); putDesc(b, d); return b }
	join := func(ds ...descriptor) (b []byte) {
		for _, d := range ds {
			b = append(b, desc(d)...)
		}
		return b
	}
	f.Add(join(descriptor{100, 16, descNext, 1}, descriptor{200, 512, descNext, 2},
		descriptor{900, 1, descWrite, 0}), uint16(0), true)
	f.Add(join(descriptor{100, 16, descNext, 0}), uint16(0), true)
	f.Add(join(descriptor{tableAt, 32, descIndirect, 0}, descriptor{}, descriptor{}), uint16(0), true)
	f.Add(join(descriptor{1<<64 - 1, 1<<32 - 1, descWrite, 0}), uint16(0), false)
	f.Add(append(join(descriptor{num * descSize, chainMax * 16, descIndirect, 0}),
		make([]byte, 4096)...), uint16(0), true)
	f.Fuzz(func(t *testing.T, b []byte, head uint16, indirect bool) {
		m := flat(16 << 10)
		copy(m.regions[0].data, b)
		var c chain
		if err := c.read(m, m.at(0, num*descSize), num, head%num, indirect); err != nil {
			return
		}
		if n := len(c.in) + len(c.out); n == 0 || n > chainMax {
			t.Errorf("%d descriptors", n)
		}
		for _, side := range []struct {
			segs []segment
			size uint64
		}{{c.in, c.inSize}, {c.out, c.outSize}} {
			sum := uint64(0)
			for _, s := range side.segs {
				sum += uint64(s.size)
				if s.guest+uint64(s.size) < s.guest {
					t.Errorf("%+v leads around the address space", s)
				}
			}
			if sum != side.size {
				t.Errorf("%d bytes are said to be %d", sum, side.size)
			}
			p := make([]byte, min(side.size, 64<<10))
			if err := m.gather(p, side.segs, 0); err == nil && len(p) > 0 {
				if err := m.scatter(p, side.segs, 0); err != nil {
					t.Errorf("readable and not writable: %v", err)
				}
			}
		}
	})
}

// Whatever a message holds, decoding it neither falls over nor lets through what
// is checked here.
func FuzzMessage(f *testing.F) {
	f.Add(u64(protocolOffered))
	f.Add(table(lowRegion, highRegion))
	f.Add(encodeInflight(4096, inflightShape{2, 128}, inflightLen))
	f.Add(append(binary.LittleEndian.AppendUint32(nil, 1), make([]byte, 36)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= headerSize {
			if _, _, size, err := decodeHeader(b); err == nil && size > bodyMax {
				t.Errorf("a body of %d bytes", size)
			}
		}
		if regions, err := decodeTable(b); err == nil && len(regions) > tableMax {
			t.Errorf("%d regions", len(regions))
		}
		if off, size, content, err := decodeConfig(b); err == nil &&
			(off+size > configSize || len(content) != int(size)) {
			t.Errorf("configuration at %d, %d bytes of %d", off, size, len(content))
		}
		if _, _, shape, err := decodeInflight(b); err == nil && shape.check(64) == nil &&
			shape.bytes() > 64*(ringMax+4)*inflightDesc {
			t.Errorf("a record of %d bytes", shape.bytes())
		}
		_, _, _ = decodeVring(b)
		_, _, _ = decodeVringAddr(b)
		_, _, _ = decodeLog(b)
		_, _ = decodeU64(b)
		_, _ = decodeNegotiated(b)
	})
}
