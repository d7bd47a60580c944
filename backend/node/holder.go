package node

import (
	"context"

	"drystone.example/drystone/backend/model"
)

// mayHold says whether the record names a peer as the holder of a volume in a
// generation. A node that has been told so itself believes it: whoever came after is
// kept apart by the disks' promises. Else the record is asked as it is now, for a new
// holder's messages can be here before the news of it.
func (n *node) mayHold(
	ctx context.Context, peer model.NodeID, id model.VolumeID, gen model.Generation,
) error {
	local := func() (model.Volume, error) { return n.meta.Local().Volume(id) }
	now := func() (model.Volume, error) {
		view, err := n.meta.View(ctx)
		if err != nil {
			return model.Volume{}, err
		}
		return view.Volume(id)
	}
	return judgeHolder(peer, gen, local, now)
}

// judgeHolder asks the local record, and the present one if that is not enough. Without
// a leader it asks the local one again, which may have heard of the holder meanwhile.
func judgeHolder(
	peer model.NodeID, gen model.Generation, local, now func() (model.Volume, error),
) error {
	names := func(v model.Volume) bool { return v.Holder == peer && v.Generation == gen }
	if v, err := local(); err == nil && names(v) {
		return nil
	}
	v, err := now()
	switch {
	case err == nil && names(v):
		return nil
	case err == nil:
		return model.Errorf(model.Fenced,
			"node %s does not hold volume %s in generation %d", peer, v.ID, gen)
	case model.CodeOf(err) == model.NotFound:
		return model.Errorf(model.Fenced, "the volume is not there any more: %w", err)
	}
	if v, again := local(); again == nil && names(v) {
		return nil
	}
	return err
}
