package disk

import (
	"cmp"
	"encoding/binary"
	"log/slog"
	"math/bits"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"drystone.example/drystone/backend/model"
)

// What is known to be damaged is kept in the map, so that it outlives the process:
// a version stays on the list until what is damaged of it was written anew, was
// freed, or is found to be whole after all. The list says nothing about what was
// not read; a read verifies all the same.

// A damageKey names a version that does not match its sums.
type damageKey struct {
	vol model.VolumeID
	madeKey
}

// A damage is what of a version does not match its sums.
type damage struct {
	bad     uint16 // blocks
	covered bool   // the page has a newer version: only snapshots show this one
}

const (
	// maxDamage bounds how many damaged versions are remembered.
	maxDamage = 1 << 16
	// damageSoon is how long damage that was just found may not be durable.
	damageSoon = time.Second
)

// Damage returns what is known to be damaged, in order, at most so many versions,
// and how many there are.
func (d *Disk) Damage(most int) (list []model.Damage, all int) {
	d.mu.Lock()
	for k, v := range d.damaged {
		list = append(list, model.Damage{
			Volume: k.vol, Column: k.column, Page: k.page, Epoch: k.epoch, Blocks: v.bad, Covered: v.covered,
		})
	}
	d.mu.Unlock()
	slices.SortFunc(list, func(a, b model.Damage) int {
		return cmp.Or(cmp.Compare(a.Volume, b.Volume), cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Page, b.Page), cmp.Compare(a.Epoch, b.Epoch))
	})
	return list[:min(most, len(list))], len(list)
}

// setDamage notes what of a version is damaged. The mutex is held.
func (d *Disk) setDamage(k damageKey, v damage) {
	if was, known := d.damaged[k]; was == v || !known && (v.bad == 0 || len(d.damaged) >= maxDamage) {
		return
	}
	if v.bad == 0 {
		delete(d.damaged, k)
	} else {
		d.damaged[k] = v
	}
	first := len(d.dirtyDamage) == 0
	d.dirtyDamage[k] = struct{}{}
	if d.changed(); first && d.timer != nil {
		d.timer.Reset(damageSoon)
	}
}

// noteDamage counts the damaged blocks that were not known yet.
func (d *Disk) noteDamage(parts []pageRead) {
	for i := range parts {
		p := &parts[i]
		if p.bad == 0 {
			continue
		}
		d.mu.Lock()
		k := damageKey{p.key.vol, madeKey{p.key.column, p.key.page, p.ver.epoch}}
		v := d.damaged[k]
		fresh := p.bad &^ v.bad
		d.checksumErrors += uint64(bits.OnesCount16(fresh))
		if d.changed(); fresh != 0 && d.holds(p) {
			d.setDamage(k, damage{v.bad | fresh, p.covered})
		}
		d.mu.Unlock()
		if fresh != 0 {
			d.logDamage(p, fresh)
		}
	}
}

// holds reports whether what was read is still what the page map has. The mutex is
// held.
func (d *Disk) holds(p *pageRead) bool {
	lk, i := leafOf(p.key)
	l := d.pages.leaves[lk]
	if l == nil {
		return true // nobody changes what is not in memory
	}
	at, ok := find(l.pages[i], p.ver.epoch)
	return ok && l.pages[i][at] == p.ver
}

// noteWhole takes a version off the list of which all was read and was right.
func (d *Disk) noteWhole(p *pageRead) {
	d.mu.Lock()
	defer d.mu.Unlock()
	k := damageKey{p.key.vol, madeKey{p.key.column, p.key.page, p.ver.epoch}}
	if v, known := d.damaged[k]; known && d.holds(p) {
		d.setDamage(k, damage{0, v.covered})
	}
}

// rewritten notes what a record does to the damage of the version that it replaces,
// or, where its epoch has none yet, of the one below, whose blocks it takes over.
// What is taken over damaged stays damaged: it keeps the sum that it does not
// match. vs are the versions before that. The mutex is held.
func (d *Disk) rewritten(r *record, vs []version) {
	source := visible(vs, r.ver.epoch)
	if source == nil {
		return
	}
	from := damageKey{r.vol, madeKey{r.column, r.page, source.epoch}}
	was, known := d.damaged[from]
	if !known {
		return
	}
	to := from
	now := damage{bad: was.bad, covered: was.covered}
	if source.epoch != r.ver.epoch {
		to.epoch = r.ver.epoch
		d.setDamage(from, damage{was.bad, true})
		now.covered = vs[len(vs)-1].epoch > r.ver.epoch
	} else if r.whole {
		d.repaired += uint64(bits.OnesCount16(was.bad &^ r.lost))
	}
	if now.bad &= r.ver.mask &^ (r.data | r.fresh); r.whole {
		now.bad = 0
	}
	for left := now.bad; left != 0; left &= left - 1 {
		if b := bits.TrailingZeros16(left); r.ver.sums[b] != source.sums[b] {
			now.bad &^= 1 << b
		}
	}
	d.setDamage(to, now)
}

// dropped notes that a version is no more; vs are those that the page has left. The
// mutex is held.
func (d *Disk) dropped(k pageKey, e model.Epoch, vs []version) {
	d.setDamage(damageKey{k.vol, madeKey{k.column, k.page, e}}, damage{})
	if n := len(vs); n > 0 {
		top := damageKey{k.vol, madeKey{k.column, k.page, vs[n-1].epoch}}
		d.setDamage(top, damage{bad: d.damaged[top].bad})
	}
}

// logDamage tells the operator of damaged blocks, once each.
func (d *Disk) logDamage(p *pageRead, fresh uint16) {
	d.log.Warn("checksum error",
		slog.String("disk", d.super.disk.String()), slog.String("volume", p.key.vol.String()),
		slog.Uint64("column", uint64(p.key.column)), slog.Uint64("page", uint64(p.key.page)),
		slog.Int("blocks", bits.OnesCount16(fresh)))
}

func damageKeyOf(k damageKey) []byte {
	b := pageKeyOf(nil, pageKey{k.vol, k.column, k.page}, k.epoch)
	b[0] = tableDamage
	return b
}

// putDamage puts the damage that changed into a batch. The mutex is held.
func (d *Disk) putDamage(b *pebble.Batch) error {
	for k := range d.dirtyDamage {
		var err error
		if v, known := d.damaged[k]; known {
			flags := byte(0)
			if v.covered {
				flags = 1
			}
			value := binary.LittleEndian.AppendUint16([]byte{valueVersion, flags}, v.bad)
			err = b.Set(damageKeyOf(k), value, nil)
		} else {
			err = b.Delete(damageKeyOf(k), nil)
		}
		if err != nil {
			return err
		}
	}
	clear(d.dirtyDamage)
	return nil
}

// loadDamage reads what is known to be damaged.
func (d *Disk) loadDamage() error {
	return d.store.table(tableDamage, func(key, value []byte) (bool, error) {
		if len(key) != pageKeySize || len(value) != 4 || value[0] != valueVersion || value[1] > 1 {
			return false, errBadMap
		}
		be := binary.BigEndian
		k := damageKey{model.VolumeID(be.Uint64(key[1:])), madeKey{
			be.Uint32(key[9:]), be.Uint32(key[13:]), model.Epoch(be.Uint32(key[17:])),
		}}
		d.damaged[k] = damage{binary.LittleEndian.Uint16(value[2:]), value[1] == 1}
		return true, nil
	})
}
