package agent

import (
	"context"
	"slices"
	"time"

	"drystone.example/drystone/backend/block/volume"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/placement"
)

// pool is the way from a holder to the disks of the cluster. It knows what this
// node last heard of the record and of the nodes, and never blocks.
type pool struct{ a *Agent }

var _ volume.Disks = pool{}

// Disk returns a disk of this node itself, and one of another node behind the
// wire.
func (p pool) Disk(id model.DiskID) (volume.Disk, bool, error) {
	if d, ok := p.a.disks.get(id); ok {
		return d, true, nil
	}
	rec, err := p.a.cfg.Meta.Local().Disk(id)
	if err != nil {
		return nil, false, err
	}
	if rec.Node == p.a.cfg.Self {
		return nil, false, model.Errorf(model.Unavailable, "disk %s is not open on this node", id)
	}
	return p.a.cfg.Remote(rec.Node, id), false, nil
}

// Reach is what gossip and the record say. A disk that has failed is lost at once; one
// that its own node has not got, or whose node is away, when that has been so for longer
// than the cluster is told to wait.
func (p pool) Reach(id model.DiskID) volume.Reach {
	view := p.a.cfg.Meta.Local()
	rec, err := view.Disk(id)
	switch {
	case err != nil || rec.Lost(time.Now(), p.a.patience(view, rec.Node)):
		return volume.Failed
	case rec.State != model.DiskOnline:
		return volume.Away
	case rec.Node == p.a.cfg.Self:
		if _, open := p.a.disks.get(id); !open {
			return volume.Away // or it has failed, which the record will say soon
		}
		return volume.Up
	case p.a.cfg.Up(rec.Node):
		return volume.Up
	case p.a.cfg.Away(rec.Node) >= p.a.patience(view, rec.Node):
		return volume.Failed
	case p.a.rests(view, rec.Node):
		return volume.Rests
	}
	return volume.Away
}

// rests reports whether a node is in maintenance.
func (a *Agent) rests(view *state.View, node model.NodeID) bool {
	n, err := view.Node(node)
	return err == nil && n.InMaintenance()
}

// patience is how long a node may be away before what it had is rebuilt; of no node, one
// that is not in maintenance.
func (a *Agent) patience(view *state.View, node model.NodeID) time.Duration {
	cluster, _ := view.Cluster()
	n, _ := view.Node(node)
	return cluster.Settings.PatienceFor(n)
}

// Node is where the record says that a disk is.
func (p pool) Node(id model.DiskID) model.NodeID {
	rec, err := p.a.cfg.Meta.Local().Disk(id)
	if err != nil {
		return 0
	}
	return rec.Node
}

// Substitute names a disk for a new member of a column.
func (p pool) Substitute(rec model.Volume, column int, avoid []model.DiskID) model.DiskID {
	disks := p.a.usage.placementDisks(p.a.cfg.Meta.Local(), p.a.cfg.Up)
	disks = slices.DeleteFunc(disks, func(d placement.Disk) bool { return slices.Contains(avoid, d.ID) })
	id, _ := placement.Substitute(rec.Columns[column], rec.Copies, disks)
	return id
}

// record is a volume's record as its holder changes it.
type record struct{ a *Agent }

var _ volume.Record = record{}

// ChangeMembers is a compare-and-swap of members through raft.
func (r record) ChangeMembers(ctx context.Context, id model.VolumeID, gen model.Generation,
	rev model.Revision, changes []model.MemberChange,
) (model.Volume, error) {
	out, err := r.a.cfg.Meta.Apply(ctx, model.System, command.VolumeMembers{
		Volume: id, Generation: gen, Revision: rev, Changes: changes,
	})
	rec, _ := out.(model.Volume) // it comes with a Conflict too
	return rec, err
}

// Kept is a linearizable read of the record and of what it keeps.
func (r record) Kept(ctx context.Context, id model.VolumeID) (model.Volume, []model.Epoch, error) {
	view, err := r.a.cfg.Meta.View(ctx)
	if err != nil {
		return model.Volume{}, nil, err
	}
	rec, err := view.Volume(id)
	return rec, rec.KeptEpochs(view.SnapshotsOf(id), view.Volumes()), err
}

// Tended says through raft what was done.
func (r record) Tended(ctx context.Context, id model.VolumeID, gen model.Generation, done model.Tended,
) (model.Volume, error) {
	out, err := r.a.cfg.Meta.Apply(ctx, model.System, command.VolumeTended{
		Volume: id, Generation: gen, Tended: done,
	})
	rec, _ := out.(model.Volume) // it comes with a Conflict too
	return rec, err
}

// Volume is a linearizable read.
func (r record) Volume(ctx context.Context, id model.VolumeID) (model.Volume, error) {
	view, err := r.a.cfg.Meta.View(ctx)
	if err != nil {
		return model.Volume{}, err
	}
	return view.Volume(id)
}
