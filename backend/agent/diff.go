package agent

import (
	"context"

	"drystone.example/drystone/backend/model"
)

// A Range is a stretch of a volume in bytes.
type Range struct {
	Offset model.Bytes
	Length model.Bytes
}

// Diff finds what was changed between two snapshots of a volume, or since one (to is
// zero then), in whole pages but for the end. It calls each with what lies below done
// and was not told before: ranges in order, that do not touch each other. done is
// where all is told, size in the end. It keeps little in memory, however large the
// volume is, and stops soon after ctx ends.
func (a *Agent) Diff(ctx context.Context, from, to model.Snapshot, size model.Bytes,
	each func(done model.Bytes, ranges []Range) error,
) error {
	r := a.read(from.Volume, to.ID)
	defer r.close()
	m := merger{size: size}
	for m.at < size {
		found, err := r.parts(ctx, from.ID, int64(m.at), int64(size-m.at))
		if err != nil {
			return err
		}
		if err := each(m.add(found)); err != nil {
			return err
		}
	}
	return nil
}

// A merger makes ranges of parts that come piece by piece.
type merger struct {
	size model.Bytes // of everything
	at   model.Bytes // parts are known up to here
	open Range       // it ends at at, and may go on; empty: there is none
}

// add takes the next parts and returns the ranges that are complete, and up to where
// all are told.
func (m *merger) add(parts []part) (done model.Bytes, ranges []Range) {
	for _, p := range parts {
		switch {
		case p.Is && m.open.Length > 0:
			m.open.Length += p.Length
		case p.Is:
			m.open = Range{m.at, p.Length}
		case m.open.Length > 0:
			ranges = append(ranges, m.open)
			m.open = Range{}
		}
		m.at += p.Length
	}
	switch {
	case m.open.Length == 0:
		return m.at, ranges
	case m.at < m.size:
		return m.open.Offset, ranges
	}
	return m.at, append(ranges, m.open)
}
