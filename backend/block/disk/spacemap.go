package disk

import (
	"encoding/binary"
	"maps"
	"math/bits"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"drystone.example/drystone/backend/model"
)

// What a checkpoint keeps of the space, so that opening a disk does not have to read
// the whole map: which places are named, and how much each column has. Both go into
// the store in one batch with the map and the position it belongs to, so they are
// what the map says, exactly. If they are not there, or there is a doubt, the map is
// read instead (Disk.rebuildSpace).

// change is called before another set of places in a chunk is named.
func (s *space) change(p place) {
	c := uint32(p) / chunkPlaces
	s.dirty[c] = struct{}{}
	if kept, ok := s.frozen[c]; ok && kept == nil {
		s.frozen[c] = s.named([]uint32{c})[0]
	}
}

// freeze hands the chunks that changed to a checkpoint.
func (s *space) freeze() {
	s.frozen = make(map[uint32][]byte, len(s.dirty))
	for c := range s.dirty {
		s.frozen[c] = nil
	}
	clear(s.dirty)
}

// thaw returns some of the frozen chunks, as they were, until it returns none.
func (s *space) thaw(most int) (chunks []uint32, values [][]byte) {
	var same []uint32
	for c, kept := range s.frozen {
		if len(chunks)+len(same) == most {
			break
		}
		delete(s.frozen, c)
		if kept == nil {
			same = append(same, c)
			continue
		}
		chunks, values = append(chunks, c), append(values, kept)
	}
	return append(chunks, same...), append(values, s.named(same)...)
}

// named returns the values of chunks: which places of each a version names.
func (s *space) named(chunks []uint32) [][]byte {
	index := make(map[uint32]int, len(chunks))
	words := make([][]uint64, len(chunks))
	for i, c := range chunks {
		index[c] = i
		words[i] = slices.Clone(s.used[c*chunkWords : min(int(c+1)*chunkWords, len(s.used))])
	}
	for _, m := range [2]map[place]struct{}{s.fresh, s.leaving} {
		for p := range m {
			if i, ok := index[uint32(p)/chunkPlaces]; ok {
				words[i][p%chunkPlaces/64] &^= 1 << (p % 64)
			}
		}
	}
	out := make([][]byte, len(chunks))
	for i, w := range words {
		out[i] = chunkValue(w)
	}
	return out
}

// count is how many places are named.
func (s *space) count() uint64 {
	return uint64(int(s.pages) - s.free - len(s.fresh) - len(s.leaving))
}

// chunkValue is a chunk as the map keeps it.
func chunkValue(words []uint64) []byte {
	b := make([]byte, 5, 5+8*len(words))
	for _, w := range words {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	b[0] = valueVersion
	binary.LittleEndian.PutUint32(b[1:], sumOf(b[5:]))
	return b
}

// load marks what a chunk names. It reports whether the chunk makes sense.
func (s *space) load(c uint32, value []byte) bool {
	if int(c) >= len(s.room) {
		return false
	}
	words := s.used[c*chunkWords : min(int(c+1)*chunkWords, len(s.used))]
	if len(value) != 5+8*len(words) || value[0] != valueVersion ||
		binary.LittleEndian.Uint32(value[1:]) != sumOf(value[5:]) {
		return false
	}
	for i := range words {
		w := binary.LittleEndian.Uint64(value[5+8*i:])
		n := bits.OnesCount64(w &^ words[i]) // the last word has bits beyond the end
		words[i] |= w
		s.room[c] -= uint16(n)
		s.free -= n
	}
	return true
}

func chunkKey(c uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{tableSpace}, c)
}

func countKey(k columnKey) []byte {
	b := binary.BigEndian.AppendUint64([]byte{tableCounts}, uint64(k.vol))
	return binary.BigEndian.AppendUint32(b, k.column)
}

// count notes that a version came or went, and whether it has a place.
func (d *Disk) count(k pageKey, n, pages int) {
	d.rowOf(k.vol).count(k.column, n, pages)
	d.dirtyCounts[columnKey{k.vol, k.column}] = struct{}{}
}

// putCounts puts into a checkpoint's batch what columns have, and hands it the space.
// The mutex is held.
func (d *Disk) putCounts(b *pebble.Batch, at position) error {
	if d.counted && d.counters.checkpoints.Load() == 0 { // what the store has is of no use
		for _, t := range [2]byte{tableSpace, tableCounts} {
			if err := b.DeleteRange([]byte{t}, []byte{t + 1}, nil); err != nil {
				return err
			}
		}
		for c, room := range d.space.room {
			if room < chunkPlaces {
				d.space.dirty[uint32(c)] = struct{}{}
			}
		}
		for vol, r := range d.rows {
			for c := range r.columns {
				d.dirtyCounts[columnKey{vol, c}] = struct{}{}
			}
		}
	}
	for k := range d.dirtyCounts {
		var h holding
		if r := d.rows[k.vol]; r != nil {
			h = r.columns[k.column]
		}
		var err error
		if h.versions > 0 {
			value := appendPair([]byte{valueVersion}, uint64(h.versions), uint64(h.pages))
			err = b.Set(countKey(k), value, nil)
		} else {
			err = b.Delete(countKey(k), nil)
		}
		if err != nil {
			return err
		}
	}
	clear(d.dirtyCounts)
	d.space.freeze()
	return b.Set(metaSpace, appendPair([]byte{valueVersion}, at.lsn, d.space.count()), nil)
}

// putSpace puts the chunks that changed into a checkpoint's batch.
func (d *Disk) putSpace(b *pebble.Batch) error {
	const together = 64
	for {
		d.mu.Lock()
		chunks, values := d.space.thaw(together)
		d.mu.Unlock()
		if len(chunks) == 0 {
			return nil
		}
		for i, c := range chunks {
			if err := b.Set(chunkKey(c), values[i], nil); err != nil {
				return err
			}
		}
	}
}

// loadSpace takes the space and the counts from the store, where they belong to the
// position the map is at. It reports whether they did; if not, d.space stays nil.
func (d *Disk) loadSpace(at position) (bool, error) {
	value, err := d.store.get(metaSpace)
	if err != nil || value == nil {
		return false, err
	}
	lsn, named, ok := parsePair(value)
	if !ok || lsn != at.lsn { // a program that does not know of it was here
		return false, nil
	}
	s := newSpace(d.super.pages)
	good := true
	err = d.store.table(tableSpace, func(key, value []byte) (bool, error) {
		good = len(key) == 5 && s.load(binary.BigEndian.Uint32(key[1:]), value)
		return good, nil
	})
	if err != nil || !good || s.count() != named {
		return false, err
	}
	counts := make(map[columnKey]holding)
	err = d.store.table(tableCounts, func(key, value []byte) (bool, error) {
		versions, pages, ok := parsePair(value)
		if good = ok && len(key) == 13; good {
			k := columnKey{model.VolumeID(binary.BigEndian.Uint64(key[1:])), binary.BigEndian.Uint32(key[9:])}
			counts[k] = holding{int(versions), int(pages)}
		}
		return good, nil
	})
	if err != nil || !good {
		return false, err
	}
	for k := range maps.Keys(counts) {
		d.rowOf(k.vol).columns[k.column] = counts[k]
	}
	d.space = s
	return true, nil
}
