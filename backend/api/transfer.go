package api

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/model"
)

// chunkTime is how long a client may take to send the next bytes of an upload.
const chunkTime = time.Minute

// lasting is for requests that last as long as the client stays: the context also
// ends when the server stops, and the server waits for the handler. The caller
// calls the function when it is done.
func (s *Server) lasting(ctx context.Context) (context.Context, func()) {
	s.open.Add(1)
	ctx, cancel := context.WithCancel(ctx)
	go func() { // ends with ctx, which the returned function ends
		select {
		case <-s.stopping:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(); s.open.Done() }
}

// An upload is a request's body whose client has to keep sending.
type upload struct {
	body    io.Reader
	control *http.ResponseController
	due     time.Time
	ended   bool // everything was read
}

func (u *upload) Read(p []byte) (int, error) {
	if now := time.Now(); now.After(u.due) {
		u.due = now.Add(time.Second)
		if err := u.control.SetReadDeadline(now.Add(chunkTime)); err != nil {
			return 0, err //nolint:wrapcheck // the connection is gone
		}
	}
	n, err := u.body.Read(p)
	if errors.Is(err, io.EOF) && !u.ended {
		u.ended = true
		if late := u.control.SetReadDeadline(time.Time{}); late != nil {
			err = late
		}
	}
	return n, err //nolint:wrapcheck // io.Reader's own errors
}

// lines writes one JSON object per line, each at once.
type lines struct {
	w       http.ResponseWriter
	control *http.ResponseController
	begun   bool
}

func (l *lines) write(v any) error {
	if !l.begun {
		l.begun = true
		l.w.Header().Set("Content-Type", ndjsonType)
		l.w.WriteHeader(http.StatusOK)
	}
	if err := l.control.SetWriteDeadline(time.Now().Add(answerTime)); err != nil {
		return err //nolint:wrapcheck // the connection is gone
	}
	if err := json.NewEncoder(l.w).Encode(v); err != nil {
		return err //nolint:wrapcheck // the connection is gone
	}
	return l.control.Flush() //nolint:wrapcheck // the connection is gone
}

// readJSON reads a small body of a route that the framework does not read.
func readJSON(req *http.Request, into any) error {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return err //nolint:wrapcheck // a *http.MaxBytesError has its own answer
	}
	if err := checkJSON(body); err != nil {
		return model.Errorf(model.Invalid, "the request is not valid: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return model.Errorf(model.Invalid, "the request is not valid: %w", err)
	}
	return nil
}

// exportVolume serves a volume for as long as the client stays. The first line
// says where; if the export ends by itself, a last line says why.
func (s *Server) exportVolume(w http.ResponseWriter, req *http.Request) error {
	return s.export(w, req, func(e *Export, ref string) (err error) {
		e.Volume, err = s.volumeID(req.Context(), ref)
		return err
	})
}

// export serves what find makes of the reference in the path.
func (s *Server) export(w http.ResponseWriter, req *http.Request, find func(e *Export, ref string) error) error {
	var spec schema.ExportSpec
	if err := readJSON(req, &spec); err != nil {
		return err
	}
	ctx, leave := s.lasting(req.Context())
	defer leave()
	s.patient(ctx)
	c := callOf(ctx)
	switch {
	case spec.Kind != schema.ExportNBD && spec.Kind != schema.ExportVhost:
		return model.Errorf(model.Invalid, "the kind of an export is nbd or vhost, not %q", spec.Kind)
	case spec.Path != "" && !c.local:
		return model.Errorf(model.Denied, "only who is on the node may choose the path of a socket")
	case spec.Path != "":
		if err := absolute(spec.Path); err != nil {
			return err
		}
	}
	e := Export{Kind: spec.Kind, Path: spec.Path}
	if err := find(&e, req.PathValue("ref")); err != nil {
		return err
	}
	out := lines{w: w, control: c.control}
	err := s.Service.Export(ctx, c.actor(), e,
		func(uri string) error { return out.write(schema.ExportEvent{Ready: uri}) })
	if err != nil && out.begun && ctx.Err() == nil {
		return out.write(schema.ExportEvent{Error: s.lineError(ctx, err)})
	}
	return err
}

// progressPause is the least time between two lines of progress.
const progressPause = 200 * time.Millisecond

// importImage makes a volume of the body. Until the body has been read nothing is
// answered, since many clients only listen after they have spoken; then there are
// lines of progress, and the last has the volume or the error.
func (s *Server) importImage(w http.ResponseWriter, req *http.Request) error {
	spec, err := importOf(req)
	if err != nil {
		return err
	}
	ctx, leave := s.lasting(req.Context())
	defer leave()
	c := callOf(ctx)
	out := lines{w: w, control: c.control}
	body := &upload{body: req.Body, control: c.control}
	progress := s.progressTo(&out, c)
	v, err := s.Service.ImportImage(ctx, c.actor(), spec, body, func(e schema.ImportEvent) {
		if body.ended {
			progress(e)
		}
	})
	return s.imported(ctx, &out, v, err)
}

// progressTo writes lines of progress, not too many.
func (s *Server) progressTo(out *lines, c call) func(schema.ImportEvent) {
	var last time.Time
	return func(e schema.ImportEvent) {
		if time.Since(last) < progressPause {
			return
		}
		last = time.Now()
		if err := out.write(e); err != nil {
			s.Log.Debug("progress not sent", "request", c.request, "err", err)
		}
	}
}

// imported answers with the volume that an image became, or why it did not.
func (s *Server) imported(ctx context.Context, out *lines, v model.Volume, err error) error {
	if err != nil {
		if out.begun {
			return out.write(schema.ImportEvent{Error: s.lineError(ctx, err)})
		}
		return err
	}
	volume := s.pictureOf(ctx, s.Record.Local()).volume(v, true)
	return out.write(schema.ImportEvent{Volume: &volume})
}

func importOf(req *http.Request) (Import, error) {
	q := req.URL.Query()
	spec := Import{Name: q.Get("name"), Format: schema.ImageFormat(q.Get("format")), Size: req.ContentLength, Copies: 2}
	if err := model.ValidateName("volume", spec.Name); err != nil {
		return spec, err
	}
	if spec.Format != schema.FoundFormat && !slices.Contains(schema.ImageFormats, spec.Format) {
		return spec, model.Errorf(model.Invalid, "the format of an image is one of %v, not %q", schema.ImageFormats, spec.Format)
	}
	if text := q.Get("copies"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 2 || n > 3 {
			return spec, model.Errorf(model.Invalid, "a volume has 2 or 3 copies, not %q", text)
		}
		spec.Copies = n
	}
	return spec, nil
}

// putFile keeps a boot file under its digest.
func (s *Server) putFile(w http.ResponseWriter, req *http.Request) error {
	ref := model.FileRef{
		Name: req.URL.Query().Get("name"), SHA256: req.PathValue("sha256"), Size: model.Bytes(req.ContentLength),
	}
	if raw, err := hex.DecodeString(ref.SHA256); err != nil || len(raw) != 32 || hex.EncodeToString(raw) != ref.SHA256 {
		return model.Errorf(model.Invalid, "a file is put under its SHA-256 in lower-case hex")
	}
	if ref.Name == "" {
		ref.Name = ref.SHA256[:12]
	}
	if err := model.ValidateName("file", ref.Name); err != nil {
		return err
	}
	if req.ContentLength > bootFile {
		return model.Errorf(model.Invalid, "a boot file has at most %d bytes", bootFile)
	}
	ctx, leave := s.lasting(req.Context())
	defer leave()
	c := callOf(ctx)
	kept, err := s.Service.PutFile(ctx, c.actor(), ref, &upload{body: req.Body, control: c.control})
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", jsonType)
	return json.NewEncoder(w).Encode(kept) //nolint:wrapcheck // only logged
}
