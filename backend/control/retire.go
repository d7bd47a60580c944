package control

import (
	"context"
	"math"
	"slices"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/placement"
)

// A disk of which much was found damaged is retired: it leaves as by `disk remove`, and
// stays listed.
//
// The invariant: a disk is retired only if all that is on it has somewhere to go, no
// volume on it is being repaired, and what is left of the pool is enough for new volumes;
// one at a time, for what damages many disks is hardly the disks. No copy on it goes
// before another is complete (placement and the holders see to that), so retiring never
// costs a copy. One that an operator wants to stay, stays until as much again is found.

// bad returns the disk of the pool to retire now, if any, and why each of the others
// that should be is not.
func bad(pool []model.Disk, s placement.Situation, ailing map[model.DiskID]model.Ailment,
) (retire *command.DiskDrain, stuck map[model.DiskID]string) {
	stuck = map[model.DiskID]string{}
	busy := ""
	for _, d := range pool {
		if d.Retired() && slices.ContainsFunc(s.Volumes, func(v model.Volume) bool { return on(v, d.ID) }) {
			busy = "disk " + d.ID.String() + " is being emptied first"
		}
	}
	for _, d := range pool {
		up := slices.ContainsFunc(s.Disks, func(o placement.Disk) bool { return o.ID == d.ID && o.Up })
		if d.Draining() || !up || !d.Bad(ailing[d.ID].Errors) {
			continue
		}
		why := keeps(s, d.ID)
		if why == "" {
			why = busy
		}
		if why != "" {
			stuck[d.ID] = why
			continue
		}
		retire = &command.DiskDrain{Disk: d.ID, Errors: ailing[d.ID].Errors}
		busy = "disk " + d.ID.String() + " is being emptied first"
	}
	return retire, stuck
}

// keeps says why a disk cannot be done without, or nothing.
func keeps(s placement.Situation, id model.DiskID) string {
	copies := 2
	for _, v := range s.Volumes {
		copies = max(copies, v.Copies)
	}
	before, after := map[model.NodeID]bool{}, map[model.NodeID]bool{}
	left := 0
	disks := slices.Clone(s.Disks)
	for i, d := range disks {
		if d.Draining || !d.Up {
			continue
		}
		if before[d.Node] = true; d.ID == id {
			disks[i].Draining = true
			continue
		}
		after[d.Node] = true
		left++
	}
	if left < copies || len(after) < min(copies, len(before)) {
		return "too few other disks are left for new volumes"
	}
	plan := placement.Moves(placement.Situation{
		Volumes: s.Volumes, Used: s.Used, Disks: disks,
		Pace: placement.Pace{PerDisk: math.MaxInt, AtOnce: math.MaxInt},
	})
	return plan.Blocked[id]
}

func (c *Control) retire(ctx context.Context, cmd command.DiskDrain) error {
	if _, err := c.cfg.Meta.Apply(ctx, model.System, cmd); err != nil {
		return err
	}
	c.cfg.Log.Warn("disk retired", "disk", cmd.Disk, "errors", cmd.Errors)
	return nil
}
