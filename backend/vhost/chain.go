package vhost

import (
	"encoding/binary"

	"drystone.example/drystone/backend/model"
)

// chainMax is how many descriptors a request may have. Windows' driver exceeds
// what it is told (126) with a request of 512 pages and 3 more.
const chainMax = 515

// Descriptor flags.
const (
	descNext     = 1 << 0
	descWrite    = 1 << 1
	descIndirect = 1 << 2
	descSize     = 16
)

// A chain is one request's descriptors: what the guest wrote, then what it wants
// written.
type chain struct {
	out, in         []segment
	outSize, inSize uint64
	table           [chainMax * descSize]byte // a private copy of an indirect table
}

type descriptor struct {
	guest uint64
	size  uint32
	flags uint16
	next  uint16
}

func decodeDescriptor(b []byte) descriptor {
	le := binary.LittleEndian
	return descriptor{
		guest: le.Uint64(b), size: le.Uint32(b[8:]), flags: le.Uint16(b[12:]),
		next: le.Uint16(b[14:]),
	}
}

// read follows the chain that begins at head of the table of num descriptors.
// Each descriptor is copied once and judged by the copy. The caller holds m.mu.
//
// An error means that not even the place of the status byte is known.
func (c *chain) read(m *memory, table []byte, num, head uint16, indirect bool) error {
	c.out, c.in, c.outSize, c.inSize = c.out[:0], c.in[:0], 0, 0
	for i, left := head, num; ; left-- {
		if left == 0 {
			return model.Errorf(model.Invalid, "a chain that loops")
		}
		var own [descSize]byte
		copy(own[:], table[int(i)*descSize:][:descSize])
		d := decodeDescriptor(own[:])
		if d.flags&descIndirect != 0 {
			if !indirect || d.flags&descNext != 0 {
				return model.Errorf(model.Invalid, "an indirect table where none may be")
			}
			return c.readTable(m, d)
		}
		if err := c.add(d); err != nil {
			return err
		}
		if d.flags&descNext == 0 {
			return nil
		}
		if i = d.next; i >= num {
			return model.Errorf(model.Invalid, "descriptor %d of %d", i, num)
		}
	}
}

// readTable follows the chain in an indirect table.
func (c *chain) readTable(m *memory, d descriptor) error {
	if d.size == 0 || d.size%descSize != 0 || d.size > chainMax*descSize {
		return model.Errorf(model.Invalid, "an indirect table of %d bytes", d.size)
	}
	table := c.table[:d.size]
	if err := m.gather(table, []segment{{d.guest, d.size}}, 0); err != nil {
		return err
	}
	num := uint16(d.size / descSize)
	for i, left := uint16(0), num; ; left-- {
		if left == 0 {
			return model.Errorf(model.Invalid, "an indirect chain that loops")
		}
		d := decodeDescriptor(table[int(i)*descSize:])
		if d.flags&descIndirect != 0 {
			return model.Errorf(model.Invalid, "an indirect table in an indirect table")
		}
		if err := c.add(d); err != nil {
			return err
		}
		if d.flags&descNext == 0 {
			return nil
		}
		if i = d.next; i >= num {
			return model.Errorf(model.Invalid, "descriptor %d of %d in an indirect table", i, num)
		}
	}
}

func (c *chain) add(d descriptor) error {
	if len(c.out)+len(c.in) == chainMax {
		return model.Errorf(model.Invalid, "a chain of more than %d descriptors", chainMax)
	}
	if d.guest+uint64(d.size) < d.guest {
		return model.Errorf(model.Invalid, "a descriptor beyond the address space")
	}
	s := segment{d.guest, d.size}
	switch {
	case d.flags&descWrite != 0:
		c.in = append(c.in, s)
		c.inSize += uint64(d.size)
	case len(c.in) > 0:
		return model.Errorf(model.Invalid, "something to read after something to write")
	default:
		c.out = append(c.out, s)
		c.outSize += uint64(d.size)
	}
	return nil
}
