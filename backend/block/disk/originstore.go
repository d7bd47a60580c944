package disk

import (
	"encoding/binary"
	"math"

	"github.com/cockroachdb/pebble/v2"

	"drystone.example/drystone/backend/model"
)

// The tables of origins.
const (
	tableOrigins  = 'o' // volume, column -> origin
	tableLeaves   = 'l' // volume, column, chunk -> the leaves that have inherited
	originKeySize = 1 + 8 + 4
	originSize    = 1 + 8 + 4
	leafSetSize   = 1 + chunkLeaves/8
)

func originKey(table byte, k columnKey) []byte {
	b := binary.BigEndian.AppendUint64([]byte{table}, uint64(k.vol))
	return binary.BigEndian.AppendUint32(b, k.column)
}

func originValue(x *origin) []byte {
	b := binary.LittleEndian.AppendUint64([]byte{valueVersion}, uint64(x.vol))
	return binary.LittleEndian.AppendUint32(b, uint32(x.epoch))
}

func leafSetKey(k columnKey, chunk uint32) []byte {
	return binary.BigEndian.AppendUint32(originKey(tableLeaves, k), chunk)
}

func leafSetValue(s *leafSet) []byte {
	b := make([]byte, 1, leafSetSize)
	b[0] = valueVersion
	for _, w := range s {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

// putOrigins puts the origins that changed into a batch of the store. The mutex is
// held.
func (d *Disk) putOrigins(b *pebble.Batch) error {
	for k := range d.origins.dirty {
		x := d.origins.columns[k]
		if x == nil || x.fresh {
			end := append(leafSetKey(k, math.MaxUint32), 0)
			if err := b.DeleteRange(leafSetKey(k, 0), end, nil); err != nil {
				return err
			}
		}
		if x == nil {
			if err := b.Delete(originKey(tableOrigins, k), nil); err != nil {
				return err
			}
			continue
		}
		if err := b.Set(originKey(tableOrigins, k), originValue(x), nil); err != nil {
			return err
		}
		for chunk := range x.dirty {
			if err := b.Set(leafSetKey(k, chunk), leafSetValue(x.leaves[chunk]), nil); err != nil {
				return err
			}
		}
		clear(x.dirty)
		x.fresh = false
	}
	clear(d.origins.dirty)
	return nil
}

func parseOrigin(key, value []byte) (k columnKey, vol model.VolumeID, e model.Epoch, err error) {
	if len(key) != originKeySize || len(value) != originSize || value[0] != valueVersion {
		return k, 0, 0, errBadMap
	}
	k = columnKey{model.VolumeID(binary.BigEndian.Uint64(key[1:])), binary.BigEndian.Uint32(key[9:])}
	vol = model.VolumeID(binary.LittleEndian.Uint64(value[1:]))
	return k, vol, model.Epoch(binary.LittleEndian.Uint32(value[9:])), nil
}

func parseLeafSet(key, value []byte) (k columnKey, chunk uint32, s *leafSet, err error) {
	if len(key) != originKeySize+4 || len(value) != leafSetSize || value[0] != valueVersion {
		return k, 0, nil, errBadMap
	}
	k = columnKey{model.VolumeID(binary.BigEndian.Uint64(key[1:])), binary.BigEndian.Uint32(key[9:])}
	s = new(leafSet)
	for i := range s {
		s[i] = binary.LittleEndian.Uint64(value[1+8*i:])
	}
	return k, binary.BigEndian.Uint32(key[originKeySize:]), s, nil
}

// loadOrigins reads what putOrigins wrote.
func (d *Disk) loadOrigins() error {
	err := d.store.table(tableOrigins, func(key, value []byte) (bool, error) {
		k, vol, e, err := parseOrigin(key, value)
		if err != nil {
			return false, err
		}
		if vol == 0 || d.origins.descends(columnKey{vol, k.column}, k.vol) {
			return false, errBadMap
		}
		d.origins.put(k, vol, e)
		d.origins.columns[k].fresh = false
		return true, nil
	})
	if err != nil {
		return err
	}
	clear(d.origins.dirty)
	return d.store.table(tableLeaves, func(key, value []byte) (bool, error) {
		k, chunk, s, err := parseLeafSet(key, value)
		if err != nil {
			return false, err
		}
		x := d.origins.columns[k]
		if x == nil {
			return false, errBadMap
		}
		x.leaves[chunk] = s
		return true, nil
	})
}
