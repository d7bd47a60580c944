package api

import (
	"net/http"
	"time"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/model"
)

// exportSnapshot serves a snapshot for reading, as exportVolume does a volume.
func (s *Server) exportSnapshot(w http.ResponseWriter, req *http.Request) error {
	return s.export(w, req, func(e *Export, ref string) error {
		if e.Kind != schema.ExportNBD {
			return model.Errorf(model.Invalid, "a snapshot is served by nbd, not %q", e.Kind)
		}
		p, err := s.picture(req.Context())
		if err != nil {
			return err
		}
		snap, err := p.FindSnapshot(ref)
		e.Volume, e.Snapshot = snap.Volume, snap.ID
		return err
	})
}

// diffSnapshot tells line by line what was changed since a snapshot.
func (s *Server) diffSnapshot(w http.ResponseWriter, req *http.Request) error {
	ctx, leave := s.lasting(req.Context())
	defer leave()
	s.patient(ctx)
	c := callOf(ctx)
	p, err := s.picture(ctx)
	if err != nil {
		return err
	}
	from, err := p.FindSnapshot(req.PathValue("ref"))
	if err != nil {
		return err
	}
	vol, err := p.Volume(from.Volume)
	if err != nil {
		return err
	}
	shown := p.snapshot(from)
	head := schema.SnapshotDiff{From: &shown, Size: vol.Size, Page: model.PageSize, Ranges: []schema.ByteRange{}}
	var to model.Snapshot
	if ref := req.URL.Query().Get("until"); ref != "" {
		if to, err = p.FindSnapshot(ref); err != nil {
			return err
		}
		if to.Volume != from.Volume || to.Epoch < from.Epoch {
			return model.Errorf(model.Invalid, "%s is no later snapshot of the volume %s than %s", ref, vol.Name, from.Name)
		}
		later := p.snapshot(to)
		head.To, head.Size = &later, to.Size
	}
	out := lines{w: w, control: c.control}
	if err := out.write(head); err != nil {
		return err
	}
	var last time.Time
	err = s.Service.DiffSnapshots(ctx, from, to, head.Size, func(done model.Bytes, ranges []schema.ByteRange) error {
		if len(ranges) == 0 && done < head.Size && time.Since(last) < progressPause {
			return nil
		}
		last = time.Now()
		if ranges == nil {
			ranges = []schema.ByteRange{}
		}
		return out.write(schema.SnapshotDiff{Size: head.Size, Page: head.Page, Done: done, Ranges: ranges})
	})
	if err != nil && ctx.Err() == nil {
		return out.write(schema.SnapshotDiff{
			Size: head.Size, Page: head.Page, Ranges: []schema.ByteRange{}, Error: s.lineError(ctx, err),
		})
	}
	return err
}
