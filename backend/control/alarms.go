package control

import (
	"fmt"

	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/placement"
)

// troubles is what alarms are raised for beside the record and how full the disks are.
type troubles struct {
	blocked map[model.DiskID]string // why a disk that is to leave does not become empty
	ailing  map[model.DiskID]model.Ailment
	stuck   map[model.DiskID]string // why one that should be retired is not
}

// alarms says what an operator should know about room and disks. It is a function of
// the record and of what the nodes report; nothing is remembered but since when.
func alarms(view *state.View, disks []placement.Disk, t troubles) (out []model.Alarm) {
	var size, free model.Bytes
	for _, d := range disks {
		rec, err := view.Disk(d.ID)
		switch {
		case err != nil:
			continue
		case rec.State == model.DiskFailed:
			out = append(out, model.Alarm{
				Code: "disk_failed", Severity: model.Warning, Object: "disk " + d.ID.String(),
				Text: fmt.Sprintf("disk %s has failed: %s; drystone disk remove takes it out of the pool", d.ID, rec.Error),
			})
			continue
		case t.blocked[d.ID] != "":
			out = append(out, model.Alarm{
				Code: "drain_blocked", Severity: model.Warning, Object: "disk " + d.ID.String(),
				Text: fmt.Sprintf("disk %s cannot leave the pool yet: %s", d.ID, t.blocked[d.ID]),
			})
		}
		out = append(out, ailments(rec, rec.Retired() && used(view, d.ID), t)...)
		if twin := rec.Twin; twin.Node != 0 {
			out = append(out, model.Alarm{
				Code: "disk_twice", Severity: model.Serious, Object: "disk " + d.ID.String(),
				Text: fmt.Sprintf("disk %s is there twice, on %s and as %s on %s: one is an image of the other; "+
					"the second is not used, take it away", d.ID, nodeName(view, rec.Node), twin.Path, nodeName(view, twin.Node)),
			})
		}
		if !d.Up {
			continue
		}
		size, free = size+d.Size, free+d.Free
		if share, level := fullness(d.Size-d.Free, d.Size); level != "" {
			out = append(out, model.Alarm{
				Code: "disk_full", Severity: level, Object: "disk " + d.ID.String(),
				Text: fmt.Sprintf("disk %s is %d %% full%s", d.ID, share, waits(level, "on it ")),
			})
		}
	}
	if share, level := fullness(size-free, size); level != "" {
		out = append(out, model.Alarm{
			Code: "pool_full", Severity: level, Object: "pool",
			Text: fmt.Sprintf("the pool is %d %% full%s; add disks or delete volumes", share, waits(level, "")),
		})
	}
	if short := placement.Short(disks); short > 0 {
		out = append(out, model.Alarm{
			Code: "reserve_gone", Severity: model.Warning, Object: "pool",
			Text: fmt.Sprintf("after the loss of a node %d MiB of its data could not be rebuilt; add disks or delete volumes", short>>20),
		})
	}
	return out
}

// ailments are the alarms for a disk that goes bad, or is slow.
func ailments(d model.Disk, used bool, t troubles) (out []model.Alarm) {
	errors, slow := t.ailing[d.ID].Errors, t.ailing[d.ID].Slow
	alarm := func(code string, severity model.Severity, format string, args ...any) {
		out = append(out, model.Alarm{
			Code: code, Severity: severity, Object: "disk " + d.ID.String(),
			Text: fmt.Sprintf("disk %s "+format, append([]any{d.ID}, args...)...),
		})
	}
	switch {
	case d.Retired() && used:
		alarm("disk_retired", model.Warning,
			"is retired: %d of its blocks were found damaged; what is on it moves elsewhere", d.Drain.Errors)
	case d.Retired():
		alarm("disk_retired", model.Warning,
			"is retired: %d of its blocks were found damaged; it is empty, replace it: drystone disk remove takes it out of the pool",
			d.Drain.Errors)
	case t.stuck[d.ID] != "":
		alarm("disk_bad", model.Serious, "goes bad: %d of its blocks were found damaged; it cannot be retired: %s",
			errors-d.Forgiven, t.stuck[d.ID])
	}
	switch {
	case slow.Volumes == 0:
	case slow.Until.IsZero() && slow.Times == 0:
		alarm("disk_slow", model.Warning,
			"is slow beside the others: one request in a hundred takes %s or more; it cannot be left out now", slow.Took)
	default:
		alarm("disk_slow", model.Warning,
			"is slow beside the others: one request in a hundred took %s or more; %d volumes left it out within the last hour, up to %d times",
			slow.Took, slow.Volumes, slow.Times)
	}
	return out
}

// waits says what a full disk, or pool, means for guests.
func waits(level model.Severity, where string) string {
	if level != model.Critical {
		return ""
	}
	return ": writes that need new room " + where + "wait until there is some"
}

// fullness says how full something is, in percent, and how bad that is.
func fullness(used, size model.Bytes) (share int, level model.Severity) {
	if size <= 0 {
		return 0, ""
	}
	share = placement.Full(used, size)
	switch {
	case share >= model.FullCritical:
		return share, model.Critical
	case share >= model.FullNoNew:
		return share, model.Serious
	case share >= model.FullWarning:
		return share, model.Warning
	}
	return share, ""
}

func nodeName(view *state.View, id model.NodeID) string {
	if n, err := view.Node(id); err == nil {
		return n.Name
	}
	return id.String()
}
