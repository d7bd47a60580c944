package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strconv"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/model"
)

// MaxChunk is the most bytes that AppendUpload sends.
const MaxChunk = 32 << 20

// Uploads lists the caller's image files that are being sent to this node.
func (c *Client) Uploads(ctx context.Context) (schema.List[schema.Upload], error) {
	return get[schema.List[schema.Upload]](ctx, c, "/uploads")
}

// CreateUpload begins to send an image file.
func (c *Client) CreateUpload(ctx context.Context, spec schema.UploadSpec) (schema.Upload, error) {
	return post[schema.Upload](ctx, c, "/uploads", spec)
}

// Upload says how far an upload is.
func (c *Client) Upload(ctx context.Context, id model.UploadID) (schema.Upload, error) {
	return get[schema.Upload](ctx, c, at("uploads", id.String()))
}

// DeleteUpload forgets an upload.
func (c *Client) DeleteUpload(ctx context.Context, id model.UploadID) error {
	return c.remove(ctx, at("uploads", id.String()))
}

// AppendUpload sends at most MaxChunk bytes more, which begin at the upload's offset. They
// count whole or not at all; after an error ask for the Upload.
func (c *Client) AppendUpload(ctx context.Context, id model.UploadID, offset model.Bytes, chunk []byte) (u schema.Upload, err error) {
	req, err := c.upload(ctx, http.MethodPatch, at("uploads", id.String()), int64(len(chunk)), bytes.NewReader(chunk))
	if err != nil {
		return u, err
	}
	sum := sha256.Sum256(chunk)
	req.Header.Set("Upload-Offset", strconv.FormatInt(int64(offset), 10))
	req.Header.Set("Upload-Checksum", "sha256 "+base64.StdEncoding.EncodeToString(sum[:]))
	resp, err := c.send(req)
	if err != nil {
		return u, err
	}
	defer letGo(resp.Body)
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&u); err != nil {
		return u, c.garbled(ctx, err)
	}
	return u, nil
}

// FinishUpload makes a volume of an image file that was sent and returns it. Progress is
// called for every line the node sends meanwhile.
func (c *Client) FinishUpload(ctx context.Context, id model.UploadID, end schema.UploadEnd,
	progress func(schema.ImportEvent),
) (volume schema.Volume, err error) {
	req, err := c.request(ctx, http.MethodPost, at("uploads", id.String(), "finish"), end)
	if err != nil {
		return volume, err
	}
	return c.imported(req, progress)
}

// FetchImage has the node download an image file, and returns the volume it became.
func (c *Client) FetchImage(ctx context.Context, in schema.ImageFetch, progress func(schema.ImportEvent)) (volume schema.Volume, err error) {
	req, err := c.request(ctx, http.MethodPost, "/images/fetch", in)
	if err != nil {
		return volume, err
	}
	return c.imported(req, progress)
}
