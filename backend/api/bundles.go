package api

import (
	"context"
	"mime"
	"net/http"
	"path/filepath"
	"time"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/shelf"
	"drystone.example/drystone/backend/spool"
)

type byDownload struct {
	ID string `path:"id" minLength:"1" maxLength:"63"`
}

func downloadOf(f shelf.File) *schema.Download {
	return &schema.Download{ID: f.ID, File: f.Name, Size: f.Size, Expires: f.Expires()}
}

// exportVM makes files of a machine: to be downloaded, or at a path of the node.
func (s *Server) exportVM(w http.ResponseWriter, req *http.Request) error {
	spec := schema.VMExportSpec{Format: schema.ExportQcow2}
	if err := readJSON(req, &spec); err != nil {
		return err
	}
	switch {
	case spec.Format != schema.ExportQcow2 && spec.Format != schema.ExportOVA:
		return model.Errorf(model.Invalid, "a machine is exported as qcow2 or ova, not %.20q", spec.Format)
	case spec.Path != "" && (!filepath.IsAbs(spec.Path) || filepath.Clean(spec.Path) != spec.Path):
		return model.Errorf(model.Invalid, "the path of an export is absolute and plain, %q is not", spec.Path)
	}
	ctx, leave := s.lasting(req.Context())
	defer leave()
	s.patient(ctx)
	id, err := s.vmID(ctx, req.PathValue("ref"))
	if err != nil {
		return err
	}
	c := callOf(ctx)
	out := lines{w: w, control: c.control}
	export := VMExport{VM: id, Snapshot: spec.Snapshot, Format: spec.Format, Path: spec.Path}
	last, err := s.exported(ctx, export, s.exportProgress(&out, c))
	if err != nil && out.begun {
		return out.write(schema.VMExportEvent{Error: s.lineError(ctx, err)})
	}
	if err != nil {
		return err
	}
	return out.write(last)
}

func (s *Server) exported(ctx context.Context, e VMExport, progress func(schema.VMExportEvent)) (last schema.VMExportEvent, err error) {
	if e.Path != "" {
		last.Path, err = s.Service.ExportVM(ctx, by(ctx), e, progress)
		return last, err
	}
	f, err := s.Shelf.Make(by(ctx), func(dir string) (string, error) {
		e.Dir = dir
		return s.Service.ExportVM(ctx, by(ctx), e, progress)
	})
	last.Download = downloadOf(f)
	return last, err
}

// exportProgress writes lines of progress, not too many.
func (s *Server) exportProgress(out *lines, c call) func(schema.VMExportEvent) {
	var last time.Time
	return func(e schema.VMExportEvent) {
		if time.Since(last) < progressPause {
			return
		}
		last = time.Now()
		if err := out.write(e); err != nil {
			s.Log.Debug("progress not sent", "request", c.request, "err", err)
		}
	}
}

// download serves a file that was made, also parts of it.
func (s *Server) download(w http.ResponseWriter, req *http.Request) error {
	id, err := model.ParseID[model.DownloadID](req.PathValue("id"))
	if err != nil {
		return err
	}
	ctx, leave := s.lasting(req.Context())
	defer leave()
	s.patient(ctx)
	c := callOf(ctx)
	f, file, done, err := s.Shelf.Open(c.actor(), id)
	if err != nil {
		return err
	}
	defer done()
	w.Header().Set("Content-Type", octetType)
	w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": f.Name}))
	w.Header().Set("Etag", `"`+f.ID.String()+`"`)
	http.ServeContent(&taking{ResponseWriter: w, ctx: ctx, control: c.control}, req.WithContext(ctx), "", time.Time{}, file)
	return nil
}

// taking is an answer whose client has to keep taking it.
type taking struct {
	http.ResponseWriter

	ctx     context.Context
	control *http.ResponseController
	due     time.Time
}

func (t *taking) Write(p []byte) (int, error) {
	if err := t.ctx.Err(); err != nil {
		return 0, err //nolint:wrapcheck // the node stops
	}
	if now := time.Now(); now.After(t.due) {
		t.due = now.Add(time.Second)
		if err := t.control.SetWriteDeadline(now.Add(chunkTime)); err != nil {
			return 0, err //nolint:wrapcheck // the connection is gone
		}
	}
	return t.ResponseWriter.Write(p) //nolint:wrapcheck // it is the writer
}

func (s *Server) deleteDownload(ctx context.Context, in *byDownload) (*done, error) {
	id, err := model.ParseID[model.DownloadID](in.ID)
	if err != nil {
		return nil, err
	}
	return finished(s.Shelf.Remove(by(ctx), id))
}

// importVM makes a machine of an upload that is whole.
func (s *Server) importVM(w http.ResponseWriter, req *http.Request) error {
	var spec schema.VMImportSpec
	if err := readJSON(req, &spec); err != nil {
		return err
	}
	id, err := model.ParseID[model.UploadID](req.PathValue("id"))
	if err != nil {
		return err
	}
	if err := validSum(spec.SHA256); err != nil {
		return err
	}
	ctx, leave := s.lasting(req.Context())
	defer leave()
	s.patient(ctx)
	c := callOf(ctx)
	out := lines{w: w, control: c.control}
	progress := s.progressTo(&out, c)
	u, err := s.Uploads.Get(by(ctx), id)
	if err != nil {
		return err
	}
	verified := func(n model.Bytes) {
		progress(schema.ImportEvent{Phase: schema.PhaseVerify, Done: n, Total: u.Size})
	}
	var vm model.VM
	var notes []string
	err = s.Uploads.Use(ctx, by(ctx), id, spec.SHA256, verified, func(_ spool.Upload, path string) (err error) {
		vm, notes, err = s.Service.ImportVM(ctx, by(ctx), VMImport{Name: spec.Name, Path: path}, progress)
		return err
	})
	if err != nil {
		if out.begun {
			return out.write(schema.ImportEvent{Error: s.lineError(ctx, err)})
		}
		return err
	}
	shown := s.pictureOf(ctx, s.Record.Local()).vm(vm)
	return out.write(schema.ImportEvent{VM: &shown, Notes: notes})
}
