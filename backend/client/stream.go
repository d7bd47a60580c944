package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/model"
)

// maxLine bounds one line of a stream.
const maxLine = 16 << 20

// Export has the node serve a volume. It calls ready once, with the URI; then it
// goes on until ctx ends, which ends the export and is no error, or until the
// export fails.
func (c *Client) Export(ctx context.Context, ref string, spec schema.ExportSpec, ready func(uri string)) error {
	return c.export(ctx, at("volumes", ref, "exports"), spec, ready)
}

// ExportSnapshot has the node serve a snapshot, as Export a volume.
func (c *Client) ExportSnapshot(ctx context.Context, ref string, spec schema.ExportSpec, ready func(uri string)) error {
	return c.export(ctx, at("snapshots", ref, "exports"), spec, ready)
}

func (c *Client) export(ctx context.Context, path string, spec schema.ExportSpec, ready func(uri string)) error {
	req, err := c.request(ctx, http.MethodPost, path, spec)
	if err != nil {
		return err
	}
	seen := false
	err = c.lines(req, func(line []byte) error {
		var e schema.ExportEvent
		if err := json.Unmarshal(line, &e); err != nil {
			return err //nolint:wrapcheck // lines says where
		}
		if e.Error != nil {
			return &model.Error{Code: e.Error.Code, Text: e.Error.Detail}
		}
		if e.Ready != "" && !seen {
			seen = true
			ready(e.Ready)
		}
		return nil
	})
	if err == nil {
		err = model.Errorf(model.Unavailable, "the node at %s ended the export", c.where)
	}
	if seen && ctx.Err() != nil {
		err = nil // as was asked for
	}
	return err
}

// An Image is an image file to import in one request; Uploads can be interrupted.
type Image struct {
	Name   string // of the volume
	Format schema.ImageFormat
	Copies int   // 0: as the cluster has it
	Size   int64 // of the file; -1 if it is not known
}

// ImportImage sends an image file and returns the volume it became. Progress is
// called for every line the node sends after it has the file.
func (c *Client) ImportImage(ctx context.Context, i Image, file io.Reader,
	progress func(schema.ImportEvent),
) (volume schema.Volume, err error) {
	q := url.Values{"name": {i.Name}, "format": {string(i.Format)}}
	if i.Copies != 0 {
		q.Set("copies", strconv.Itoa(i.Copies))
	}
	req, err := c.upload(ctx, http.MethodPost, "/images?"+q.Encode(), i.Size, file)
	if err != nil {
		return volume, err
	}
	return c.imported(req, progress)
}

// imported reads the lines that a request answers with which makes a volume of an image.
func (c *Client) imported(req *http.Request, progress func(schema.ImportEvent)) (volume schema.Volume, err error) {
	done := false
	err = c.lines(req, func(line []byte) error {
		var e schema.ImportEvent
		if err := json.Unmarshal(line, &e); err != nil {
			return err //nolint:wrapcheck // lines says where
		}
		switch {
		case e.Error != nil:
			return &model.Error{Code: e.Error.Code, Text: e.Error.Detail}
		case e.Volume != nil:
			volume, done = *e.Volume, true
		default:
			progress(e)
		}
		return nil
	})
	if err == nil && !done {
		err = model.Errorf(model.Unavailable, "the node at %s broke off; the image was not imported", c.where)
	}
	return volume, err
}

// PutFile keeps a boot file under its digest.
func (c *Client) PutFile(ctx context.Context, ref model.FileRef, file io.Reader) (kept model.FileRef, err error) {
	path := at("files", ref.SHA256) + "?name=" + url.QueryEscape(ref.Name)
	req, err := c.upload(ctx, http.MethodPut, path, int64(ref.Size), file)
	if err != nil {
		return kept, err
	}
	resp, err := c.send(req)
	if err != nil {
		return kept, err
	}
	defer letGo(resp.Body)
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&kept); err != nil {
		return kept, c.garbled(ctx, err)
	}
	return kept, nil
}

func (c *Client) upload(ctx context.Context, method, path string, size int64, body io.Reader) (*http.Request, error) {
	req, err := c.request(ctx, method, path, nil)
	if err != nil {
		return nil, err
	}
	req.Body, req.ContentLength = io.NopCloser(body), size
	if size == 0 {
		req.Body = http.NoBody
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	return req, nil
}

// lines sends a request and hands each line of its answer over.
func (c *Client) lines(req *http.Request, each func(line []byte) error) error {
	resp, err := c.send(req)
	if err != nil {
		return err
	}
	defer letGo(resp.Body)
	s := bufio.NewScanner(resp.Body)
	s.Buffer(nil, maxLine)
	for s.Scan() {
		if err := each(s.Bytes()); err != nil {
			if _, coded := errors.AsType[*model.Error](err); coded {
				return err
			}
			return c.garbled(req.Context(), err)
		}
	}
	if err := s.Err(); err != nil {
		return c.garbled(req.Context(), err)
	}
	return nil
}
