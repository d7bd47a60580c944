package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"drystone.example/drystone/backend/api/apitest"
	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/client"
)

// An upload that was interrupted goes on where it was: what the node has is not sent
// again, but what comes out has to be the file.
func TestUploadGoesOn(t *testing.T) {
	c := newCLI(t)
	data := append([]byte("image"), bytes.Repeat([]byte("0123456789abcdef"), 3<<20)...) // 48 MiB
	for name, first := range map[string][]byte{
		"whole":  data[:client.MaxChunk],
		"forged": bytes.Repeat([]byte("x"), client.MaxChunk),
	} {
		path := filepath.Join(t.TempDir(), name+".img")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		spec := schema.UploadSpec{Name: name, File: name + ".img", Copies: 2}
		if err := describe(file, &spec); err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		u, err := c.rig.Root().CreateUpload(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.rig.Root().AppendUpload(t.Context(), u.ID, 0, first); err != nil {
			t.Fatal(err)
		}
		has(t, c.ok(t, "image", "uploads"), u.ID.String(), "32 MiB", name+".img")
		if name == "forged" {
			c.is(t, exitFailed, "has the SHA-256", "image", "upload", path)
		} else {
			has(t, c.ok(t, "image", "upload", path), "image whole of 1 GiB is imported")
			c.rig.Service.Set(func(s *apitest.Service) {
				if !bytes.Equal(s.Images["whole"], data) {
					t.Error("other bytes arrived")
				}
			})
		}
		has(t, c.ok(t, "image", "uploads"), "Nothing is being sent")
	}
	u, err := c.rig.Root().CreateUpload(t.Context(), schema.UploadSpec{Name: "x", Size: 1})
	if err != nil {
		t.Fatal(err)
	}
	has(t, c.ok(t, "image", "forget", u.ID.String()), "is forgotten")
}
