package volume

import (
	"context"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/layout"
	"drystone.example/drystone/backend/model"
)

const (
	// bucketPages is how many pages one digest stands for.
	bucketPages = 1024
	// comparePause is the time between two buckets: 64 MiB of a column's addresses.
	comparePause = 20 * time.Millisecond
)

// A Comparison tells what Compare found. Nothing but Skipped is ever above zero unless
// a rule was broken: by a disk that lost a write it had confirmed, or by a mistake of
// ours.
type Comparison struct {
	Compared  model.Bytes // of address space
	Skipped   model.Bytes // of columns of which only one active member was in reach
	Different int         // pages of which a member had an older version, or none; they are equal now
	Diverged  int         // pages of which two members have one stamp and different data; left alone
}

// Compare holds the active members of each column against each other, all epochs,
// without reading data: by digests of what their page maps say, bucket by bucket, and
// where these differ by the versions themselves. Buckets are compared while the volume
// is written to: equal digests are proof whenever they were taken, since no two writes
// have one stamp; of those that differ, the pages that do are looked at again, each
// with its lock held, so that no write to it is in flight.
//
// The rule for what differs then. A page that some members have in an older version
// than others, or not at all, is made the newest, as a takeover does: an active member
// has what was acknowledged or something newer. Two versions with one stamp and
// different data are never made equal, since nobody can say which is right: it is
// told, and reads of the column stay with one member. Only what the volume or one of
// its snapshots shows counts; the rest may be on its way to be freed. snapshots returns
// their epochs, linearizably; it is asked only when something differs.
//
// A member that fails or is not in reach is passed over. It goes on until ctx ends, or
// the volume does.
func (v *Volume) Compare(ctx context.Context, snapshots func(context.Context) ([]model.Epoch, error),
	progress func(done, total model.Bytes),
) (Comparison, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(v.ctx, cancel)()
	v.mu.Lock()
	size, columns := v.rec.Size, len(v.columns)
	v.mu.Unlock()
	pages := layout.Pages(columns, size)
	c := comparer{v: v, snapshots: snapshots}
	total := model.Bytes(pages) * model.PageSize * model.Bytes(columns)
	for column := range columns {
		for from := uint32(0); from < pages; from += bucketPages {
			if err := v.leased(ctx); err != nil {
				return c.found, err
			}
			to := min(from+bucketPages, pages)
			compared, err := c.bucket(ctx, column, from, to)
			if err != nil && ctx.Err() == nil && v.Err() == nil {
				v.log.Warn("columns not compared", "volume", v.id, "column", column, "page", from, "err", err)
			}
			n := model.Bytes(to-from) * model.PageSize
			if compared {
				c.found.Compared += n
			} else {
				c.found.Skipped += n
			}
			progress(c.found.Compared+c.found.Skipped, total)
			select {
			case <-time.After(comparePause):
			case <-ctx.Done():
				if err := v.Err(); err != nil {
					return c.found, err
				}
				return c.found, ctx.Err()
			}
		}
	}
	return c.found, nil
}

type comparer struct {
	v         *Volume
	snapshots func(context.Context) ([]model.Epoch, error)
	found     Comparison
}

// bucket compares a stretch of a column. It reports whether there was a second member
// to compare with.
func (c *comparer) bucket(ctx context.Context, column int, from, to uint32) (compared bool, err error) {
	v := c.v
	rows := v.activeRows(column)
	l := disk.List{Volume: v.id, Generation: v.gen, Column: uint32(column), From: from, To: to}
	var digests []disk.Digest
	var asked []*row
	for _, r := range rows {
		d, failed := v.digest(ctx, r, l)
		if failed != nil {
			v.suspect(r, failed)
			err = failed
			continue
		}
		digests, asked = append(digests, d), append(asked, r)
	}
	if len(asked) < 2 {
		return false, err
	}
	same := true
	for _, d := range digests[1:] {
		same = same && d == digests[0]
	}
	if same {
		return true, nil
	}
	suspects, err := c.narrow(ctx, asked, l)
	if err != nil {
		return false, err
	}
	for _, page := range suspects {
		if failed := c.page(ctx, column, page); failed != nil {
			err = failed // the others can be compared
		}
	}
	return err == nil, err
}

// narrow returns the pages of a bucket that seem to differ.
func (c *comparer) narrow(ctx context.Context, rows []*row, l disk.List) (suspects []uint32, err error) {
	byPage := map[uint32]int{} // pages that the first one has, by how many versions
	first := map[disk.Version]bool{}
	bad := map[uint32]bool{}
	for i, r := range rows {
		versions, err := c.v.listAll(ctx, r, l)
		if err != nil {
			c.v.suspect(r, err)
			return nil, err
		}
		count := map[uint32]int{}
		for _, have := range versions {
			if count[have.Page]++; i == 0 {
				first[have] = true
			} else if !first[have] {
				bad[have.Page] = true
			}
		}
		if i == 0 {
			byPage = count
			continue
		}
		for page, n := range byPage {
			if count[page] != n {
				bad[page] = true
			}
		}
	}
	for page := l.From; page < l.To; page++ {
		if bad[page] {
			suspects = append(suspects, page)
		}
	}
	return suspects, nil
}

// page compares one page with its lock held, and makes it equal if that is right.
func (c *comparer) page(ctx context.Context, column int, page uint32) error {
	v := c.v
	s := v.pageSpan(column, page)
	if !v.plant.compareUnlocked {
		if err := v.spans.acquire(ctx, &s); err != nil {
			return err
		}
		defer v.spans.release(&s)
	}
	rows := v.activeRows(column)
	held := make([]map[model.Epoch]disk.Version, len(rows))
	for i, r := range rows {
		var err error
		if held[i], err = v.listPage(ctx, r, column, page); err != nil {
			v.suspect(r, err)
			return err
		}
	}
	// After the listing: what was freed before it is of no snapshot any more.
	shown, err := c.shown(ctx)
	if err != nil {
		return err
	}
	for _, e := range shown {
		newest, sources, behind, diverged := judge(rows, held, e)
		if diverged {
			c.found.Diverged++
			err := v.diverged(pageKey{column, page}, newest.Epoch, rows)
			v.log.Error("copies diverged: nobody can say which is right", "volume", v.id, "err", err)
			v.pin(column)
			return nil
		}
		if len(behind) == 0 {
			continue
		}
		c.found.Different++
		v.log.Error("active copies differed: a disk lost what it had confirmed, or a rule was broken",
			"volume", v.id, "column", column, "page", page, "epoch", newest.Epoch, "behind", behind[0].id)
		if err := v.copyVersion(ctx, column, newest, sources, behind); err != nil {
			return err
		}
		for i, r := range rows {
			if contains(behind, r) {
				held[i][newest.Epoch] = newest
			}
		}
	}
	return nil
}

// shown returns the epochs that somebody can read: of the snapshots, and the present.
func (c *comparer) shown(ctx context.Context) ([]model.Epoch, error) {
	epochs, err := c.snapshots(ctx)
	if err != nil {
		return nil, err
	}
	c.v.mu.Lock()
	defer c.v.mu.Unlock()
	return append(epochs, c.v.rec.Epoch), nil
}

// judge tells what the members of a column show of a page as of an epoch: the newest
// version, who has it, who shows an older one or nothing, and whether there are two
// that both claim to be it. What reads as zeros is alike, however it came about.
func judge(rows []*row, held []map[model.Epoch]disk.Version, e model.Epoch) (
	newest disk.Version, sources, behind []*row, diverged bool,
) {
	shows := make([]disk.Version, len(rows))
	alike := true
	for i := range rows {
		for at, have := range held[i] {
			if at <= e && (shows[i].Stamp.IsZero() || at > shows[i].Epoch) {
				shows[i] = have
			}
		}
		alike = alike && (shows[i] == shows[0] || shows[i].Mask|shows[0].Mask == 0)
		if have := shows[i]; have.Epoch > newest.Epoch || have.Epoch == newest.Epoch && have.Stamp.After(newest.Stamp) {
			newest = have
		}
	}
	if alike {
		return newest, nil, nil, false
	}
	for i, r := range rows {
		switch have := shows[i]; {
		case have == newest:
			sources = append(sources, r)
		case have.Stamp == newest.Stamp && have.Epoch == newest.Epoch:
			return newest, nil, nil, true
		default:
			behind = append(behind, r)
		}
	}
	return newest, sources, behind, false
}

// pin has reads of a column stay with one member, so that what was read once is not
// something else later.
func (v *Volume) pin(column int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.columns[column].pinned = true
}

// listAll lists a stretch of pages on one disk.
func (v *Volume) listAll(ctx context.Context, r *row, l disk.List) (out []disk.Version, err error) {
	l.Max = listMax
	for {
		found, err := v.list(ctx, r, l)
		if err != nil {
			return nil, err
		}
		out = append(out, found.Versions...)
		if found.Done || found.Next >= l.To {
			return out, nil
		}
		l.From = found.Next
	}
}

func (v *Volume) digest(ctx context.Context, r *row, l disk.List) (disk.Digest, error) {
	ctx, cancel := context.WithTimeout(ctx, v.cfg.Timeout)
	defer cancel()
	out, err := v.diskOf(r).Digest(ctx, l)
	return out, v.judge(err)
}
