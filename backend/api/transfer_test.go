package api_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
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

func TestImportImage(t *testing.T) {
	r := apitest.New(t)
	ctx, c := t.Context(), r.As(t, model.Admin)
	data := append([]byte("image"), bytes.Repeat([]byte("0123456789abcdef"), 256<<10)...) // 4 MiB
	image := client.Image{Name: "debian", Format: schema.Qcow2, Size: int64(len(data))}
	var phases []string
	v, err := c.ImportImage(ctx, image, bytes.NewReader(data), func(e schema.ImportEvent) { phases = append(phases, e.Phase) })
	if err != nil || v.Name != "debian" || v.Kind != model.VolumeImage || len(v.Columns) == 0 {
		t.Fatalf("ImportImage = %+v, %v", v, err)
	}
	if len(phases) != 1 || phases[0] != "convert" {
		t.Errorf("phases %v, want convert once: what is sent the client knows itself", phases)
	}
	r.Service.Set(func(s *apitest.Service) {
		if !bytes.Equal(s.Images["debian"], data) {
			t.Error("other bytes arrived")
		}
	})
	for _, bad := range []client.Image{
		{Name: "../x", Format: schema.Raw}, {Name: "x", Format: "iso"}, {Name: "x", Format: schema.Raw, Copies: 9},
	} {
		bad.Size = 5
		_, err := c.ImportImage(ctx, bad, strings.NewReader("image"), func(schema.ImportEvent) {})
		apitest.CodeIs(t, "importing "+bad.Name, err, model.Invalid)
	}
	image.Name = "broken"
	image.Size = 4
	_, err = c.ImportImage(ctx, image, strings.NewReader("none"), func(schema.ImportEvent) {})
	apitest.CodeIs(t, "a file that is no image", err, model.Invalid)
}

// An upload that is broken off leaves nothing behind.
func TestImportBrokenOff(t *testing.T) {
	r := apitest.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	c := r.As(t, model.Admin)
	pr, pw := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, err := c.ImportImage(ctx, client.Image{Name: "x", Format: schema.Raw, Size: 1 << 20}, pr,
			func(schema.ImportEvent) {})
		ended <- err
	}()
	if _, err := pw.Write([]byte("image")); err != nil {
		t.Fatal(err)
	}
	cancel()
	pw.CloseWithError(errors.New("the disk was pulled out")) // never fails
	if err := <-ended; err == nil {
		t.Error("a broken upload was taken")
	}
	r.Service.Set(func(s *apitest.Service) {
		if len(s.Images) != 0 {
			t.Error("half an image was kept")
		}
	})
}

func TestPutFile(t *testing.T) {
	r := apitest.New(t)
	ctx, c := t.Context(), r.As(t, model.Admin)
	sum := sha256.Sum256([]byte("kernel"))
	ref := model.FileRef{Name: "vmlinuz", SHA256: hex.EncodeToString(sum[:]), Size: 6}
	kept, err := c.PutFile(ctx, ref, strings.NewReader("kernel"))
	if err != nil || kept != ref {
		t.Errorf("PutFile = %+v, %v", kept, err)
	}
	_, err = c.PutFile(ctx, ref, strings.NewReader("kernal"))
	apitest.CodeIs(t, "other bytes", err, model.Invalid)
	for _, bad := range []string{"x", strings.ToUpper(ref.SHA256), ref.SHA256[:62], "..%2f.."} {
		other := ref
		other.SHA256 = bad
		_, err := c.PutFile(ctx, other, strings.NewReader("kernel"))
		apitest.CodeIs(t, "under "+bad, err, model.Invalid)
	}
	big := httptest.NewRequest(http.MethodPut, api.Base+"/files/"+ref.SHA256, strings.NewReader("x"))
	big.ContentLength = 300 << 20
	big.Header.Set("Authorization", "Bearer "+r.Session(t, model.Admin).Reveal())
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, big)
	if w.Code != http.StatusBadRequest {
		t.Errorf("300 MiB: %d %s", w.Code, w.Body)
	}
}

func TestExportVolume(t *testing.T) {
	r := apitest.New(t)
	ctx, root, afar := t.Context(), r.Root(), r.As(t, model.Admin)
	if _, err := root.CreateVolume(ctx, schema.VolumeSpec{Name: "data", Size: 1 << 30, Copies: 2}); err != nil {
		t.Fatal(err)
	}
	nothing := func(string) { t.Error("a refused export was ready") }
	for _, c := range []struct {
		name string
		c    *client.Client
		ref  string
		spec schema.ExportSpec
		want model.Code
	}{
		{"no such volume", root, "none", schema.ExportSpec{Kind: schema.ExportNBD, Path: "/run/x"}, model.NotFound},
		{"no such kind", root, "data", schema.ExportSpec{Kind: "iscsi", Path: "/run/x"}, model.Invalid},
		{"a path that is relative", root, "data", schema.ExportSpec{Kind: schema.ExportNBD, Path: "x"}, model.Invalid},
		{"a path that climbs", root, "data", schema.ExportSpec{Kind: schema.ExportNBD, Path: "/run/../x"}, model.Invalid},
		{"a path from afar", afar, "data", schema.ExportSpec{Kind: schema.ExportNBD, Path: "/run/x"}, model.Denied},
	} {
		t.Run(c.name, func(t *testing.T) {
			apitest.CodeIs(t, "Export", c.c.Export(ctx, c.ref, c.spec, nothing), c.want)
		})
	}
	short, cancel := context.WithCancel(ctx)
	err := afar.Export(short, "data", schema.ExportSpec{Kind: schema.ExportVhost}, func(string) { cancel() })
	if err != nil {
		t.Errorf("an export that was ended: %v", err)
	}
	apitest.WaitFor(t, "the node to notice", func() (ended bool) {
		r.Service.Set(func(s *apitest.Service) { ended = s.Exports == 0 })
		return ended
	})
}
