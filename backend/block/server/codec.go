package server

import (
	"hash/crc32"
	"math/bits"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/layout"
	"drystone.example/drystone/backend/model"
)

// A reader takes values off a frame's meta; after the first that is not there it
// gives zeros and ok is false.
type reader struct {
	b  []byte
	ok bool
}

func (r *reader) take(n int) []byte {
	if !r.ok || len(r.b) < n {
		r.ok = false
		return make([]byte, n)
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) u8() uint8   { return r.take(1)[0] }
func (r *reader) u16() uint16 { return le.Uint16(r.take(2)) }
func (r *reader) u32() uint32 { return le.Uint32(r.take(4)) }
func (r *reader) u64() uint64 { return le.Uint64(r.take(8)) }

func (r *reader) stamp() model.Stamp {
	return model.Stamp{Generation: model.Generation(r.u64()), Number: r.u64()}
}

// sums reads n sums into dst, which it grows if need be.
func (r *reader) sums(dst []uint32, n int) []uint32 {
	if !r.ok || len(r.b) < 4*n {
		r.ok = false
		return dst[:0]
	}
	if cap(dst) < n {
		dst = make([]uint32, n)
	}
	dst = dst[:n]
	for i := range dst {
		dst[i] = le.Uint32(r.b[4*i:])
	}
	r.b = r.b[4*n:]
	return dst
}

// done reports whether everything was there and nothing is left.
func (r *reader) done() bool { return r.ok && len(r.b) == 0 }

func appendStamp(b []byte, s model.Stamp) []byte {
	b = le.AppendUint64(b, uint64(s.Generation))
	return le.AppendUint64(b, s.Number)
}

func appendSums(b []byte, sums []uint32) []byte {
	for _, s := range sums {
		b = le.AppendUint32(b, s)
	}
	return b
}

// maxBlock is one past the last block a column can have: its page is 32 bits.
const maxBlock = layout.Block(1) << 36

// dataBlocks is how many blocks of data an op carries.
func dataBlocks(op *disk.Op) int {
	switch op.Kind {
	case disk.Write:
		return int(op.Count)
	case disk.Copy:
		return bits.OnesCount16(op.Version.Mask)
	case disk.Discard, disk.Remove, disk.Mark:
	}
	return 0
}

// withLost marks the kind of a copy that names lost blocks behind its mask.
const withLost disk.Kind = 0x40

func appendOp(b []byte, op *disk.Op) []byte {
	kind := op.Kind
	if kind == disk.Copy && op.Lost != 0 {
		kind |= withLost
	}
	b = append(b, byte(kind))
	b = le.AppendUint64(b, uint64(op.Volume))
	b = le.AppendUint64(b, uint64(op.Generation))
	b = le.AppendUint64(b, op.Number)
	b = le.AppendUint64(b, op.Prev)
	b = appendStamp(b, op.Watermark)
	b = le.AppendUint32(b, op.Column)
	b = le.AppendUint32(b, uint32(op.Epoch))
	switch op.Kind {
	case disk.Write, disk.Discard:
		b = le.AppendUint64(b, uint64(op.Block))
		b = le.AppendUint64(b, op.Count)
	case disk.Copy:
		b = le.AppendUint32(b, op.Page)
		b = appendStamp(b, op.Version.Stamp)
		b = le.AppendUint16(b, op.Version.Mask)
		if op.Lost != 0 {
			b = le.AppendUint16(b, op.Lost)
		}
	case disk.Remove:
		b = le.AppendUint32(b, op.Page)
	case disk.Mark:
	}
	return appendSums(b, op.Sums)
}

// decodeOp reads an op without its data, of which there are data bytes, and holds
// everything against what an op can be. It reuses the memory of op.Sums.
func decodeOp(meta []byte, data int, op *disk.Op) error {
	sums := op.Sums
	r := reader{b: meta, ok: true}
	*op = disk.Op{
		Kind:       disk.Kind(r.u8()),
		Volume:     model.VolumeID(r.u64()),
		Generation: model.Generation(r.u64()),
		Number:     r.u64(),
		Prev:       r.u64(),
		Watermark:  r.stamp(),
		Column:     r.u32(),
		Epoch:      model.Epoch(r.u32()),
	}
	ok := true
	lost := op.Kind == disk.Copy|withLost
	if lost {
		op.Kind = disk.Copy
	}
	switch op.Kind {
	case disk.Write, disk.Discard:
		op.Block, op.Count = layout.Block(r.u64()), r.u64()
		ok = op.Count > 0 && op.Count <= uint64(maxBlock) && op.Block <= maxBlock-layout.Block(op.Count)
		ok = ok && (op.Kind == disk.Discard || op.Count <= uint64(maxBlocks))
	case disk.Copy:
		op.Page = r.u32()
		op.Version = disk.Version{Page: op.Page, Epoch: op.Epoch, Stamp: r.stamp(), Mask: r.u16()}
		if lost {
			op.Lost = r.u16()
			ok = op.Lost != 0 && op.Lost&^op.Version.Mask == 0
		}
	case disk.Remove:
		op.Page = r.u32()
	case disk.Mark:
	default:
		ok = false
	}
	if !ok {
		return errFrame
	}
	n := dataBlocks(op)
	op.Sums = r.sums(sums, n)
	if !r.done() || data != n*int(model.BlockSize) || op.Volume == 0 || op.Number <= op.Prev {
		return errFrame
	}
	if op.Kind == disk.Copy {
		spread(&op.Version, op.Sums)
	}
	return nil
}

// spread puts sums in the order of the mask's bits to their blocks.
func spread(v *disk.Version, sums []uint32) {
	i := 0
	for m := v.Mask; m != 0; m &= m - 1 {
		v.Sums[bits.TrailingZeros16(m)] = sums[i]
		i++
	}
}

// appendVersion is the long form, with only the sums that are there.
func appendVersion(b []byte, v *disk.Version) []byte {
	b = le.AppendUint32(b, v.Page)
	b = le.AppendUint32(b, uint32(v.Epoch))
	b = appendStamp(b, v.Stamp)
	b = le.AppendUint16(b, v.Mask)
	for m := v.Mask; m != 0; m &= m - 1 {
		b = le.AppendUint32(b, v.Sums[bits.TrailingZeros16(m)])
	}
	return b
}

// versionMost is the length of the longest version.
const versionMost = 4 + 4 + 16 + 2 + 16*4

func (r *reader) version() (v disk.Version) {
	v.Page, v.Epoch, v.Stamp, v.Mask = r.u32(), model.Epoch(r.u32()), r.stamp(), r.u16()
	var room [16]uint32
	if sums := r.sums(room[:0], bits.OnesCount16(v.Mask)); r.ok {
		spread(&v, sums)
	}
	return v
}

func appendPrepare(b []byte, p disk.Prepare) []byte {
	b = le.AppendUint64(b, uint64(p.Volume))
	b = le.AppendUint64(b, uint64(p.Generation))
	b = le.AppendUint64(b, p.Last)
	if o := p.Origin; o != nil { // an older node does not know it, and refuses
		b = le.AppendUint64(b, uint64(o.Volume))
		b = le.AppendUint32(b, uint32(o.Epoch))
		b = le.AppendUint16(b, uint16(len(o.Columns)))
		for _, c := range o.Columns {
			b = le.AppendUint32(b, c)
		}
	}
	return b
}

func decodePrepare(meta []byte) (disk.Prepare, error) {
	r := reader{b: meta, ok: true}
	p := disk.Prepare{Volume: model.VolumeID(r.u64()), Generation: model.Generation(r.u64()), Last: r.u64()}
	if len(r.b) > 0 {
		p.Origin = &disk.Origin{Volume: model.VolumeID(r.u64()), Epoch: model.Epoch(r.u32())}
		n := int(r.u16())
		if n > model.MaxColumns {
			return disk.Prepare{}, errFrame
		}
		p.Origin.Columns = r.sums(nil, n)
	}
	if !r.done() || p.Volume == 0 {
		return disk.Prepare{}, errFrame
	}
	return p, nil
}

func appendRead(b []byte, q disk.Read) []byte {
	b = le.AppendUint64(b, uint64(q.Volume))
	b = le.AppendUint64(b, uint64(q.Generation))
	b = le.AppendUint32(b, q.Column)
	b = le.AppendUint64(b, uint64(q.Block))
	b = le.AppendUint32(b, uint32(q.Count))
	return le.AppendUint32(b, uint32(q.Epoch))
}

func decodeRead(meta []byte) (disk.Read, error) {
	r := reader{b: meta, ok: true}
	q := disk.Read{
		Volume:     model.VolumeID(r.u64()),
		Generation: model.Generation(r.u64()),
		Column:     r.u32(),
		Block:      layout.Block(r.u64()),
		Count:      int(r.u32()),
		Epoch:      model.Epoch(r.u32()),
	}
	if !r.done() || q.Volume == 0 || q.Count < 1 || q.Count > maxBlocks || q.Block > maxBlock-layout.Block(q.Count) {
		return disk.Read{}, errFrame
	}
	return q, nil
}

func appendList(b []byte, l disk.List) []byte {
	b = le.AppendUint64(b, uint64(l.Volume))
	b = le.AppendUint64(b, uint64(l.Generation))
	b = le.AppendUint32(b, l.Column)
	b = le.AppendUint32(b, l.From)
	b = le.AppendUint32(b, l.To)
	return le.AppendUint32(b, uint32(l.Max))
}

func decodeList(meta []byte) (disk.List, error) {
	r := reader{b: meta, ok: true}
	l := disk.List{
		Volume:     model.VolumeID(r.u64()),
		Generation: model.Generation(r.u64()),
		Column:     r.u32(),
		From:       r.u32(),
		To:         r.u32(),
		Max:        int(r.u32()),
	}
	if !r.done() || l.Volume == 0 || l.Max > maxListed {
		return disk.List{}, errFrame
	}
	return l, nil
}

// A versionQuery asks for one version: what ReadVersion has as arguments.
type versionQuery struct {
	volume       model.VolumeID
	generation   model.Generation
	column, page uint32
	epoch        model.Epoch
}

func appendVersionQuery(b []byte, q versionQuery) []byte {
	b = le.AppendUint64(b, uint64(q.volume))
	b = le.AppendUint64(b, uint64(q.generation))
	b = le.AppendUint32(b, q.column)
	b = le.AppendUint32(b, q.page)
	return le.AppendUint32(b, uint32(q.epoch))
}

func decodeVersionQuery(meta []byte) (versionQuery, error) {
	r := reader{b: meta, ok: true}
	q := versionQuery{
		volume:     model.VolumeID(r.u64()),
		generation: model.Generation(r.u64()),
		column:     r.u32(),
		page:       r.u32(),
		epoch:      model.Epoch(r.u32()),
	}
	if !r.done() || q.volume == 0 {
		return versionQuery{}, errFrame
	}
	return q, nil
}

// Lists travel as data, since they can be longer than a meta may be.

func encodePromise(p disk.Promise) []byte {
	b := make([]byte, 0, 20+len(p.Uncertain)*(versionMost+4)+4)
	b = appendStamp(b, p.Watermark)
	b = le.AppendUint32(b, uint32(len(p.Uncertain)))
	for i := range p.Uncertain {
		b = le.AppendUint32(b, p.Uncertain[i].Column)
		b = appendVersion(b, &p.Uncertain[i].Version)
	}
	return appendCRC(b)
}

func decodePromise(data []byte) (p disk.Promise, err error) {
	r, err := checkedReader(data)
	if err != nil {
		return p, err
	}
	p.Watermark = r.stamp()
	for n := r.u32(); n > 0 && r.ok; n-- {
		p.Uncertain = append(p.Uncertain, disk.ColumnVersion{Column: r.u32(), Version: r.version()})
	}
	if !r.done() {
		return disk.Promise{}, errFrame
	}
	return p, nil
}

func encodeListing(l disk.Listing) []byte {
	b := make([]byte, 0, 9+len(l.Versions)*versionMost+4)
	b = le.AppendUint32(b, l.Next)
	done := byte(0)
	if l.Done {
		done = 1
	}
	b = append(b, done)
	b = le.AppendUint32(b, uint32(len(l.Versions)))
	for i := range l.Versions {
		b = appendVersion(b, &l.Versions[i])
	}
	return appendCRC(b)
}

func decodeListing(data []byte) (l disk.Listing, err error) {
	r, err := checkedReader(data)
	if err != nil {
		return l, err
	}
	l.Next, l.Done = r.u32(), r.u8() == 1
	for n := r.u32(); n > 0 && r.ok; n-- {
		l.Versions = append(l.Versions, r.version())
	}
	if !r.done() {
		return disk.Listing{}, errFrame
	}
	return l, nil
}

func encodeDigest(d disk.Digest) []byte {
	b := append(make([]byte, 0, len(d.Sum)+8), d.Sum[:]...)
	return appendCRC(le.AppendUint32(b, uint32(d.Versions)))
}

func decodeDigest(data []byte) (d disk.Digest, err error) {
	r, err := checkedReader(data)
	if err != nil {
		return d, err
	}
	copy(d.Sum[:], r.take(len(d.Sum)))
	if d.Versions = int(r.u32()); !r.done() {
		return disk.Digest{}, errFrame
	}
	return d, nil
}

func appendCRC(b []byte) []byte { return le.AppendUint32(b, crc32.Checksum(b, castagnoli)) }

func checkedReader(data []byte) (reader, error) {
	if len(data) < 4 {
		return reader{}, errFrame
	}
	body := data[:len(data)-4]
	if crc32.Checksum(body, castagnoli) != le.Uint32(data[len(body):]) {
		return reader{}, errCRC
	}
	return reader{b: body, ok: true}, nil
}
