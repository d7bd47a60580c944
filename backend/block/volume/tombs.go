package volume

import (
	"context"
	"errors"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/model"
)

// maxTombs bounds how many discarded stretches are remembered. What is not
// remembered costs a map entry a page until it is written again.
const maxTombs = 4096

// A tomb is a stretch of pages of a column that may hold tombstones.
type tomb struct {
	column   int
	from, to uint32 // pages, to is exclusive
}

// noteTombs remembers what was discarded.
func (v *Volume) noteTombs(parts []part) {
	for _, p := range parts {
		from, end := p.pages()
		v.noteTomb(tomb{p.column, from, end})
	}
}

func (v *Volume) noteTomb(t tomb) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.tombs) < maxTombs {
		v.tombs = append(v.tombs, t)
	}
	poke(v.filler)
}

// forgetTombs removes tombstones where that is safe: every member has it, none is
// stale or joining, it is acknowledged, and no older epoch lies below
// (tests/model: forget).
func (v *Volume) forgetTombs(ctx context.Context) {
	for ctx.Err() == nil {
		v.mu.Lock()
		if len(v.tombs) == 0 || !v.whole || v.closing || v.proposing || v.unsure != nil {
			v.mu.Unlock()
			return
		}
		t := v.tombs[0]
		v.tombs = v.tombs[1:]
		v.mu.Unlock()
		if err := v.forget(ctx, t); err != nil && ctx.Err() == nil {
			v.log.Debug("tombstones kept", "volume", v.id, "column", t.column, "err", err)
			return
		}
	}
}

func (v *Volume) forget(ctx context.Context, t tomb) error {
	for from := t.from; from < t.to; {
		rows := v.activeRows(t.column)
		if len(rows) == 0 {
			return nil
		}
		l, err := v.list(ctx, rows[0], disk.List{Column: uint32(t.column), From: from, To: t.to, Max: listMax})
		if err != nil {
			return err
		}
		for i, have := range l.Versions {
			lone := (i == 0 || l.Versions[i-1].Page != have.Page) &&
				(i == len(l.Versions)-1 || l.Versions[i+1].Page != have.Page)
			if have.Mask != 0 || !lone {
				continue
			}
			if err := v.forgetPage(ctx, t.column, have); err != nil {
				return err
			}
		}
		if l.Done || l.Next <= from {
			return nil
		}
		from = l.Next
	}
	return nil
}

// forgetPage removes one tombstone from all members, under the page's lock.
func (v *Volume) forgetPage(ctx context.Context, c int, stone disk.Version) error {
	s := v.pageSpan(c, stone.Page)
	if err := v.spans.acquire(ctx, &s); errors.Is(err, errLent) {
		return nil // it is being written again
	} else if err != nil {
		return err
	}
	defer v.spans.release(&s)
	rows := v.activeRows(c)
	for _, r := range rows {
		have, err := v.listPage(ctx, r, c, stone.Page)
		if err != nil {
			return err
		}
		if len(have) != 1 || have[stone.Epoch] != stone {
			return nil // it was written again, or a snapshot lies below
		}
	}
	j := v.newJob()
	j.parts = append(j.parts, part{ // one number for all, so that the watermark is below it until all have it
		kind: disk.Remove, column: c, page: stone.Page,
		version: disk.Version{Page: stone.Page, Epoch: stone.Epoch},
	})
	now := time.Now()
	v.mu.Lock()
	col := &v.columns[c]
	settled := v.err == nil && !v.proposing && v.unsure == nil && !stone.Stamp.After(v.watermark()) &&
		col.count(model.Active) == len(col.members) && len(rows) == len(col.members)
	if !settled {
		v.unlock()
		j.drop()
		return nil
	}
	v.begin(j, now)
	v.pump(j.rows)
	return v.wait(ctx, j)
}
