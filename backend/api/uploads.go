package api

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/spool"
)

// The headers of an upload's pieces, as tus has them.
const (
	offsetHeader   = "Upload-Offset"
	checksumHeader = "Upload-Checksum"
)

type byUpload struct {
	ID string `path:"id" minLength:"1" maxLength:"63"`
}

func (b byUpload) parse() (model.UploadID, error) { return model.ParseID[model.UploadID](b.ID) }

// uploadOf is an upload as the API shows it.
func uploadOf(u spool.Upload) schema.Upload {
	return schema.Upload{
		ID: u.ID, Name: u.Name, File: u.File, Mark: u.Mark, Format: schema.ImageFormat(u.Format), Copies: u.Copies,
		Size: u.Size, Offset: u.Offset, User: u.User, Begun: u.Begun, Expires: u.Expires(),
	}
}

func (s *Server) listUploads(ctx context.Context, _ *none) (*out[schema.List[schema.Upload]], error) {
	all, err := s.Uploads.List(by(ctx))
	if err != nil {
		return nil, err
	}
	uploads := make([]schema.Upload, len(all))
	for i, u := range all {
		uploads[i] = uploadOf(u)
	}
	return answer(schema.ListOf(uploads), nil)
}

type uploadInput struct {
	Body schema.UploadSpec
}

// createUpload begins an upload. That its name is free is looked at here, so that nobody
// sends a large file for nothing, and again when it becomes a volume.
func (s *Server) createUpload(ctx context.Context, in *uploadInput) (*out[schema.Upload], error) {
	if err := s.nameIsFree(ctx, in.Body.Name); err != nil {
		return nil, err
	}
	u, err := s.Uploads.Begin(by(ctx), spool.Spec{
		Name: in.Body.Name, File: in.Body.File, Mark: in.Body.Mark, Format: string(in.Body.Format),
		Copies: in.Body.Copies, Size: in.Body.Size,
	})
	return answer(uploadOf(u), err)
}

func (s *Server) nameIsFree(ctx context.Context, name string) error {
	view, err := s.Record.View(ctx)
	if err != nil {
		return err
	}
	if _, err := view.FindVolume(name); err == nil {
		return model.Errorf(model.Conflict, "there is a volume named %q already", name)
	}
	return nil
}

func (s *Server) getUpload(ctx context.Context, in *byUpload) (*out[schema.Upload], error) {
	id, err := in.parse()
	if err != nil {
		return nil, err
	}
	u, err := s.Uploads.Get(by(ctx), id)
	return answer(uploadOf(u), err)
}

func (s *Server) deleteUpload(ctx context.Context, in *byUpload) (*done, error) {
	id, err := in.parse()
	if err != nil {
		return nil, err
	}
	return finished(s.Uploads.Remove(by(ctx), id))
}

// appendUpload keeps more of a file and answers how far it is.
func (s *Server) appendUpload(w http.ResponseWriter, req *http.Request) error {
	id, err := model.ParseID[model.UploadID](req.PathValue("id"))
	if err != nil {
		return err
	}
	chunk, err := chunkOf(req)
	if err != nil {
		return err
	}
	ctx, leave := s.lasting(req.Context())
	defer leave()
	c := callOf(ctx)
	u, err := s.Uploads.Append(ctx, c.actor(), id, chunk, &upload{body: req.Body, control: c.control})
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", jsonType)
	return json.NewEncoder(w).Encode(uploadOf(u)) //nolint:wrapcheck // only logged
}

func chunkOf(req *http.Request) (c spool.Chunk, err error) {
	at, err := strconv.ParseInt(req.Header.Get(offsetHeader), 10, 64)
	if err != nil || at < 0 {
		return c, model.Errorf(model.Invalid, "the header %s says where in the file the body begins", offsetHeader)
	}
	c.At = model.Bytes(at)
	text := req.Header.Get(checksumHeader)
	if text == "" {
		return c, nil
	}
	text, is := strings.CutPrefix(text, "sha256 ")
	c.Sum, err = base64.StdEncoding.DecodeString(text)
	if !is || err != nil || len(c.Sum) != 32 {
		return c, model.Errorf(model.Invalid, "the header %s is \"sha256\", a blank, and the body's digest in base64", checksumHeader)
	}
	return c, nil
}

// finishUpload makes a volume of an upload that is whole.
func (s *Server) finishUpload(w http.ResponseWriter, req *http.Request) error {
	var end schema.UploadEnd
	if err := readJSON(req, &end); err != nil {
		return err
	}
	id, err := model.ParseID[model.UploadID](req.PathValue("id"))
	if err != nil {
		return err
	}
	if err := validSum(end.SHA256); err != nil {
		return err
	}
	ctx, leave := s.lasting(req.Context())
	defer leave()
	s.patient(ctx)
	c := callOf(ctx)
	out := lines{w: w, control: c.control}
	v, err := s.useUpload(ctx, id, end.SHA256, s.progressTo(&out, c))
	return s.imported(ctx, &out, v, err)
}

// useUpload makes a volume of a whole upload.
func (s *Server) useUpload(ctx context.Context, id model.UploadID, sum string, progress func(schema.ImportEvent),
) (v model.Volume, err error) {
	u, err := s.Uploads.Get(by(ctx), id)
	if err != nil {
		return v, err
	}
	verified := func(n model.Bytes) {
		progress(schema.ImportEvent{Phase: schema.PhaseVerify, Done: n, Total: u.Size})
	}
	err = s.Uploads.Use(ctx, by(ctx), id, sum, verified, func(u spool.Upload, path string) (err error) {
		v, err = s.Service.ImportFile(ctx, by(ctx), Import{
			Name: u.Name, Format: schema.ImageFormat(u.Format), Size: int64(u.Size), Copies: u.Copies,
		}, path, progress)
		return err
	})
	return v, err
}

func validSum(sum string) error {
	raw, err := hex.DecodeString(sum)
	if err != nil || sum != "" && len(raw) != 32 || hex.EncodeToString(raw) != sum {
		return model.Errorf(model.Invalid, "a SHA-256 is written in lower-case hex")
	}
	return nil
}

// fetchImage downloads an image from the public network and makes a volume of it. What is
// not finished is taken away again.
func (s *Server) fetchImage(w http.ResponseWriter, req *http.Request) error {
	in := schema.ImageFetch{Copies: 2}
	if err := readJSON(req, &in); err != nil {
		return err
	}
	if in.Copies != 2 && in.Copies != 3 {
		return model.Errorf(model.Invalid, "a volume has 2 or 3 copies, not %d", in.Copies)
	}
	if in.Format != schema.FoundFormat && !slices.Contains(schema.ImageFormats, in.Format) {
		return model.Errorf(model.Invalid, "the format of an image is one of %v, not %q", schema.ImageFormats, in.Format)
	}
	ctx, leave := s.lasting(req.Context())
	defer leave()
	s.patient(ctx)
	if err := errors.Join(validSum(in.SHA256), s.nameIsFree(ctx, in.Name)); err != nil {
		return err
	}
	out := lines{w: w, control: callOf(ctx).control}
	v, err := s.fetched(ctx, in, s.progressTo(&out, callOf(ctx)))
	return s.imported(ctx, &out, v, err)
}

func (s *Server) fetched(ctx context.Context, in schema.ImageFetch, progress func(schema.ImportEvent)) (v model.Volume, err error) {
	body, size, err := s.Fetch.Open(ctx, in.URL)
	if err != nil {
		return v, err
	}
	defer func() { _ = body.Close() }() // only read
	u, err := s.Uploads.Begin(by(ctx), spool.Spec{
		Name: in.Name, File: "download", Format: string(in.Format), Copies: in.Copies, Size: size,
	})
	if err != nil {
		return v, err
	}
	defer func() {
		if late := s.Uploads.Remove(by(ctx), u.ID); late != nil && model.CodeOf(late) != model.NotFound {
			err = errors.Join(err, late)
		}
	}()
	told := &telling{body: body, tell: func(n model.Bytes) {
		progress(schema.ImportEvent{Phase: schema.PhaseUpload, Done: n, Total: size})
	}}
	if _, err := s.Uploads.Append(ctx, by(ctx), u.ID, spool.Chunk{}, told); err != nil {
		return v, err
	}
	return s.useUpload(ctx, u.ID, in.SHA256, progress)
}

// telling tells how much was read through it.
type telling struct {
	body io.Reader
	done model.Bytes
	tell func(model.Bytes)
}

func (t *telling) Read(p []byte) (int, error) {
	n, err := t.body.Read(p)
	t.done += model.Bytes(n)
	t.tell(t.done)
	return n, err //nolint:wrapcheck // it is the body
}
