package disk

import (
	"bytes"
	"cmp"
	"maps"
	"math/bits"
	"slices"

	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
)

// Clones share places where they were made (origin.go). A member that moves or is rebuilt
// comes page by page, as Copies, and its relatives may be on the disk it comes to: volumes
// that descend from the same one and have, of what none of them wrote since, the same
// content in the same page of the same column. So before a Copy gets a place, the disk
// looks at what some relatives have of that page. A version with the same blocks and sums
// is read, verified and compared with what came, byte by byte; if it is the same, the
// version of the Copy is put into its place, as what is inherited is.
//
// Invariants:
//
//   - M1. A version that came by a Copy has the stamp, blocks and sums that came, wherever
//     it lies.
//   - M2. A place is counted with exactly as many versions as name it, at every power cut,
//     and never written to while that is more than one. The count comes before the version,
//     in its batch (share). From when it is read until the batch is durable the place is
//     pinned, so it is not used anew; and the version that names it must, in the batch, be
//     what was compared.
//   - M3. Two versions share a place only if all of their bytes were compared. Equal sums
//     only say that it is worth it.
//   - M4. What was read for that matched its sums, and nothing of it is known to be damaged.
//   - M5. Nothing depends on the relative after that: it may be written, removed or dropped.
//
// All of this only saves space. Whatever is not as it should be, the Copy gets a place of
// its own; room for that is set aside before.

const (
	// matchTries is how many relatives a Copy looks at, and matchScan how many volumes it
	// considers to find them: a family may be large, and mostly elsewhere.
	matchTries = 4
	matchScan  = 64
	// matchLooks is how often one Copy looks for a match: when it comes, and once more when it
	// is to be applied.
	matchLooks = 2
)

// A match is a version of a relative that has the content of a Copy. Its place is pinned,
// and so is its leaf, until the task ends.
type match struct {
	key pageKey
	ver version
}

// families tell which volumes descend from the same one. The disk's mutex guards it.
type families struct {
	of      map[model.VolumeID]model.VolumeID   // volume -> the one it descends from
	members map[model.VolumeID][]model.VolumeID // those that descend from one, in order
	next    int                                 // where the search for a relative goes on
}

// SetFamilies tells which volumes are relatives: of each the volume that it descends from
// in the end, by way of clones; that volume itself, if it is there, descends from itself.
// It replaces what was told before; the map must not be changed any more. The disk does not
// keep it over a restart, and nothing but space depends on it.
func (d *Disk) SetFamilies(of map[model.VolumeID]model.VolumeID) {
	members := make(map[model.VolumeID][]model.VolumeID)
	for _, vol := range slices.Sorted(maps.Keys(of)) {
		members[of[vol]] = append(members[of[vol]], vol)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.families = families{of: of, members: members}
}

// relatives lists a few volumes that have something of the same column and may have what
// a Copy brings: the one that had what came before it, then others in turn. The mutex is
// held.
func (d *Disk) relatives(t *task) (out []model.VolumeID) {
	f := &d.families
	members := f.members[f.of[t.op.Volume]]
	if len(members) < 2 {
		return nil
	}
	consider := func(vol model.VolumeID) {
		r := d.rows[vol]
		if vol == t.op.Volume || r == nil || slices.Contains(out, vol) {
			return
		}
		if _, has := r.columns[t.op.Column]; has {
			out = append(out, vol)
		}
	}
	consider(t.row.match)
	for range min(matchScan, len(members)) {
		if len(out) == matchTries {
			break
		}
		f.next++
		consider(members[f.next%len(members)])
	}
	return out
}

// mayShare reports whether a Copy is still to look for a version that has what it brings.
func (t *task) mayShare() bool {
	return t.op.Version.Mask != 0 && t.op.Lost&t.op.Version.Mask == 0 && t.looks < matchLooks
}

// seekMatch looks for a version to share the place of, beside everything else, and finds a
// place of those set aside if there is none. The task waits for it. The mutex is held.
func (d *Disk) seekMatch(t *task) {
	t.wait++
	d.tasks.Go(func() {
		err := d.placeCopy(t)
		d.mu.Lock()
		defer d.mu.Unlock()
		t.err = cmp.Or(t.err, err)
		d.goOn(t, nil)
	})
}

// findMatch looks for a version with the content of a Copy, and reports whether it has one.
func (d *Disk) findMatch(t *task) bool {
	if !t.mayShare() {
		return false
	}
	d.mu.Lock()
	t.looks++
	relatives := d.relatives(t)
	d.mu.Unlock()
	want := t.op.copied()
	for _, vol := range relatives {
		k := pageKey{vol, t.op.Column, t.op.Page}
		lk, _ := leafOf(k)
		l, err := d.pinLeaf(lk)
		if err != nil {
			return false // the disk has failed
		}
		d.mu.Lock()
		v, found := d.resembling(k, d.leafPage(k), &want)
		if found {
			d.space.pin(v.place)
		}
		d.mu.Unlock()
		same := found && d.sameBytes(t.op, k, v)
		d.mu.Lock()
		if same {
			t.match = &match{key: k, ver: v}
			t.leaves = append(t.leaves, l)
			t.row.match = vol
		} else {
			l.pins--
			if found {
				d.space.unpin(v.place)
			}
		}
		d.mu.Unlock()
		if same {
			return true
		}
	}
	return false
}

// resembling returns one of the versions of a page that has the blocks and sums of another,
// and nothing that is known to be damaged. The mutex is held.
func (d *Disk) resembling(k pageKey, vs []version, want *version) (version, bool) {
	for _, v := range slices.Backward(vs) {
		if v.mask == want.mask && v.sums == want.sums && !d.isDamaged(k, &v) {
			return v, true
		}
	}
	return version{}, false
}

func (d *Disk) isDamaged(k pageKey, v *version) bool {
	return len(d.damaged) > 0 && d.damaged[damageKey{k.vol, madeKey{k.column, k.page, v.epoch}}].bad != 0
}

// sameBytes reads a version, and reports whether it is whole and has every byte of a Copy.
func (d *Disk) sameBytes(op *Op, k pageKey, v version) bool {
	buf := iobuf.Get(pageSize)
	defer buf.Release()
	one := []pageRead{{key: k, epoch: v.epoch, exact: true, n: model.BlocksPerPage, dst: buf.Bytes}}
	if err := d.readPages(one, 0, 0); err != nil {
		return false
	}
	return one[0].found && one[0].ver == v && one[0].bad == 0 && bytes.Equal(buf.Bytes, op.wholeVersion())
}

// isMatch reports whether, as of here in the batch, a Copy may still be put into the place
// of its match: that is what was compared, and not what the Copy is to replace, which may
// have been found wanting where it is.
func (d *Disk) isMatch(b *batch, t *task) bool {
	w := t.match
	vs := d.versions(b, w.key)
	at, there := find(vs, w.ver.epoch)
	if !there || vs[at] != w.ver || d.isDamaged(w.key, &w.ver) {
		return false
	}
	own := d.versions(b, t.key(&t.parts[0]))
	at, there = find(own, t.op.Epoch)
	return !there || own[at].place != w.ver.place
}

// dropMatch lets the place of a match go. The mutex is held.
func (d *Disk) dropMatch(t *task) {
	if t.match != nil {
		d.space.unpin(t.match.ver.place)
		t.match = nil
	}
}

// seesMatch reports whether a Copy that found no match when it came may have one by now, for
// what is moved at the same time comes at the same time, perhaps in the same batch. It looks
// at what is in memory. The mutex is held.
func (d *Disk) seesMatch(b *batch, t *task) bool {
	if !t.mayShare() {
		return false
	}
	want := t.op.copied()
	for _, vol := range d.relatives(t) {
		k := pageKey{vol, t.op.Column, t.op.Page}
		lk, _ := leafOf(k)
		if d.leaf(lk) == nil {
			continue
		}
		if _, found := d.resembling(k, d.versions(b, k), &want); found {
			return true
		}
	}
	return false
}

// copied is the version that a Copy makes, without its place.
func (op *Op) copied() version {
	v := version{epoch: op.Epoch, place: noPlace, mask: op.Version.Mask, stamp: op.Version.Stamp}
	i := 0
	for left := v.mask; left != 0; left &= left - 1 {
		v.sums[bits.TrailingZeros16(left)] = op.Sums[i]
		i++
	}
	return v
}
