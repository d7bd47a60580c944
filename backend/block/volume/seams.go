package volume

import (
	"context"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/model"
)

// A Disk is a disk of the pool, in this process (*disk.Disk) or behind the wire.
// Its errors carry codes: Fenced ends the holder, Corrupt means stored or sent
// data did not match its sum, NoSpace that nothing was done for want of room,
// Unavailable that the answer was lost or never came and that asking again is
// right; disk.ErrGap that an earlier message of the row is missing. An error that
// wraps syscall.ECONNREFUSED says that there is no process behind the address.
// Anything else means the disk has failed.
type Disk interface {
	// Prepare returns when the promise is durable.
	Prepare(ctx context.Context, p disk.Prepare) (disk.Promise, error)

	// Apply hands op over and calls done exactly once, from any goroutine, also
	// before Apply returns. Ops of one volume are applied in the order of the
	// calls, and the holder never makes two calls for one volume at the same
	// time. It may block for as long as the disk's queue is full. After done
	// neither op nor its Sums are touched; Data is retained by whoever keeps it.
	// The holder may hand the same op over again after done with an error.
	Apply(op *disk.Op, done func(error))

	// Read fills dst with r.Count blocks and sums with their CRC32C (that of a
	// block of zeros, or 0, where none is present).
	Read(ctx context.Context, r disk.Read, dst []byte, sums []uint32) error

	// List returns versions of a column in order of (page, epoch).
	List(ctx context.Context, l disk.List) (disk.Listing, error)

	// Digest stands for the versions of the pages [l.From, l.To) of a column.
	Digest(ctx context.Context, l disk.List) (disk.Digest, error)

	// ReadVersion reads one version, each present block at its place in dst,
	// which is model.PageSize long. It fails with model.NotFound where there is
	// no such version.
	ReadVersion(ctx context.Context, vol model.VolumeID, gen model.Generation, column, page uint32,
		epoch model.Epoch, dst []byte) (disk.Version, error)
}

// A Reach is what is known about a disk without asking it.
type Reach uint8

// What can be known, complete.
const (
	Up     Reach = iota // it is expected to answer
	Away                // its node does not answer; it may come back as it was
	Failed              // its node says that it failed or is gone; it will not come back by itself
	Rests               // Away, and somebody works on its node, who means to bring it back
)

// Disks is the way to the disks of the pool. None of its methods blocks.
type Disks interface {
	// Disk returns the way to a disk, and whether it is in this process. The
	// holder asks again after an error, so a new Disk for a new connection is
	// fine. model.Unavailable: not now. model.NotFound: there is no such disk.
	Disk(id model.DiskID) (d Disk, local bool, err error)

	// Reach is a hint; nothing but speed depends on its being right.
	Reach(id model.DiskID) Reach

	// Node is the node that a disk is in; zero: it is not known.
	Node(id model.DiskID) model.NodeID

	// Substitute names a disk for a new joining member of a column of rec: with
	// room, in reach, not in avoid, and on a node that has no active or joining
	// member of the column in rec. Zero: there is none. rec is the record as it
	// will be, so its stale members do not count.
	Substitute(rec model.Volume, column int, avoid []model.DiskID) model.DiskID
}

// Record is the volume's record in raft as the holder sees it.
type Record interface {
	// ChangeMembers applies changes if the record still has that generation and
	// revision, and returns the new record. model.Conflict comes with the record
	// as it is. After any other error the change may still be applied later.
	ChangeMembers(ctx context.Context, id model.VolumeID, gen model.Generation, rev model.Revision,
		changes []model.MemberChange) (model.Volume, error)

	// Volume is a linearizable read of the record.
	Volume(ctx context.Context, id model.VolumeID) (model.Volume, error)

	// Kept returns the record, and the epochs that were kept when it was that
	// (model.Volume.KeptEpochs).
	Kept(ctx context.Context, id model.VolumeID) (model.Volume, []model.Epoch, error)

	// Tended says what was done, and returns the new record. model.Conflict comes with
	// the record as it is. It is safe to repeat.
	Tended(ctx context.Context, id model.VolumeID, gen model.Generation, done model.Tended) (model.Volume, error)
}

// Lease is the right to serve the volume. While it is not valid, no request begins
// and none is answered.
type Lease interface {
	Valid() bool // cheap: asked at least twice for each request
	// Wait returns nil once it is valid, and model.Fenced if it never will be again,
	// because the record names another holder by now; that ends the volume.
	Wait(ctx context.Context) error
}
