package api_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"drystone.example/drystone/backend/api"
	"drystone.example/drystone/backend/api/apitest"
	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/client"
	"drystone.example/drystone/backend/model"
)

func ignore(schema.ImportEvent) {}

// An image is sent in pieces, and becomes a volume once it is whole and what it should be.
func TestUpload(t *testing.T) {
	r := apitest.New(t)
	ctx, c := t.Context(), r.As(t, model.Admin)
	data := append([]byte("image"), bytes.Repeat([]byte("0123456789abcdef"), 128<<10)...)
	u, err := c.CreateUpload(ctx, schema.UploadSpec{Name: "debian", File: "debian.qcow2", Mark: "m", Size: model.Bytes(len(data))})
	if err != nil || u.Offset != 0 || u.Copies != 2 || u.User != r.Users[model.Admin].Name {
		t.Fatalf("CreateUpload = %+v, %v", u, err)
	}
	id := u.ID
	_, err = c.FinishUpload(ctx, id, schema.UploadEnd{}, ignore)
	apitest.CodeIs(t, "an image of which nothing was sent", err, model.Conflict)
	for at := 0; at < len(data); at += 1 << 20 {
		piece := data[at:min(at+1<<20, len(data))]
		if u, err = c.AppendUpload(ctx, id, model.Bytes(at), piece); err != nil || int(u.Offset) != at+len(piece) {
			t.Fatalf("after %d bytes: %+v, %v", at+len(piece), u, err)
		}
	}
	_, err = c.AppendUpload(ctx, id, 0, data[:1])
	apitest.CodeIs(t, "what was sent already", err, model.Conflict)
	if list, err := c.Uploads(ctx); err != nil || len(list.Items) != 1 || list.Items[0].Offset != u.Size {
		t.Errorf("Uploads = %+v, %v", list, err)
	}
	sum := sha256.Sum256(data)
	v, err := c.FinishUpload(ctx, id, schema.UploadEnd{SHA256: hex.EncodeToString(sum[:])}, ignore)
	if err != nil || v.Name != "debian" || v.Kind != model.VolumeImage {
		t.Fatalf("FinishUpload = %+v, %v", v, err)
	}
	r.Service.Set(func(s *apitest.Service) {
		if !bytes.Equal(s.Images["debian"], data) {
			t.Error("other bytes arrived")
		}
	})
	_, err = c.Upload(ctx, id)
	apitest.CodeIs(t, "an upload that is a volume now", err, model.NotFound)
	_, err = c.CreateUpload(ctx, schema.UploadSpec{Name: "debian", Size: 1})
	apitest.CodeIs(t, "a name that is taken", err, model.Conflict)
}

// A request that breaks leaves what has arrived, and the upload goes on there.
func TestUploadBrokenOff(t *testing.T) {
	r := apitest.New(t)
	ctx, c := t.Context(), r.As(t, model.Admin)
	u, err := c.CreateUpload(ctx, schema.UploadSpec{Name: "x", Size: 16})
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithCancel(ctx)
	pr, pw := io.Pipe()
	req, err := http.NewRequestWithContext(short, http.MethodPatch, r.Web.URL+api.Base+"/uploads/"+u.ID.String(), pr)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.Session(t, model.Admin).Reveal())
	req.Header.Set("Upload-Offset", "0")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if resp, err := r.Web.Client().Do(req); err == nil {
			_ = resp.Body.Close()
			t.Error("a request that was broken off was answered")
		}
	}()
	if _, err := io.WriteString(pw, "image of"); err != nil {
		t.Fatal(err)
	}
	// The node writes what it has when the request breaks; half of it may be all that came.
	cancel()
	<-ended
	pw.CloseWithError(context.Canceled) // never fails
	rest := "image of a disk."
	apitest.WaitFor(t, "the node to notice", func() bool {
		u, err = c.Upload(ctx, u.ID)
		if err != nil || u.Offset > 8 {
			t.Fatalf("Upload = %+v, %v", u, err)
		}
		_, err := c.AppendUpload(ctx, u.ID, u.Offset, []byte(rest[u.Offset:]))
		return err == nil
	})
	if _, err := c.FinishUpload(ctx, u.ID, schema.UploadEnd{}, ignore); err != nil {
		t.Fatal(err)
	}
	r.Service.Set(func(s *apitest.Service) {
		if string(s.Images["x"]) != rest {
			t.Errorf("%q arrived", s.Images["x"])
		}
	})
}

// What is wrong about an upload is said, and what is not an image is forgotten.
func TestUploadRefused(t *testing.T) {
	r := apitest.New(t)
	ctx, c := t.Context(), r.As(t, model.Admin)
	for _, bad := range []schema.UploadSpec{
		{Name: "../x", Size: 1}, {Name: "x"}, {Name: "x", Size: 1, Copies: 9}, {Name: "x", Size: 1, Format: "iso"},
	} {
		_, err := c.CreateUpload(ctx, bad)
		apitest.CodeIs(t, "an upload "+bad.Name, err, model.Invalid)
	}
	send := func(user *client.Client, text string) (schema.Upload, error) {
		u, err := user.CreateUpload(ctx, schema.UploadSpec{Name: "x", Size: model.Bytes(len(text))})
		if err != nil {
			t.Fatal(err)
		}
		return user.AppendUpload(ctx, u.ID, 0, []byte(text))
	}
	u, err := send(c, "nothing")
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.FinishUpload(ctx, u.ID, schema.UploadEnd{SHA256: "A"}, ignore)
	apitest.CodeIs(t, "a digest that is none", err, model.Invalid)
	_, err = c.FinishUpload(ctx, u.ID, schema.UploadEnd{}, ignore)
	apitest.CodeIs(t, "what is no image", err, model.Invalid)
	_, err = c.Upload(ctx, u.ID)
	apitest.CodeIs(t, "it afterwards", err, model.NotFound)
	if u, err = send(r.As(t, model.Owner), "image"); err != nil {
		t.Fatal(err)
	}
	apitest.CodeIs(t, "deleting somebody else's", c.DeleteUpload(ctx, u.ID), model.NotFound)
	for header, value := range map[string]string{"Upload-Offset": "-1", "Upload-Checksum": "md5 x"} {
		req := httptest.NewRequest(http.MethodPatch, api.Base+"/uploads/"+u.ID.String(), strings.NewReader("x"))
		req.Header.Set("Authorization", "Bearer "+r.Session(t, model.Owner).Reveal())
		req.Header.Set("Upload-Offset", "5")
		req.Header.Set(header, value)
		w := httptest.NewRecorder()
		r.Handler().ServeHTTP(w, req)
		if w.Code != http.StatusBadRequest {
			t.Errorf("%s: %s: %d %s", header, value, w.Code, w.Body)
		}
	}
}

// Nothing is fetched from where the node alone can go, and nothing is left of the attempt.
func TestFetchImageRefused(t *testing.T) {
	r := apitest.New(t)
	ctx, c := t.Context(), r.As(t, model.Admin)
	for address, want := range map[string]model.Code{
		r.Web.URL + "/": model.Denied,
		"http://169.254.169.254/latest/meta-data/": model.Denied,
		"file:///etc/passwd":                       model.Invalid,
		"https://user:secret@example.org/x":        model.Invalid,
	} {
		_, err := c.FetchImage(ctx, schema.ImageFetch{URL: address, Name: "x"}, ignore)
		apitest.CodeIs(t, "fetching "+address, err, want)
		if strings.Contains(err.Error(), "secret") || strings.Contains(r.Log.String(), "secret") {
			t.Error("a password was said")
		}
	}
	if list, err := r.Root().Uploads(ctx); err != nil || len(list.Items) != 0 {
		t.Errorf("left: %+v, %v", list, err)
	}
}
