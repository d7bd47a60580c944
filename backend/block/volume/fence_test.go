package volume

import (
	"bytes"
	"context"
	"testing"
	"time"

	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
)

// farPool is the pool of a node that does not reach one disk.
type farPool struct {
	*rigPool

	far model.DiskID
}

func (p farPool) Disk(id model.DiskID) (Disk, bool, error) {
	if id == p.far {
		return nil, false, model.Errorf(model.Unavailable, "partitioned")
	}
	return p.rigPool.Disk(id)
}

func (p farPool) Reach(id model.DiskID) Reach {
	if id == p.far {
		return Away
	}
	return Up
}

// takenLease is a lease that ran out, and when it came back the record named
// another holder.
type takenLease struct{ *switchLease }

func (l takenLease) Wait(ctx context.Context) error {
	if err := l.switchLease.Wait(ctx); err != nil {
		return err
	}
	return model.Errorf(model.Fenced, "taken over")
}

func (l takenLease) Valid() bool { return false }

// TestOldHolderDoesNotServe: a holder was cut off, and its volume was taken over
// without the disk that still has a promise for it. When its lease comes back, that
// disk would give it what was there before; it must not ask.
func TestOldHolderDoesNotServe(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 64<<20, []int{0, 1})
		var lease struct{ Lease }
		lease.Lease = r.lease
		r.cfg.Lease = &lease
		was := r.open(t)
		old, fresh := pattern(4096, 0, 1), pattern(4096, 0, 2)
		write(t, was, 0, old)
		time.Sleep(5 * time.Second) // idle: every disk knows the watermark, and nothing is sent
		r.lease.set(false)
		cfg := r.cfg
		cfg.Disks, cfg.Lease = farPool{r.pool, 1}, newLease()
		now, err := Open(t.Context(), r.record.acquire(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		write(t, now, 0, fresh)
		lease.Lease = takenLease{r.lease}
		r.lease.set(true)
		got := iobuf.Aligned(4096)
		if err := was.ReadAt(t.Context(), got, 0); model.CodeOf(err) != model.Fenced {
			t.Errorf("the old holder read, with %v; old data: %v", err, bytes.Equal(got, old))
		}
		if err := was.Err(); model.CodeOf(err) != model.Fenced {
			t.Errorf("the old holder goes on: %v", err)
		}
		if err := now.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, fresh) {
			t.Errorf("the new holder: %v, right data: %v", err, bytes.Equal(got, fresh))
		}
		_ = was.Close(t.Context())
		_ = now.Close(t.Context())
	})
}
