package disk

import (
	"math/bits"

	"drystone.example/drystone/backend/model"
)

// What each kind of op does to the map. All of this runs under the disk's mutex,
// in memory only.

func (t *task) key(p *part) pageKey { return pageKey{t.op.Volume, t.op.Column, p.page} }

func (t *task) stamp() model.Stamp {
	return model.Stamp{Generation: t.op.Generation, Number: t.op.Number}
}

// composeWrite puts as many parts of a Write into the batch as it has room for.
func (d *Disk) composeWrite(b *batch, t *task) (outcome, error) {
	if t.next == 0 && (t.lazy || d.space.tight()) {
		if err := d.grow(b, t); err != nil {
			return applied, err
		}
	}
	for ; t.next < len(t.parts); t.next++ {
		p := &t.parts[t.next]
		journaled := p.n
		if p.place != noPlace {
			journaled = 0
		}
		if !b.fits(maxRecordSize, journaled) {
			return batchFull, nil
		}
		if out := d.writePart(b, t, p); out != applied {
			return out, nil
		}
	}
	return applied, nil
}

// writePart puts what a Write does to one page into the batch.
func (d *Disk) writePart(b *batch, t *task, p *part) outcome {
	r := record{kind: recVersion, pageKey: t.key(p), op: t.stamp(), fresh: p.mask()}
	vs := d.versions(b, r.pageKey)
	source := visible(vs, t.op.Epoch)
	i, mine := find(vs, t.op.Epoch)

	switch {
	case p.n == model.BlocksPerPage && p.place != noPlace: // the data is there
		r.ver.place = p.place
	case p.moved && source != nil && *source == p.from: // so it is here, with the old blocks
		r.ver = p.from
		r.ver.place = p.place
	case mine && vs[i].place != noPlace && d.shared(b, vs[i].place) < 2: // in place, later
		r.ver = vs[i]
		r.data = p.mask()
	case source == nil || source.mask == 0 || p.n == model.BlocksPerPage: // nothing to take over
		if r.data = p.mask(); p.place == noPlace {
			p.place = d.takeReserved(t)
		}
		r.ver.place, p.place = p.place, noPlace
	default:
		return unprepared
	}
	if r.data == 0 {
		p.place = noPlace // it is the version's now
	} else {
		r.first = len(b.blocks)
		for i := range p.n {
			b.blocks = append(b.blocks, t.op.block(p.off/blockSize+i))
		}
	}
	r.ver.epoch, r.ver.stamp = t.op.Epoch, t.stamp()
	r.ver.mask |= p.mask()
	copy(r.ver.sums[p.first:], t.op.Sums[p.off/blockSize:][:p.n])
	d.set(b, r)
	return applied
}

// takeReserved takes a place of those set aside for a task.
func (d *Disk) takeReserved(t *task) place {
	t.reserved--
	d.space.reserved--
	return d.space.take()
}

// grow sees to it that a Write which came when places were few, or is applied while
// they are, leaves enough of them free, or refuses it: what counts is by how much it
// makes the disk fuller, not what it has taken for the moment. It sets aside what the
// Write still needs. What is in place already needs nothing: it goes through the
// journal.
func (d *Disk) grow(b *batch, t *task) error {
	need, has := 0, t.reserved
	for i := range t.parts {
		vs := d.versions(b, t.key(&t.parts[i]))
		at, mine := find(vs, t.op.Epoch)
		if !mine || vs[at].place == noPlace || d.shared(b, vs[at].place) > 1 {
			need++
		}
		if t.parts[i].place != noPlace {
			has++
		}
	}
	if need > 0 && d.space.free-d.space.reserved+has-need < d.space.spare {
		return errNoGrowth
	}
	if more := need - has; more > 0 {
		t.reserved += more
		d.space.reserved += more
	}
	return nil
}

// composeCopy puts a Copy into the batch; its data is in a fresh place, or in that of its
// match.
func (d *Disk) composeCopy(b *batch, t *task) outcome {
	p, mask := &t.parts[0], t.op.Version.Mask
	if t.match != nil && !d.isMatch(b, t) {
		d.dropMatch(t)
	}
	if mask != 0 && t.match == nil && (p.place == noPlace || d.seesMatch(b, t)) {
		return unprepared
	}
	if !b.fits(maxRecordSize+refsRecSize, 0) {
		return batchFull
	}
	r := record{kind: recVersion, pageKey: t.key(p), op: t.stamp(), whole: true, lost: t.op.Lost & mask}
	r.ver = t.op.copied()
	if t.match != nil {
		r.ver.place = t.match.ver.place
		d.share(b, r)
		return applied
	}
	r.ver.place, p.place = p.place, noPlace
	d.set(b, r)
	return applied
}

func (d *Disk) composeRemove(b *batch, t *task) outcome {
	if !b.fits(maxRecordSize, 0) {
		return batchFull
	}
	d.gone(b, t.key(&t.parts[0]), t.op.Epoch, t.stamp())
	return applied
}

// composeDiscard puts a chunk of a Discard into the batch, or all of it.
func (d *Disk) composeDiscard(b *batch, t *task) outcome {
	if !t.listed {
		return unprepared
	}
	for ; t.next < len(t.parts); t.next++ {
		if !b.fits(maxRecordSize, 0) {
			return batchFull
		}
		if out := d.discardPart(b, t, &t.parts[t.next]); out != applied {
			return out
		}
	}
	if t.more {
		t.listed = false
		return unprepared
	}
	return applied
}

// discardPart makes some blocks of one page absent.
func (d *Disk) discardPart(b *batch, t *task, p *part) outcome {
	r := record{kind: recVersion, pageKey: t.key(p), op: t.stamp()}
	source := visible(d.versions(b, r.pageKey), t.op.Epoch)
	if source == nil || source.mask&p.mask() == 0 {
		return applied // nothing is there
	}
	r.ver = *source
	r.ver.mask &^= p.mask()
	switch {
	case r.ver.mask == 0:
		r.ver.place = noPlace
	case source.epoch == t.op.Epoch:
	case p.moved && *source == p.from:
		r.ver.place = p.place
		p.place = noPlace
	default:
		return unprepared
	}
	for left := p.mask(); left != 0; left &= left - 1 {
		r.ver.sums[bits.TrailingZeros16(left)] = 0
	}
	r.ver.epoch, r.ver.stamp = t.op.Epoch, t.stamp()
	d.set(b, r)
	return applied
}
