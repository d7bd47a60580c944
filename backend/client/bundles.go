package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/model"
)

// ExportVM has the node make files of a machine, and returns the last event: where they
// are. Progress is called for every line the node sends meanwhile.
func (c *Client) ExportVM(ctx context.Context, ref string, spec schema.VMExportSpec,
	progress func(schema.VMExportEvent),
) (last schema.VMExportEvent, err error) {
	req, err := c.request(ctx, http.MethodPost, at("vms", ref, "exports"), spec)
	if err != nil {
		return last, err
	}
	done := false
	err = c.lines(req, func(line []byte) error {
		var e schema.VMExportEvent
		if err := json.Unmarshal(line, &e); err != nil {
			return err //nolint:wrapcheck // lines says where
		}
		switch {
		case e.Error != nil:
			return &model.Error{Code: e.Error.Code, Text: e.Error.Detail}
		case e.Download != nil || e.Path != "":
			last, done = e, true
		default:
			progress(e)
		}
		return nil
	})
	if err == nil && !done {
		err = model.Errorf(model.Unavailable, "the node at %s broke off; the machine was not exported", c.where)
	}
	return last, err
}

// Download reads a file that the node made, from a byte on, into to. It returns how many
// bytes came, also with an error; after model.Unavailable the rest can be asked for.
func (c *Client) Download(ctx context.Context, id model.DownloadID, from model.Bytes, to io.Writer) (n model.Bytes, err error) {
	req, err := c.request(ctx, http.MethodGet, at("downloads", id.String()), nil)
	if err != nil {
		return 0, err
	}
	if from > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
	}
	resp, err := c.send(req)
	if err != nil {
		return 0, err
	}
	defer letGo(resp.Body)
	if from > 0 && resp.StatusCode != http.StatusPartialContent {
		return 0, model.Errorf(model.Internal, "the node at %s does not go on where it was", c.where)
	}
	w := &writing{to: to}
	_, err = io.Copy(w, resp.Body)
	switch {
	case w.err != nil:
		return w.n, fmt.Errorf("keep the export: %w", w.err)
	case err != nil:
		return w.n, c.unreachable(ctx, err)
	}
	return w.n, nil
}

// writing tells the errors of who writes from those of who reads.
type writing struct {
	to  io.Writer
	n   model.Bytes
	err error
}

func (w *writing) Write(p []byte) (n int, err error) {
	n, w.err = w.to.Write(p)
	w.n += model.Bytes(n)
	return n, w.err
}

// DeleteDownload removes a file that the node made.
func (c *Client) DeleteDownload(ctx context.Context, id model.DownloadID) error {
	return c.remove(ctx, at("downloads", id.String()))
}

// ImportVM makes a machine of an archive that was sent, and says in sentences what of it
// could not be taken over. Progress is called for every line the node sends meanwhile.
func (c *Client) ImportVM(ctx context.Context, id model.UploadID, spec schema.VMImportSpec,
	progress func(schema.ImportEvent),
) (vm schema.VM, notes []string, err error) {
	req, err := c.request(ctx, http.MethodPost, at("uploads", id.String(), "machine"), spec)
	if err != nil {
		return vm, nil, err
	}
	done := false
	err = c.lines(req, func(line []byte) error {
		var e schema.ImportEvent
		if err := json.Unmarshal(line, &e); err != nil {
			return err //nolint:wrapcheck // lines says where
		}
		switch {
		case e.Error != nil:
			return &model.Error{Code: e.Error.Code, Text: e.Error.Detail}
		case e.VM != nil:
			vm, notes, done = *e.VM, e.Notes, true
		default:
			progress(e)
		}
		return nil
	})
	if err == nil && !done {
		err = model.Errorf(model.Unavailable, "the node at %s broke off; no machine was made", c.where)
	}
	return vm, notes, err
}
