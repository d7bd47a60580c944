package agent

import (
	"cmp"
	"math/bits"
	"slices"

	"drystone.example/drystone/backend/block/layout"
	"drystone.example/drystone/backend/model"
)

// damageReported is how many damaged versions of each disk a node tells the others.
const damageReported = 512

// A versionKey names a version of a page of a column.
type versionKey struct {
	column uint32
	page   uint32
	epoch  model.Epoch
}

// Lost returns the ranges of each volume that have no good copy any more: those
// blocks of a version that every active member of its column, of those that the
// record names, is known to have damaged. Reads of them fail. A range is gone from
// the list when one of the disks has it whole again, because it was written anew,
// or what it belonged to was deleted.
func (a *Agent) Lost() map[model.VolumeID][]model.LostRange {
	var all []model.Damage
	for _, n := range a.usage.all() {
		all = append(all, n.Damage...)
	}
	if len(all) == 0 {
		return nil
	}
	return lost(a.cfg.Meta.Local().Volume, all)
}

// lost finds what is damaged on all active members at once.
func lost(record func(model.VolumeID) (model.Volume, error), all []model.Damage) map[model.VolumeID][]model.LostRange {
	volumes := map[model.VolumeID]map[versionKey][]model.Damage{}
	for _, d := range all {
		if volumes[d.Volume] == nil {
			volumes[d.Volume] = map[versionKey][]model.Damage{}
		}
		k := versionKey{d.Column, d.Page, d.Epoch}
		volumes[d.Volume][k] = append(volumes[d.Volume][k], d)
	}
	out := map[model.VolumeID][]model.LostRange{}
	for id, versions := range volumes {
		rec, err := record(id)
		if err != nil {
			continue // deleted
		}
		if ranges := lostOf(rec, versions); len(ranges) > 0 {
			out[id] = ranges
		}
	}
	return out
}

func lostOf(rec model.Volume, versions map[versionKey][]model.Damage) (out []model.LostRange) {
	for k, damages := range versions {
		if int(k.column) >= len(rec.Columns) {
			continue
		}
		bad, covered := ^uint16(0), true
		for _, m := range rec.Columns[k.column].Members {
			if m.State != model.Active {
				continue
			}
			i := slices.IndexFunc(damages, func(d model.Damage) bool { return d.Disk == m.Disk })
			if i < 0 {
				bad = 0
				break
			}
			bad &= damages[i].Blocks
			covered = covered && damages[i].Covered
		}
		for ; bad != 0; bad &= bad - 1 {
			b := layout.FirstBlock(k.page) + layout.Block(bits.TrailingZeros16(bad))
			off := layout.Offset(len(rec.Columns), int(k.column), b)
			if off < rec.Size {
				out = append(out, model.LostRange{Offset: off, Length: model.BlockSize, Snapshot: covered})
			}
		}
	}
	return joined(out)
}

// joined puts ranges in order and together where they touch; what the volume itself
// has lost comes before what only snapshots have.
func joined(all []model.LostRange) (out []model.LostRange) {
	slices.SortFunc(all, func(a, b model.LostRange) int {
		if a.Snapshot != b.Snapshot {
			if b.Snapshot {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Offset, b.Offset)
	})
	for _, r := range all {
		if n := len(out); n > 0 && out[n-1].Snapshot == r.Snapshot && r.Offset <= out[n-1].Offset+out[n-1].Length {
			last := &out[n-1]
			last.Length = max(last.Length, r.Offset+r.Length-last.Offset) // two snapshots may have lost the same
			continue
		}
		out = append(out, r)
	}
	return out
}
